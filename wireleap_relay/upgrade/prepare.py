"""The first part of an upgrade: from a version's name to a verified file that can run. All of it blocks."""

from __future__ import annotations

import datetime
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from pysequoia import Cert

from wireleap_relay.daemon.state import look
from wireleap_relay.home import Home, HomeError
from wireleap_relay.upgrade import files
from wireleap_relay.upgrade.download import DownloadFailed, NotThere
from wireleap_relay.upgrade.peer import PeerFailed
from wireleap_relay.upgrade.release import (
    Build,
    Listing,
    NotGenuine,
    check_file,
    file_name,
    read_listing,
    read_successor,
)
from wireleap_relay.upgrade.rules import Unwanted, check_newer
from wireleap_relay.upgrade.work import RecordedWork
from wireleap_relay.wire.versions import Version

#: Bytes that the files of a release may have.
LARGEST_FILE, _LARGEST_TEXT = 400 << 20, 1 << 20
#: Times that keys were changed since this release was made, at the most.
_SUCCESSORS = 5
_RELEASE_MODE = 0o700


class Fetch(Protocol):
    """Fetches a file, and waits for it."""

    def __call__(self, url: str, file: Path, limit: int) -> None:
        """Fetch one.

        :raises DownloadFailed: where it can't be had.
        """


class Preparation(RecordedWork):
    """Fetches a release, verifies it, and stages it; then somebody else has to start its supervisor.

    :ivar trouble: what went wrong last; empty where nothing did.
    """

    def __init__(
        self,
        home: Home,
        build: Build,
        ours: Version,
        fetch: Fetch,
        now: Callable[[], datetime.datetime],
        *,
        approve: Callable[[Preparation], None],
        supervise: Callable[[], None],
    ) -> None:
        """Go on from the record in a home.

        :param now: gives the time, with its zone.
        :param approve: decides over a version, by telling the machine.
        :param supervise: starts the supervisor; raises :exc:`HomeError` or :exc:`PeerFailed` where that can't be.
        """
        super().__init__(home)
        self.trouble = ""
        self._build = build
        self._ours = ours
        self._fetch = fetch
        self._now = now
        self._approve = approve
        self._supervise = supervise

    def consider(self) -> None:
        """Have it decided."""
        self._approve(self)

    def fetch(self) -> None:
        """Fetch the list of sums and the file, and compare them."""
        try:
            self._fetch_and_verify(Version.from_text(self.record.version))
        except (DownloadFailed, NotGenuine, Unwanted) as e:
            self._failed(str(e))
        except OSError as e:
            self._failed(f"{e.filename or self.home.quarantine}: {e.strerror or e}")
        else:
            self.machine.fetched()

    def stage(self) -> None:
        """Move the file to where it can run."""
        state = look(self.home)
        try:
            self.keep(was_running=state.kind == "running", old_pid=state.pid or 0)
            files.stage(self.home, self.home.quarantine / file_name())
        except (HomeError, OSError) as e:
            self._failed(str(e))
        else:
            self.machine.moved()

    def supervise(self) -> None:
        """Leave the rest to the supervisor."""
        try:
            self._supervise()
        except (HomeError, PeerFailed) as e:
            self._failed(str(e))

    def _failed(self, why: str) -> None:
        self.trouble = why
        self.machine.failed(why)

    def _fetch_and_verify(self, version: Version) -> None:
        check_newer(version, self._ours)
        quarantine, name = self.home.quarantine, file_name()
        shutil.rmtree(quarantine, ignore_errors=True)
        quarantine.mkdir(mode=_RELEASE_MODE)
        file, listed = quarantine / name, quarantine / f"{name}.hash"
        site = self._build.site
        self._fetch(site.file_url(version, listed.name), listed, _LARGEST_TEXT)
        wanted = self._read_listing(listed.read_bytes()).sum_of(name, version)
        self._fetch(site.file_url(version, name), file, LARGEST_FILE)
        check_file(file, wanted)
        self.keep(old=str(self._ours), file_sum=wanted.hex())

    def _read_listing(self, signed: bytes) -> Listing:
        """Read the list, by keys that were built in or that follow those."""
        keys: Sequence[Cert] = self._build.keys
        try:
            return read_listing(signed, keys, self._now())
        except NotGenuine as e:
            refused = e
        for _ in range(_SUCCESSORS):
            keys = [successor for key in keys for successor in self._successors(key)]
            if not keys:
                break
            try:
                return read_listing(signed, keys, self._now())
            except NotGenuine:
                continue
        raise refused

    def _successors(self, key: Cert) -> Sequence[Cert]:
        file = self.home.quarantine / f"{key.fingerprint}.asc"
        try:
            self._fetch(self._build.site.successor_url(key.fingerprint), file, _LARGEST_TEXT)
        except NotThere:
            return ()
        return read_successor(file.read_bytes(), key, self._now())
