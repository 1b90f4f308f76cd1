"""Finds the command that was asked for, and tells of its failures in plain words."""

from __future__ import annotations

import difflib
import os
import sys
from argparse import SUPPRESS, ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Iterable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

from wireleap_relay import __version__
from wireleap_relay.cli.command import FAILED, MISUSED, OK, Command, CommandError, complain, warn
from wireleap_relay.config import ConfigError
from wireleap_relay.daemon.control import DaemonError
from wireleap_relay.home import HOME_VARIABLE, HomeError, find_home

_EPILOG = f"""\
a relay's first steps:
  wireleap-relay --home ~/relay init         make its key and certificate
  edit ~/relay/config.json                   config.example.json shows how
  wireleap-relay --home ~/relay check-config see whether it is right
  wireleap-relay --home ~/relay start        run it
  wireleap-relay --home ~/relay status       see how it gets on
  wireleap-relay --home ~/relay doctor       find out what keeps it from earning

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
    parser, commands = make_parser(PLACES)
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
#: Where each command is; only the one that is asked for is loaded, for half of them need half of Twisted.
PLACES = {
    "help": "main.HELP",
    "init": "setup.INIT",
    "check-config": "setup.CHECK_CONFIG",
    "policy": "policy.POLICY",
    "front": "front.FRONT",
    "start": "daemon.START",
    "stop": "daemon.STOP",
    "restart": "daemon.RESTART",
    "reload": "daemon.RELOAD",
    "status": "status.STATUS",
    "doctor": "doctor.DOCTOR",
    "top": "top.TOP",
    "balance": "account.BALANCE",
    "withdraw": "account.WITHDRAW",
    "tokens": "tokens.TOKENS",
    "upgrade": "upgrade.UPGRADE",
    "rollback": "upgrade.ROLLBACK",
    "sandbox": "trial.SANDBOX",
    "twistd": "daemon.TWISTD",
    "completion": "completion.COMPLETION",
    "version": "setup.VERSION",
    "migrate": "upgrade.MIGRATE",
    "supervise-upgrade": "upgrade.SUPERVISE",
}


def load_commands(names: Iterable[str]) -> list[Command]:
    """Load commands by their names."""
    places = (PLACES[name].split(".") for name in names)
    return [getattr(import_module(f"wireleap_relay.cli.{module}"), name) for module, name in places]


def _unknown(name: str) -> str:
    near = difflib.get_close_matches(name, [each.name for each in load_commands(PLACES) if not each.hidden], 1)
    return f"there is no command {name!r}" + (f"; did you mean {near[0]}?" if near else "")


def make_parser(names: Iterable[str]) -> tuple[ArgumentParser, dict[str, ArgumentParser]]:
    """Make what reads the command line, and for each of some commands what reads its own words."""
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
    for command in load_commands(names):
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
    named = next((word for word, before in zip(words, ["", *words], strict=False) if _is_command(word, before)), None)
    parser, _ = make_parser([named] if named in PLACES else PLACES)
    if named is not None and named not in PLACES:
        parser.error(_unknown(named))
    theirs: list[str] = []
    if named == "twistd":
        place = words.index(named)
        words, theirs = words[: place + 1], words[place + 1 :]
    arguments = parser.parse_args(words)
    arguments.words = theirs
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
    except BrokenPipeError:
        # Nobody reads on, as with `| head`: nothing is left to be said, not even at the end of the process.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except OSError as e:
        complain(f"{e.filename}: {e.strerror}" if e.filename else str(e))
        return FAILED
    except KeyboardInterrupt:
        return 130
    return code


def _is_command(word: str, before: str) -> bool:
    return not word.startswith("-") and before != "--home"
