"""Limits, to the byte."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from wireleap_relay.boundaries import UsageReading
from wireleap_relay.contracts.limits import GlobalLimit, outlook, stage, worst
from wireleap_relay.wire.keys import PublicKey

A, B = PublicKey(bytes(31) + b"a"), PublicKey(bytes(31) + b"b")
HOUR = 3_600_000


def reading(carried: dict[PublicKey, int], pace: dict[PublicKey, float] | None = None, now: int = 0) -> UsageReading:
    return UsageReading(now, 0, 24 * HOUR, carried, pace or {})


class Stages(SynchronousTestCase):
    def test_to_the_byte(self) -> None:
        for carried, expected in [(0, "free"), (900, "free"), (901, "soft"), (930, "soft"), (931, "hard")]:
            self.assertEqual(stage(carried, 1000), expected)

    def test_without_a_limit(self) -> None:
        self.assertEqual(stage(10**18, None), "free")

    def test_limits_that_no_float_can_hold(self) -> None:
        limit = 10**17
        self.assertEqual(stage(limit * 90 // 100, limit), "free")
        self.assertEqual(stage(limit * 90 // 100 + 1, limit), "soft")

    @given(st.integers(0, 10**15), st.integers(0, 10**15), st.integers(1, 10**15))
    def test_more_traffic_is_never_milder(self, less: int, more: int, limit: int) -> None:
        less, more = sorted((less, more))
        self.assertEqual(worst(stage(less, limit), stage(more, limit)), stage(more, limit))

    def test_the_global_limit_has_no_soft_stage_unless_asked_for(self) -> None:
        for together, plain, soft in [(900, "free", "free"), (901, "free", "soft"), (931, "hard", "hard")]:
            seen = reading({A: together - 100, B: 100})
            self.assertEqual(GlobalLimit(1000).stage(seen), plain)
            self.assertEqual(GlobalLimit(1000, soft=True).stage(seen), soft)
        self.assertEqual(GlobalLimit().stage(reading({A: 10**18})), "free")


class Looking(SynchronousTestCase):
    def test_ahead(self) -> None:
        # 10 bytes a second for the 23 hours that are left.
        seen = outlook(1000, 10.0, 10_000, reading({}, now=HOUR))
        self.assertEqual((seen.carried, seen.limit, seen.forecast), (1000, 10_000, 1000 + 23 * 36_000))
        self.assertEqual(seen.reached_at, HOUR + 830_000)

    def test_at_that_moment_the_limit_is_hard_and_not_before(self) -> None:
        seen = outlook(1000, 10.0, 10_000, reading({}, now=0))
        assert seen.reached_at is not None
        self.assertEqual(stage(1000 + seen.reached_at // 100, 10_000), "soft")
        self.assertEqual(stage(1000 + seen.reached_at // 100 + 1, 10_000), "hard")

    def test_limits_that_are_not_reached(self) -> None:
        self.assertIsNone(outlook(1000, 0.0, 10_000, reading({})).reached_at)
        self.assertIsNone(outlook(1000, 10.0, None, reading({})).reached_at)
        self.assertIsNone(outlook(1000, 0.001, 10_000, reading({})).reached_at)

    def test_limits_that_are_reached_already(self) -> None:
        self.assertEqual(outlook(9500, 0.0, 10_000, reading({}, now=5)).reached_at, 5)

    def test_a_window_that_is_over_needs_no_forecast(self) -> None:
        self.assertEqual(outlook(9, 5.0, None, reading({}, now=25 * HOUR)).forecast, 9)

    def test_all_together(self) -> None:
        seen = GlobalLimit(10_000).outlook(reading({A: 400, B: 600}, {A: 4.0, B: 6.0}, now=HOUR))
        self.assertEqual((seen.carried, seen.forecast), (1000, 1000 + 23 * 36_000))
