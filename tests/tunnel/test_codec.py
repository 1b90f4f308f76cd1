"""Our reading and writing of header fields, held against hpack and h2."""

from __future__ import annotations

import random

import hpack
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, RequestReceived, ResponseReceived, StreamEnded, StreamReset, TrailersReceived
from h2.exceptions import ProtocolError
from h2.utilities import HeaderValidationFlags, validate_headers
from hpack.huffman import HuffmanEncoder
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH
from hpack.huffman_table import decode_huffman
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.tunnel.peers import REQUEST, RESPONSE, Recorder
from wireleap_relay.tunnel import frames, huffman
from wireleap_relay.tunnel.fields import FieldReader, Fields, write_fields
from wireleap_relay.tunnel.requests import is_request
from wireleap_relay.tunnel.session import Session
from wireleap_relay.tunnel.stream import Stream

_ENCODER = HuffmanEncoder(REQUEST_CODES, REQUEST_CODES_LENGTH)
_USUAL = b'abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_=:/.{}[]", '


def _outcome(decode: object, *arguments: object) -> object:
    """Give what a decoder gives, or the kind of its error."""
    try:
        return decode(*arguments)  # type: ignore[operator]
    except hpack.OversizedHeaderListError:
        return "too much"
    except hpack.HPACKDecodingError:
        return "broken"


class HuffmanTests(SynchronousTestCase):
    """Held against the library's decoder."""

    def assert_same(self, data: bytes) -> None:
        self.assertEqual(_outcome(huffman.decode, data), _outcome(lambda d: bytes(decode_huffman(d)), data), data.hex())

    def test_each_symbol(self) -> None:
        for symbol in range(256):
            for before in (b"", b"a", b"ab{", b"\\"):
                text = before + bytes([symbol])
                data = _ENCODER.encode(text)
                self.assertEqual(huffman.decode(data), text)
                self.assert_same(data + b"\xff")
                self.assert_same(data[:-1])

    def test_random_cases(self) -> None:
        chance = random.Random(7541)
        for _ in range(4000):
            usual = bytes(chance.choices(_USUAL, k=chance.randrange(40)))
            self.assert_same(_ENCODER.encode(usual))
            self.assert_same(_ENCODER.encode(usual) + b"\xff" * chance.randrange(4))
            self.assert_same(_ENCODER.encode(usual + chance.randbytes(chance.randrange(3))))
            broken = bytearray(_ENCODER.encode(usual) + b"\0")
            broken[chance.randrange(len(broken))] ^= 1 << chance.randrange(8)
            self.assert_same(bytes(broken))
            self.assert_same(bytes(broken[:-1]))
            self.assert_same(chance.randbytes(chance.randrange(20)))

    def test_every_short_text(self) -> None:
        for first in range(256):
            self.assert_same(bytes([first]))
            for second in (0, 1, 0x7F, 0x80, 0xF8, 0xFC, 0xFE, 0xFF):
                self.assert_same(bytes([first, second]))
                self.assert_same(bytes([first, second, 0xFF]))

    def test_long_text(self) -> None:
        text = bytes(random.Random(1).choices(_USUAL, k=20_000))
        self.assertEqual(huffman.decode(_ENCODER.encode(text)), text)


_names = st.sampled_from([b":method", b":path", b"accept-encoding", b"x", b"wl-payload", b"cookie", b"x" * 200])
_values = st.one_of(st.sampled_from([b"", b"GET", b"/", b"gzip, deflate"]), st.binary(max_size=40), st.just(b"v" * 900))
_fields = st.lists(st.tuples(_names, _values), max_size=8)


class FieldTests(SynchronousTestCase):
    """Held against the library's codec; one table lives as long as its connection."""

    @settings(deadline=None, max_examples=200)
    @given(st.lists(st.tuples(_fields, st.booleans(), st.sampled_from([None, 0, 100, 1000, 4096])), max_size=6))
    def test_reads_what_an_encoder_writes(self, blocks: list[tuple[Fields, bool, int | None]]) -> None:
        encoder, reader = hpack.Encoder(), FieldReader(16_384)
        for fields, coded, size in blocks:
            if size is not None:
                encoder.header_table_size = size
            self.assertEqual(reader.read(encoder.encode(fields, huffman=coded)), fields)

    @settings(deadline=None, max_examples=500)
    @given(st.lists(st.binary(max_size=24), max_size=5), _fields, st.integers(0, 200), st.integers(0, 255))
    def test_refuses_what_the_library_refuses(self, blocks: list[bytes], fields: Fields, at: int, byte: int) -> None:
        reader, reference = FieldReader(300), hpack.Decoder(max_header_list_size=300)
        encoded = bytearray(hpack.Encoder().encode(fields))
        if encoded:
            encoded[at % len(encoded)] = byte
        for block in [bytes(encoded), *blocks]:
            expected = _outcome(lambda b: [tuple(f) for f in reference.decode(b, raw=True)], block)
            self.assertEqual(_outcome(reader.read, block), expected)
            if isinstance(expected, str):
                return

    @settings(deadline=None, max_examples=200)
    @given(st.lists(st.tuples(st.one_of(_names, st.binary(min_size=1, max_size=200)), _values), max_size=8))
    def test_writes_what_the_library_reads(self, fields: Fields) -> None:
        block = write_fields(fields)
        self.assertEqual([tuple(f) for f in hpack.Decoder().decode(block, raw=True)], fields)

    @settings(deadline=None, max_examples=500)
    @given(st.data())
    def test_a_request_that_is_well_formed_is_so_to_h2(self, data: st.DataObject) -> None:
        request = [*REQUEST, (b"user-agent", b"x y"), (b"content-length", b"12")]
        name = st.sampled_from([b"te", b"host", b"Upper", b"", b"a:b", b"connection", b":path", b":protocol", b"ok"])
        value = st.sampled_from([b"", b"trailers", b"relay.example", b" x", b"x\0", b"x\ty", b"CONNECT", b"\x80"])
        for _ in range(data.draw(st.integers(0, 3))):
            at = data.draw(st.integers(0, len(request) - 1))
            if data.draw(st.booleans()):
                request.insert(at, (data.draw(name), data.draw(value)))
            else:
                request[at] = (request[at][0], data.draw(value))
        flags = HeaderValidationFlags(
            is_client=False, is_trailer=False, is_response_header=False, is_push_promise=False
        )
        try:
            list(validate_headers(request, flags))
            expected = all(v.isdigit() for n, v in request if n == b"content-length")
        except ProtocolError:
            expected = False
        self.assertEqual(is_request(request), expected)

    def test_a_length_that_is_no_number(self) -> None:
        for length in (b"", b"-1", b"+1", b"1_0", b"9" * 5000, b"\xb2"):
            self.assertFalse(is_request([*REQUEST, (b"content-length", length)]))


class AgainstH2Tests(SynchronousTestCase):
    """A session speaks with all of h2, on either side."""

    def setUp(self) -> None:
        self.heard: list[object] = []

    def _exchange(self, session: Session, other: H2Connection) -> None:
        while True:
            said, answer = session.take(), other.data_to_send()
            if not said and not answer:
                return
            if answer:
                session.receive(answer)
            if said:
                for event in other.receive_data(said):
                    self.heard.append(event)
                    if isinstance(event, DataReceived) and event.flow_controlled_length:
                        other.acknowledge_received_data(event.flow_controlled_length, event.stream_id or 0)

    def _heard(self, kind: type) -> list[object]:
        return [event for event in self.heard if isinstance(event, kind)]

    def test_h2_as_the_client(self) -> None:
        handlers: list[Recorder] = []

        def opened(stream: Stream, fields: Fields) -> None:
            self.assertEqual(fields[:4], REQUEST[:4])
            stream.handler = handler = Recorder()
            handler.stream = stream
            handlers.append(handler)
            stream.respond(RESPONSE)

        session = Session(wake=lambda: None, opened=opened)
        client = H2Connection(H2Configuration(client_side=True, header_encoding=None))
        client.initiate_connection()
        client.update_settings({1: 100})  # h2 wants to hear that the smaller table is in use
        for number in range(50):
            stream_id = client.get_next_available_stream_id()
            client.send_headers(stream_id, [*REQUEST[:4], (b"wl-payload", b'{"n": %d}' % number)], end_stream=False)
            self._exchange(session, client)
            client.send_data(stream_id, b"question" * 1000, pad_length=number)
            client.end_stream(stream_id)
            self._exchange(session, client)
            handlers[-1].stream.send(b"answer" * 3000)
            handlers[-1].stream.finish([(b"wl-status", b'{"code": 410}')])
            self._exchange(session, client)
            self.assertEqual(handlers[-1].data, b"question" * 1000)
        self.assertEqual([event.headers for event in self._heard(ResponseReceived)], [RESPONSE] * 50)  # type: ignore[attr-defined]
        self.assertEqual(len(self._heard(TrailersReceived)), 50)
        self.assertEqual(sum(len(e.data) for e in self._heard(DataReceived)), 50 * 18_000)  # type: ignore[attr-defined]
        self.assertEqual(self._heard(StreamReset), [])
        self.assertEqual(session.streams, {})

    def test_h2_as_the_server(self) -> None:
        session = Session(wake=lambda: None)
        server = H2Connection(H2Configuration(client_side=False, header_encoding=None))
        server.initiate_connection()
        handler = Recorder()
        handler.stream = session.open([*REQUEST, (b"x-long", b"long" * 3900)])
        handler.stream.handler = handler
        handler.stream.send(b"question")
        handler.stream.finish()
        self._exchange(session, server)
        (request,) = self._heard(RequestReceived)
        self.assertEqual(len(dict(request.headers)[b"x-long"]), 15_600)  # type: ignore[attr-defined]
        self.assertEqual(len(self._heard(StreamEnded)), 1)
        server.send_headers(1, [(b":status", b"103"), (b"link", b"x")])
        server.send_headers(1, RESPONSE)
        server.send_data(1, b"answer")
        server.send_headers(1, [(b"wl-status", b"{}")], end_stream=True)
        self._exchange(session, server)
        self.assertEqual(
            (handler.headers, handler.data, handler.trailers), (RESPONSE, b"answer", [(b"wl-status", b"{}")])
        )

    def test_a_block_in_many_frames(self) -> None:
        block = write_fields([*REQUEST, (b"x-long", b"a" * 60_000)])
        said = list(frames.header_frames(1, block, True, 16_384))
        self.assertEqual([frame[3] for frame in said], [frames.HEADERS] + [frames.CONTINUATION] * 3)
        self.assertEqual([frame[4] for frame in said], [frames.END_STREAM, 0, 0, frames.END_HEADERS])
        self.assertEqual(b"".join(frame[9:] for frame in said), block)
