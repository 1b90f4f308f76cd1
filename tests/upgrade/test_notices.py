"""What a directory's notice leads to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from tests.upgrade.keys import Signer
from wireleap_relay.home import Home
from wireleap_relay.upgrade.download import Downloader
from wireleap_relay.upgrade.prepare import Preparation
from wireleap_relay.upgrade.record import read_record
from wireleap_relay.upgrade.release import Build, ReleaseSite
from wireleap_relay.upgrade.rules import Unwanted, write_skipped
from wireleap_relay.upgrade.service import UpgradeService
from wireleap_relay.wire.versions import Version

OURS, NEW = Version(0, 7, 0), Version(0, 7, 1)


class Notices(SynchronousTestCase):
    def setUp(self) -> None:
        self.home = Home(Path(self.mktemp()))
        self.home.path.mkdir()
        self.build = Build(ReleaseSite("", "", ""), (Signer().cert,))
        self.begun: list[Version] = []
        self.lines: list[str] = []
        globalLogPublisher.addObserver(self.note)
        self.addCleanup(globalLogPublisher.removeObserver, self.note)

    def note(self, event: Any) -> None:
        if "sentence" in event:
            self.lines.append(event["sentence"])

    def make(self, build: Build | None, automatic: bool) -> UpgradeService:
        downloader = Downloader.__new__(Downloader)  # nothing is fetched
        service = UpgradeService(Clock(), self.home, build, OURS, automatic=automatic, downloader=downloader)
        service.running = True
        self.patch(service, "_begin", lambda: self.begun.append(service._wanted or OURS))
        return service

    def test_it_is_enough_where_upgrades_are_automatic(self) -> None:
        self.make(self.build, automatic=True).noticed("0.7.1")
        self.assertEqual((self.begun, self.lines), ([NEW], []))

    def test_else_the_operator_is_told_once(self) -> None:
        service = self.make(self.build, automatic=False)
        for _ in range(3):
            service.noticed("0.7.1")
        self.assertEqual(self.lines, ["Version 0.7.1 is there: install it with `wireleap-relay upgrade`"])
        service.noticed("0.7.2")
        self.assertEqual((len(self.lines), self.begun), (2, []))

    def test_a_copy_that_is_no_release_says_so(self) -> None:
        self.make(None, automatic=True).noticed("0.7.1")
        self.assertEqual(self.begun, [])
        self.assertIn("not installed from a release: upgrade it with pip", self.lines[0])

    def test_versions_that_are_none_or_not_newer_are_told_of_once(self) -> None:
        service = self.make(self.build, automatic=True)
        for version in ("0.6.1", "0.7.0", "garbage", "", "0.6.1", "9" * 100):
            service.noticed(version)
        self.assertEqual(self.begun, [])
        self.assertEqual(len(self.lines), 3, self.lines)
        self.assertIn("upgrades never go back", self.lines[0])

    def considered(self) -> str:
        service = self.make(self.build, automatic=True)
        work = Preparation(
            *(self.home, self.build, OURS, lambda url, file, limit: None),
            lambda: self.fail("nothing is verified"),
            approve=service._approve,
            supervise=lambda: None,
        )
        work.machine.noticed(NEW)
        return read_record(self.home).state

    def test_a_version_that_is_skipped_is_not_tried(self) -> None:
        write_skipped(self.home.skip_upgrade_version, NEW)
        self.assertEqual(self.considered(), "skipped")

    def test_a_file_that_may_name_any_version_stands_against_all(self) -> None:
        self.home.skip_upgrade_version.write_text("all of them")
        self.assertRaises(Unwanted, self.considered)
