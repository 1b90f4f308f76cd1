"""How fast traffic goes."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from wireleap_relay.usage.pace import Pace
from wireleap_relay.wire.keys import PublicKey

A, B = PublicKey(bytes(31) + b"a"), PublicKey(bytes(31) + b"b")


class PaceTests(SynchronousTestCase):
    def test_bytes_per_second_since_the_first_look(self) -> None:
        pace = Pace()
        self.assertEqual(pace.look(10.0, {A: 500}), {A: 0.0})
        self.assertEqual(pace.look(20.0, {A: 1500, B: 50}), {A: 100.0, B: 5.0})

    def test_what_is_over_an_hour_old_is_forgotten(self) -> None:
        pace = Pace()
        total = 0
        for minute in range(180):
            total += 6000 if minute < 60 else 60
            rates = pace.look(minute * 60.0, {A: total})
        self.assertAlmostEqual(rates[A], 1.0)

    def test_memory_does_not_grow_with_looks(self) -> None:
        pace = Pace()
        for second in range(10_000):
            pace.look(second / 4, {A: second})
        self.assertLessEqual(len(pace._samples), 60)
