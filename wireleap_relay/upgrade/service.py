"""Upgrades the relay that runs, when a directory or the operator asks for it (PROTOCOL: *Upgrades*)."""

from __future__ import annotations

import datetime
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import Any

import attrs
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.error import ReactorNotRunning
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.threads import blockingCallFromThread, deferToThreadPool
from twisted.logger import Logger

from wireleap_relay.home import Home, HomeError
from wireleap_relay.upgrade.download import Downloader
from wireleap_relay.upgrade.prepare import Preparation
from wireleap_relay.upgrade.record import Busy, Record, at_work, read_record
from wireleap_relay.upgrade.release import Build
from wireleap_relay.upgrade.rules import NOT_A_RELEASE, Unwanted, check_newer, read_skipped
from wireleap_relay.wire.errors import WireError
from wireleap_relay.wire.versions import Version

#: Seconds until a version that could not be fetched or installed is tried once more.
_RETRY = 3600.0
#: Seconds between looks at whether somebody works on an upgrade.
_LOOK_AGAIN = 2.0
#: Times that a supervisor which was killed is followed by another one.
_PICKED_UP = 3


@attrs.frozen
class UpgradeStatus:
    """How upgrades stand.

    :ivar possible: whether this copy can upgrade itself.
    :ivar record: of the last one.
    :ivar trouble: why it does not go on at the moment; empty where nothing is wrong.
    """

    possible: bool
    record: Record
    trouble: str


class UpgradeService(Service):
    """Fetches and verifies what a directory asks for, and starts its supervisor.

    What blocks is done in a thread of its own; see :class:`wireleap_relay.boundaries.UpgradeWatcher`.

    :ivar automatic: whether a notice is enough.
    """

    _log = Logger()

    def __init__(
        self, reactor: Any, home: Home, build: Build | None, ours: Version, *, automatic: bool, downloader: Downloader
    ) -> None:
        """Upgrade the relay in a home.

        :param build: what this release knows of releases; None where it is none.
        """
        self.setName("upgrades")
        self.automatic = automatic
        self._reactor = reactor
        self._home = home
        self._build = build
        self._ours = ours
        self._downloader = downloader
        self._record = Record()
        self._trouble = ""
        self._wanted: Version | None = None
        self._told: set[str] = set()
        self._download: Deferred[None] | None = None
        self._busy = False
        self._retry: IDelayedCall | None = None
        self._looking: IDelayedCall | None = None
        self._supervisors = 0

    def startService(self) -> None:
        """Tell how the last one has ended."""
        super().startService()
        self._in_thread(lambda: read_record(self._home)).addCallback(self._note)

    def stopService(self) -> None:
        """Break a download off; an upgrade whose supervisor runs goes on."""
        super().stopService()
        if self._retry is not None and self._retry.active():
            self._retry.cancel()
        if self._looking is not None and self._looking.active():
            self._looking.cancel()
        if self._download is not None:
            self._download.cancel()

    def status(self) -> UpgradeStatus:
        """Tell how upgrades stand."""
        return UpgradeStatus(self._build is not None, self._record, self._trouble)

    def noticed(self, version: str) -> None:
        """A directory asks for a version that is newer than this one."""
        try:
            wanted = Version.from_text(version)
            check_newer(wanted, self._ours)
        except (WireError, Unwanted) as e:
            self._tell(f"A directory asks for an upgrade that is none: {e}")
            return
        if self._build is None:
            self._tell(f"Version {wanted} is there; {NOT_A_RELEASE}")
        elif not self.automatic:
            self._tell(f"Version {wanted} is there: install it with `wireleap-relay upgrade`")
        elif self.running:
            self._wanted = wanted
            self._begin()

    def supervise(self) -> None:
        """Start the supervisor of a version that is staged.

        It outlives this process, and logs to the same place.

        :raises HomeError: where it can't be run.
        """
        record = read_record(self._home)
        if record.state != "staged":
            raise HomeError("no upgrade is staged")
        self._run(self._home.next(self._home.program), record.old)
        self._log.info("The upgrade to version {version} begins", version=record.version)

    def _run(self, program: Path, *version: str) -> None:
        words = [str(program), "--home", str(self._home.path), "supervise-upgrade", *version]
        try:
            process = subprocess.Popen(  # noqa: S603 - a program that was verified
                words, stdin=subprocess.DEVNULL, cwd=self._home.path, start_new_session=True
            )
        except OSError as e:
            raise HomeError(f"{program.name} can't be run: {e.strerror}") from None
        Thread(target=self._wait_for, args=(process,), name="supervisor", daemon=True).start()

    def abandoned(self) -> None:
        """Go on with an upgrade, where nobody works on it any more."""
        if self.running and (self._looking is None or not self._looking.active()):
            self._in_thread(self._take_up).addErrback(self._failed)

    # The rest

    def _begin(self) -> None:
        if self._busy or self._wanted is None or self._build is None:
            return
        self._busy = True
        Thread(target=self._prepare, args=(self._build, self._wanted), name="upgrade", daemon=True).start()

    def _prepare(self, build: Build, version: Version) -> None:
        """Get a version as far as its supervisor; in a thread."""
        trouble = ""
        try:
            with at_work(self._home):
                work = Preparation(
                    *(self._home, build, self._ours, self._fetch),
                    lambda: datetime.datetime.now(datetime.UTC),
                    approve=self._approve,
                    supervise=self.supervise,
                )
                work.machine.interrupted()
                work.machine.noticed(version)
            trouble = work.trouble
        except (Busy, HomeError, Unwanted) as e:
            trouble = str(e)
        except OSError as e:
            trouble = f"{e.filename or self._home.path}: {e.strerror}"
        except (_Stopped, ReactorNotRunning):
            return
        self._reactor.callFromThread(self._prepared, read_record(self._home), trouble)

    def _approve(self, work: Preparation) -> None:
        skipped = read_skipped(self._home.skip_upgrade_version)
        if skipped is not None and work.record.version == str(skipped):
            work.machine.passed_over()
        else:
            work.machine.approved()

    def _prepared(self, record: Record, trouble: str) -> None:
        self._busy = False
        self._record, self._trouble = record, trouble
        if record.state == "skipped":
            self._tell(
                f"Version {record.version} is skipped, as {self._home.skip_upgrade_version.name} says:"
                " `wireleap-relay upgrade` installs it nevertheless"
            )
        elif trouble:
            self._tell(f"The upgrade to version {self._wanted} does not go on; this version runs on: {trouble}")
            self._later()

    def _later(self) -> None:
        if self.running and (self._retry is None or not self._retry.active()):
            self._retry = self._reactor.callLater(_RETRY, self._begin)

    def _fetch(self, url: str, file: Path, limit: int) -> None:
        def start() -> Deferred[None]:
            if not self.running:
                raise _Stopped
            self._download = Deferred.fromCoroutine(self._downloader.fetch(url, file, limit))
            return self._download

        wait: Any = blockingCallFromThread
        wait(self._reactor, start)

    def _wait_for(self, process: subprocess.Popen[bytes]) -> None:
        process.wait()
        self._reactor.callFromThread(self._supervised)

    def _supervised(self) -> None:
        if self.running:
            self._in_thread(self._take_up).addErrback(self._failed)

    def _take_up(self) -> None:
        """Have what a supervisor has left undone done by another one; in a thread."""
        try:
            with at_work(self._home):
                record = read_record(self._home)
        except Busy:
            # Whoever works on it may end before it does.
            self._reactor.callFromThread(self._look_again)
            return
        self._reactor.callFromThread(self._note, record)
        if record.is_done:
            return
        self._supervisors += 1
        if self._supervisors > _PICKED_UP:
            raise HomeError("its supervisors end too early")
        self._log.warn("The upgrade to version {version} was left half done", version=record.version)
        self._run(self._home.program)

    def _look_again(self) -> None:
        if self.running:
            self._looking = self._reactor.callLater(_LOOK_AGAIN, self.abandoned)

    def _note(self, record: Record) -> None:
        self._record = record
        if record.state == "rolled back" and record.version:
            what = "it is skipped from now on" if record.skip else "it is tried again later"
            self._tell(f"The upgrade to version {record.version} was taken back, and {what}: {record.why}")
            if not record.skip and self._wanted is not None:
                self._later()

    def _failed(self, failure: Any) -> None:
        self._log.error("The upgrade can't be finished: {why}", why=failure.getErrorMessage())

    def _tell(self, sentence: str) -> None:
        """Log something, once."""
        if sentence not in self._told:
            self._told.add(sentence)
            self._log.warn("{sentence}", sentence=sentence)

    def _in_thread(self, work: Callable[[], Any]) -> Deferred[Any]:
        return deferToThreadPool(self._reactor, self._reactor.getThreadPool(), work)


class _Stopped(Exception):
    """The relay stops."""


def is_installed(home: Home, program: Path) -> bool:
    """Tell whether a program is the release file in a home, or is about to be."""
    places = (home.program, home.next(home.program))
    return any(os.path.realpath(program) == os.path.realpath(place) for place in places)
