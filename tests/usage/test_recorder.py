"""Windows and the account of them, under a clock that goes as it likes."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from wireleap_relay.usage.recorder import Recorder
from wireleap_relay.usage.stats import Stats
from wireleap_relay.usage.window import TimeFrame
from wireleap_relay.wire.errors import WireError
from wireleap_relay.wire.keys import PublicKey

HOUR = 3_600_000
DAY = 24 * HOUR
A, B = PublicKey(bytes(31) + b"a"), PublicKey(bytes(31) + b"b")


class RecorderTests(SynchronousTestCase):
    def test_counts_what_meters_add(self) -> None:
        recorder = Recorder(TimeFrame(DAY), 1000, None)
        self.assertIsNone(recorder.look(2000, {A: 10}))
        self.assertIsNone(recorder.look(3000, {A: 15, B: 7}))
        self.assertEqual(recorder.stats(), Stats(1000, 3000, {A: 15, B: 7}))

    def test_a_window_ends(self) -> None:
        recorder = Recorder(TimeFrame(DAY), 1000, None)
        recorder.look(2000, {A: 10})
        closed = recorder.look(1000 + DAY, {A: 12})
        assert closed is not None
        self.assertEqual((closed.stats.carried, closed.stats.created_at, closed.end), ({A: 12}, 1000, 1000 + DAY))
        self.assertEqual(recorder.stats(), Stats(1000 + DAY, 1000 + DAY, {}))
        recorder.look(2000 + DAY, {A: 20})
        self.assertEqual(recorder.stats().carried[A], 8)

    def test_continues_what_was_stored(self) -> None:
        recorder = Recorder(TimeFrame(DAY), 5000, Stats(1000, 4000, {A: 100, B: 3}))
        recorder.look(6000, {A: 1})
        self.assertEqual(recorder.stats(), Stats(1000, 6000, {A: 101, B: 3}))

    def test_stored_windows_that_ended_meanwhile(self) -> None:
        recorder = Recorder(TimeFrame(DAY), 0, Stats(1000, 4000, {A: 100}))
        closed = recorder.look(1000 + DAY + 5, {})
        assert closed is not None
        self.assertEqual((closed.stats.carried, recorder.window.start), ({A: 100}, 1000 + DAY))
        recorder = Recorder(TimeFrame(DAY), 0, Stats(1000, 4000, {A: 100}))
        recorder.look(1000 + 5 * DAY, {})
        self.assertEqual(recorder.window.start, 1000 + 5 * DAY)

    def test_a_changed_timeframe_is_reckoned_from_the_stored_start(self) -> None:
        stored = Stats(1000, 4000, {A: 100})
        longer = Recorder(TimeFrame(10 * DAY), 2 * DAY, stored)
        self.assertIsNone(longer.look(2 * DAY, {}))
        self.assertEqual((longer.stats().carried[A], longer.window.end), (100, 1000 + 10 * DAY))
        shorter = Recorder(TimeFrame(HOUR), 2 * DAY, stored)
        self.assertIsNotNone(shorter.look(2 * DAY, {}))
        self.assertEqual(shorter.stats().carried, {})

    def test_another_frame_under_way_is_reckoned_from_the_start(self) -> None:
        recorder = Recorder(TimeFrame(10 * DAY), 1000, None)
        recorder.look(2 * DAY, {A: 7})
        recorder.reckon(TimeFrame(5 * DAY))
        self.assertEqual((recorder.window.start, recorder.window.end), (1000, 1000 + 5 * DAY))
        self.assertIsNone(recorder.look(3 * DAY, {A: 7}))
        recorder.reckon(TimeFrame(DAY))
        closed = recorder.look(3 * DAY, {A: 7})
        assert closed is not None
        self.assertEqual((closed.stats.carried, closed.end), ({A: 7}, 1000 + DAY))

    def test_a_clock_that_jumps_loses_nothing_and_closes_nothing_twice(self) -> None:
        recorder = Recorder(TimeFrame(DAY), 0, None)
        ends = []
        total = 0
        carried = 0
        clock = [10 * HOUR, 9 * HOUR, 23 * HOUR, 24 * HOUR + 1, 23 * HOUR + 1, 24 * HOUR, 25 * HOUR, 24 * HOUR]
        for now in clock:
            total += 100
            closed = recorder.look(now, {A: total})
            if closed is not None:
                ends.append(closed.end)
                carried += sum(closed.stats.carried.values())
        self.assertEqual(ends, [DAY])
        self.assertEqual(carried + sum(recorder.stats().carried.values()), total)

    @given(st.lists(st.tuples(st.integers(-2 * HOUR, 40 * HOUR), st.integers(0, 10**9)), max_size=30))
    def test_every_byte_is_in_one_window(self, steps: list[tuple[int, int]]) -> None:
        recorder = Recorder(TimeFrame(DAY), 10 * DAY, None)
        now, total, archived, ends = 10 * DAY, 0, 0, []
        for step, size in steps:
            now, total = now + step, total + size
            closed = recorder.look(now, {A: total})
            if closed is not None:
                archived += closed.stats.carried.get(A, 0)
                ends.append(closed.end)
        self.assertEqual(archived + recorder.stats().carried.get(A, 0), total)
        self.assertEqual(ends, sorted(set(ends)))


class StatsTests(SynchronousTestCase):
    def test_the_go_relays_file_is_read(self) -> None:
        text = """{
    "contract_stats": {
        "Lg2yeLDl1fQHgijGDENOvPUYUtoquxFK002HdxvXgeY": {
            "network_bytes": 123456
        }
    },
    "created_at": 1700000000000,
    "updated_at": 1700000060000
}"""
        stats = Stats.from_json(text)
        key = PublicKey.from_text("Lg2yeLDl1fQHgijGDENOvPUYUtoquxFK002HdxvXgeY")
        self.assertEqual(stats, Stats(1_700_000_000_000, 1_700_000_060_000, {key: 123456}))
        self.assertEqual(json.dumps(stats.to_fields(), indent=4), text)

    def test_damage(self) -> None:
        good = {"contract_stats": {str(A): {"network_bytes": 1}}, "created_at": 1, "updated_at": 1}
        for changes in (
            {"contract_stats": {"short": {"network_bytes": 1}}},
            {"contract_stats": {str(A): {"network_bytes": -1}}},
            {"contract_stats": {str(A): {}}},
            {"contract_stats": None},
            {"created_at": 0},
            {"created_at": "now"},
        ):
            with self.assertRaises(WireError):
                Stats.from_json(json.dumps({**good, **changes}))

    def test_record(self) -> None:
        record = Stats(1000, 3000, {A: 5, B: 6}).to_record(B, 2000, {A})
        self.assertEqual(
            record,
            {
                "relay_id": str(B),
                "metrics": [
                    {"contract": str(A), "active": True, "network_usage_bytes": 5},
                    {"contract": str(B), "active": False, "network_usage_bytes": 6},
                ],
                "start_at": 1000,
                "end_at": 2000,
                "updated_at": 3000,
            },
        )
