"""A client's connection to a relay: HTTP/2 over TLS, straight or through another tunnel."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, cast

from OpenSSL import SSL
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IHandshakeListener, IOpenSSLClientConnectionCreator, IPushProducer, ITransport
from twisted.internet.protocol import Factory, connectionDone
from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from wireleap_relay.sandbox.tunnel import Tunnel, TunnelError, TunnelReader
from wireleap_relay.tunnel.answers import PAYLOAD
from wireleap_relay.tunnel.session import Session
from wireleap_relay.tunnel.tls import ALPN


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
