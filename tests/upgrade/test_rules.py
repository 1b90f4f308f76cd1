"""Which version may follow which."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from wireleap_relay.upgrade.rules import Unwanted, check_newer, latest, read_skipped, write_skipped
from wireleap_relay.wire.directoryinfo import DirectoryInfo, UpgradeChannels
from wireleap_relay.wire.keys import SigningKey
from wireleap_relay.wire.versions import Version

OURS = Version(0, 7, 0)
NEWER = Version(0, 7, 1)


class Rules(SynchronousTestCase):
    def test_upgrades_only_go_up(self) -> None:
        for wanted in (NEWER, Version(0, 8, 0), Version(1, 0, 0)):
            check_newer(wanted, OURS)
        for wanted in (OURS, Version(0, 6, 9), Version(0, 0, 1)):
            self.assertRaises(Unwanted, check_newer, wanted, OURS)

    def test_the_latest_version_is_that_of_the_channel(self) -> None:
        key = SigningKey.generate().public_key
        channels = UpgradeChannels(relay={"default": NEWER, "beta": Version(0, 9, 0)})
        directory = DirectoryInfo(key, update_channels={"default": OURS, "old": OURS}, upgrade_channels=channels)
        self.assertEqual(latest(directory, "default"), NEWER)
        self.assertEqual(latest(directory, "beta"), Version(0, 9, 0))
        self.assertEqual(latest(directory, "old"), OURS)
        self.assertRaises(Unwanted, latest, directory, "nightly")


class Skipping(SynchronousTestCase):
    def setUp(self) -> None:
        self.file = Path(self.mktemp())

    def test_nothing_is_skipped_without_a_file(self) -> None:
        self.assertIsNone(read_skipped(self.file))

    def test_what_was_written_is_read(self) -> None:
        write_skipped(self.file, NEWER)
        self.assertEqual(self.file.read_text(), '"0.7.1"')
        self.assertEqual(read_skipped(self.file), NEWER)

    def test_what_an_operator_wrote_is_read_or_told(self) -> None:
        self.file.write_text('"v0.7.1"\n')
        self.assertEqual(read_skipped(self.file), NEWER)
        for text in ("0.7.1", '""', "7", "{}", '"latest"', ""):
            self.file.write_text(text)
            error = self.assertRaises(Unwanted, read_skipped, self.file)
            self.assertIn(self.file.name, str(error))
        self.file.write_bytes(b"\xff")
        self.assertRaises(Unwanted, read_skipped, self.file)
