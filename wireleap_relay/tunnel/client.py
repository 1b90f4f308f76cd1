"""The other side of a relay's door: HTTP/2 over TLS, as clients speak it."""

from __future__ import annotations

from typing import Any, cast

from OpenSSL import SSL
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IHandshakeListener, IOpenSSLClientConnectionCreator, IPushProducer, ITransport
from twisted.internet.protocol import Factory, connectionDone
from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from wireleap_relay.tunnel.answers import PAYLOAD
from wireleap_relay.tunnel.session import Session
from wireleap_relay.tunnel.stream import Headers, Stream
from wireleap_relay.tunnel.tls import ALPN
from wireleap_relay.wire.address import Address


@implementer(IHandshakeListener, IPushProducer)
class RelayConnection(TwistedProtocol):
    """A connection to one relay, straight or through another tunnel.

    :ivar ready: fires when the relay has said what it allows; fails where that never comes.
    """

    session: Session | None = None
    _writing = False
    _lost = False

    def __init__(self, address: Address) -> None:
        """Speak to the relay that is published at an address."""
        self.ready: Deferred[RelayConnection] = Deferred()
        self._request: Headers = [
            (b":method", b"PUT"),
            (b":scheme", b"https"),
            (b":authority", address.host_port.encode("ascii")),
            (b":path", (address.path or "/").encode("ascii")),
        ]

    @property
    def usable(self) -> bool:
        """Whether another tunnel can be asked for."""
        session = self.session
        if session is None or session.closed or session.peer_leaving:
            return False
        return len(session.streams) < session.peer_streams

    def request(self, payload: str) -> Stream:
        """Ask for what a payload says; the caller sets the stream's handler before anything else.

        :raises TooManyStreams: where the relay, or a web server before it, allows no more.
        """
        assert self.session is not None  # noqa: S101 - callers wait for ready
        return self.session.open([*self._request, (PAYLOAD, payload.encode("ascii"))])

    def handshakeCompleted(self) -> None:
        """TLS is up."""
        transport: Any = self.transport
        if transport.negotiatedProtocol != ALPN:
            self.ready.errback(NoHttp2())
            return self.close()
        return self._begin()

    def _begin(self) -> None:
        self.session = Session(wake=self._write)
        cast("Any", self.transport).registerProducer(self, True)
        self._write()

    def dataReceived(self, data: bytes) -> None:
        """Bytes from the relay."""
        if self.session is not None:
            self.session.receive(data)
            self._write()
            if self.session.frames_received and not self.ready.called:
                self.ready.callback(self)

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


class PlainConnection(RelayConnection):
    """One without TLS, as a web server on the same machine has it."""

    def connectionMade(self) -> None:
        """Begin at once."""
        self._begin()


class NoHttp2(Exception):
    """The other side does not speak HTTP/2."""

    def __str__(self) -> str:
        return "it speaks TLS, but no HTTP/2"


def over_tls(connection: RelayConnection, host: str, reactor: Any) -> TwistedProtocol:
    """Give the TLS layer of a connection that has a transport of its own."""
    return _tls_factory(connection, host, reactor).buildProtocol(None)


async def connect(reactor: Any, address: Address, patience: float, *, plain: bool = False) -> RelayConnection:
    """Connect to a relay.

    :param patience: in seconds.
    :param plain: without TLS.
    :raises Exception: what Twisted has for connections that fail, or :exc:`NoHttp2`.
    """
    connection = (PlainConnection if plain else RelayConnection)(address)
    inner = _Ready(connection) if plain else _tls_factory(connection, address.host, reactor)
    factory = _Connecting(inner, connection)
    connector = reactor.connectTCP(address.host, address.port, factory, timeout=patience)
    connection.ready.addTimeout(patience, reactor)
    try:
        return await connection.ready
    except Exception:
        connector.disconnect()
        raise


@implementer(IOpenSSLClientConnectionCreator)
class _ClientTLS:
    """TLS 1.3 with ALPN; a relay's certificate is verified by nobody."""

    _context = SSL.Context(SSL.TLS_METHOD)
    _context.set_min_proto_version(SSL.TLS1_3_VERSION)
    _context.set_alpn_protos([ALPN])

    def __init__(self, host: str) -> None:
        self._host = host

    def clientConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        connection = SSL.Connection(self._context, None)
        if not isIPAddress(self._host) and not isIPv6Address(self._host):  # RFC 6066, section 3
            connection.set_tlsext_host_name(self._host.encode("ascii"))
        return connection


class _Ready(Factory):
    noisy = False

    def __init__(self, protocol: TwistedProtocol) -> None:
        self._protocol = protocol

    def buildProtocol(self, addr: Any) -> Any:
        return self._protocol


class _Connecting(Factory):
    """A factory that also tells of connections that fail."""

    noisy = False

    def __init__(self, inner: Any, connection: RelayConnection) -> None:
        self._inner = inner
        self._connection = connection

    def buildProtocol(self, addr: Any) -> Any:
        return self._inner.buildProtocol(addr)

    def startedConnecting(self, connector: Any) -> None:
        pass

    def clientConnectionFailed(self, connector: Any, reason: Failure) -> None:
        if not self._connection.ready.called:
            self._connection.ready.errback(reason)

    def clientConnectionLost(self, connector: Any, reason: Failure) -> None:
        pass


def _tls_factory(connection: RelayConnection, host: str, reactor: Any) -> TLSMemoryBIOFactory:
    factory = TLSMemoryBIOFactory(_ClientTLS(host), True, _Ready(connection), reactor)
    factory.protocol = TLSMemoryBIOProtocol
    factory.noisy = False
    return factory
