"""Parts that have a state of their own: name look-ups, TLS, handovers; and all values that travel as text."""

from __future__ import annotations

import datetime
import json
import ssl
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest import mock

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.logger import Logger

from tests.fuzz.reader import Tape
from tests.fuzz.rig import CONTRACT, RELAY
from tests.fuzz.web import Noticed, WebReactor
from wireleap_relay.configvalues import calendar_start, listen_address
from wireleap_relay.exitpolicy import parse_rule
from wireleap_relay.home import _make_identity
from wireleap_relay.tunnel import resolver
from wireleap_relay.tunnel.nameserver import Answer, LookupFailed
from wireleap_relay.tunnel.tls import ServerTLS, TLSConnection, TLSFailed
from wireleap_relay.upgrade.handover import Talk
from wireleap_relay.upgrade.peer import PeerFailed
from wireleap_relay.upgrade.record import Record
from wireleap_relay.upgrade.release import ReleaseSite
from wireleap_relay.wire.address import Address
from wireleap_relay.wire.apifields import parse_rational
from wireleap_relay.wire.contractinfo import ContractInfo
from wireleap_relay.wire.directoryinfo import DirectoryInfo
from wireleap_relay.wire.encoding import read_json, write_json
from wireleap_relay.wire.endpoint import parse_endpoint
from wireleap_relay.wire.errors import WireError
from wireleap_relay.wire.funding import AccessKey, Activation
from wireleap_relay.wire.keys import PublicKey, Signature
from wireleap_relay.wire.payout import PayoutBalance, Withdrawal, WithdrawalRequest
from wireleap_relay.wire.sharetoken import Sharetoken
from wireleap_relay.wire.status import Status
from wireleap_relay.wire.structure import converter, read, structure
from wireleap_relay.wire.units import format_duration, format_size, parse_duration, parse_size
from wireleap_relay.wire.versions import Version

_MOST_STEPS = 400

# Values

_KINDS: tuple[type[Any], ...] = (
    ContractInfo, DirectoryInfo, PayoutBalance, Withdrawal, WithdrawalRequest, AccessKey, Activation, Status, Sharetoken,
    Record, ReleaseSite,
)  # fmt: skip


def values(data: bytes) -> None:
    """JSON of every kind that APIs and files have."""
    for kind in _KINDS:
        with suppress(WireError):
            found = read(data, kind)
            again = structure(read_json(write_json(converter.unstructure(found))), kind)
            assert again == found, (again, found)


#: What reads a text, and what writes the value so that it can be read again.
_TEXTS: tuple[tuple[Callable[[str], Any], Callable[[Any], str]], ...] = (
    (Address.from_text, str),
    (Version.from_text, str),
    (PublicKey.from_text, str),
    (Signature.from_text, str),
    (parse_duration, format_duration),
    (parse_size, format_size),
    (parse_rational, str),
    (parse_endpoint, str),
    (parse_rule, str),
    (listen_address, str),
)


def texts(data: bytes) -> None:
    """Text of every kind that configs and APIs have."""
    text = data.decode("utf-8", "replace")
    for parse, write in _TEXTS:
        with suppress(WireError):
            found = parse(text)
            assert parse(write(found)) == found, (write(found), found)
    with suppress(WireError):
        calendar_start(text)


# Names


_NAMES = (
    "a.example",
    "b.example",
    "c.d.example",
    "e.test",
    "f.test",
    "host",
    "g.local",
    "x.onion",
    "A.EXAMPLE.",
    "h.org",
)
_ADDRESSES: list[tuple[str, ...]] = [("192.0.2.1",), ("2001:db8::1", "2001:db8::2"), ()]


def names(data: bytes) -> None:
    """Look-ups of names, and what comes of them."""
    tape, reactor = Tape(data), WebReactor()
    asked: list[Deferred[Answer]] = []
    found: list[Deferred[Any]] = []
    threads: list[Callable[[], None]] = []
    system: list[tuple[str, ...] | None] = []

    def ask(*_: Any) -> Deferred[Answer]:
        asked.append(Deferred())
        return asked[-1]

    def getaddrinfo(*_: Any) -> tuple[str, ...]:
        answer = system.pop() if system else ()
        if answer is None:
            raise LookupFailed("no")
        return answer

    small = {"MOST_ASKED": 6, "MOST_ASKED_BELOW_ONE_DOMAIN": 3, "MOST_REMEMBERED": 4, "_THREADS": 2, "_WAITING": 3}

    def start(run: Callable[[], None], _: object) -> None:
        threads.append(run)

    fakes = {"ask": ask, "_getaddrinfo": getaddrinfo, "start_new_thread": start}
    with mock.patch.multiple(resolver, **fakes, **small), Noticed() as noticed:
        under_test = resolver.Resolver(reactor, Path("/nonexistent"), Path("/nonexistent"))
        under_test.startService()
        for _ in range(_MOST_STEPS):
            if tape.ended:
                break
            which = tape.byte()
            match which % 8:
                case 0 | 1 | 2:
                    found.append(under_test.look_up(_NAMES[which // 8 % len(_NAMES)], "46"[which >> 7]))  # type: ignore[arg-type]
                    found[-1].addErrback(lambda failure: failure.trap(LookupFailed, CancelledError))
                case 3:
                    waiting = [each for each in asked if not each.called]
                    if waiting:
                        each = waiting[tape.byte() % len(waiting)]
                        kind = tape.byte()
                        if kind & 1:
                            each.errback(LookupFailed("no"))
                        else:
                            each.callback(Answer(_ADDRESSES[kind // 2 % 3], float(tape.number() - 5), not kind & 128))
                case 4:
                    if threads:
                        system.append(None if tape.byte() & 1 else _ADDRESSES[tape.byte() % 3])
                        threads.pop(0)()
                case 5:
                    reactor.advance(tape.number() / 64)
                case 6:
                    if found:
                        found[tape.byte() % len(found)].cancel()
                case _:
                    if which == 255:
                        under_test.stopService()
            reactor.run()
            status = under_test.status()
            assert status.asking <= 6
            assert status.remembered <= 4
            assert under_test._threads <= 2
            assert len(under_test._queue) <= 3 + status.asking + 1
            assert sum(under_test._below.values()) == status.asking
            assert all(0 < count <= 3 for count in under_test._below.values())
        under_test.stopService()
        while threads:
            threads.pop(0)()
            reactor.run()
        reactor.advance(11.0)
        reactor.run()
        assert all(each.called for each in found), "somebody waits for ever"
        assert not reactor.getDelayedCalls()
        assert not under_test._looking
        noticed.check()


# TLS

_IDENTITY = _make_identity(RELAY, datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC))
_SERVER = ServerTLS(_IDENTITY.certificate, _IDENTITY.tls_key)
_CLIENT = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
_CLIENT.check_hostname = False
_CLIENT.verify_mode = ssl.CERT_NONE
_CLIENT.set_alpn_protocols(["h2", "http/1.1"])


class _Wire:
    """A client's TLS, and what lies between it and a relay's."""

    def __init__(self) -> None:
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.client = _CLIENT.wrap_bio(self.incoming, self.outgoing)
        self.relay: TLSConnection = _SERVER.connection()
        self.failed = False

    def greet(self) -> None:
        with suppress(ssl.SSLError):
            self.client.do_handshake()

    def carry(self, data: bytes) -> None:
        if not self.failed:
            try:
                self.relay.receive(data)
            except TLSFailed:
                self.failed = True
        self.incoming.write(self.relay.said())


def tls(data: bytes) -> None:
    """A client's TLS, changed on its way."""
    tape, wire = Tape(data), _Wire()
    for _ in range(_MOST_STEPS):
        if tape.ended or wire.failed:
            break
        match tape.byte() % 7:
            case 0:
                wire.greet()
                wire.carry(wire.outgoing.read())
            case 1:
                wire.carry(tape.bytes(tape.number() % 2048))
            case 2:
                with suppress(ssl.SSLError):
                    wire.client.write(bytes(1 + tape.number()))
            case 3:
                sent = bytearray(wire.outgoing.read())
                if sent:
                    sent[tape.number() % len(sent)] ^= tape.byte()
                wire.carry(bytes(sent))
            case 4:
                sent = wire.outgoing.read(1 + tape.number())
                wire.carry(sent)
            case 5:
                if wire.relay.established:
                    wire.incoming.write(wire.relay.encrypt(bytes(4 * tape.number())))
            case _:
                with suppress(ssl.SSLError):
                    wire.client.unwrap()
    assert not (wire.relay.speaks_h2 and not wire.relay.established)
    wire.relay.said()
    wire.relay.close()


# Handovers


class _Incumbent:
    """A relay that does as it is told, sooner or later or not at all."""

    leaves = False

    def __init__(self) -> None:
        self.waiting: list[Deferred[Any]] = []
        self.accepts = True
        self.gave_up = False
        self.counted: list[Any] = []
        self.abandoned_ = 0
        self.how = 0

    def _do(self) -> Deferred[Any]:
        if self.how == 1:
            return fail(PeerFailed("no"))
        if self.how == 2:
            self.waiting.append(Deferred())
            return self.waiting[-1]
        return succeed(None)

    def hand_out(self) -> tuple[dict[str, Any], list[Any]]:
        return {"address": "127.0.0.1:1", "account": None}, []

    def accept(self, accepts: bool) -> Deferred[Any]:
        self.accepts = accepts
        return succeed(None)

    def keep(self, keeps: bool) -> Deferred[Any]:
        self.gave_up = True
        return self._do()

    def leave(self, successor: int) -> Deferred[Any]:
        assert successor >= 0
        return self._do()

    def adopt(self) -> None: ...

    def stay(self) -> None: ...

    def carried(self) -> dict[str, tuple[int, int]]:
        return {str(CONTRACT.public_key): (len(self.waiting) + 1, 2)}

    def heard(self, grown: dict[str, tuple[int, int]]) -> None:
        for contract, sizes in grown.items():
            assert min(sizes) >= 0
            self.counted.append((PublicKey.from_text(contract), sizes))

    def health(self) -> dict[str, Any]:
        return {"stopping": False}

    def ping(self) -> Deferred[Any]:
        return self._do()

    def supervise(self) -> Deferred[Any]:
        return self._do()

    def abandoned(self) -> None:
        self.abandoned_ += 1


def handover(data: bytes) -> None:
    """What a supervisor, a command or another daemon says at the handover socket, in pieces; each begins with what happens before."""
    tape, reactor, incumbent = Tape(data), WebReactor(), _Incumbent()
    talks: set[Talk] = set()
    talk = Talk(reactor, incumbent, Logger(), talks.discard)  # type: ignore[arg-type]
    talks.add(talk)
    with Noticed() as noticed:
        _, end = reactor.connected(talk)
        while not tape.ended and not end.closed:
            which = tape.byte()
            incumbent.how = which & 3
            if which & 4 and incumbent.waiting:
                incumbent.waiting.pop().callback(None)
            if which & 8:
                talk.count()
            end.feed(tape.bytes(tape.byte()))
            if which & 16:
                end.feed(b"\n")
            reactor.run()
        for line in bytes(end.sent).splitlines():
            assert isinstance(json.loads(line), dict)
        end.eof = True
        reactor.run()
        talk.end()
        for each in incumbent.waiting:
            each.callback(None)
        reactor.run()
        assert not talks
        assert incumbent.accepts or incumbent.gave_up, "nobody accepts any more"
        assert not reactor.getDelayedCalls()
        noticed.check()
