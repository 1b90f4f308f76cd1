"""Commands that run the relay: start, stop, restart, reload."""

from __future__ import annotations

import os
import signal
import sys
import time
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from wireleap_relay.cli.command import OK, Command, CommandError, complain, is_for_people, warn
from wireleap_relay.daemon.ask import PATIENCE, Silent, ask
from wireleap_relay.daemon.control import Launched, LaunchFailed, NotRunning, launch, send, stop
from wireleap_relay.daemon.state import DaemonState, look
from wireleap_relay.home import HOME_VARIABLE, Home, command
from wireleap_relay.inspection import exposed, load

#: Seconds until `start` has something to say; for a relay to say that it stops, and for it to read its config again.
_START_PATIENCE = 8.0
_RELOAD_PATIENCE = 8.0
_CONTROL = "/control"
#: Seconds beside ``drain_timeout`` that stopping may take: directories have five of them to hear of it.
_FAREWELL = 10.0
#: For a relay to end in that does not say how it gets on.
_LAST_CHANCE = 2.0
_USUAL_DRAIN_TIMEOUT = 30.0
_NO_ROOT = "the relay is started as root: it needs no such rights, and is safer as a user of its own"


def _start(arguments: Namespace) -> int:
    home: Home = arguments.home
    config, _, warnings = load(home)
    warn([*warnings, *exposed(home, config)])
    if os.geteuid() == 0:
        warn([_NO_ROOT])
    if arguments.fg:
        log = [f"--logfile={Path(arguments.log).absolute()}"] if arguments.log else []
        return run_twistd(["--nodaemon", *log, "--pidfile=", "wireleap-relay", f"--home={home.path}"])
    if arguments.log:
        raise CommandError(f"--log goes with --fg: without that the log is {home.log}")
    state = look(home)
    if state.kind == "stopped" and state.why:
        warn([state.why])
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
        print(f"{launched.said}.")
    if not launched.ready:
        print("`wireleap-relay status` tells how it gets on.")


def _stop(arguments: Namespace) -> int:
    _stop_and_tell(arguments.home)
    return OK


def _stop_and_tell(home: Home) -> None:
    watch = _Watch(home, look(home))
    patience = _USUAL_DRAIN_TIMEOUT + _FAREWELL
    try:
        patience = watch.control()["drain_timeout"] + _FAREWELL
    except Silent as e:
        if watch.state.kind == "running" and watch.state.ours:
            warn([f"the relay does not say how it gets on: {e}"])
            patience = _LAST_CHANCE
    stopped = stop(home, patience=patience, goes_on=watch.goes_on)
    how = {
        "ended": "",
        "hurried": "; it did not end in time, and was told to hurry",
        "killed": f"; process {stopped.pid} did not end by itself, and was killed",
    }
    print(f"The relay has stopped{how[stopped.how]}.")


class _Watch:
    """Watches a relay that stops: whether it still does something, and what it waits for."""

    def __init__(self, home: Home, state: DaemonState) -> None:
        self.state = state
        self._home = home
        self._heard_of = self._asked = time.monotonic()
        self._said = ""

    def control(self) -> Any:
        return ask(self._home, _CONTROL)[0]

    def goes_on(self) -> bool:
        now = time.monotonic()
        if not self.state.ours or now - self._asked < 1:
            return True
        self._asked = now
        try:
            self._tell(ask(self._home, _CONTROL, timeout=1)[0]["sentence"])
            self._heard_of = time.monotonic()
        except Silent:
            # It may have ended just now, or be in its very last moments.
            return time.monotonic() - self._heard_of < PATIENCE
        return True

    def _tell(self, sentence: str) -> None:
        if is_for_people(sys.stdout) and sentence != self._said:
            self._said = sentence
            print(f"waiting for it to finish: {sentence}")


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
    try:
        [before] = ask(home, _CONTROL)
    except Silent as e:
        send(home, signal.SIGUSR1)
        raise CommandError(f"the relay was told to read its config, and does not say whether it has: {e}") from None
    send(home, signal.SIGUSR1)
    reload = _reloaded(home, before["reload"]["number"])
    if reload["trouble"]:
        raise CommandError(f"the config is not used, and nothing has changed: {reload['trouble']}")
    warn(f"{path} can't change while the relay runs: restart it for that" for path in reload["kept"])
    print("The relay has read its config again.")
    return OK


def _reloaded(home: Home, number: int) -> Any:
    deadline = time.monotonic() + _RELOAD_PATIENCE
    while time.monotonic() < deadline:
        try:
            reload = ask(home, _CONTROL)[0]["reload"]
        except Silent as e:
            raise CommandError(f"the relay does not say whether it has read its config: {e}") from None
        if reload["number"] > number:
            return reload
        time.sleep(0.05)
    raise CommandError(f"the relay has not read its config within {_RELOAD_PATIENCE:g} s")


def run_twistd(arguments: list[str]) -> int:
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


def _twistd(arguments: Namespace) -> int:
    # The plugin looks there, unless it is told otherwise in its own words.
    os.environ[HOME_VARIABLE] = str(arguments.home.path)
    return run_twistd(arguments.words)


def _start_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--fg", action="store_true", help="stay in the foreground and log to the terminal")
    parser.add_argument("--log", metavar="FILE", help="with --fg: log to a file")


START = Command(
    "start",
    "run the relay",
    "Starts the relay out of its home, waits until it serves clients and has tried to enroll, and leaves it running;"
    " its log is wireleap-relay.log there. Where it can't start, that is told and the exit code is 1. With --fg it"
    " stays in the foreground, as a supervisor such as systemd wants it: Ctrl-C or SIGTERM lets open tunnels finish"
    " for `drain_timeout`; a second signal ends it at once.",
    _start,
    _start_arguments,
)
STOP = Command(
    "stop",
    "stop the relay",
    "Lets open tunnels finish for `drain_timeout`, and waits until the relay has stopped. One that hangs, or takes"
    " longer, is killed. Exits with 1 where no relay runs.",
    _stop,
)
RESTART = Command(
    "restart",
    "stop the relay and start it again",
    "Does what `stop` and `start` do, if the config is right; a relay that does not run is started.",
    _restart,
)
RELOAD = Command(
    "reload",
    "have the relay read its config again",
    "Has the running relay read config.json, and tells whether it goes by it now, and what of it takes a restart. A"
    " config with a mistake changes nothing.",
    _reload,
)
TWISTD = Command(
    "twistd",
    "run the relay under twistd's own options",
    "Hands the words that follow to twistd, which comes with this software, a release file too: `wireleap-relay"
    " twistd --nodaemon --profile=x wireleap-relay`. `wireleap-relay twistd --help` lists its options, and"
    " `wireleap-relay twistd wireleap-relay --help` those of the relay.",
    _twistd,
    lambda parser: parser.set_defaults(words=[]),
)
