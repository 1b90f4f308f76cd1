"""What the home remembers of an upgrade, from one process to the next."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator

import attrs

from wireleap_relay.home import Home, write_durably
from wireleap_relay.upgrade.machine import AT_REST, State
from wireleap_relay.wire.errors import WireError
from wireleap_relay.wire.structure import read


class Busy(Exception):
    """Another process works on an upgrade."""


@attrs.frozen
class Record:
    """How far an upgrade has come.

    :ivar version: to which; empty where there never was one.
    :ivar old: from which.
    :ivar why: it did not go on.
    :ivar skip: whether that was the version's fault.
    :ivar attempts: to install this version, so far.
    :ivar file_sum: of the verified file, SHA-512 in hex.
    :ivar config_sum: of the config that was migrated, SHA-512 in hex.
    :ivar was_running: whether there was a daemon to take over from.
    :ivar old_pid: its process id; 0 for none.
    :ivar new_pid: the new daemon's process id; 0 for none.
    :ivar finished: after a commit, whether the new daemon is alone with all that is to be done.
    """

    state: State = "idle"
    version: str = ""
    old: str = ""
    why: str = ""
    skip: bool = False
    attempts: int = 0
    file_sum: str = ""
    config_sum: str = ""
    was_running: bool = False
    old_pid: int = 0
    new_pid: int = 0
    finished: bool = False

    @property
    def is_done(self) -> bool:
        """Whether nobody needs to work on it."""
        return self.state in AT_REST and (self.finished or self.state != "committed")


def read_record(home: Home) -> Record:
    """Read the record; where there is none, or none that can be read, nothing is under way. It blocks.

    A record is written whole or not at all, so one that can't be read is
    none of ours; what an upgrade leaves behind without one is never used.
    """
    try:
        return read(home.upgrade_record.read_bytes(), Record)
    except (OSError, WireError):
        return Record()


def write_record(home: Home, record: Record) -> None:
    """Have the record on disk. It blocks.

    :raises OSError: where the disk won't do.
    """
    text = json.dumps(attrs.asdict(record), indent=4) + "\n"
    write_durably(home.upgrade_record, text.encode(), 0o600)


@contextlib.contextmanager
def at_work(home: Home) -> Iterator[None]:
    """Be the only process that works on an upgrade.

    :raises Busy: where another one does.
    :raises OSError: where the home can't be written.
    """
    descriptor = os.open(home.upgrade_lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Busy("another upgrade or rollback is under way") from None
        yield
    finally:
        os.close(descriptor)
