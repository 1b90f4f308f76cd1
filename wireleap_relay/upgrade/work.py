"""What every process that works on an upgrade has in common: the record, and how files are put in place and removed."""

from __future__ import annotations

import attrs

from wireleap_relay.home import Home
from wireleap_relay.upgrade import files
from wireleap_relay.upgrade.machine import State, Upgrade, upgrade_in
from wireleap_relay.upgrade.record import Record, at_work, read_record, write_record
from wireleap_relay.upgrade.rules import write_skipped
from wireleap_relay.wire.versions import Version

#: Times that a version is tried which nothing is known against: it may be what breaks the machine.
_ATTEMPTS = 3


class RecordedWork:
    """Keeps the record, and does what takes nothing but files; see :class:`wireleap_relay.upgrade.machine.Work`.

    :ivar record: what stands on disk.
    :ivar machine: whose work it is.
    """

    def __init__(self, home: Home) -> None:
        """Go on from the record in a home."""
        self.home = home
        self.record = read_record(home)
        self.machine: Upgrade = upgrade_in(self.record.state, self)

    def stands(self, state: State) -> None:
        """Record the state."""
        attempts = self.record.attempts + (state == "migrating")
        self.keep(state=state, attempts=attempts)

    def note(self, version: Version) -> None:
        """Record which version it is about."""
        attempts = self.record.attempts if self.record.version == str(version) else 0
        self.record = Record(version=str(version), attempts=attempts)

    def blame(self, why: str, *, skip: bool) -> None:
        """Record why it does not go on."""
        self.record = attrs.evolve(self.record, why=why, skip=skip or self.record.attempts >= _ATTEMPTS)

    def keep(self, **changes: object) -> None:
        """Change the record, on disk too."""
        self.record = attrs.evolve(self.record, **changes)  # type: ignore[arg-type]
        write_record(self.home, self.record)

    def consider(self) -> None:
        """Leave that to a daemon."""

    def commit(self) -> None:
        """Put its files in the place of the old ones."""
        files.put_in_place(self.home)
        self.keep(finished=True)

    def undo(self) -> None:
        """Remove the new files, and note a version that is to blame."""
        files.remove_next(self.home)
        if self.record.skip:
            write_skipped(self.home.skip_upgrade_version, Version.from_text(self.record.version))
        self.machine.undone()

    def discard(self) -> None:
        """Remove what was fetched, even where it was moved already."""
        files.remove_next(self.home)

    def _elsewhere(self) -> None:
        """Never do what is another process's part."""
        raise AssertionError(f"not to be done here, in state {self.record.state}")

    fetch = stage = supervise = migrate = take_over = watch = _elsewhere


def take_up(home: Home) -> Record:
    """Finish or undo what was under way when the machine, or all of the relay, went down. It blocks.

    Nobody else may run in the home.

    :returns: how it ended; where the state is ``committed``, the program in the home may be another one now.
    :raises HomeError: where the disk won't do.
    :raises Busy: where somebody does work on an upgrade.
    """
    with at_work(home):
        work = RecordedWork(home)
        work.machine.interrupted()
        return work.record
