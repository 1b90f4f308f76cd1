"""Commands that change the version of the relay: upgrade, rollback, and those that upgrades use themselves."""

from __future__ import annotations

import os
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from pathlib import Path

from wireleap_relay import __version__
from wireleap_relay.cli.command import FAILED, OK, Command, CommandError, complain
from wireleap_relay.config import Config, ConfigError, LogSettings, parse_config
from wireleap_relay.daemon.control import DaemonError, LaunchFailed, NotRunning, launch, stop
from wireleap_relay.home import Home, HomeError
from wireleap_relay.wire.errors import WireError
from wireleap_relay.wire.versions import Version

#: What `upgrade --check` exits with where there is a newer version.
NEWER = 3
_STARTS, _START_PATIENCE, _ENDING = 3, 60.0, 15.0
#: Shortens what a new version has to prove itself for, in seconds: for tests of upgrades.
_PROBATION_VARIABLE = "WIRELEAP_RELAY_PROBATION"


def _upgrade(arguments: Namespace) -> int:
    # Nothing of it is loaded before it is asked for.
    from wireleap_relay.cli.upgrading import Upgrading
    from wireleap_relay.upgrade import release
    from wireleap_relay.upgrade.rules import NOT_A_RELEASE
    from wireleap_relay.upgrade.service import is_installed

    home: Home = arguments.home
    build = release.this_build()
    if build is None:
        raise CommandError(NOT_A_RELEASE)
    if not is_installed(home, Path(sys.argv[0])):
        raise CommandError(f"only {home.program} can be upgraded, and this is {Path(sys.argv[0]).resolve()}")
    upgrading = Upgrading(home, _config(home), build)
    if arguments.check:
        return OK if upgrading.find_and_prepare(lambda _: False) is None else NEWER
    if upgrading.find_and_prepare(lambda version: arguments.yes or _agreed(version)) is None:
        return OK
    return OK if upgrading.see_through() else FAILED


def _agreed(version: Version) -> bool:
    if not sys.stdin.isatty():
        raise CommandError("there is nobody to ask: say --yes to install it")
    if input(f"Upgrade from {__version__} to {version}? [y/N] ").strip().lower() in ("y", "yes"):
        return True
    raise CommandError("nothing was changed")


def _config(home: Home) -> Config:
    return parse_config(home.read_config())[0]


def _upgrade_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--yes", action="store_true", help="do not ask")
    parser.add_argument(
        "--check", action="store_true", help=f"only look, and exit with {NEWER} where there is a newer version"
    )


def _rollback(arguments: Namespace) -> int:
    from wireleap_relay.upgrade import files
    from wireleap_relay.upgrade.record import Busy, at_work
    from wireleap_relay.upgrade.rules import write_skipped

    home: Home = arguments.home
    try:
        with at_work(home):
            if not files.can_go_back(home):
                raise CommandError(f"there is no {home.previous(home.program).name} to go back to")
            try:
                stopped = stop(home, patience=_config(home).drain_timeout + _ENDING)
                print(f"The relay has stopped{'' if stopped.how == 'ended' else f' ({stopped.how})'}.")
                was_running = True
            except NotRunning:
                was_running = False
            files.put_back(home)
            write_skipped(home.skip_upgrade_version, Version.from_text(__version__))
    except Busy as e:
        raise CommandError(str(e)) from None
    print(f"The previous version and its config are back; version {__version__} is not installed again by itself.")
    if was_running:
        _start(home)
    return OK


def _start(home: Home) -> None:
    for attempt in range(_STARTS):
        try:
            launched = launch(home, [str(home.program)], patience=_START_PATIENCE)
        except DaemonError as e:
            complain("\n".join([*(e.log if isinstance(e, LaunchFailed) else []), str(e)]))
            complain(f"attempt {attempt + 1} of {_STARTS} to start it has failed")
            time.sleep(1)
            continue
        print(f"It runs as process {launched.pid}. {launched.said}")
        return
    raise CommandError("the previous version does not start")


def _migrate(arguments: Namespace) -> int:
    from wireleap_relay.upgrade.migrations import migrate_home

    home: Home = arguments.home
    for name in migrate_home(home, _version(arguments.version)):
        print(name)
    parse_config(home.next(home.config).read_bytes())
    return OK


def _supervise(arguments: Namespace) -> int:
    from twisted.logger import Logger, globalLogBeginner

    from wireleap_relay.logs import RelayLog
    from wireleap_relay.upgrade.record import Busy
    from wireleap_relay.upgrade.supervisor import Patience, supervise

    home: Home = arguments.home
    log = Logger("wireleap_relay.upgrade")
    try:
        settings = _config(home).log
    except (ConfigError, HomeError):
        settings = LogSettings()  # whether this version can read the config is about to be seen
    globalLogBeginner.beginLoggingTo([RelayLog(None, settings, os.environ)], redirectStandardIO=False)
    shortened = os.environ.get(_PROBATION_VARIABLE)
    patience = Patience.shortened(float(shortened)) if shortened else Patience()
    try:
        tell: Callable[[str], None] = lambda sentence: log.info("{sentence}", sentence=sentence)  # noqa: E731
        record = supervise(home, tell, patience, begin=arguments.version is not None)
    except Busy as e:
        raise CommandError(str(e)) from None
    return OK if record.state == "committed" else FAILED


def _version(text: str) -> Version:
    try:
        return Version.from_text(text)
    except WireError as e:
        raise CommandError(f"{text}: {e}") from None


def _version_argument(parser: ArgumentParser) -> None:
    parser.add_argument("version", metavar="VERSION", help="from which it is upgraded")


def _supervise_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("version", metavar="VERSION", nargs="?", help="from which it is upgraded")


UPGRADE = Command(
    "upgrade",
    "install the latest version",
    "Looks for a newer version on the upgrade channel, shows what is new in it, asks, fetches it, verifies its"
    " signature, and has it take the place of the version that runs: no tunnel is cut. If it does not do well it"
    " is taken back. Needs a copy that was installed from a release.",
    _upgrade,
    _upgrade_arguments,
)
ROLLBACK = Command(
    "rollback",
    "go back to the previous version",
    "Stops the relay, puts the version and the config from before the last upgrade back, and starts it again."
    " The version that is left is skipped by automatic upgrades.",
    _rollback,
)
MIGRATE = Command(
    "migrate",
    "make the next config",
    "Makes config.json.next out of config.json, which is of another version. Upgrades use it.",
    _migrate,
    _version_argument,
    hidden=True,
)
SUPERVISE = Command(
    "supervise-upgrade",
    "see an upgrade through",
    "Has the version that is staged take the place of the one that runs, or takes it back. Upgrades use it.",
    _supervise,
    _supervise_arguments,
    hidden=True,
)
