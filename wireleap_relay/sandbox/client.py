"""A client of the network: circuits of one to many relays, paid for hop by hop.

To every relay but the first, the client speaks TLS and HTTP/2 *through* the
tunnel before it; so each of its connections crosses the whole circuit, and
only the first relay sees more than one of them on one connection.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol, cast

import attrs
from h2.errors import ErrorCodes
from OpenSSL import SSL
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IHandshakeListener, IOpenSSLClientConnectionCreator, IPushProducer, ITransport
from twisted.internet.protocol import Factory, connectionDone
from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from wireleap_relay.tunnel.answers import PAYLOAD, STATUS
from wireleap_relay.tunnel.session import Session
from wireleap_relay.tunnel.stream import Headers, Stream, header_value
from wireleap_relay.tunnel.tls import ALPN
from wireleap_relay.wire.address import Address
from wireleap_relay.wire.errors import WireError
from wireleap_relay.wire.keys import PublicKey
from wireleap_relay.wire.payload import Connect
from wireleap_relay.wire.payload import Protocol as Transported
from wireleap_relay.wire.sharetoken import Sharetoken
from wireleap_relay.wire.status import Status
from wireleap_relay.wire.versions import CLIENT_RELAY


class TunnelError(Exception):
    """A relay, or the target, has ended a tunnel with a status."""

    def __init__(self, status: Status) -> None:
        super().__init__(f"{status.code} {status.description}")
        self.status = status


@attrs.frozen
class Hop:
    """A relay on a circuit."""

    address: Address
    pubkey: PublicKey


class Wallet(Protocol):
    """Pays relays."""

    def token(self, relay: PublicKey) -> Sharetoken:
        """Make a fresh sharetoken for a relay."""


class TunnelReader(Protocol):
    """Reads what comes out of a tunnel."""

    def tunnel_opened(self) -> None:
        """The relay has reached the target."""

    def data_received(self, data: bytes, frame_done: bool) -> None:
        """Bytes from the target; :meth:`Tunnel.credit` is owed for them."""

    def tunnel_ended(self, error: TunnelError | None) -> None:
        """The target ended its side, or the tunnel failed; nothing comes after this."""

    def pause(self) -> None:
        """Write no more for now."""

    def resume(self) -> None:
        """Write again."""


class Tunnel:
    """One stream to a relay, and through it to a target."""

    def __init__(self, stream: Stream, reader: TunnelReader) -> None:
        """Read what comes out of a stream."""
        self._stream = stream
        self._reader = reader
        self._over = False
        stream.handler = self

    # Verbs

    def write(self, data: bytes) -> None:
        """Send bytes to the target."""
        self._stream.send(data)

    def end(self) -> None:
        """Send no more; the target may go on."""
        self._stream.finish()

    def abort(self) -> None:
        """Give the tunnel up."""
        self._over = True
        self._stream.reset()

    def credit(self, amount: int) -> None:
        """Let the relay send this much more."""
        self._stream.credit(amount)

    # What the stream hears

    def responded(self, headers: Headers) -> None:
        """The relay answered."""
        status = header_value(headers, b":status")
        if status == b"200":
            # Errors have the same headers: they show in the trailers.
            self._reader.tunnel_opened()
        else:
            self._fail(
                Status(502, f"the relay answered with HTTP status {(status or b'none').decode('ascii', 'replace')}")
            )
            self._stream.reset()

    def data_received(self, data: bytes, frame_done: bool) -> None:
        """Bytes from the target."""
        if not self._over:
            self._reader.data_received(data, frame_done)

    def ended(self, trailers: Headers) -> None:
        """The relay ended the stream."""
        text = header_value(trailers, STATUS)
        if text is None:
            return self._finish(None)
        try:
            status = Status.from_json(text)
        except WireError:
            status = Status(502, "the relay ended the tunnel with a status that can't be read")
        return self._finish(None if status.code == 200 else TunnelError(status))

    def was_reset(self, code: int) -> None:
        """The stream is gone."""
        if code == ErrorCodes.NO_ERROR and self._over:
            return
        self._fail(Status(410, f"the tunnel was reset with HTTP/2 error {code}"))

    def pause(self) -> None:
        """Too much waits."""
        self._reader.pause()

    def resume(self) -> None:
        """It is through."""
        self._reader.resume()

    def _fail(self, status: Status) -> None:
        self._finish(TunnelError(status))

    def _finish(self, error: TunnelError | None) -> None:
        if not self._over:
            self._over = True
            self._reader.tunnel_ended(error)


@implementer(IOpenSSLClientConnectionCreator)
class _ClientTLS:
    """TLS 1.3 with ALPN; a relay's certificate is verified by nobody."""

    def __init__(self) -> None:
        self._context = SSL.Context(SSL.TLS_METHOD)
        self._context.set_min_proto_version(SSL.TLS1_3_VERSION)
        self._context.set_alpn_protos([ALPN])

    def clientConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        return SSL.Connection(self._context, None)


class _Ready(Factory):
    noisy = False

    def __init__(self, protocol: TwistedProtocol) -> None:
        self._protocol = protocol

    def buildProtocol(self, addr: Any) -> Any:
        return self._protocol


_TLS = _ClientTLS()


def over_tls(protocol: TwistedProtocol, reactor: Any) -> TLSMemoryBIOFactory:
    """Give the factory of a protocol's TLS layer."""
    factory = TLSMemoryBIOFactory(_TLS, True, _Ready(protocol), reactor)
    factory.protocol = TLSMemoryBIOProtocol
    factory.noisy = False
    return factory


@implementer(IHandshakeListener, IPushProducer)
class RelayConnection(TwistedProtocol):
    """HTTP/2 over TLS to one relay, straight or through another tunnel.

    :ivar ready: fires when tunnels can be opened; fails where that never comes.
    """

    session: Session | None = None
    _writing = False
    _lost = False

    def __init__(self) -> None:
        self.ready: Deferred[RelayConnection] = Deferred()

    @property
    def usable(self) -> bool:
        """Whether tunnels can be opened."""
        return self.session is not None and not self.session.closed and not self.session.peer_leaving

    def open(self, payload: str, reader: TunnelReader) -> Tunnel:
        """Ask for a tunnel."""
        assert self.session is not None  # noqa: S101 - callers wait for ready
        headers = [
            (b":method", b"PUT"),
            (b":scheme", b"https"),
            (b":authority", b"wireleap"),
            (b":path", b"/"),
            (PAYLOAD, payload.encode("ascii")),
        ]
        tunnel = Tunnel(self.session.open(headers), reader)
        self._write()
        return tunnel

    def handshakeCompleted(self) -> None:
        """TLS is up."""
        transport: Any = self.transport
        self.session = Session(wake=self._write)
        transport.registerProducer(self, True)
        self._write()
        self.ready.callback(self)

    def dataReceived(self, data: bytes) -> None:
        """Bytes from the relay."""
        if self.session is not None:
            self.session.receive(data)
            self._write()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The relay is gone."""
        self._lost = True
        if self.session is not None:
            self.session.connection_lost()
        if not self.ready.called:
            self.ready.errback(reason)

    def pauseProducing(self) -> None:
        """The relay does not keep up."""
        if self.session is not None:
            self.session.writable = False

    def resumeProducing(self) -> None:
        """It has caught up."""
        if self.session is not None:
            self.session.writable = True
            self._write()

    def stopProducing(self) -> None:
        """The connection is gone; connectionLost follows."""

    def close(self) -> None:
        """Give the connection up."""
        if not self._lost:
            cast("Any", self.transport).abortConnection()

    def _write(self) -> None:
        session = self.session
        if session is None or self._writing:
            return
        self._writing = True
        try:
            while session.writable and (data := session.take()):
                cast("ITransport", self.transport).write(data)
        finally:
            self._writing = False
        if session.closed:
            self.close()


@implementer(ITransport, IPushProducer)
class TunnelTransport:
    """A tunnel as the transport of the next relay's TLS: what makes a circuit of connections."""

    def __init__(
        self,
        protocol: TwistedProtocol,
        failed: Callable[[Failure], None],
        opened: Callable[[], None] = lambda: None,
    ) -> None:
        """Carry a protocol.

        :param failed: hears why the tunnel broke, which TLS would not tell.
        :param opened: hears when the protocol is connected.
        """
        self._tell_opened = opened
        self._protocol = protocol
        self._failed = failed
        self._opened = False
        self._tunnel: Tunnel | None = None
        self._producer: Any = None
        self._paused = False
        self._owed = 0
        self._lost = False

    def carry(self, tunnel: Tunnel) -> None:
        """Use this tunnel."""
        self._tunnel = tunnel

    # What the tunnel hears

    def tunnel_opened(self) -> None:
        """The next relay was reached: its TLS begins."""
        self._opened = True
        self._protocol.makeConnection(self)
        self._tell_opened()

    def data_received(self, data: bytes, frame_done: bool) -> None:
        """Bytes from the next relay."""
        self._protocol.dataReceived(data)
        if self._paused:
            self._owed += len(data)
        elif self._tunnel is not None:
            self._tunnel.credit(len(data))

    def tunnel_ended(self, error: TunnelError | None) -> None:
        """The next relay, or the way to it, is gone."""
        self._lose(Failure(error or ConnectionDone()))

    def pause(self) -> None:
        """Too much waits."""
        if self._producer is not None:
            self._producer.pauseProducing()

    def resume(self) -> None:
        """It is through."""
        if self._producer is not None:
            self._producer.resumeProducing()

    # What the protocol asks of its transport

    def write(self, data: bytes) -> None:
        """Send bytes."""
        if self._tunnel is not None:
            self._tunnel.write(data)

    def writeSequence(self, data: Iterable[bytes]) -> None:
        """Send bytes."""
        self.write(b"".join(data))

    def loseConnection(self) -> None:
        """Send what waits, and go."""
        if self._tunnel is not None:
            self._tunnel.end()
        self._lose(Failure(ConnectionDone()))

    def abortConnection(self) -> None:
        """Go."""
        if self._tunnel is not None:
            self._tunnel.abort()
        self._lose(Failure(ConnectionLost()))

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Remember whom to pause."""
        self._producer = producer

    def unregisterProducer(self) -> None:
        """There is nobody to pause."""
        self._producer = None

    def pauseProducing(self) -> None:
        """Give no more credit."""
        self._paused = True

    def resumeProducing(self) -> None:
        """Give it again."""
        self._paused = False
        owed, self._owed = self._owed, 0
        if self._tunnel is not None:
            self._tunnel.credit(owed)

    def stopProducing(self) -> None:
        """Go."""
        self.loseConnection()

    def getPeer(self) -> Any:
        """A tunnel has no address."""
        return None

    def getHost(self) -> Any:
        """A tunnel has no address."""
        return None

    def _lose(self, reason: Failure) -> None:
        if not self._lost:
            self._lost = True
            if isinstance(reason.value, TunnelError):
                self._failed(reason)
            if self._opened:
                self._protocol.connectionLost(reason)


class Circuit:
    """A way through the network.

    :ivar hops: from the first relay to the last.
    :ivar times: seconds after which each of them was reached, when a tunnel was last opened.
    """

    def __init__(self, reactor: Any, hops: Sequence[Hop], wallet: Wallet, timeout: float = 10.0) -> None:
        """Go through ``hops``, and pay each of them from a wallet."""
        self.hops = tuple(hops)
        self.times: tuple[float, ...] = ()
        self._reactor = reactor
        self._wallet = wallet
        self._timeout = timeout
        self._first: RelayConnection | None = None
        self._connecting: list[Deferred[RelayConnection]] = []

    async def open(self, protocol: Transported, target: str, reader: TunnelReader) -> Tunnel:
        """Open a tunnel through every hop to a target.

        :param target: ``host:port``.
        :param reader: reads what comes out of it.
        :raises TunnelError: where a relay on the way could not be reached.
        """
        start = self._reactor.seconds()
        connection = await self._to_first()
        times = [self._reactor.seconds() - start]
        for hop in self.hops[1:]:
            connection = await self._through(connection, hop)
            times.append(self._reactor.seconds() - start)
        self.times = tuple(times)
        last = self.hops[-1]
        return connection.open(self._payload(last, protocol, Address.from_text(f"target://{target}")), reader)

    def close(self) -> None:
        """Give up the connection to the first relay, and all tunnels with it."""
        if self._first is not None:
            self._first.close()

    def _payload(self, hop: Hop, protocol: Transported, remote: Address) -> str:
        return Connect(protocol, remote, self._wallet.token(hop.pubkey), CLIENT_RELAY).to_json()

    async def _to_first(self) -> RelayConnection:
        if self._first is not None and self._first.usable:
            return self._first
        waiting: Deferred[RelayConnection] = Deferred()
        self._connecting.append(waiting)
        if len(self._connecting) == 1:
            address = self.hops[0].address
            connection = RelayConnection()
            tls = over_tls(connection, self._reactor)
            self._reactor.connectTCP(address.host, address.port, _Connecting(tls, connection), timeout=self._timeout)
            connection.ready.addTimeout(self._timeout, self._reactor)
            connection.ready.addBoth(self._tell)
        return await waiting

    def _tell(self, result: RelayConnection | Failure) -> None:
        waiting, self._connecting = self._connecting, []
        if isinstance(result, RelayConnection):
            self._first = result
        for each in waiting:
            each.callback(result)

    async def _through(self, connection: RelayConnection, hop: Hop) -> RelayConnection:
        index = self.hops.index(hop)
        inner = RelayConnection()
        tls = over_tls(inner, self._reactor).buildProtocol(None)
        transport = TunnelTransport(tls, inner.connectionLost)
        transport.carry(connection.open(self._payload(self.hops[index - 1], "tcp", hop.address), transport))
        inner.ready.addTimeout(self._timeout, self._reactor)
        return await inner.ready


class _Connecting(Factory):
    """A TLS factory that also tells of connections that fail."""

    noisy = False

    def __init__(self, tls: TLSMemoryBIOFactory, connection: RelayConnection) -> None:
        self._tls = tls
        self._connection = connection

    def buildProtocol(self, addr: Any) -> Any:
        return self._tls.buildProtocol(addr)

    def startedConnecting(self, connector: Any) -> None:
        pass

    def clientConnectionFailed(self, connector: Any, reason: Failure) -> None:
        if not self._connection.ready.called:
            self._connection.ready.errback(reason)

    def clientConnectionLost(self, connector: Any, reason: Failure) -> None:
        pass
