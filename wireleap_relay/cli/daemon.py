"""Commands that run the relay."""

from __future__ import annotations

import os
import signal
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from wireleap_relay.cli.command import FAILED, OK, Command, CommandError, complain, warn
from wireleap_relay.config import parse_config
from wireleap_relay.daemon.control import Launched, LaunchFailed, NotRunning, launch, send, stop
from wireleap_relay.daemon.state import look
from wireleap_relay.home import Home, command
from wireleap_relay.tap import load

#: Seconds until `start` has something to say.
_START_PATIENCE = 8.0


def _start(arguments: Namespace) -> int:
    home: Home = arguments.home
    _, _, warnings = load(home)
    warn(warnings)
    if arguments.fg:
        log = [f"--logfile={arguments.log}"] if arguments.log else []
        return _run_twistd(["--nodaemon", *log, "--pidfile=", "wireleap-relay", f"--home={home.path}"])
    if os.geteuid() == 0:
        warn(["the relay is started as root: it needs no such rights, and is safer without them"])
    _tell_launched(_launch(home))
    return OK


def _launch(home: Home) -> Launched:
    try:
        return launch(home, command(Path(sys.argv[0])), patience=_START_PATIENCE)
    except LaunchFailed as e:
        complain("\n".join(e.log))
        raise CommandError(f"the relay did not start: {e}") from None


def _tell_launched(launched: Launched) -> None:
    print(f"The relay runs as process {launched.pid}.")
    if launched.said:
        print(launched.said)


def _stop(arguments: Namespace) -> int:
    _stop_and_tell(arguments.home)
    return OK


def _stop_and_tell(home: Home) -> None:
    stopped = stop(home, patience=_drain_timeout(home) + 10.0)
    how = {"ended": "", "hurried": ", after it was hurried", "killed": ": it did not end by itself, and was killed"}
    print(f"The relay has stopped{how[stopped.how]}.")


def _drain_timeout(home: Home) -> float:
    return parse_config(home.read_config())[0].drain_timeout


def _restart(arguments: Namespace) -> int:
    home: Home = arguments.home
    load(home)
    try:
        _stop_and_tell(home)
    except NotRunning as e:
        complain(str(e))
    _tell_launched(_launch(home))
    return OK


def _reload(arguments: Namespace) -> int:
    home: Home = arguments.home
    _, _, warnings = load(home)
    warn(warnings)
    send(home, signal.SIGUSR1)
    return OK


def _status(arguments: Namespace) -> int:
    state = look(arguments.home)
    if state.why:
        complain(state.why)
    if state.kind == "running":
        print(f"The relay runs as process {state.pid}.")
        return OK
    print("The relay is not running." if state.kind == "stopped" else "It can't be told whether the relay is running.")
    return FAILED if state.kind == "stopped" else 2


def _run_twistd(arguments: list[str]) -> int:
    """Become twistd; unlike its own program it tells what is wrong without repeating its help."""
    from twisted.python.usage import UsageError
    from twisted.scripts.twistd import ServerOptions, runApp  # type: ignore[attr-defined]

    sys.argv[1:] = arguments
    options = ServerOptions()
    try:
        options.parseOptions(arguments)
    except UsageError as e:
        raise CommandError(str(e)) from None
    runApp(options)
    return OK


def _start_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--fg", action="store_true", help="stay in the foreground and log to the terminal")
    parser.add_argument("--log", metavar="FILE", help="with --fg: log to a file")


START = Command(
    "start",
    "run the relay",
    "Runs the relay out of its home until it is told to stop: Ctrl-C or SIGTERM lets open tunnels finish for"
    " `drain_timeout`; a second signal ends it at once.",
    _start,
    _start_arguments,
)
STOP = Command("stop", "stop the relay", "Lets open tunnels finish for `drain_timeout`, and stops the relay.", _stop)
RESTART = Command("restart", "stop the relay and start it again", "Does what `stop` and `start` do.", _restart)
RELOAD = Command(
    "reload", "have the relay read its config again", "Looks at the config, and has the relay read it.", _reload
)
STATUS = Command(
    "status", "tell whether the relay runs", "Exits with 0 if it runs, 1 if not, 2 if that can't be told.", _status
)
