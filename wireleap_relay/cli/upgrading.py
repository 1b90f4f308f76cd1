"""An upgrade by hand, as it is shown on a terminal."""

from __future__ import annotations

import contextlib
import datetime
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import react
from twisted.internet.threads import blockingCallFromThread, deferToThread

from wireleap_relay import __version__
from wireleap_relay.boundaries import UpstreamFailed
from wireleap_relay.cli.command import CommandError, complain
from wireleap_relay.config import Config
from wireleap_relay.daemon.state import look
from wireleap_relay.home import Home, HomeError
from wireleap_relay.upgrade.download import Downloader, DownloadFailed
from wireleap_relay.upgrade.peer import Peer
from wireleap_relay.upgrade.prepare import Preparation
from wireleap_relay.upgrade.record import Busy, Record, at_work, read_record
from wireleap_relay.upgrade.release import Build
from wireleap_relay.upgrade.rules import Unwanted, check_newer, latest
from wireleap_relay.upstream.service import UpstreamService
from wireleap_relay.wire.endpoint import parse_endpoint
from wireleap_relay.wire.versions import Version

_CHANGELOG = 1 << 20  # bytes
_LOOK_EVERY = 0.2
#: Seconds until a supervisor has begun.
_BEGINNING = 20.0
_WORDS = {
    "migrating": "Bringing the config up to date",
    "stopping": "Starting it beside the version that runs",
    "probation": "It serves new clients; seeing how it does",
    "rolling back": "Taking it back",
}


class Upgrading:
    """Upgrades the relay in a home."""

    def __init__(self, home: Home, config: Config, build: Build) -> None:
        """Begin."""
        self._home = home
        self._config = config
        self._build = build
        self._ours = Version.from_text(__version__)
        self._shown = ""
        self._supervisor: subprocess.Popen[bytes] | None = None
        self._on_terminal = sys.stdout.isatty()

    def find_and_prepare(self, agrees: Callable[[Version], bool]) -> Version | None:
        """Look for a newer version, show what is new in it, and get it as far as its supervisor.

        :param agrees: tells whether it is to be installed.
        :returns: None where there is no newer one.
        :raises CommandError: where it can't be told, or the version can't be had.
        """
        found: list[Version | None] = []
        failed: list[str] = []

        async def work(reactor: Any) -> None:
            try:
                found.append(await self._find_and_prepare(reactor, agrees))
            except (UpstreamFailed, Unwanted) as e:
                failed.append(f"it can't be told which version is the latest: {e}")
            except (Busy, CommandError, HomeError) as e:
                failed.append(str(e))

        with contextlib.suppress(SystemExit):
            react(work)
        if not found:
            raise CommandError(failed[0] if failed else "interrupted")
        return found[0]

    def see_through(self) -> bool:
        """Have the version installed that is prepared; tell whether it stays."""
        record = self._follow()
        if record.state == "committed":
            print(f"Upgraded to version {record.version}.")
            return True
        complain(f"version {record.version} was taken back: {record.why}")
        return False

    async def _find_and_prepare(self, reactor: Any, agrees: Callable[[Version], bool]) -> Version | None:
        version = await self._find(reactor)
        try:
            check_newer(version, self._ours)
        except Unwanted as e:
            print(f"Nothing to upgrade to: {e}.")
            return None
        print(f"Version {version} is there; this is {self._ours}.\n")
        print(await self._changelog(reactor, version))
        if agrees(version):
            trouble = await self._prepare(reactor, version)
            if trouble:
                raise CommandError(f"version {version} was not installed, and nothing was changed: {trouble}")
        return version

    async def _find(self, reactor: Any) -> Version:
        url, channel = next(
            (url, contract.upgrade_channel)
            for url, contract in self._config.contracts.items()
            if contract.upgrade_channel is not None
        )
        upstream = UpstreamService(reactor, self._home.load_key())
        upstream.startService()
        try:
            info = await upstream.contract(parse_endpoint(url)).info()
            return latest(await upstream.directory(info.directory).info(), str(channel))
        finally:
            await upstream.stopService()

    async def _changelog(self, reactor: Any, version: Version) -> str:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "changelog")
            try:
                await Downloader(reactor).fetch(self._build.site.changelog_url(version), file, _CHANGELOG)
            except DownloadFailed as e:
                return f"(What is new in it can't be shown: {e})\n"
            return file.read_text("utf-8", "replace")  # noqa: ASYNC240 - nothing else is going on

    async def _prepare(self, reactor: Any, version: Version) -> str:
        """Get it as far as its supervisor; give what went wrong."""
        downloader = Downloader(reactor)

        def fetch(url: str, file: Path, limit: int) -> None:
            wait: Any = blockingCallFromThread
            wait(reactor, lambda: Deferred.fromCoroutine(downloader.fetch(url, file, limit, self._progress)))

        def prepare() -> str:
            with at_work(self._home):
                work = Preparation(
                    *(self._home, self._build, self._ours, fetch),
                    lambda: datetime.datetime.now(datetime.UTC),
                    approve=lambda preparation: preparation.machine.approved(),
                    supervise=self._supervise,
                )
                work.machine.interrupted()
                work.machine.noticed(version)
                return work.trouble

        return await deferToThread(prepare)

    def _progress(self, count: int, total: int) -> None:
        if self._on_terminal and total > 1 << 16:
            end = "\n" if count == total else ""
            print(f"\rFetching it: {count / 1e6:.1f} of {total / 1e6:.1f} MB", end=end, flush=True)

    def _supervise(self) -> None:
        """Have the daemon start the supervisor, for its place and surroundings are the daemon's; else do so here."""
        print("It is genuine: its signature and sum are right.")
        state = look(self._home)
        if state.kind == "running" and state.pid is not None:
            with Peer(self._home, state.pid) as daemon:
                daemon.ask("supervise", _BEGINNING)
            return
        program = self._home.next(self._home.program)
        words = [str(program), "--home", str(self._home.path), "supervise-upgrade", __version__]
        try:
            self._supervisor = subprocess.Popen(words, stdout=subprocess.DEVNULL)  # noqa: S603 - it was verified
        except OSError as e:
            raise HomeError(f"{program.name} can't be run: {e.strerror}") from None

    def _follow(self) -> Record:
        """Tell how it goes, until it is over."""
        deadline = time.monotonic() + _BEGINNING
        while True:
            record = read_record(self._home)
            if record.state != self._shown and record.state in _WORDS:
                print(f"{_WORDS[record.state]}.")
            self._shown = record.state
            if record.is_done:
                return record
            if record.state == "staged" and time.monotonic() > deadline:
                raise CommandError(f"the upgrade has not begun: {self._home.log} may tell why")
            time.sleep(_LOOK_EVERY)
