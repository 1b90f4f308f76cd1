"""Those who use a relay that is soaked: clients who check every byte."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any

from OpenSSL import SSL
from twisted.internet.defer import Deferred, DeferredList, TimeoutError  # noqa: A004
from twisted.internet.error import ConnectError, ConnectionClosed
from twisted.internet.task import deferLater

from soaking.account import Account, Record
from soaking.names import DOMAIN
from soaking.targets import STALL, TargetFactory
from wireleap_relay.sandbox.circuit import Circuit
from wireleap_relay.sandbox.tunnel import Tunnel, TunnelError
from wireleap_relay.tunnel.splice import READ_SIZE
from wireleap_relay.tunnel.stream import HIGH_WATER
from wireleap_relay.tunnel.streams import TooManyStreams
from wireleap_relay.wire.keys import PublicKey, Signature, SigningKey
from wireleap_relay.wire.sharetoken import ContractStatement, Sharetoken

_STEP = 16 * 1024
#: Seconds in which a tunnel that nothing has been done to has to be open, and to come to its end.
OPENING, _PATIENCE = 30.0, 120.0
#: What becomes of a client whose relay is in trouble.
_OF_THE_NETWORK = (TunnelError, ConnectionClosed, ConnectError, TimeoutError, TooManyStreams, SSL.Error, AssertionError)

#: What tunnels are for, see :class:`soaking.targets.Target`, and how often; ``slow`` is an echo that takes its time.
_MODES = {"echo": 4, "slow": 3, "flood": 3, "half": 3, "early": 2, "reset": 1, "stall": 1, "deluge": 1}
_SIZES = (0, 1, 1000, 40_000, 300_000)
#: Bytes that a client sends to a target that does not listen: all of a window that is new.
_STALLING = 48 * 1024
#: Seconds between two bits that a slow client takes of a deluge, and their bytes.
_SIP, _SIP_SIZE = 0.02, 2048
#: Connections of a crowd, and tunnels on each of them.
_CROWD, _CROWD_TUNNELS = 4, 12


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


class Reader:
    """Reads one tunnel to its end, and checks what comes.

    :ivar sips: takes what comes bit by bit only.
    """

    def __init__(self, record: Record) -> None:
        self._record = record
        self.tunnel: Tunnel
        self.opened: Deferred[None] = Deferred()
        self.ended: Deferred[None] = Deferred()
        self.error: TunnelError | None = None
        self.paused = False
        self.over = False
        self.sips = False
        self._owed = 0

    def tunnel_opened(self) -> None:
        self.opened.callback(None)

    def data_received(self, data: bytes, frame_done: bool) -> None:
        self._record.back.hear(data)
        self._owed += len(data)
        if not self.sips:
            self.take(self._owed)

    def take(self, most: int) -> None:
        """Let the relay send as much as has come, or so much of it."""
        amount = min(self._owed, most)
        self._owed -= amount
        self.tunnel.credit(amount)

    def tunnel_ended(self, error: TunnelError | None) -> None:
        self.error = error
        self.over = True
        self._record.back.closed = error is None
        if not self.opened.called:
            self.opened.errback(error or AssertionError("ended before it began"))
        self.ended.callback(None)

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = False


class Client:
    """One client: circuit after circuit, tunnels on each of them, several at once.

    :ivar resting: it begins nothing new.
    :ivar idle: it rests, and nothing is under way.
    """

    def __init__(
        self,
        reactor: Any,
        chance: random.Random,
        circuit: Callable[[Wallet], Circuit],
        wallet: Wallet,
        account: Account,
        targets: TargetFactory,
    ) -> None:
        self._reactor = reactor
        self._chance = chance
        self._circuit = circuit
        self._wallet = wallet
        self._account = account
        self._targets = targets
        self.resting = False
        self.idle = False
        self.stopping = False

    async def run(self, port: int) -> None:
        """Use the relay, for tunnels to a port on loopback, until told to stop."""
        while not self.stopping:
            self.idle = self.resting
            if self.idle:
                await deferLater(self._reactor, 0.1)
                continue
            circuit = self._circuit(self._wallet)
            await DeferredList(
                [Deferred.fromCoroutine(self._tunnels(circuit, port)) for _ in range(self._chance.randrange(1, 4))]
            )
            circuit.close()

    async def crowd(self, port: int) -> None:
        """Have the relay hold as much at once as honest clients may."""
        circuits = [self._circuit(self._wallet) for _ in range(_CROWD)]
        crowd = [self._one(circuit, port, "deluge") for circuit in circuits for _ in range(_CROWD_TUNNELS)]
        await DeferredList([Deferred.fromCoroutine(each) for each in crowd])
        for circuit in circuits:
            circuit.close()

    async def _tunnels(self, circuit: Circuit, port: int) -> None:
        for _ in range(self._chance.randrange(1, 6)):
            if self.resting or self.stopping:
                return
            record = await self._one(circuit, port, self._mode())
            await deferLater(self._reactor, 1.0 if record.trouble else self._chance.random() * 0.3)

    async def _one(self, circuit: Circuit, port: int, mode: str) -> Record:
        record = self._account.new(
            mode,
            self._chance.choice(_SIZES),
            by_name=self._chance.random() < 0.3,
            direct=len(circuit.hops) == 1,
        )
        host = f"{self._chance.randrange(10)}.{DOMAIN}" if record.by_name else "127.0.0.1"
        try:
            await self._tunnel(circuit, f"{host}:{port}", record)
        except _OF_THE_NETWORK as e:
            # It is judged by what was done to the relay at the time.
            record.trouble = f"{type(e).__name__}: {e}"
        record.ended = time.monotonic()
        return record

    def _mode(self) -> str:
        modes = list(_MODES)
        begun = len(self._account.records)
        # All of them are seen in the beginning, while nothing goes wrong.
        return modes[begun] if begun < len(modes) else self._chance.choices(modes, list(_MODES.values()))[0]

    async def _tunnel(self, circuit: Circuit, target: str, record: Record) -> None:
        reader = Reader(record)
        try:
            reader.tunnel = await circuit.open("tcp", target, reader)
        except TunnelError as e:
            record.code = e.status.code
            raise
        record.token = self._wallet.last[circuit.hops[-1].pubkey]
        record.client_port = _port(circuit) if record.direct else 0
        reader.tunnel.write(record.header)
        try:
            await reader.opened.addTimeout(OPENING, self._reactor)
            record.opened = time.monotonic()
            await Deferred.fromCoroutine(self._use(reader, record)).addTimeout(_PATIENCE, self._reactor)
        except Exception:
            reader.tunnel.abort()  # its client has lost patience
            raise
        finally:
            record.promised = reader.tunnel._stream.receiving.left
            if reader.error is not None:
                record.code = reader.error.status.code
                if not record.headed:
                    record.opened = 0.0  # a refusal begins as a tunnel does

    async def _use(self, reader: Reader, record: Record) -> None:
        mode = record.mode
        if mode == "stall":
            reader.tunnel.write(record.there.say(_STALLING))
            await deferLater(self._reactor, 0.2 + self._chance.random() * (STALL - 1.0))
            reader.tunnel.abort()
            return
        if mode == "deluge":
            await self._sip(reader, record)
        if mode == "early":
            await reader.ended
        if mode in ("echo", "slow", "half", "early"):
            await self._send(reader, record)
        if mode in ("echo", "slow", "half", "early", "deluge"):
            record.there.finished = reader.error is None
            reader.tunnel.end()
        await reader.ended
        if mode == "reset":
            status = reader.error.status if reader.error is not None else None
            assert status is not None, "a reset was not told"
            assert (status.code, status.origin) == (410, "target"), f"a reset was told as {status}"
            return
        assert reader.error is None, f"ended: {reader.error}"
        if mode != "deluge":
            assert record.back.arrived == record.size, f"{record.back.arrived} bytes of {record.size}"
        if mode != "flood":
            await self._until_heard(record)

    async def _until_heard(self, record: Record) -> None:
        """Wait until the target knows that it has all, or is gone."""
        while not record.there.closed and self._targets.of(record) is not None:
            await deferLater(self._reactor, 0.02)
        assert record.there.closed, "the target was not told that its client has ended"
        assert record.there.arrived == record.there.sent, "the target did not get all"

    async def _sip(self, reader: Reader, record: Record) -> None:
        """Take little of a deluge, for a while, and then all that comes."""
        reader.sips = True
        ends = time.monotonic() + 0.5 + self._chance.random() * 2.5
        while time.monotonic() < ends and not reader.over:
            await deferLater(self._reactor, _SIP)
            reader.take(_SIP_SIZE)
            target = self._targets.of(record)
            if target is not None:
                self._bound(reader, target)
        reader.sips = False
        reader.take(2**30)

    def _bound(self, reader: Reader, target: Any) -> None:
        """See that no more is under way than windows, the relay and two sockets may hold."""
        most = reader.tunnel._stream.receiving.size + HIGH_WATER + READ_SIZE + target.room + self._targets.reading_room
        if target.under_way > most:
            self._account.strange.append(f"{target.under_way} bytes are under way to a slow client, over {most}")

    async def _send(self, reader: Reader, record: Record) -> None:
        size = record.size
        pauses = 40 if record.mode == "slow" else 0
        step = _STEP if not pauses else max(1, min(_STEP, size // pauses))
        while record.there.sent < size and reader.error is None:
            if reader.paused:
                await deferLater(self._reactor, 0.02)
                continue
            reader.tunnel.write(record.there.say(min(step, size - record.there.sent)))
            await deferLater(self._reactor, self._chance.random() * 0.4 if pauses else 0.0)


def _port(circuit: Circuit) -> int:
    """Give the port that the client's connection comes from; 0 where it is gone already."""
    transport: Any = circuit._connections[-1].transport if circuit._connections else None
    try:
        return int(transport.getHost().port)
    except (AttributeError, OSError):
        return 0
