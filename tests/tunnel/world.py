"""A relay's listener and what it needs, over real sockets on loopback."""

from __future__ import annotations

import datetime
import socket
import time
from collections.abc import Callable
from typing import Any

from cryptography import x509
from cryptography.x509.oid import NameOID
from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from wireleap_relay.boundaries import Contract, Meter, Refused
from wireleap_relay.configvalues import NO_DECOY, DecoyChoice, ListenAddress
from wireleap_relay.sandbox.circuit import Circuit, Hop
from wireleap_relay.sandbox.tunnel import Tunnel, TunnelError
from wireleap_relay.tokens.admission import SharetokenAdmission
from wireleap_relay.tunnel.connection import Patience
from wireleap_relay.tunnel.decoy import make_decoy
from wireleap_relay.tunnel.dial import Dialler
from wireleap_relay.tunnel.listener import ListenerService
from wireleap_relay.tunnel.opening import Doorway
from wireleap_relay.tunnel.policy import DialPolicy
from wireleap_relay.tunnel.registry import Registry
from wireleap_relay.tunnel.resolver import Resolver
from wireleap_relay.tunnel.settings import SessionLimits
from wireleap_relay.tunnel.tls import ServerTLS
from wireleap_relay.wire.address import Address
from wireleap_relay.wire.keys import PublicKey, SigningKey
from wireleap_relay.wire.relayentry import Role
from wireleap_relay.wire.sharetoken import ContractStatement, Sharetoken

reactor: Any = global_reactor


def make_certificate(key: SigningKey) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Wireleap")])
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=1))
        .public_key(key.private.public_key())
        .sign(key.private, None)
    )


class MemoryStore:
    """Keeps signatures in memory; what disks do has tests of its own."""

    def __init__(self) -> None:
        self.tokens: list[Sharetoken] = []
        self.hold: Deferred[None] | None = None
        self.failing = False

    def deposit(self, token: Sharetoken) -> Deferred[bool]:
        done: Deferred[bool] = Deferred()
        known = token.signature in [each.signature for each in self.tokens]
        if self.failing:
            done.errback(OSError("disk full"))
            return done
        self.tokens.append(token)
        if self.hold is None:
            done.callback(not known)
        else:
            self.hold.addCallback(lambda _: done.callback(not known))
        return done


class World:
    """One relay that serves one contract, and a client's wallet."""

    def __init__(
        self,
        *,
        role: Role = "backing",
        timeout: float = 5.0,
        maxtime: float = 0.0,
        drain_timeout: float = 0.0,
        allow_loopback: bool = True,
        policy: dict[str, Any] | None = None,
        resolver: Resolver | None = None,
        limits: SessionLimits | None = None,
        patience: Patience | None = None,
        decoy: DecoyChoice = NO_DECOY,
        listen_at: ListenAddress | None = None,
    ) -> None:
        self.key = SigningKey.generate()
        self.contract = SigningKey.generate()
        self.servicekey = SigningKey.generate()
        self.role = role
        self.meter_ = Meter()
        self.store = MemoryStore()
        self.accepts = True
        now = int(time.time())
        self.statement = ContractStatement.sign(self.contract, now + 1000, now + 2000)
        self.registry = Registry(reactor, self.key.public_key)
        self.resolver = resolver or Resolver(reactor)
        rules = DialPolicy(allow_loopback=allow_loopback, **(policy or {}))
        self.dialler = Dialler(reactor, rules, timeout, self.resolver)
        admission = SharetokenAdmission(self.key.public_key, self, self.store, self, time.time)
        shown = make_decoy(reactor, time.time, decoy)
        self.doorway = doorway = Doorway(
            self.key.public_key, admission, self.dialler, self.registry, reactor, shown, maxtime
        )
        self.service = ListenerService(
            reactor,
            address=listen_at or ListenAddress("127.0.0.1", 0),
            tls=ServerTLS(make_certificate(self.key), self.key.private),
            doorway=doorway,
            drain_timeout=drain_timeout,
            limits=limits,
            patience=patience,
        )
        self.service.startService()

    @property
    def port(self) -> int:
        return self.service.status().port or 1  # a unix socket has none

    @property
    def splices(self) -> list[Any]:
        """Give the tunnels that are open."""
        return [splice for splices in self.registry._open.values() for splice in splices]

    @property
    def hop(self) -> Hop:
        return Hop(Address.from_text(f"wireleap://127.0.0.1:{self.port}"), self.key.public_key)

    def accepting(self, contract: PublicKey) -> Contract:
        if contract != self.contract.public_key:
            raise Refused(400, "unknown contract")
        if not self.accepts:
            raise Refused(400, "not accepting new tunnels")
        return Contract("http://contract.example", contract, self.role, self.hop.address)

    def meter(self, contract: PublicKey) -> Meter:
        return self.meter_

    def token(self, relay: PublicKey) -> Sharetoken:
        return Sharetoken.sign(self.servicekey, self.statement, relay, int(time.time()))


class Reader:
    """Reads a tunnel to its end."""

    def __init__(self, credit: bool = True) -> None:
        self.tunnel: Tunnel
        self.credit = credit
        self.opened: Deferred[None] = Deferred()
        self.ended: Deferred[None] = Deferred()
        self.received = 0
        self.data = bytearray()
        self.keep = True
        self.pieces: list[bytes] = []
        self.error: TunnelError | None = None
        self.paused = False
        self._waiting: list[tuple[int, Deferred[None]]] = []

    def tunnel_opened(self) -> None:
        self.opened.callback(None)

    def data_received(self, data: bytes, frame_done: bool) -> None:
        self.received += len(data)
        if self.keep:
            self.data += data
        self.pieces.append(data) if frame_done and len(self.pieces) < 100 else None
        if self.credit:
            self.tunnel.credit(len(data))
        ready = [each for each in self._waiting if self.received >= each[0]]
        self._waiting = [each for each in self._waiting if self.received < each[0]]
        for _, done in ready:
            done.callback(None)

    def tunnel_ended(self, error: TunnelError | None) -> None:
        self.error = error
        self.ended.callback(None)

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = False

    def at_least(self, size: int) -> Deferred[None]:
        done: Deferred[None] = Deferred()
        if self.received >= size:
            done.callback(None)
        else:
            self._waiting.append((size, done))
        return done


class Target(Protocol):
    """A target that does as its test says; it answers with what it receives unless told otherwise."""

    def __init__(self, echo: bool = True) -> None:
        self.echo = echo
        self.data = bytearray()
        self.received = 0
        self.keep = True
        self.connected_: Deferred[None] = Deferred()
        self.ended: Deferred[None] = Deferred()
        self.lost: Deferred[Any] = Deferred()

    def connectionMade(self) -> None:
        self.connected_.callback(None)

    def dataReceived(self, data: bytes) -> None:
        self.received += len(data)
        if self.keep:
            self.data += data
        if self.echo:
            self.transport.write(data)  # type: ignore[union-attr]

    def connectionLost(self, reason: Any = None) -> None:
        self.lost.callback(reason.value)


class WorldTestCase(TestCase):
    """Makes worlds, circuits and targets, and takes them down."""

    timeout = 60

    def world(self, **options: Any) -> World:
        world = World(**options)
        self.addCleanup(world.resolver.stopService)
        self.addCleanup(world.service.stopService)
        return world

    def circuit(self, *worlds: World) -> Circuit:
        wallet = worlds[0]
        for world in worlds[1:]:
            world.contract = wallet.contract
        circuit = Circuit(reactor, [world.hop for world in worlds], wallet)
        self.addCleanup(circuit.close)
        return circuit

    def target(self, build: Callable[[], Protocol]) -> str:
        factory = Factory.forProtocol(build)
        factory.noisy = False
        port = reactor.listenTCP(0, factory, backlog=500, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        return f"127.0.0.1:{port.getHost().port}"

    async def tunnel_to_socket(self, circuit: Circuit) -> tuple[Reader, socket.socket]:
        """Open a tunnel to a target that does nothing by itself; give its end of the connection, too."""
        listening = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listening.close)
        reader = await self.tunnel(circuit, f"127.0.0.1:{listening.getsockname()[1]}")
        accepted, _ = listening.accept()
        self.addCleanup(accepted.close)
        return reader, accepted

    def silent_target(self) -> str:
        """Give an address that never answers: its backlog is full."""
        full = socket.socket()
        self.addCleanup(full.close)
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(3):
            waiting = socket.socket()
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
            self.addCleanup(waiting.close)
        return f"127.0.0.1:{full.getsockname()[1]}"

    async def tunnel(self, circuit: Circuit, target: str, protocol: Any = "tcp", credit: bool = True) -> Reader:
        reader = Reader(credit)
        reader.tunnel = await circuit.open(protocol, target, reader)
        await reader.opened
        return reader

    async def failing_tunnel(self, circuit: Circuit, target: str, protocol: Any = "tcp") -> TunnelError:
        reader = await self.tunnel(circuit, target, protocol)
        await reader.ended
        self.assertIsNotNone(reader.error)
        assert reader.error is not None
        return reader.error

    async def until(self, condition: Callable[[], Any], seconds: float = 5.0) -> None:
        deadline = reactor.seconds() + seconds
        while not condition():
            if reactor.seconds() > deadline:
                self.fail("it did not come about in time")
            await deferLater(reactor, 0.01)
