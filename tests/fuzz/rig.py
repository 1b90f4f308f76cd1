"""A relay's door with everything around it in memory, and what has to hold whatever happens there."""

from __future__ import annotations

from typing import Any

import hpack
from twisted.internet.defer import Deferred
from twisted.logger import LogLevel, globalLogPublisher

from tests.fuzz.sockets import MemoryReactor, MemorySocket
from wireleap_relay.boundaries import Contract, Meter, Refused
from wireleap_relay.configvalues import ListenAddress
from wireleap_relay.tokens.admission import SharetokenAdmission
from wireleap_relay.tunnel import frames
from wireleap_relay.tunnel.backend import _MOST_EARLY, Pipe, WebServerDecoy
from wireleap_relay.tunnel.connection import ClientConnection, Patience
from wireleap_relay.tunnel.decoy import Decoy, SiteDecoy
from wireleap_relay.tunnel.dial import Dialler
from wireleap_relay.tunnel.hall import Hall
from wireleap_relay.tunnel.nameserver import LookupFailed
from wireleap_relay.tunnel.opening import Doorway
from wireleap_relay.tunnel.policy import DialPolicy
from wireleap_relay.tunnel.registry import Registry
from wireleap_relay.tunnel.sender import MOST_WAITING
from wireleap_relay.tunnel.session import Session
from wireleap_relay.tunnel.settings import SessionLimits
from wireleap_relay.tunnel.site import Answer, Folder
from wireleap_relay.tunnel.splice import READ_SIZE
from wireleap_relay.tunnel.stream import HIGH_WATER
from wireleap_relay.tunnel.tls import Plain
from wireleap_relay.tunnel.visitor import _LONGEST_HEAD, Visitor
from wireleap_relay.wire.address import Address
from wireleap_relay.wire.keys import PublicKey, SigningKey
from wireleap_relay.wire.sharetoken import ContractStatement, Sharetoken
from wireleap_relay.wire.status import Status

#: Keys and a time that are always the same, so that what is found once is found again.
RELAY, CONTRACT, CLIENT = (SigningKey(bytes([number]) * 32) for number in (1, 2, 3))
NOW = 1_800_000_000
STATEMENT = ContractStatement.sign(CONTRACT, NOW + 1000, NOW + 2000)
_SITE = Folder({b"/": Answer(200, (), b"<h1>Gardening</h1>"), b"/big": Answer(200, (), bytes(300_000))})
#: Bytes that one turn may read, of one socket.
_READ = 64 * 1024


class _Port:
    """A UDP socket whose datagrams go nowhere."""

    def __init__(self, reactor: MemoryReactor, protocol: Any) -> None:
        self.protocol = protocol
        self.open = True
        self._reactor = reactor
        protocol.makeConnection(self)

    def write(self, data: bytes) -> None:
        assert self.open, "a datagram for a closed socket"

    def stopListening(self) -> None:
        if self.open:
            self.open = False
            self._reactor.callLater(0, self.protocol.doStop)


class _Dialler(Dialler):
    """Dials in memory; names and ports are its rig's."""

    rig: Rig

    def _open_udp(self, host: str, remote_port: int, source: str | None, protocol: Any) -> Any:
        self.rig.ports.append(_Port(self.rig.reactor, protocol))
        protocol.numPorts = 1
        return protocol


class Disk:
    """Where sharetokens wait until the test says what becomes of them.

    :ivar deposits: those that came, in order.
    """

    def __init__(self) -> None:
        self.deposits: list[Deferred[bool]] = []

    def deposit(self, token: Sharetoken) -> Deferred[bool]:
        self.deposits.append(Deferred())
        return self.deposits[-1]

    def keep(self, outcome: bool | None) -> None:
        """Have the disk keep the oldest sharetoken: new, seen before, or not at all."""
        waiting = [each for each in self.deposits if not each.called]
        if waiting:
            waiting[0].callback(outcome) if outcome is not None else waiting[0].errback(OSError("no disk"))
        self.settle()

    def keep_all(self) -> None:
        """Have it keep all that wait."""
        while any(not each.called for each in self.deposits):
            self.keep(True)

    def settle(self) -> None:
        """Let what comes of it happen."""
        raise NotImplementedError


class Rig(Disk):
    """One connection of a client, and the rest of the world as the test has it.

    :ivar lookups: names that wait for an answer.
    :ivar heard: what the client was sent; whoever reads it takes it out.
    """

    def __init__(self, limits: SessionLimits | None = None, maxtime: float = 0.0, shown: str = "") -> None:
        """Begin.

        :param shown: what strangers see: a ``site`` or another web ``server``; empty for nothing.
        """
        super().__init__()
        self.reactor = MemoryReactor()
        self.limits = limits or SessionLimits()
        self.lookups: list[Deferred[tuple[str, ...]]] = []
        self.ports: list[_Port] = []
        self.troubles: list[str] = []
        self._meter = Meter()
        relay = RELAY.public_key
        dialler = _Dialler(self.reactor, DialPolicy(allow_loopback=True), 5.0, self)  # type: ignore[arg-type]
        dialler.rig = self
        self.registry = Registry(self.reactor, relay)
        self.shown = shown
        decoy: Decoy = SiteDecoy(lambda: float(NOW), _SITE if shown else None)
        if shown == "server":
            decoy = WebServerDecoy(self.reactor, ListenAddress("127.0.0.1", 8080))
        admission = SharetokenAdmission(relay, self, self, self, lambda: NOW)
        doorway = Doorway(relay, admission, dialler, self.registry, self.reactor, decoy, maxtime)
        self.hall = Hall(self.registry, resident=lambda: 0, descriptors=2**40)
        self.client = ClientConnection(Plain(), doorway, self.hall, self.limits, "192.0.2.1")
        globalLogPublisher.addObserver(self._noticed)
        _, self.wire = self.reactor.connected(self.client)
        self.answers = AnswerReader(statuses=not shown)
        self.heard = bytearray()

    # What the door asks of the relay

    def accepting(self, contract: PublicKey) -> Contract:
        if contract != CONTRACT.public_key:
            raise Refused(400, "unknown contract")
        return Contract("http://contract.example", contract, "backing", Address("wireleap", "192.0.2.1", 443))

    def meter(self, contract: PublicKey) -> Meter:
        return self._meter

    def look_up(self, name: str, family: str) -> Deferred[tuple[str, ...]]:
        self.lookups.append(Deferred())
        return self.lookups[-1]

    # What happens around it

    def say(self, data: bytes) -> None:
        """Have the client send bytes."""
        self.wire.feed(data)
        self.settle()

    @property
    def targets(self) -> list[MemorySocket]:
        return [end for end in self.reactor.ends[1:] if not end.closed]

    def target(self, which: int) -> MemorySocket | None:
        """Give one of the targets that are connected."""
        open_ones = self.targets
        return open_ones[which % len(open_ones)] if open_ones else None

    def reach(self, success: bool) -> None:
        """Have the oldest attempt at a target end."""
        trying = [each for each in self.reactor.attempts if each.state == "connecting"]
        if trying:
            trying[0].succeed() if success else trying[0].fail()
        self.settle()

    def name(self, addresses: tuple[str, ...] | None) -> None:
        """Answer the oldest question for a name."""
        waiting = [each for each in self.lookups if not each.called]
        if waiting:
            found = waiting[0]
            found.callback(addresses) if addresses is not None else found.errback(LookupFailed("no answer"))
        self.settle()

    def pass_time(self, seconds: float) -> None:
        """Let time pass, with a look at the watch every second."""
        while seconds > 0:
            step = min(seconds, 1.0)
            self.reactor.advance(step)
            seconds -= step
            self.hall.second_passed()
            for connection in list(self.hall.connections):
                connection.look_at_watch(Patience())
            self.settle()

    def settle(self) -> None:
        """Let the reactor work until it rests, and look at everything."""
        self.reactor.run()
        if isinstance(self.client.session, Session):
            self.answers.read(self.wire.sent)
        self.heard += self.wire.sent
        self.wire.sent.clear()
        self.check()

    def _noticed(self, event: dict[str, Any]) -> None:
        if event.get("log_level") in (LogLevel.error, LogLevel.critical) or event.get("isError"):
            failure = event.get("log_failure") or event.get("failure")
            self.troubles.append(failure.getTraceback() if failure else str(event))

    # What has to hold

    def check(self) -> None:
        """Look at all that must be true at any time."""
        assert not self.troubles, self.troubles[0]
        session = self.client.session
        if session is None or session.closed:
            assert session is None or not session.streams
            return
        if isinstance(session, Session):
            self._check_session(session)
        elif isinstance(session, Pipe):
            assert len(session._early) <= _MOST_EARLY + _READ
            assert session._queued <= HIGH_WATER + _READ
            assert session._queued == sum(map(len, session._waiting))
        elif isinstance(session, Visitor):
            assert len(session._unread) <= _LONGEST_HEAD + 2 * _READ

    def _check_session(self, session: Session) -> None:
        sender = session._sender
        ring = list(sender._ring)
        assert len(ring) == len({each.id for each in ring})
        assert len(sender._out) <= MOST_WAITING + 16 * self.limits.streams
        assert len(session._reader._rest) <= self.limits.frame + frames.HEADER_SIZE + _READ
        assert sum(map(len, session._blocks._pieces)) <= 2 * self.limits.header_list
        assert len(session._we_reset) <= 1000
        assert session._receiving.left <= self.limits.connection_window
        assert len(session.streams) <= self.limits.streams
        for number, stream in session.streams.items():
            assert number == stream.id
            assert not stream.closed
            assert not (stream.ended and stream.peer_ended)
            assert stream.queued == sum(map(len, stream.queue))
            assert stream.queued <= HIGH_WATER + READ_SIZE
            assert stream.scheduled == (stream in ring)
            window = stream.receiving
            assert 0 <= window.left <= window.size + window.excess <= self.limits.largest_stream_window
            early = getattr(stream.handler, "_early", ())
            assert sum(len(data) for data, _ in early) <= window.size + window.excess

    def finish(self) -> None:
        """Let everybody go, and see that nothing stays behind."""
        try:
            self._resolve()
            self._go()
        finally:
            globalLogPublisher.removeObserver(self._noticed)

    def _resolve(self) -> None:
        """Answer all that waits: then every request has an answer, if its client reads."""
        for _ in range(3):
            while any(not each.called for each in self.lookups):
                self.name(None)
            self.keep_all()
            while any(each.state == "connecting" for each in self.reactor.attempts):
                self.reach(False)
        self.wire.room = 2**30
        if self.shown == "server":
            for end in self.targets:
                end.eof = True
            self.pass_time(1.0)  # the web client looks now and then at how its attempts have ended
        self.settle()
        session = self.client.session
        if isinstance(session, Session) and not self.wire.broken:
            for stream in session.streams.values():
                # Another web server's answer waits until it has all of the request.
                uploads = self.shown == "server" and not stream.peer_ended
                assert stream.answered or uploads, f"stream {stream.id} waits for ever"

    def _go(self) -> None:
        self.wire.broken = True
        self.settle()
        self.pass_time(61.0)
        assert not self.hall.connections
        assert (self.hall.pool.granted, self.hall.pool._coming_back) == (0, 0)
        assert self.client.session is None or not self.client.session.streams
        assert self.registry.counts().open == 0
        assert not any(port.open for port in self.ports), "a port stays open"
        self.reactor.check_nothing_is_left()


class AnswerReader:
    """Reads what a relay says, and knows what it may say."""

    def __init__(self, statuses: bool = True) -> None:
        """Read; ``statuses`` where each answer is a relay's."""
        self._statuses = statuses
        self._rest = b""
        self._decoder = hpack.Decoder(max_header_list_size=2**20)
        self._first = True
        self._answered: set[int] = set()
        self._ended: set[int] = set()
        self._reset: set[int] = set()
        self._gone = False

    def read(self, data: bytes | bytearray) -> None:
        """Take bytes, and complain of what no client would understand."""
        data = self._rest + data
        position = 0
        while len(data) - position >= frames.HEADER_SIZE:
            high, low, kind, flags, stream_id = frames.unpack_header(data, position)
            end = position + frames.HEADER_SIZE + (high << 8 | low)
            if len(data) < end:
                break
            self._frame(kind, flags, stream_id, data[position + frames.HEADER_SIZE : end])
            position = end
        self._rest = bytes(data[position:])

    def _frame(self, kind: int, flags: int, stream_id: int, body: bytes) -> None:
        if self._first:
            assert kind == frames.SETTINGS
            assert not flags & frames.ACK
            self._first = False
        assert not self._gone, "something comes after the last word"
        if kind in (frames.DATA, frames.HEADERS):
            assert stream_id & 1
            assert stream_id not in self._ended | self._reset, "a stream goes on after its end"
            if kind == frames.DATA:
                assert stream_id in self._answered
            else:
                self._fields(stream_id, flags, body)
            if flags & frames.END_STREAM:
                self._ended.add(stream_id)
        elif kind == frames.RST_STREAM:
            assert len(body) == 4
            self._reset.add(stream_id)
        elif kind == frames.WINDOW_UPDATE:
            assert 0 < frames.unpack_u32(body, 0)[0] <= frames.LARGEST_WINDOW
        elif kind == frames.GOAWAY:
            self._gone = frames.unpack_u32(body, 4)[0] != 0
        else:
            assert kind in (frames.SETTINGS, frames.PING)

    def _fields(self, stream_id: int, flags: int, body: bytes) -> None:
        assert flags & frames.END_HEADERS
        if not self._statuses:
            self._answered.add(stream_id)
            return
        fields = {bytes(name): bytes(value) for name, value in self._decoder.decode(body, raw=True)}
        if stream_id not in self._answered:
            assert fields[b":status"] in (b"200", b"405")
            self._answered.add(stream_id)
            return
        assert flags & frames.END_STREAM
        status = Status.from_json(fields[b"wl-status"])
        assert status.code in (400, 408, 410, 500, 502)
        assert status.description
