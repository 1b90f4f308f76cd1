"""Power cuts: whatever an upgrade was doing, the next start finds a whole relay, old or new."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from wireleap_relay.home import Home, HomeError
from wireleap_relay.upgrade import files
from wireleap_relay.upgrade.machine import AT_REST
from wireleap_relay.upgrade.record import Busy, Record, at_work, read_record, write_record
from wireleap_relay.upgrade.rules import read_skipped
from wireleap_relay.upgrade.work import RecordedWork, take_up
from wireleap_relay.wire.versions import Version

NEW = Version(0, 8, 0)
OLD_HOME = {"wireleap-relay": "old program", "config.json": "old config"}
NEW_HOME = {
    "wireleap-relay": "new program",
    "config.json": "new config",
    "wireleap-relay.prev": "old program",
    "config.json.prev": "old config",
}
#: What changes something on disk.
STEPS = ((Path, "replace"), (Path, "unlink"), (Path, "hardlink_to"), (os, "open"), (os, "fsync"))


class PowerCut(BaseException):
    """The end of everything at this instant."""


class Everything(RecordedWork):
    """A whole upgrade in one process, with the disk's part of each step."""

    fails = ""

    def consider(self) -> None:
        self.machine.approved()

    def fetch(self) -> None:
        self.home.quarantine.mkdir(exist_ok=True)
        (self.home.quarantine / "file").write_text("new program")
        self.machine.fetched()

    def stage(self) -> None:
        files.stage(self.home, self.home.quarantine / "file")
        self.machine.moved()

    def supervise(self) -> None:
        self.machine.begun()

    def migrate(self) -> None:
        self.home.next(self.home.config).write_text("new config")
        self.machine.migrated()

    def take_over(self) -> None:
        self.machine.taken_over()

    def watch(self) -> None:
        if self.fails:
            self.machine.failed(self.fails)
        else:
            self.machine.proved()


class Recovery(SynchronousTestCase):
    def home(self) -> Home:
        home = Home(Path(self.mktemp()))
        home.path.mkdir()
        for name, content in OLD_HOME.items():
            (home.path / name).write_text(content)
        return home

    def contents(self, home: Home) -> dict[str, str]:
        # Hidden files are the skipped version, the lock, and what a durable write was cut off in.
        return {
            file.name: file.read_text()
            for file in home.path.iterdir()
            if not file.name.startswith(".") and file != home.upgrade_record
        }

    def cut(self, work: Callable[[], object], at: int) -> bool:
        """Do some work, with the power cut before a step; say whether there was such a step."""
        steps = 0

        def counted(real: Callable[..., Any]) -> Callable[..., Any]:
            def step(*args: Any, **keywords: Any) -> Any:
                nonlocal steps
                steps += 1
                if steps >= at:
                    raise PowerCut
                return real(*args, **keywords)

            return step

        undo = [self.patch(owner, name, counted(getattr(owner, name))) for owner, name in STEPS]
        try:
            work()
        except PowerCut:
            return True
        finally:
            for patch in undo:
                patch.restore()
        return False

    def every_cut(self, fails: str) -> set[str]:
        """Cut the power before each step of an upgrade in turn; give what came out of it."""
        ends, at, was_cut = set(), 0, True
        while was_cut:
            at += 1
            home = self.home()
            work = Everything(home)
            work.fails = fails
            was_cut = self.cut(lambda work=work: work.machine.noticed(NEW), at)  # type: ignore[misc]
            for file in (home.program, home.config):
                self.assertTrue(file.is_file(), f"{file.name} is missing after a cut before step {at}")
            record = take_up(home)
            self.assertIn(record.state, AT_REST)
            wanted = NEW_HOME if record.state == "committed" else OLD_HOME
            self.assertEqual(self.contents(home), wanted, f"a cut before step {at} of {work.record}")
            self.assertEqual(take_up(home), record, "a second start finds nothing to do")
            ends.add(record.state)
        self.assertGreater(at, 20)
        return ends

    def test_a_cut_before_any_step_of_one_that_does_well(self) -> None:
        self.assertEqual(self.every_cut(""), {"idle", "noticed", "rolled back", "committed"})

    def test_a_cut_before_any_step_of_one_that_does_not(self) -> None:
        self.assertEqual(self.every_cut("it does not answer"), {"idle", "noticed", "rolled back"})

    def test_a_cut_while_a_cut_is_mended(self) -> None:
        for state in ("probation", "committed", "rolling back"):
            for at in range(1, 40):
                home = self.home()
                home.next(home.program).write_text("new program")
                home.next(home.config).write_text("new config")
                write_record(home, Record(state=state, version=str(NEW), skip=True))
                self.cut(lambda home=home: take_up(home), at)  # type: ignore[misc]
                record = take_up(home)
                self.assertEqual(record.state, "committed" if state == "committed" else "rolled back")
                self.assertEqual(self.contents(home), NEW_HOME if state == "committed" else OLD_HOME)

    def test_a_version_that_fails_is_skipped_and_one_that_was_interrupted_is_not(self) -> None:
        home = self.home()
        work = Everything(home)
        work.fails = "it does not answer"
        work.machine.noticed(NEW)
        self.assertEqual(read_skipped(home.skip_upgrade_version), NEW)
        self.assertEqual(read_record(home).why, "it does not answer")
        other = self.home()
        write_record(other, Record(state="probation", version=str(NEW), attempts=1))
        self.assertEqual(take_up(other).why, "it was interrupted")
        self.assertIsNone(read_skipped(other.skip_upgrade_version))

    def test_one_that_is_interrupted_again_and_again_is_skipped(self) -> None:
        home = self.home()
        write_record(home, Record(state="probation", version=str(NEW), attempts=3))
        take_up(home)
        self.assertEqual(read_skipped(home.skip_upgrade_version), NEW)

    def test_attempts_are_counted_by_version(self) -> None:
        home = self.home()
        for count in (1, 2):
            work = Everything(home)
            work.fails = "no"
            work.machine.noticed(NEW)
            self.assertEqual(work.record.attempts, count)
        work.machine.noticed(Version(0, 9, 0))
        self.assertEqual(work.record.attempts, 1)

    def test_a_record_that_is_garbage_is_no_upgrade(self) -> None:
        home = self.home()
        for text in ("", "{", "[]", '{"state": "on fire"}', '{"state": "probation", "attempts": "many"}'):
            home.upgrade_record.write_text(text)
            self.assertEqual(take_up(home), Record(), text)
            self.assertEqual(self.contents(home), OLD_HOME)

    def test_two_do_not_work_at_once(self) -> None:
        home = self.home()
        with at_work(home):
            self.assertRaises(Busy, take_up, home)
        take_up(home)

    def test_the_previous_files_are_put_back(self) -> None:
        home = self.home()
        self.assertFalse(files.can_go_back(home))
        Everything(home).machine.noticed(NEW)
        self.assertTrue(files.can_go_back(home))
        files.put_back(home)
        self.assertEqual(self.contents(home), OLD_HOME)

    def test_a_cut_while_they_are_put_back(self) -> None:
        for at in range(1, 10):
            home = self.home()
            Everything(home).machine.noticed(NEW)
            self.cut(lambda home=home: files.put_back(home), at)  # type: ignore[misc]
            self.assertTrue(home.program.is_file())
            self.assertTrue(home.config.is_file())
            if files.can_go_back(home):
                files.put_back(home)
            self.assertEqual(self.contents(home), OLD_HOME)

    def test_a_disk_that_will_not_do_is_told_of(self) -> None:
        home = self.home()
        self.assertRaises(HomeError, files.stage, home, home.quarantine / "nothing")
