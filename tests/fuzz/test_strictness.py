"""Frames in any order, read by a session and by h2: what h2 takes, we take; what we are milder about is known."""

from __future__ import annotations

import h2.events
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.exceptions import ProtocolError
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.tunnel.peers import REQUEST, Recorder
from wireleap_relay.tunnel import abuse, frames
from wireleap_relay.tunnel.fields import write_fields
from wireleap_relay.tunnel.session import Session
from wireleap_relay.tunnel.stream import Headers, Stream

_BLOCK = write_fields(REQUEST)
_TRAILERS = write_fields([(b"checksum", b"1")])
_ids = st.sampled_from([1, 3, 5, 1, 3, 0, 2])
_bits = st.sampled_from([0, frames.END_STREAM])
_u32 = st.sampled_from([0, 1, 1000, 2**31 - 1]).map(lambda number: number.to_bytes(4, "big"))


def _frame(kind: int, flags: int, stream_id: int, body: bytes) -> bytes:
    return frames.header(len(body), kind, flags, stream_id) + body


_frames = st.one_of(
    st.builds(_frame, st.just(frames.HEADERS), _bits.map(lambda bit: bit | frames.END_HEADERS), _ids, st.just(_BLOCK)),
    st.builds(
        _frame, st.just(frames.HEADERS), st.just(frames.END_HEADERS | frames.END_STREAM), _ids, st.just(_TRAILERS)
    ),
    st.builds(_frame, st.just(frames.DATA), _bits, _ids, st.sampled_from([b"", b"x", bytes(9000)])),
    st.builds(
        _frame, st.just(frames.DATA), st.just(frames.PADDED), _ids, st.sampled_from([b"", b"\0", b"\1x\0", b"\3x"])
    ),
    st.builds(_frame, st.just(frames.RST_STREAM), st.just(0), _ids, _u32),
    st.builds(_frame, st.just(frames.WINDOW_UPDATE), st.just(0), _ids, _u32),
    st.builds(
        _frame, st.just(frames.PING), st.sampled_from([0, frames.ACK]), st.just(0), st.sampled_from([bytes(8), b"7"])
    ),
    st.builds(
        lambda key, value: _frame(frames.SETTINGS, 0, 0, key.to_bytes(2, "big") + value),
        st.integers(1, 7),
        _u32,
    ),
    st.builds(_frame, st.just(0xBE), st.just(0), _ids, st.just(b"grease")),
)


class _Sessions:
    """The two of them."""

    def __init__(self) -> None:
        self.session = Session(wake=lambda: None, opened=self._opened)
        self.library = H2Connection(H2Configuration(client_side=False, header_encoding=None))
        self.library.initiate_connection()
        self.error: ProtocolError | None = None
        self.opened = 0
        self.feed(frames.PREFACE + frames.settings({}))

    def _opened(self, stream: Stream, fields: Headers) -> None:
        self.opened += 1
        stream.handler = handler = Recorder()
        handler.stream = stream

    def feed(self, data: bytes) -> None:
        self.session.receive(data)
        self.session.take()
        try:
            for event in self.library.receive_data(data):
                if isinstance(event, h2.events.DataReceived) and event.flow_controlled_length:
                    self.library.acknowledge_received_data(event.flow_controlled_length, event.stream_id or 0)
        except ProtocolError as e:
            self.error = e
        self.library.data_to_send()


#: What ends a connection for h2, and for us a stream at most: others' tunnels live on.
_MILDER = (
    "mandatory",  # a malformed request
    "Trailers must have END_STREAM",
    "pseudo-header in trailer",
    "non-compliant data",  # a window that grows by nothing
    "is lower than",  # headers of a stream that was reset for what came before them
)
#: What is an error by RFC 9113 (sections 5.1 and 6.4), and passes h2: resets of idle streams, headers of closed ones.
_STRICTER = {abuse.PROTOCOL: frames.RST_STREAM, abuse.STREAM_IDS: frames.HEADERS}


class StrictnessTests(SynchronousTestCase):
    @settings(max_examples=400)
    @given(st.lists(_frames, max_size=8))
    def test_what_the_library_takes_we_take(self, sequence: list[bytes]) -> None:
        both = _Sessions()
        for data in sequence:
            both.feed(data)
            if both.error is not None:
                milder = any(words in str(both.error) for words in _MILDER)
                self.assertTrue(both.session.closed or milder, (both.error, data[:20]))
                return
            if both.session.closed:
                self.assertEqual(data[3], _STRICTER.get(both.session.offence), (both.session.error, data[:20]))
                return
