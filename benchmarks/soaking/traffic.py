"""Those who use a relay that is soaked: targets of all kinds, and clients who check every byte."""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import attrs
from OpenSSL import SSL
from twisted.internet.defer import Deferred, DeferredList, TimeoutError  # noqa: A004
from twisted.internet.error import ConnectError, ConnectionClosed
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from zope.interface import implementer

from wireleap_relay.sandbox.circuit import Circuit
from wireleap_relay.sandbox.tunnel import Tunnel, TunnelError
from wireleap_relay.tunnel.streams import TooManyStreams
from wireleap_relay.wire.keys import PublicKey, Signature, SigningKey
from wireleap_relay.wire.sharetoken import ContractStatement, Sharetoken

_CYCLE = bytes(i * 7 % 251 for i in range(251)) * 300
_STEP = 16 * 1024
#: Seconds in which a tunnel that nothing has been done to has to come to its end.
_PATIENCE = 120.0
_REFUSALS = (400, 408, 500, 502)
#: What becomes of a client whose relay is in trouble.
_OF_THE_NETWORK = (TunnelError, ConnectionClosed, ConnectError, TimeoutError, TooManyStreams, SSL.Error, AssertionError)


def pattern(begin: int, size: int) -> bytes:
    """Bytes that tell where they belong."""
    start = begin % 251
    return _CYCLE[start : start + size]


@attrs.define
class Carried:
    """Payload that has passed the targets: bytes so far, and when."""

    total: int = 0
    history: deque[tuple[float, int]] = attrs.field(factory=lambda: deque(maxlen=20_000))

    def add(self, size: int) -> None:
        """Count."""
        self.total += size
        self.history.append((time.monotonic(), size))

    def lately(self, seconds: float) -> int:
        """Give the bytes of the last seconds."""
        since = time.monotonic() - seconds
        return sum(size for at, size in self.history if at >= since)


@implementer(IHalfCloseableProtocol)
class Target(Protocol):
    """Does what the first line that it gets says."""

    def __init__(self, carried: Carried) -> None:
        self._carried = carried
        self._line = b""
        self._mode = b""
        self._size = self._sent = 0
        self.received = 0

    def dataReceived(self, data: bytes) -> None:
        self._carried.add(len(data))
        if self._mode:
            return self._got(data)
        self._line += data
        line, end, rest = self._line.partition(b"\n")
        if end:
            self._mode, size = line.split()[:2]
            self._size = int(size)
            self._begin()
            if rest:
                self._got(rest)
        return None

    def _begin(self) -> None:
        transport: Any = self.transport
        match self._mode:
            case b"flood" | b"half":
                transport.registerProducer(self, False)
            case b"reset":
                self._say(pattern(0, min(self._size, 1000)))
                transport.reactor.callLater(0.1, transport.abortConnection)
            case b"stall":
                transport.pauseProducing()

    def _say(self, data: bytes) -> None:
        self._carried.add(len(data))
        self.transport.write(data)  # type: ignore[union-attr]

    def _got(self, data: bytes) -> None:
        # What does not belong where it comes ends the tunnel, and its client complains.
        if data != pattern(self.received, len(data)):
            self.transport.abortConnection()  # type: ignore[union-attr]
        self.received += len(data)
        if self._mode == b"echo":
            self._say(data)

    def resumeProducing(self) -> None:
        size = min(_STEP, self._size - self._sent)
        if size:
            data = pattern(self._sent, size)
            self._sent += size
            self._say(data)
            return
        transport: Any = self.transport
        transport.unregisterProducer()
        transport.loseConnection() if self._mode == b"flood" else transport.loseWriteConnection()

    def stopProducing(self) -> None:
        pass

    def readConnectionLost(self) -> None:
        if self._mode == b"half":
            self.transport.loseConnection()  # type: ignore[union-attr]
        elif self._mode == b"echo":
            self.transport.loseWriteConnection()  # type: ignore[union-attr]
        else:
            self.transport.abortConnection()  # type: ignore[union-attr]

    def writeConnectionLost(self) -> None:
        pass


class TargetFactory(Factory):
    """Makes targets."""

    noisy = False

    def __init__(self) -> None:
        self.carried = Carried()

    def buildProtocol(self, addr: Any) -> Target:
        return Target(self.carried)


class Wallet:
    """Pays, and remembers which token was the last one for a relay."""

    def __init__(self, activate: Callable[[PublicKey], ContractStatement], lasts: float) -> None:
        """Buy by a call, each time for so many seconds."""
        self._lasts = lasts
        self._activate = activate
        self._bought_at = 0.0
        self.last: dict[PublicKey, Signature] = {}

    def token(self, relay: PublicKey) -> Sharetoken:
        """Pay, with a servicekey that is not too old."""
        now = time.monotonic()
        if now - self._bought_at > self._lasts or not self._bought_at:
            self._key = SigningKey.generate()
            self._statement = self._activate(self._key.public_key)
            self._bought_at = now
        token = Sharetoken.sign(self._key, self._statement, relay, int(time.time()))
        self.last[relay] = token.signature
        return token


@attrs.define(eq=False)
class Record:
    """One tunnel: what it was to do, and what became of it.

    :ivar begun: seconds of this process's clock, as the other times; 0 for never.
    :ivar port: that its client's connection comes from; 0 where another relay is between.
    :ivar trouble: empty where it did what it had to do.
    """

    mode: str
    begun: float
    port: int
    token: Signature | None = None
    opened: float = 0.0
    ended: float = 0.0
    trouble: str = ""


class Reader:
    """Reads one tunnel to its end, and checks what comes."""

    def __init__(self) -> None:
        self.tunnel: Tunnel
        self.opened: Deferred[None] = Deferred()
        self.ended: Deferred[None] = Deferred()
        self.received = 0
        self.wrong = False
        self.error: TunnelError | None = None
        self.paused = False
        self.over = False

    def tunnel_opened(self) -> None:
        self.opened.callback(None)

    def data_received(self, data: bytes, frame_done: bool) -> None:
        for start in range(0, len(data), _STEP):
            piece = data[start : start + _STEP]
            self.wrong = self.wrong or piece != pattern(self.received, len(piece))
            self.received += len(piece)
        self.tunnel.credit(len(data))

    def tunnel_ended(self, error: TunnelError | None) -> None:
        self.error = error
        self.over = True
        if not self.opened.called:
            self.opened.errback(error or AssertionError("ended before it began"))
        self.ended.callback(None)

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = False


class Client:
    """One client: circuit after circuit, tunnels on each of them, several at once."""

    def __init__(
        self, reactor: Any, chance: random.Random, circuit: Callable[[Wallet], Circuit], wallet: Wallet
    ) -> None:
        self._reactor = reactor
        self._chance = chance
        self._circuit = circuit
        self._wallet = wallet
        self.records: list[Record] = []
        self.stopping = False

    async def run(self, target: str) -> None:
        """Use the relay until told to stop."""
        while not self.stopping:
            circuit = self._circuit(self._wallet)
            await DeferredList(
                [Deferred.fromCoroutine(self._tunnels(circuit, target)) for _ in range(self._chance.randrange(1, 4))]
            )
            circuit.close()

    async def _tunnels(self, circuit: Circuit, target: str) -> None:
        for _ in range(self._chance.randrange(1, 6)):
            if self.stopping:
                return
            record = Record(
                self._chance.choices(["echo", "slow", "flood", "half", "reset", "stall"], [4, 3, 3, 3, 1, 1])[0],
                time.monotonic(),
                0,
            )
            self.records.append(record)
            try:
                await self._tunnel(circuit, target, record)
            except _OF_THE_NETWORK as e:
                # It is judged by what was done to the relay at the time.
                record.trouble = f"{type(e).__name__}: {e}"
            record.ended = time.monotonic()
            await deferLater(self._reactor, 1.0 if record.trouble else self._chance.random() * 0.3)

    async def _tunnel(self, circuit: Circuit, target: str, record: Record) -> None:
        reader = Reader()
        reader.tunnel = await circuit.open("tcp", target, reader)
        record.token = self._wallet.last[circuit.hops[-1].pubkey]
        record.port = _port(circuit) if len(circuit.hops) == 1 else 0
        size = self._chance.choice([0, 1, 1000, 40_000, 300_000])
        reader.tunnel.write(f"{'echo' if record.mode == 'slow' else record.mode} {size}\n".encode())
        await reader.opened.addTimeout(30.0, self._reactor)
        record.opened = time.monotonic()
        try:
            await Deferred.fromCoroutine(self._use(reader, record.mode, size)).addTimeout(_PATIENCE, self._reactor)
        finally:
            if reader.error is not None and not reader.received and reader.error.status.code in _REFUSALS:
                record.opened = 0.0  # a refusal begins as a tunnel does
        assert not reader.wrong, "wrong bytes"

    async def _use(self, reader: Reader, mode: str, size: int) -> None:
        if mode == "stall":
            reader.tunnel.write(pattern(0, _STEP) * 4)
            await deferLater(self._reactor, self._chance.random() * 3)
            reader.tunnel.abort()
            return
        if mode in ("echo", "slow", "half"):
            pauses = 40 if mode == "slow" else 0
            await self._send(reader, size, pauses)
            reader.tunnel.end()
        await reader.ended
        if mode == "reset":
            status = reader.error.status if reader.error is not None else None
            assert status is not None, "a reset was not told"
            assert (status.code, status.origin) == (410, "target"), f"a reset was told as {status}"
            return
        assert reader.error is None, f"ended: {reader.error}"
        assert reader.received == size, f"{reader.received} bytes of {size}"

    async def _send(self, reader: Reader, size: int, pauses: int) -> None:
        sent = 0
        step = _STEP if not pauses else max(1, min(_STEP, size // pauses))
        while sent < size and not reader.over:
            if reader.paused:
                await deferLater(self._reactor, 0.02)
                continue
            piece = pattern(sent, min(step, size - sent))
            reader.tunnel.write(piece)
            sent += len(piece)
            await deferLater(self._reactor, self._chance.random() * 0.4 if pauses else 0.0)


def _port(circuit: Circuit) -> int:
    """Give the port that the client's connection comes from; 0 where it is gone already."""
    transport: Any = circuit._connections[-1].transport if circuit._connections else None
    try:
        return int(transport.getHost().port)
    except (AttributeError, OSError):
        return 0
