"""The HTTP/2 session, without sockets: two of them against each other, and against raw frames."""

from __future__ import annotations

from h2.errors import ErrorCodes
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.tunnel.peers import REQUEST, RESPONSE, Pair, Recorder
from wireleap_relay.tunnel import abuse, frames
from wireleap_relay.tunnel.session import Session
from wireleap_relay.tunnel.settings import SessionLimits
from wireleap_relay.tunnel.stream import HIGH_WATER, Headers, Stream

DATA, WINDOW_UPDATE, PING, PRIORITY, RST = frames.DATA, frames.WINDOW_UPDATE, 6, 2, 3


def frame(kind: int, flags: int, stream_id: int, body: bytes = b"") -> bytes:
    return frames.header(len(body), kind, flags, stream_id) + body


def read_frames(data: bytes) -> list[tuple[int, int, int, bytes]]:
    found = []
    position = 0
    while position < len(data):
        high, low, kind, flags, stream_id = frames.unpack_header(data, position)
        end = position + 9 + (high << 8 | low)
        found.append((kind, flags, stream_id, data[position + 9 : end]))
        position = end
    return found


class PairTests(SynchronousTestCase):
    """What one session says, the other hears."""

    def test_request_response_and_trailers(self) -> None:
        pair = Pair()
        client, server = pair.open()
        self.assertEqual(pair.requests, [REQUEST])
        server.stream.respond(RESPONSE)
        client.stream.send(b"question")
        pair.flush()
        self.assertEqual(client.headers, RESPONSE)
        self.assertEqual(server.data, b"question")
        server.stream.send(b"answer")
        server.stream.finish([(b"wl-status", b"{}")])
        client.stream.finish()
        pair.flush()
        self.assertEqual(client.data, b"answer")
        self.assertEqual(client.trailers, [(b"wl-status", b"{}")])
        self.assertEqual(server.trailers, [])
        self.assertEqual((pair.client.streams, pair.server.streams), ({}, {}))

    def test_half_close_in_both_orders(self) -> None:
        for first, second in ((0, 1), (1, 0)):
            pair = Pair(on_request=lambda stream: stream.respond(RESPONSE))
            ends = pair.open()
            ends[first].stream.finish()
            pair.flush()
            self.assertEqual(ends[second].trailers, [])
            ends[second].stream.send(b"still here")
            ends[second].stream.finish()
            pair.flush()
            self.assertEqual(ends[first].data, b"still here")
            self.assertEqual(ends[first].trailers, [])
            self.assertEqual((pair.client.streams, pair.server.streams), ({}, {}))

    def test_reset_reaches_the_other_side(self) -> None:
        pair = Pair()
        client, server = pair.open()
        client.stream.reset()
        pair.flush()
        self.assertEqual(server.reset, ErrorCodes.CANCEL)
        client, server = pair.open()
        server.stream.reset(ErrorCodes.REFUSED_STREAM)
        pair.flush()
        self.assertEqual(client.reset, ErrorCodes.REFUSED_STREAM)
        self.assertEqual((pair.client.streams, pair.server.streams), ({}, {}))

    def test_data_sent_after_a_reset_is_ignored(self) -> None:
        pair = Pair()
        client, server = pair.open()
        client.stream.send(b"x" * 1000)
        server.stream.reset()
        pair.flush()
        other, _ = pair.open()
        self.assertFalse(pair.server.closed)
        self.assertIsNone(other.reset)

    def test_stop_peer_ends_with_no_error_behind_the_trailers(self) -> None:
        pair = Pair(on_request=lambda stream: stream.respond(RESPONSE))
        client, server = pair.open()
        server.stream.finish([(b"wl-status", b"{}")])
        server.stream.stop_peer()
        said = read_frames(pair.server.take())
        self.assertEqual([kind for kind, *_ in said], [frames.HEADERS, RST])
        self.assertEqual(said[1][3], bytes(4))
        self.assertTrue(server.stream.closed)
        self.assertFalse(pair.server.streams)

    def test_peer_that_ended_is_not_stopped(self) -> None:
        pair = Pair(on_request=lambda stream: stream.respond(RESPONSE))
        client, server = pair.open()
        client.stream.finish()
        pair.flush()
        server.stream.finish()
        server.stream.stop_peer()
        self.assertNotIn(RST, [kind for kind, *_ in read_frames(pair.server.take())])

    def test_leave_serves_open_streams_and_refuses_new_ones(self) -> None:
        pair = Pair()
        client, server = pair.open()
        pair.server.leave()
        pair.flush()
        self.assertTrue(pair.client.peer_leaving)
        client.stream.send(b"goes on")
        pair.flush()
        self.assertEqual(server.data, b"goes on")
        late = Recorder()
        late.stream = pair.client.open(REQUEST)
        late.stream.handler = late
        pair.flush()
        self.assertEqual(late.reset, ErrorCodes.REFUSED_STREAM)

    def test_a_stream_too_many_is_refused_alone(self) -> None:
        pair = Pair(limits=SessionLimits(streams=2))
        # A peer that sends before it has read the limit.
        kept = [pair.open() for _ in range(2)]
        pair.client.peer_streams = 10
        late = Recorder()
        late.stream = pair.client.open(REQUEST)
        late.stream.handler = late
        pair.flush()
        self.assertEqual(late.reset, ErrorCodes.REFUSED_STREAM)
        kept[0][0].stream.send(b"fine")
        pair.flush()
        self.assertEqual(kept[0][1].data, b"fine")

    def test_lost_connection_resets_every_stream(self) -> None:
        pair = Pair()
        ends = [pair.open() for _ in range(3)]
        pair.server.connection_lost()
        self.assertEqual([server.reset for _, server in ends], [ErrorCodes.CONNECT_ERROR] * 3)
        self.assertEqual(pair.server.take(), b"")
        ends[0][1].stream.send(b"into nothing")
        ends[0][1].stream.finish()
        ends[0][1].stream.reset()
        self.assertEqual(pair.server.take(), b"")

    @settings(deadline=None, max_examples=60)
    @given(
        up=st.lists(st.integers(0, 70_000), max_size=6),
        down=st.lists(st.integers(0, 70_000), max_size=6),
        chunk=st.sampled_from([1, 7, 9, 10, 1000, 16_384, None]),
    )
    def test_bytes_arrive_whole_however_the_wire_cuts_them(
        self, up: list[int], down: list[int], chunk: int | None
    ) -> None:
        if chunk is not None and chunk < 100:
            up, down = [size % 500 for size in up], [size % 500 for size in down]
        pair = Pair(on_request=lambda stream: stream.respond(RESPONSE))
        client, server = pair.open()
        for stream, sizes in ((client.stream, up), (server.stream, down)):
            for index, size in enumerate(sizes):
                stream.send(bytes([index]) * size)
            stream.finish()
        pair.flush(chunk)
        self.assertEqual(server.data, b"".join(bytes([i]) * size for i, size in enumerate(up)))
        self.assertEqual(client.data, b"".join(bytes([i]) * size for i, size in enumerate(down)))
        self.assertEqual((client.trailers, server.trailers), ([], []))


class BackPressureTests(SynchronousTestCase):
    """Nothing waits without bound, and nobody waits for a neighbour."""

    def test_a_reader_that_gives_no_credit_holds_one_window(self) -> None:
        pair = Pair(credit=False)
        client, server = pair.open()
        window = pair.server.limits.stream_window
        offered = 0
        while not client.paused:
            client.stream.send(bytes(64 * 1024))
            offered += 64 * 1024
            pair.flush()
        self.assertEqual(len(server.data), window)
        self.assertLessEqual(client.stream.queued, HIGH_WATER + 64 * 1024)
        self.assertEqual(offered, window + client.stream.queued)

    def test_credit_lets_it_go_on_and_resumes_the_producer(self) -> None:
        pair = Pair(credit=False)
        client, server = pair.open()
        while not client.paused:
            client.stream.send(bytes(64 * 1024))
            pair.flush()
        server.stream.credit(len(server.data))
        server.credit = True
        pair.flush()
        self.assertEqual(client.resumed, 1)
        self.assertEqual(client.stream.queued, 0)

    def test_a_stalled_stream_never_slows_its_neighbours(self) -> None:
        pair = Pair(SessionLimits(connection_window=256 * 1024), credit=False)
        stalled = [pair.open()[0] for _ in range(20)]
        for each in stalled:
            for _ in range(8):
                each.stream.send(bytes(64 * 1024))
        pair.flush()
        # Together they have been sent five times the connection's window.
        self.assertGreater(sum(len(s.data) for s in pair.seen), 4 * pair.server.limits.connection_window)
        client, server = pair.open()
        server.credit = True
        for _ in range(100):
            client.stream.send(bytes(64 * 1024))
            pair.flush()
        self.assertEqual(len(server.data), 100 * 64 * 1024)

    def test_streams_take_turns(self) -> None:
        pair = Pair(on_request=lambda stream: stream.respond(RESPONSE))
        ends = [pair.open() for _ in range(4)]
        pair.server.writable = False
        for _, server in ends:
            server.stream.send(bytes(100_000))
        pair.server.writable = True
        order = [stream_id for kind, _, stream_id, _ in read_frames(pair.server.take()) if kind == DATA]
        self.assertEqual(order[:8], [1, 3, 5, 7, 1, 3, 5, 7])

    def test_a_latecomer_waits_one_round_only(self) -> None:
        pair = Pair(on_request=lambda stream: stream.respond(RESPONSE))
        (_, bulk), (_, late) = pair.open(), pair.open()
        pair.server.writable = False
        for _ in range(10):
            bulk.stream.send(bytes(64 * 1024))
        late.stream.send(b"hello")
        pair.server.writable = True
        said = [(stream_id, len(body)) for kind, _, stream_id, body in read_frames(pair.server.take()) if kind == DATA]
        self.assertEqual(said[1], (3, 5))

    def test_nothing_is_taken_for_a_transport_that_is_full(self) -> None:
        pair = Pair(on_request=lambda stream: stream.respond(RESPONSE))
        client, server = pair.open()
        pair.server.writable = False
        server.stream.send(bytes(HIGH_WATER))
        self.assertEqual(server.paused, 1)
        self.assertFalse(server.stream.can_send_at_once(1))
        pair.server.writable = True
        pair.flush()
        self.assertEqual(len(client.data), HIGH_WATER)
        self.assertEqual(server.resumed, 1)

    def test_farewell_waits_for_the_queue(self) -> None:
        pair = Pair(on_request=lambda stream: stream.respond(RESPONSE))
        client, server = pair.open(credit=False)
        size = 2 * 256 * 1024
        server.stream.send(bytes(size))
        server.stream.finish([(b"wl-status", b"{}")])
        server.stream.stop_peer()
        pair.flush()
        self.assertIsNone(client.trailers)
        client.stream.credit(len(client.data))
        client.credit = True
        pair.flush()
        self.assertEqual(len(client.data), size)
        self.assertEqual(client.trailers, [(b"wl-status", b"{}")])

    def test_finish_now_drops_what_waits(self) -> None:
        pair = Pair(on_request=lambda stream: stream.respond(RESPONSE))
        client, server = pair.open(credit=False)
        server.stream.send(bytes(512 * 1024))
        pair.flush()
        server.stream.finish_now([(b"wl-status", b"{}")])
        pair.flush()
        self.assertEqual(client.trailers, [(b"wl-status", b"{}")])
        self.assertEqual(server.stream.queued, 0)

    def test_datagrams_stay_whole(self) -> None:
        pair = Pair(on_request=lambda stream: stream.respond(RESPONSE))
        client, server = pair.open()
        server.stream.datagrams = True
        pair.server.writable = False
        for size in (100, 9000, 1):
            server.stream.send(bytes(size))
        pair.server.writable = True
        pair.flush()
        self.assertEqual(client.pieces, [(100, True), (9000, True), (1, True)])

    def test_a_datagram_that_no_window_takes_is_dropped(self) -> None:
        pair = Pair(client_limits=SessionLimits(stream_window=5000), on_request=lambda stream: stream.respond(RESPONSE))
        client, server = pair.open(credit=False)
        server.stream.datagrams = True
        server.stream.send(bytes(4000))
        server.stream.send(bytes(2000))
        server.stream.send(bytes(500))
        pair.flush()
        self.assertEqual([size for size, _ in client.pieces], [4000, 500])

    def test_small_frames_of_a_peer_are_respected(self) -> None:
        pair = Pair(client_limits=SessionLimits(frame=20_000), on_request=lambda stream: stream.respond(RESPONSE))
        client, server = pair.open()
        server.stream.send(bytes(65_000))
        sizes = [len(body) for kind, _, _, body in read_frames(pair.server.take()) if kind == DATA]
        self.assertEqual(sizes, [20_000, 20_000, 20_000, 5_000])


class Bench:
    """A server's session that is fed raw frames."""

    def __init__(self, limits: SessionLimits | None = None, answers: bool = True) -> None:
        self.handlers: list[Recorder] = []
        self._answers = answers
        self.session = Session(wake=lambda: None, opened=self._opened, limits=limits)
        self._client = Session(wake=lambda: None)
        self.session.receive(self._client.take())
        self.session.take()

    def _opened(self, stream: Stream, headers: Headers) -> None:
        handler = Recorder()
        handler.stream = stream
        stream.handler = handler
        self.handlers.append(handler)
        if self._answers:
            stream.respond(RESPONSE)

    def open(self, headers: Headers = REQUEST) -> Recorder:
        stream = self._client.open(headers)
        stream.handler = Recorder()
        self.session.receive(self._client.take())
        self.session.take()
        return self.handlers[-1]

    def feed(self, *data: bytes) -> list[tuple[int, int, int, bytes]]:
        for each in data:
            if not self.session.closed:
                self.session.receive(each)
        return read_frames(self.session.take())


class ViolationTests(SynchronousTestCase):
    """Each violation has the error that RFC 9113 names for it."""

    def assert_connection_error(self, bench: Bench, code: ErrorCodes, *data: bytes) -> None:
        said = bench.feed(*data)
        self.assertTrue(bench.session.closed)
        self.assertEqual(bench.session.error, code)
        self.assertEqual(said[-1][0], frames.GOAWAY)
        self.assertEqual(frames.unpack_u32(said[-1][3], 4)[0], code)

    def assert_stream_error(self, bench: Bench, code: ErrorCodes, *data: bytes) -> None:
        said = bench.feed(*data)
        self.assertFalse(bench.session.closed)
        self.assertIn(
            (RST, int(code)), [(kind, frames.unpack_u32(body, 0)[0]) for kind, _, _, body in said if kind == RST]
        )

    def test_preface(self) -> None:
        session = Session(wake=lambda: None, opened=lambda s, h: None)
        self.assertTrue(session.half_finished)
        session.receive(b"GET / HTTP/1.1\r\n\r\n")
        self.assertEqual(session.error, ErrorCodes.PROTOCOL_ERROR)

    def test_first_frame_is_settings(self) -> None:
        for first in (frame(PING, 0, 0, bytes(8)), frame(frames.SETTINGS, frames.ACK, 0), frame(DATA, 0, 1, b"x")):
            session = Session(wake=lambda: None, opened=lambda s, h: None)
            session.receive(frames.PREFACE + first)
            self.assertEqual(session.error, ErrorCodes.PROTOCOL_ERROR)

    def test_connection_errors(self) -> None:
        too_large = SessionLimits().frame + 1
        for code, data in [
            (ErrorCodes.PROTOCOL_ERROR, frame(DATA, 0, 0, b"x")),
            (ErrorCodes.PROTOCOL_ERROR, frame(DATA, 0, 99, b"x")),
            (ErrorCodes.PROTOCOL_ERROR, frame(DATA, frames.PADDED, 1, b"\x05abc")),
            (ErrorCodes.FRAME_SIZE_ERROR, frames.header(too_large, DATA, 0, 1)),
            (ErrorCodes.FRAME_SIZE_ERROR, frames.header(too_large, frames.HEADERS, 4, 3)),
            (ErrorCodes.FRAME_SIZE_ERROR, frame(PING, 0, 0, bytes(7))),
            (ErrorCodes.FRAME_SIZE_ERROR, frame(WINDOW_UPDATE, 0, 0, bytes(3))),
            (ErrorCodes.FRAME_SIZE_ERROR, frame(WINDOW_UPDATE, 0, 1, bytes(5))),
            (ErrorCodes.FRAME_SIZE_ERROR, frame(frames.SETTINGS, 0, 0, bytes(5))),
            (ErrorCodes.FRAME_SIZE_ERROR, frame(frames.GOAWAY, 0, 0, bytes(7))),
            (ErrorCodes.PROTOCOL_ERROR, frame(frames.GOAWAY, 0, 1, bytes(8))),
            (ErrorCodes.PROTOCOL_ERROR, frame(WINDOW_UPDATE, 0, 0, bytes(4))),
            (ErrorCodes.PROTOCOL_ERROR, frame(WINDOW_UPDATE, 0, 99, b"\0\0\0\1")),
            (ErrorCodes.FLOW_CONTROL_ERROR, frame(WINDOW_UPDATE, 0, 0, b"\x7f\xff\xff\xff") * 2),
            (ErrorCodes.PROTOCOL_ERROR, frame(frames.CONTINUATION, 4, 1, b"")),
            (ErrorCodes.PROTOCOL_ERROR, frame(frames.HEADERS, 0, 3, b"\x82") + frame(DATA, 0, 1, b"x")),
            (ErrorCodes.PROTOCOL_ERROR, frame(frames.HEADERS, 0, 3, b"\x82") + frame(WINDOW_UPDATE, 0, 0, b"\0\0\0\1")),
            (ErrorCodes.PROTOCOL_ERROR, frame(frames.HEADERS, 4, 2, b"\x82")),
            (ErrorCodes.PROTOCOL_ERROR, frame(frames.PUSH_PROMISE, 4, 1, bytes(4))),
            (ErrorCodes.COMPRESSION_ERROR, frame(frames.HEADERS, 4, 3, b"\xff\xff\xff\xff\xff\xff")),
            (ErrorCodes.FLOW_CONTROL_ERROR, frame(frames.SETTINGS, 0, 0, b"\0\4\x80\0\0\0")),
            (ErrorCodes.PROTOCOL_ERROR, frame(frames.SETTINGS, 0, 0, b"\0\5\0\0\0\1")),
        ]:
            bench = Bench()
            bench.open()
            with self.subTest(data=data[:20]):
                self.assert_connection_error(bench, code, data)
                self.assertEqual(bench.handlers[0].reset, ErrorCodes.CONNECT_ERROR)

    def test_stream_errors(self) -> None:
        for code, data in [
            (ErrorCodes.PROTOCOL_ERROR, frame(WINDOW_UPDATE, 0, 1, bytes(4))),
            (ErrorCodes.FLOW_CONTROL_ERROR, frame(WINDOW_UPDATE, 0, 1, b"\x7f\xff\xff\xff")),
        ]:
            bench = Bench()
            handler = bench.open()
            self.assert_stream_error(bench, code, data)
            self.assertEqual(handler.reset, code)

    def test_data_beyond_the_streams_window(self) -> None:
        bench = Bench(SessionLimits(stream_window=1000))
        handler = bench.open()
        handler.credit = False
        bench.feed(frame(DATA, 0, 1, bytes(900)))
        self.assert_stream_error(bench, ErrorCodes.FLOW_CONTROL_ERROR, frame(DATA, 0, 1, bytes(200)))
        self.assertEqual(len(handler.data), 900)

    def test_data_beyond_the_connections_window(self) -> None:
        bench = Bench(SessionLimits(connection_window=70_000, frame=100_000, stream_window=1_000_000))
        bench.open()
        self.assert_connection_error(bench, ErrorCodes.FLOW_CONTROL_ERROR, frame(DATA, 0, 1, bytes(70_001)))

    def test_data_on_a_stream_that_its_sender_ended(self) -> None:
        bench = Bench()
        bench.open()
        said = bench.feed(frame(DATA, frames.END_STREAM, 1, b"last"), frame(DATA, 0, 1, b"more"))
        codes = [
            frames.unpack_u32(body, 0 if kind == RST else 4)[0]
            for kind, _, _, body in said
            if kind in (RST, frames.GOAWAY)
        ]
        self.assertEqual(codes, [ErrorCodes.STREAM_CLOSED])
        self.assertEqual(bench.handlers[0].data, b"last")

    def test_malformed_requests_cost_their_stream_only(self) -> None:
        for headers in (
            [*REQUEST, (b"Upper", b"case")],
            REQUEST[1:],
            [(b"early", b"bird"), *REQUEST],
            [*REQUEST, (b"connection", b"close")],
            [*REQUEST, (b"te", b"gzip")],
            [*REQUEST, (b":unknown", b"x")],
        ):
            bench = Bench()
            bench.open()
            bench._client.open(headers)
            self.assert_stream_error(bench, ErrorCodes.PROTOCOL_ERROR, bench._client.take())
            self.assertEqual(len(bench.handlers), 1)
            bench.feed(frame(DATA, 0, 1, b"alive"))
            self.assertEqual(bench.handlers[0].data, b"alive")

    def test_header_list_over_the_limit(self) -> None:
        bench = Bench()
        bench._client.open([*REQUEST, (b"x-long", b"a" * 17_000)])
        data = bench._client.take()
        self.assert_connection_error(bench, ErrorCodes.ENHANCE_YOUR_CALM, data)

    def test_padding_is_dropped_and_credited(self) -> None:
        bench = Bench(SessionLimits(stream_window=400))
        handler = bench.open()
        for _ in range(10):
            bench.feed(frame(DATA, frames.PADDED, 1, b"\x64" + b"data" + bytes(100)))
        self.assertEqual(handler.data, b"data" * 10)
        self.assertFalse(bench.session.closed)
        for byte in frame(DATA, frames.PADDED | frames.END_STREAM, 1, b"\x03" + b"end" + bytes(3)):
            bench.feed(bytes([byte]))
        self.assertEqual(handler.data, b"data" * 10 + b"end")
        self.assertEqual(handler.trailers, [])

    def test_an_announced_length_is_no_obstacle(self) -> None:
        bench = Bench()
        handler = bench.open([*REQUEST, (b"content-length", b"4")])
        bench.feed(frame(DATA, frames.END_STREAM, 1, b"four"))
        self.assertEqual(handler.trailers, [])
        self.assertFalse(bench.session.closed)

    def test_a_length_that_is_not_kept(self) -> None:
        for length, data in ((b"5", b"four"), (b"3", b"four")):
            bench = Bench()
            handler = bench.open([*REQUEST, (b"content-length", length)])
            self.assert_stream_error(bench, ErrorCodes.PROTOCOL_ERROR, frame(DATA, frames.END_STREAM, 1, data))
            self.assertEqual(handler.reset, ErrorCodes.PROTOCOL_ERROR)

    def test_trailers_of_a_request(self) -> None:
        bench = Bench()
        handler = bench.open()
        bench._client.streams[1].finish([(b"checksum", b"1")])
        bench.feed(bench._client.take())
        self.assertEqual(handler.trailers, [(b"checksum", b"1")])

    def test_malformed_trailers(self) -> None:
        bench = Bench()
        handler = bench.open()
        bench._client.streams[1].finish([(b":path", b"/")])
        self.assert_stream_error(bench, ErrorCodes.PROTOCOL_ERROR, bench._client.take())
        self.assertEqual(handler.reset, ErrorCodes.PROTOCOL_ERROR)

    def test_ping_unknown_and_priority_frames(self) -> None:
        bench = Bench()
        bench.open()
        said = bench.feed(
            frame(PING, 0, 0, b"12345678"), frame(0xEE, 0, 1, b"?"), frame(PRIORITY, 0, 1, b"\0\0\0\0\x10")
        )
        self.assertEqual(said, [(PING, frames.ACK, 0, b"12345678")])

    def test_goaway_lets_open_streams_go_on(self) -> None:
        bench = Bench()
        handler = bench.open()
        bench.feed(frame(frames.GOAWAY, 0, 0, bytes(8)), frame(DATA, frames.END_STREAM, 1, b"last words"))
        self.assertTrue(bench.session.peer_leaving)
        self.assertEqual(handler.data, b"last words")
        handler.stream.finish([(b"wl-status", b"{}")])
        self.assertEqual([kind for kind, *_ in read_frames(bench.session.take())], [frames.HEADERS])

    def test_a_smaller_initial_window_may_make_windows_negative(self) -> None:
        bench = Bench()
        handler = bench.open()
        before = handler.stream.window
        handler.stream.send(bytes(1000))
        bench.feed(frame(frames.SETTINGS, 0, 0, b"\0\4\0\0\0\0"))
        self.assertEqual(handler.stream.window, -1000)
        handler.stream.send(b"waits")
        self.assertEqual(bench.feed(), [])
        said = bench.feed(frame(WINDOW_UPDATE, 0, 1, (1005).to_bytes(4, "big")))
        self.assertEqual([body for kind, _, _, body in said if kind == DATA], [b"waits"])
        self.assertGreater(before, 0)

    def test_a_peer_that_asks_and_never_reads(self) -> None:
        bench = Bench()
        bench.session.writable = False
        pings = frame(PING, 0, 0, bytes(8)) * 100
        for _ in range(101):
            if not bench.session.closed:
                bench.session.receive(pings)
                bench.session.budget.second_passed()
        self.assertEqual(bench.session.error, ErrorCodes.ENHANCE_YOUR_CALM)
        self.assertEqual(bench.session.offence, abuse.UNREAD)

    def test_half_finished(self) -> None:
        bench = Bench()
        bench.open()
        self.assertFalse(bench.session.half_finished)
        bench.feed(frames.header(1000, DATA, 0, 1) + b"some")
        self.assertFalse(bench.session.half_finished)
        bench.feed(bytes(996) + b"\0")
        self.assertTrue(bench.session.half_finished)
        bench.feed(frame(PING, 0, 0, bytes(8))[1:])
        self.assertFalse(bench.session.half_finished)
        bench.feed(frame(frames.HEADERS, 0, 3, b"\x82"))
        self.assertTrue(bench.session.half_finished)

    @settings(deadline=None, max_examples=300)
    @given(
        st.lists(
            st.tuples(st.integers(0, 12), st.integers(0, 255), st.integers(0, 9), st.binary(max_size=64)), max_size=12
        )
    )
    def test_no_frame_raises(self, sequence: list[tuple[int, int, int, bytes]]) -> None:
        bench = Bench()
        bench.open()
        bench.feed(*(frame(kind, flags, stream_id, body) for kind, flags, stream_id, body in sequence))
        if bench.session.closed:
            self.assertEqual(bench.session.streams, {})

    @settings(deadline=None, max_examples=200)
    @given(st.binary(max_size=400))
    def test_no_bytes_raise(self, data: bytes) -> None:
        bench = Bench()
        bench.open()
        bench.feed(data)
