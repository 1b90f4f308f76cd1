"""Finds the command that was asked for, and tells of its failures in plain words."""

from __future__ import annotations

import difflib
import os
import sys
from argparse import SUPPRESS, ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from wireleap_relay import __version__
from wireleap_relay.cli.account import BALANCE, WITHDRAW
from wireleap_relay.cli.command import FAILED, MISUSED, OK, Command, CommandError, complain, warn
from wireleap_relay.cli.daemon import RELOAD, RESTART, START, STOP
from wireleap_relay.cli.policy import POLICY
from wireleap_relay.cli.setup import CHECK_CONFIG, INIT, VERSION
from wireleap_relay.cli.status import STATUS
from wireleap_relay.cli.tokens import TOKENS
from wireleap_relay.cli.top import TOP
from wireleap_relay.cli.trial import SANDBOX
from wireleap_relay.cli.upgrade import UPGRADES
from wireleap_relay.config import ConfigError
from wireleap_relay.daemon.control import DaemonError
from wireleap_relay.home import HOME_VARIABLE, HomeError, find_home

_EPILOG = f"""\
a relay's first steps:
  wireleap-relay --home ~/relay init         make its key and certificate
  edit ~/relay/config.json                   config.example.json shows how
  wireleap-relay --home ~/relay check-config see whether it is right
  wireleap-relay --home ~/relay start --fg   run it

The home is the folder with all that a relay has: --home, else ${HOME_VARIABLE},
else the folder of a release file, else this folder.
"""
_HOME_HELP = "the relay's home"


class _Parser(ArgumentParser):
    """Suggests a command where one is mistyped."""

    def error(self, message: str) -> NoReturn:
        complain(message)
        complain("`wireleap-relay help` lists the commands")
        sys.exit(MISUSED)


def _help(arguments: Namespace) -> int:
    parser, commands = _make_parser()
    if arguments.topic is None:
        parser.print_help()
    elif arguments.topic in commands:
        commands[arguments.topic].print_help()
    else:
        parser.error(_unknown(arguments.topic))
    return OK


def _help_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("topic", nargs="?", metavar="COMMAND")


HELP = Command("help", "explain the commands, or one of them", "Explains a command.", _help, _help_arguments)
COMMANDS = (
    HELP,
    INIT,
    CHECK_CONFIG,
    POLICY,
    START,
    STOP,
    RESTART,
    RELOAD,
    STATUS,
    TOP,
    BALANCE,
    WITHDRAW,
    TOKENS,
    SANDBOX,
    VERSION,
    *UPGRADES,
)


def _unknown(name: str) -> str:
    near = difflib.get_close_matches(name, [command.name for command in COMMANDS if not command.hidden], 1)
    return f"there is no command {name!r}" + (f"; did you mean {near[0]}?" if near else "")


def _make_parser() -> tuple[_Parser, dict[str, ArgumentParser]]:
    parser = _Parser(
        prog="wireleap-relay",
        description="A relay of the Wireleap network.",
        epilog=_EPILOG,
        formatter_class=RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--home", metavar="DIR", help=_HOME_HELP)
    parser.add_argument("--version", action="version", version=__version__)
    choices = parser.add_subparsers(title="commands", metavar="COMMAND", dest="command")
    made: dict[str, ArgumentParser] = {}
    for command in COMMANDS:
        listed: dict[str, Any] = {} if command.hidden else {"help": command.summary}
        made[command.name] = sub = choices.add_parser(
            command.name, description=command.details, allow_abbrev=False, **listed
        )
        sub.set_defaults(run=command.run)
        # Before the command or after it; the parser of the command must not undo what was said before.
        sub.add_argument("--home", metavar="DIR", default=SUPPRESS, help=_HOME_HELP)
        command.add_arguments(sub)
    return parser, made


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    :returns: the exit code: 0 for success, 1 for failure, 2 for words that are no command.
    """
    words = sys.argv[1:] if argv is None else list(argv)
    parser, commands = _make_parser()
    named = next((word for word, before in zip(words, ["", *words], strict=False) if _is_command(word, before)), None)
    if named is not None and named not in commands:
        parser.error(_unknown(named))
    arguments = parser.parse_args(words)
    if arguments.command is None:
        parser.print_help(sys.stderr)
        return MISUSED
    try:
        arguments.home = find_home(arguments.home, os.environ, Path(sys.argv[0]))
        code: int = arguments.run(arguments)
    except ConfigError as e:
        warn(e.warnings)
        complain("\n".join(f"{arguments.home.config.name}: {mistake}" for mistake in e.mistakes))
        return FAILED
    except (CommandError, DaemonError, HomeError) as e:
        complain(str(e))
        return FAILED
    except OSError as e:
        complain(f"{e.filename}: {e.strerror}" if e.filename else str(e))
        return FAILED
    except KeyboardInterrupt:
        return 130
    return code


def _is_command(word: str, before: str) -> bool:
    return not word.startswith("-") and before != "--home"
