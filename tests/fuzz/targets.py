"""Everything that reads what others send, as functions of bytes that complain when it does what it may not."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import hpack
from hpack.huffman_table import decode_huffman
from twisted.internet.defer import Deferred
from twisted.names import dns

from tests.fuzz import boxes, home, parts, tape, web
from tests.fuzz.rig import AnswerReader
from wireleap_relay.boundaries import BadAnswer
from wireleap_relay.config import ConfigError, parse_config
from wireleap_relay.tunnel import frames, huffman
from wireleap_relay.tunnel.fields import FieldReader, Fields, write_fields
from wireleap_relay.tunnel.nameserver import Answer, LookupFailed, _Question
from wireleap_relay.tunnel.session import Session
from wireleap_relay.tunnel.stream import Stream
from wireleap_relay.upstream.challenge import Challenge
from wireleap_relay.wire.errors import WireError
from wireleap_relay.wire.payload import Connect, parse_payload
from wireleap_relay.wire.relayentry import RelayEntry
from wireleap_relay.wire.structure import read
from wireleap_relay.workers import commands

_LONGEST_LIST = 400


class _Handler:
    """Hears a stream, gives credit, and minds the order of things."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.over = False
        self.ended_ = False

    def responded(self, headers: Fields) -> None:
        assert not self.over

    def data_received(self, data: bytes, frame_done: bool) -> None:
        assert not self.over
        assert not self.ended_
        self.stream.credit(len(data))

    def ended(self, trailers: Fields) -> None:
        assert not self.ended_
        self.ended_ = True

    def was_reset(self, code: int) -> None:
        assert not self.over
        self.over = True

    def pause(self) -> None: ...

    def resume(self) -> None: ...


def session(data: bytes) -> None:
    """Bytes on a connection's wire: the first says which side reads them, and how the wire cuts them."""

    def opened(stream: Stream, fields: Fields) -> None:
        stream.handler = _Handler(stream)
        stream.respond([(b":status", b"200")])
        stream.send(b"answer")

    flags = data[0] if data else 0
    reader = AnswerReader(statuses=False)
    as_server = not flags & 1
    under_test = Session(wake=lambda: None, opened=opened if as_server else None)
    if not as_server:
        for _ in range(3):
            stream = under_test.open(tape.request(0))
            stream.handler = _Handler(stream)
    elif flags & 2:
        under_test.receive(frames.PREFACE + frames.settings({}))
    size = (flags >> 2) or len(data) + 1
    for start in range(1, len(data), size):
        if under_test.closed:
            break
        under_test.receive(data[start : start + size])
        said = under_test.take()
        if as_server:
            reader.read(said)
    if under_test.closed:
        assert not under_test.streams
    under_test.connection_lost()
    assert not under_test.streams


def _outcome(decode: Callable[[bytes], Any], data: bytes) -> Any:
    try:
        return decode(data)
    except hpack.OversizedHeaderListError:
        return "too much"
    except hpack.HPACKDecodingError:
        return "broken"


def fields(data: bytes) -> None:
    """Blocks of header fields, each behind its length, held against the library's reader."""
    ours, library = FieldReader(_LONGEST_LIST), hpack.Decoder(max_header_list_size=_LONGEST_LIST)
    while data:
        block, data = data[1 : 1 + data[0]], data[1 + data[0] :]
        found = _outcome(ours.read, block)
        expected = _outcome(lambda block: [(bytes(n), bytes(v)) for n, v in library.decode(block, raw=True)], block)
        assert found == expected, (found, expected)
        if isinstance(found, str):
            return
        assert hpack.Decoder().decode(write_fields(found), raw=True) == found


def coded_text(data: bytes) -> None:
    """Text in HPACK's code, held against the library's decoder."""
    assert _outcome(huffman.decode, data) == _outcome(lambda data: bytes(decode_huffman(data)), data)


def payload(data: bytes) -> None:
    """What a client asks for."""
    with suppress(WireError):
        asked = parse_payload(data)
        if isinstance(asked, Connect):
            asked.token.verify()
            assert parse_payload(asked.to_json()) == asked


def config(data: bytes) -> None:
    """An operator's config."""
    with suppress(ConfigError):
        parse_config(data)


def entry(data: bytes) -> None:
    """A relay, as a directory lists it."""
    with suppress(WireError):
        found = read(data, RelayEntry)
        assert read(json.dumps(found.to_fields()), RelayEntry) == found


def challenge(data: bytes) -> None:
    """A directory's work for a relay."""
    with suppress(BadAnswer):
        found = Challenge.from_text(data.decode("latin-1"))
        assert 4 <= found.cost <= 18


class _Datagram:
    """A socket that has one datagram."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def recv(self, _: int) -> bytes:
        return self._data

    def close(self) -> None: ...


class _Nothing:
    def removeReader(self, _: object) -> None: ...


def name_answer(data: bytes) -> None:
    """A datagram from a name server; the id and the question are what was asked."""
    for kind in (dns.A, dns.AAAA):
        question = _Question.__new__(_Question)
        question.reactor, question._timer = _Nothing(), None
        question._query = dns.Query(b"name.example", kind)
        asked = dns.Message(4711, recDes=1)
        asked.queries = [question._query]
        whole = asked.toStr()
        for datagram in (
            data,
            whole[:2] + b"\x81\x80" + data,
            whole[:2] + b"\x81\x80\0\1" + data[:6] + whole[12:] + data[6:],
        ):
            question._id = 4711
            question._socket = _Datagram(datagram)  # type: ignore[assignment]
            question.answered = _deferred(found := [])
            question.doRead()
            for answer in found:
                assert isinstance(answer, Answer)
                assert answer.ttl >= 0


def _deferred(found: list[Any]) -> Any:
    answered: Any = Deferred()
    return answered.addCallbacks(found.append, lambda failure: failure.trap(LookupFailed))


def worker_words(data: bytes) -> None:
    """What workers and their daemon tell each other: each kind of value that has a form of its own."""
    for argument in (commands.ReportText(), commands.Standings(), commands.StatusText(), commands.Key()):
        with suppress(WireError, ValueError, KeyError, TypeError, AttributeError):
            value = argument.fromString(data)
            assert argument.fromString(argument.toString(value)) == value


#: By name: what reads the bytes, and bytes to begin with.
TARGETS: dict[str, tuple[Callable[[bytes], None], Callable[[int], list[bytes]]]] = {}


def _target(read: Callable[[bytes], None], *seeds: bytes) -> None:
    TARGETS[read.__name__] = read, lambda _: list(seeds)


def _recorded_sessions(seed: int) -> list[bytes]:
    """What honest peers say on the wire, as :func:`session` reads it."""
    found = []
    for number, taped in enumerate(tape.corpus(seed, 200)):
        raw = tape.raw_bytes(taped)
        if raw:
            found.append(bytes([number % 64 << 2]) + raw)
    return found


_K = b"A" * 43
#: What is answered to each of the calls of :func:`tests.fuzz.web.upstream`.
_BODIES = (
    b'{"pubkey":"%s","directory":{"endpoint":"https://d","public_key":"%s"},"servicekey":{"value":"1/3","duration":"5m"}}'
    % (_K, _K),
    b'{"code":200,"description":"OK"}',
    b'{"currency":"USD","available":1}',
    b"[1]",
    b'{"id":"1","state":"pending","state_changed":1,"amount":1,"type":"bank","destination":"me"}',
    b'{"id":"1","state":"failed","state_changed":1,"amount":1,"type":"bank","destination":"me","receipt":{}}',
    b'{"public_key":"%s","upgrade_channels":{"relay":{"default":"0.7.0"}},"enrollment":{"backing":{"count":1}}}' % _K,
    b'{"wireleap://r:1":{"role":"backing","address":"wireleap://r:1","pubkey":"%s","versions":{"software":"0.7.0"}}}'
    % _K,
    b'{"code":202,"description":"repeat request with response to challenge in headers"}',
    b'{"code":202,"description":"please upgrade your relay to the given version as soon as possible","cause":"0.8.0"}',
    b'{"code":200}',
)


TARGETS["worker"] = boxes.play, lambda seed: boxes.corpus(seed, 200)
TARGETS["door"] = tape.play, lambda seed: tape.corpus(seed, 400)
TARGETS["session"] = session, _recorded_sessions
_target(fields, *(bytes([len(b)]) + b for b in (hpack.Encoder().encode(tape.request(each)[:4]) for each in range(16))))
_target(coded_text, b"\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff", b"\x9d\x29\xad\x17\x18\x63\xc7\x8f\x0b\x97")
_target(payload, *tape.PAYLOADS)
_target(
    config,
    b'{"address":"127.0.0.1:1","contracts":{"http://c":{"address":"wireleap://r:1","role":"backing"}},'
    b'"exit_policy":["accept 8.8.8.8/8:25-30","default"],"network_usage":{"timeframe":"30d","global_limit":"1TB"}}',
)
_target(home.stats, b'{"contract_stats": {"%s": {"network_bytes": 1}}, "created_at": 1, "updated_at": 2}' % (b"A" * 43))
_target(
    entry, b'{"role":"backing","address":"wireleap://r:1","pubkey":"%s","versions":{"software":"0.7.0"}}' % (b"A" * 43)
)
_target(challenge, b"10~text", b"04~" + b"x" * 90)
_target(
    name_answer,
    b"\0\1\0\0\0\0\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4\x08\x08\x08\x08",
    b"\0\2\0\0\0\0\xc0\x0c\0\5\0\1\0\0\0\x3c\0\3\1a\0\1a\0\0\1\0\1\0\0\0\x3c\0\4\1\1\1\1",
    b"\0\0\0\1\0\0\xc0\x0c\0\6\0\1\0\0\0\x3c\0\x16\0\0" + bytes(20),
)
_target(parts.values, *_BODIES)
_target(
    parts.texts,
    *(
        b"wireleap://[2001:db8::1]:443/a",
        b"target://name.example:80",
        b"v1.2.3-rc+1",
        b"A" * 43,
        b"A" * 86,
        b"1h2m3.5s",
    ),
    *(b" 512 MB ", b"1/3", b"-2.5", b"https://c.example:8/v0", b"reject [2001:db8::]/32:1-1024", b"plain:127.0.0.1:80"),
    *(b"monthly 15 00:00", b"weekly mon 06:00 Europe/Berlin", b"daily", b"unix:/run/x.sock", b"accept 8.8.8.8/8:25"),
)
_target(
    parts.names, b"\0\x08\x80\3\0\0\1\0\x28\4\0\0\0", b"\0" * 8 + b"\6\0\5\xff\xff\xff", b"\x30\x31\x32\x28\4\1\4\0\1"
)
_target(
    parts.tls,
    b"\0\0\2\0\5\0\5\1\0\6\0",
    b"\0\0\0\2\xff\xff\4\0\x10\4\xff\xff\4\xff\xff\3\0\0\0\6\0",
    b"\1\0\x12GET / HTTP/1.1\r\n\r\n",
    b"\0\3\0\5\1\0\6\0\0",
)
_target(
    parts.handover,
    b'\x10\x0d{"do":"take"}\x18\x0f{"do":"health"}\x11\x0e{"do":"pause"}',
    b'\x12\x0e{"do":"pause"}\x14\x0f{"do":"accept"}\x10\x1e{"do":"leave","successor":5}',
    b'\x10\x42{"carried":{"%s":[1,2]}}' % _K,
    b'\x10\x0d{"do":"keep"}\x10\x0d{"do":"rest"}\x10\x0e{"do":"adopt"}\x10\x0d{"do":"ping"}\x10\x12{"do":"supervise"}',
)
_TOKEN_TEXT = tape._TOKEN.to_json().encode()
_target(
    home.database, b"", b"\0\0\x12\x03\1\1\1\1", *(bytes([page, 0, 7, 0, 1]) + bytes(page) for page in range(1, 200, 8))
)
_target(home.token_file, _TOKEN_TEXT, _TOKEN_TEXT.replace(b"1800001000", b"-9000000000000000000"))
_target(home.archive, b'\x0d1800000000000\x0c{"start_at":1}\x012\2{}', b"\x02\xc2\xb2\2{}\3007\2{}")
_target(
    home.home_files,
    b'\0"' + b"A" * 43 + b'"',
    b"\1-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    b"\2-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIAEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEB\n-----END PRIVATE KEY-----\n",
    b'\3{"state":"probation","version":"0.8.0","old":"0.7.0","attempts":1,"was_running":true,"old_pid":5}',
    b'\4"0.7.0"',
    b"\5nameserver 127.0.0.1\nnameserver fe80::1%eth0\n127.0.0.1 localhost\n",
    b'\5{"contracts":{"http://c":{"update_channel":"default"}}}',
)
TARGETS["release"] = home.release, lambda _: home.signed_seeds()
_target(home.signed_list, b"\0# wireleap-relay 0.8.0\n", b"\x11# wireleap-relay 0.8.0\n" + b"0" * 128 + b"  name\n")
_target(home.peer, b'{"ok":true}\n' * 3, b'{"ok":false,"why":"so"}\n', b"[]\n", b'{"ok":1}')
_target(
    web.visitor,
    b"\xff" + b"\x12\0\1GET / HTTP/1.1\r\n\r\n" * 3,
    b"\xff\x10\0\1GET / HTTP/1.1\r\n\7\0\1X-A: b\r\n\1\x0d\1 \4\0\1\r\n\r\n",
    b"\xff\x10\0\1GET / HTTP/1.1\r\n\2\0\1X:\1\x0d\1 \5\0\1\n\r\n\r\n",
    b'\1\2\x0f\1\r\n\x2f\0\1HEAD /%62ig?x HTTP/1.0\r\nIf-None-Match: "1"\r\n\r\n',
    b"\xff\x15\0\0GET /big HTTP/1.1\r\n\r\n\x12\7\0GET / HTTP/1.1\r\n\r\n\0\0\1",
)
_SAID = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n%s\r\n%s"
_target(
    web.upstream,
    *(bytes([which, 0, which & 1]) + _SAID % (len(body), b"", body) for which, body in enumerate(_BODIES)),
    *(bytes([which, 1, 0]) + body for which, body in enumerate(_BODIES)),
    b"\x08\x73\0Wireleap-Directory-Challenge: 04~text\r\nX: yz" + _BODIES[8],
    b"\0\0\0HTTP/1.1 502 Bad Gateway\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    b"\0\0\0HTTP/1.1 403 No\r\n\r\n" + b'{"code":403,"description":"no"}',
    b"\x06\0\1HTTP/1.1 100 Continue\r\n\r\nHTTP/1.0 301 Moved\r\nLocation: /\r\nWireleap-Relay-Dir-Version: 0.2.0\r\n\r\n",
)
_target(
    web.download,
    b"\1HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    b"\1HTTP/1.1 200 OK\r\n\r\nhello",
    b"\0HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    b"\0HTTP/1.1 404 Not Found\r\nContent-Length: 9999999999\r\n\r\n",
    b"\0HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc",
)
_target(
    web.rest,
    b"\x38\0GET /api/status HTTP/1.1\r\nHost: 127.0.0.1\r\nX: yyyyyy\r\n\r\n",
    b"\x31\2POST / HTTP/1.1\r\nHost: x.example\r\nContent-Length",
    b"\x36\0POST / HTTP/1.0\r\nHost: [::1]:80\r\nContent-Length: 5\r\n\r\nhello",
    b"\x40\0PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0",
)
_target(
    worker_words,
    commands.ReportText().toString(commands.Report()),
    b'[{"url":"http://c","id":"%s","role":"backing","address":"wireleap://r:1","refusal":""}]' % (b"A" * 43),
    bytes(32),
)
