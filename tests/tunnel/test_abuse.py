"""Floods against a session: what is allowed goes on, and what is too much ends the connection under its own name."""

from __future__ import annotations

from collections.abc import Callable

from h2.errors import ErrorCodes
from twisted.trial.unittest import SynchronousTestCase

from tests.tunnel.peers import REQUEST
from tests.tunnel.test_session import Bench, frame
from wireleap_relay.tunnel import abuse, frames
from wireleap_relay.tunnel.abuse import BURST, Budget, Rates
from wireleap_relay.tunnel.fields import write_fields
from wireleap_relay.tunnel.settings import SessionLimits

_FEW = Rates(resets=4, requests=4, frames=8, window_updates=8)
_BLOCK = write_fields(REQUEST)


def headers(stream_id: int, block: bytes = _BLOCK) -> bytes:
    return frame(frames.HEADERS, frames.END_HEADERS, stream_id, block)


def rapid_reset(turn: int) -> bytes:
    stream_id = 2 * turn + 3
    return headers(stream_id) + frame(frames.RST_STREAM, 0, stream_id, bytes(4))


def made_you_reset(turn: int) -> bytes:
    stream_id = 2 * turn + 3
    return headers(stream_id) + frame(frames.WINDOW_UPDATE, 0, stream_id, bytes(4))


def half_closed_reset(turn: int) -> bytes:
    stream_id = 2 * turn + 3
    ended = frame(frames.HEADERS, frames.END_HEADERS | frames.END_STREAM, stream_id, _BLOCK)
    return ended + frame(frames.DATA, 0, stream_id, b"x")


#: Each flood, by the offence that it is.
FLOODS: dict[str, list[Callable[[int], bytes]]] = {
    abuse.RESETS: [rapid_reset, lambda turn: frame(frames.RST_STREAM, 0, 1, bytes(4))],
    abuse.MADE_RESETS: [
        made_you_reset,
        half_closed_reset,
        lambda turn: headers(2 * turn + 3, _BLOCK + write_fields([(b"", b"")])),
        lambda turn: headers(2 * turn + 3, _BLOCK + write_fields([(b"connection", b"close")])),
    ],
    abuse.SETTINGS: [
        lambda turn: frame(frames.SETTINGS, 0, 0, b"\0\4\0\0\0" + bytes([turn % 256])),
        lambda turn: frame(frames.SETTINGS, frames.ACK, 0),
    ],
    abuse.PINGS: [
        lambda turn: frame(frames.PING, 0, 0, bytes(8)),
        lambda turn: frame(frames.PING, frames.ACK, 0, bytes(8)),
    ],
    abuse.PRIORITIES: [lambda turn: frame(frames.PRIORITY, 0, 2 * turn + 101, bytes(5))],
    abuse.WINDOW_UPDATES: [
        lambda turn: frame(frames.WINDOW_UPDATE, 0, 0, b"\0\0\0\1"),
        lambda turn: frame(frames.WINDOW_UPDATE, 0, 1, b"\0\0\0\1"),
    ],
    abuse.EMPTY_FRAMES: [
        lambda turn: frame(frames.DATA, 0, 1),
        lambda turn: frame(frames.DATA, frames.PADDED, 1, b"\xff" + bytes(255)),
    ],
    abuse.OTHER_FRAMES: [
        lambda turn: frame(0xBE, 0, 0, b"grease"),
        lambda turn: frame(frames.GOAWAY, 0, 0, bytes(8)),
    ],
}


class FloodTests(SynchronousTestCase):
    def flood(self, make: Callable[[int], bytes], rates: Rates, turns: int, seconds: bool = False) -> Bench:
        bench = Bench(SessionLimits(rates=rates), answers=False)
        bench.open()
        for turn in range(turns):
            if bench.session.closed:
                break
            bench.session.receive(make(turn))
            bench.session.take()
            if seconds:
                bench.session.budget.second_passed()
        return bench

    def test_each_ends_under_its_own_name(self) -> None:
        for offence, floods in FLOODS.items():
            for number, make in enumerate(floods):
                with self.subTest(offence=offence, number=number):
                    bench = self.flood(make, _FEW, 100)
                    self.assertEqual(bench.session.error, ErrorCodes.ENHANCE_YOUR_CALM)
                    self.assertEqual(bench.session.offence, offence)
                    self.assertEqual(bench.session.streams, {})

    def test_each_may_be_done_at_leisure(self) -> None:
        slow = Rates(resets=1, requests=1, frames=2 * abuse.SETTINGS_COST, window_updates=1)
        for offence, floods in FLOODS.items():
            for number, make in enumerate(floods):
                with self.subTest(offence=offence, number=number):
                    self.assertFalse(self.flood(make, slow, 200, seconds=True).session.closed)

    def test_what_clients_do_is_far_within_the_bounds(self) -> None:
        for offence, floods in FLOODS.items():
            for make in floods:
                with self.subTest(offence=offence):
                    self.assertFalse(self.flood(make, abuse.GENEROUS, 50).session.closed)

    def test_tunnels_may_end_by_resets(self) -> None:
        bench = Bench(SessionLimits(rates=_FEW))
        for turn in range(200):
            bench.session.receive(headers(2 * turn + 1))
            bench.session.take()
            bench.session.receive(frame(frames.RST_STREAM, 0, 2 * turn + 1, bytes(4)))
        self.assertFalse(bench.session.closed)

    def test_frames_for_streams_that_were_reset(self) -> None:
        bench = Bench(SessionLimits(rates=_FEW))
        bench.open()
        bench.handlers[0].stream.reset()
        for _ in range(100):
            bench.feed(frame(frames.DATA, 0, 1, b"x"))
        self.assertEqual(bench.session.offence, abuse.LATE_FRAMES)

    def test_padding_that_comes_late_makes_no_frame_an_empty_one(self) -> None:
        bench = Bench(SessionLimits(rates=_FEW))
        bench.open()
        padded = frame(frames.DATA, frames.PADDED, 1, b"\x04data" + bytes(4))
        for _ in range(100):
            bench.session.receive(padded[:-3])
            bench.session.receive(padded[-3:])
        self.assertFalse(bench.session.closed)

    def test_updates_that_payload_explains(self) -> None:
        bench = Bench(SessionLimits(rates=_FEW))
        handler = bench.open()
        for _ in range(2000):
            handler.stream.send(bytes(256))
            bench.session.take()
            for stream_id in (0, 1):
                bench.session.receive(frame(frames.WINDOW_UPDATE, 0, stream_id, (256).to_bytes(4, "big")))
        self.assertFalse(bench.session.closed)

    def test_a_window_of_one_byte_explains_nothing(self) -> None:
        bench = Bench(SessionLimits(rates=_FEW))
        bench.session.receive(frame(frames.SETTINGS, 0, 0, b"\0\4\0\0\0\0"))
        handler = bench.open()
        handler.stream.send(bytes(1000))
        for _ in range(1000):
            bench.feed(frame(frames.WINDOW_UPDATE, 0, 1, b"\0\0\0\1"))
        self.assertEqual(bench.session.offence, abuse.WINDOW_UPDATES)

    def test_a_frame_of_many_settings_counts_as_many(self) -> None:
        bench = Bench()
        many = frame(frames.SETTINGS, 0, 0, b"\0\x77\0\0\0\1" * 10_000)
        for _ in range(7):
            bench.feed(many)
        self.assertEqual(bench.session.offence, abuse.SETTINGS)


class BlockTests(SynchronousTestCase):
    """Blocks of headers that are meant to cost."""

    def offence(self, *data: bytes) -> str:
        bench = Bench()
        bench.open()
        bench.feed(*data)
        self.assertTrue(bench.session.closed)
        return bench.session.offence

    def test_continuation_flood(self) -> None:
        begin = frame(frames.HEADERS, 0, 3, _BLOCK)
        for piece in (b"", b"\x82", bytes(1000)):
            with self.subTest(piece=piece[:2]):
                flood = frame(frames.CONTINUATION, 0, 3, piece) * 100
                self.assertEqual(self.offence(begin + flood), abuse.CONTINUATIONS)

    def test_a_bomb_of_indexed_fields(self) -> None:
        # One long field enters the table, and then a byte each repeats it.
        entry = b"\x40" + b"\x01a" + b"\x7f\x81\x1e" + b"v" * 4000
        self.assertEqual(self.offence(headers(3, entry + b"\xbe" * 16_000)), abuse.HEADER_LIST)

    def test_thousands_of_fields(self) -> None:
        self.assertEqual(self.offence(headers(3, b"\x00\x01a\x00" * 1000)), abuse.HEADER_LIST)
        self.assertEqual(self.offence(headers(3, b"\x00\x00\x00" * 1000)), abuse.HEADER_LIST)

    def test_broken_compression(self) -> None:
        for block in (b"\x3f\xff\xff\xff\x7f", b"\xff\xff\xff\xff\xff\xff\xff", b"\x00\x7f\xff\xff\xff\x0f", b"\xfe"):
            with self.subTest(block=block):
                self.assertEqual(self.offence(headers(3, block)), abuse.COMPRESSION)

    def test_streams_out_of_order(self) -> None:
        for data in (headers(9) + headers(5), headers(4), headers(9) + frame(frames.DATA, 0, 11, b"x")):
            with self.subTest(data=data[:9]):
                self.assertEqual(self.offence(data), abuse.STREAM_IDS)

    def test_windows_over_the_top(self) -> None:
        most = (2**31 - 1).to_bytes(4, "big")
        for data in (
            frame(frames.WINDOW_UPDATE, 0, 0, most) * 2,
            frame(frames.SETTINGS, 0, 0, b"\0\4" + most) + frame(frames.WINDOW_UPDATE, 0, 1, most),
            frame(frames.WINDOW_UPDATE, 0, 1, b"\0\0\xff\xff") + frame(frames.SETTINGS, 0, 0, b"\0\4" + most),
            frame(frames.SETTINGS, 0, 0, b"\0\4\xff\xff\xff\xff"),
        ):
            bench = Bench()
            bench.open()
            with self.subTest(data=data[:9]):
                bench.feed(data)
                if bench.session.closed:
                    self.assertEqual(bench.session.offence, abuse.FLOW_CONTROL)
                else:
                    self.assertEqual(bench.handlers[0].reset, ErrorCodes.FLOW_CONTROL_ERROR)


class BudgetTests(SynchronousTestCase):
    def test_a_second_gives_a_seconds_worth(self) -> None:
        budget = Budget(Rates(frames=10))
        self.assertTrue(budget.spend(abuse.PINGS, 10 * BURST))
        self.assertFalse(budget.spend(abuse.PINGS))
        self.assertTrue(budget.spend(abuse.PRIORITIES))
        budget.second_passed()
        self.assertTrue(budget.spend(abuse.PINGS, 9))
        self.assertFalse(budget.spend(abuse.PINGS))

    def test_no_more_than_a_burst_is_saved_up(self) -> None:
        budget = Budget(Rates(window_updates=10))
        for _ in range(100):
            budget.second_passed()
        self.assertEqual(budget.updates, 10 * BURST)

    def test_nothing_is_remembered_of_who_does_nothing(self) -> None:
        budget = Budget(Rates())
        budget.spend(abuse.PINGS)
        budget.second_passed()
        self.assertEqual(budget._done, {})
