"""How figures are written for people."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from wireleap_relay.cli.words import columns, duration, until


class WordsTests(SynchronousTestCase):
    def test_columns_are_as_wide_as_what_is_in_them(self) -> None:
        self.assertEqual(list(columns([["a", "state"], ["longer", "b"]])), ["a       state", "longer  b"])

    def test_what_others_have_written_does_nothing_to_a_terminal(self) -> None:
        self.assertEqual(list(columns([["\x1b[2Jhttp://contract", "\x07"]])), ["?[2Jhttp://contract  ?"])

    def test_durations(self) -> None:
        self.assertEqual(
            [duration(each) for each in (0.5, 1, 59, 120, 86_399, 172_800)],
            ["0 seconds", "1 second", "59 seconds", "2 minutes", "23 hours", "2 days"],
        )
        self.assertEqual(until(3_600_000, 0), "1 hour")
        self.assertEqual(until(0, 3_600_000), "0 seconds")
