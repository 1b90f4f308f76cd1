"""One client's connection: between the transport and the HTTP/2 session."""

from __future__ import annotations

from typing import Any, cast

import attrs
from h2.errors import ErrorCodes
from twisted.internet.interfaces import IHandshakeListener, IPushProducer
from twisted.internet.protocol import Protocol, connectionDone
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from wireleap_relay.tunnel.engine import SessionLimits
from wireleap_relay.tunnel.opening import Doorway
from wireleap_relay.tunnel.session import Session
from wireleap_relay.tunnel.tls import ALPN


@attrs.frozen
class Patience:
    """How long a relay waits for what a client owes it, in seconds.

    :ivar handshake: for TLS and the first SETTINGS.
    :ivar headers: for the rest of a frame, or of a block of headers, that has begun.
    :ivar idle: for anything, on a connection without a tunnel that is open from our side.
    :ivar closing: for the client to take the last bytes.
    """

    handshake: int = 10
    headers: int = 10
    idle: int = 600
    closing: int = 5


@implementer(IHandshakeListener, IPushProducer)
class ClientConnection(Protocol):
    """A client, or another relay's client, over TLS.

    :ivar session: there once TLS is up.
    """

    session: Session | None = None
    _writing = False
    _closing = False
    _waited = 0
    _seen: tuple[object, ...] = ()

    def __init__(self, doorway: Doorway, connections: set[ClientConnection], limits: SessionLimits) -> None:
        """Serve one client.

        :param connections: holds this as long as it is connected.
        """
        self._doorway = doorway
        self._connections = connections
        self._limits = limits

    # The transport's side

    def connectionMade(self) -> None:
        """A TCP connection; TLS comes next."""
        self._connections.add(self)
        transport = cast("Any", self.transport)
        transport.setTcpNoDelay(True)
        transport.setTcpKeepAlive(True)

    def handshakeCompleted(self) -> None:
        """TLS is up: HTTP/2 begins."""
        transport = cast("TLSMemoryBIOProtocol", self.transport)
        if transport.negotiatedProtocol != ALPN:
            transport.abortConnection()
            return
        self.session = Session(wake=self._write, opened=self._doorway.request, limits=self._limits)
        transport.registerProducer(self, True)
        self._write()

    def dataReceived(self, data: bytes) -> None:
        """Bytes from the client."""
        if self.session is not None and not self._closing:
            self.session.receive(data)
            self._write()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The client is gone, and its tunnels with it."""
        self._connections.discard(self)
        if self.session is not None:
            self.session.connection_lost()

    def pauseProducing(self) -> None:
        """The client does not keep up."""
        cast("Session", self.session).writable = False

    def resumeProducing(self) -> None:
        """The client has caught up."""
        cast("Session", self.session).writable = True
        self._write()

    def stopProducing(self) -> None:
        """The connection is gone; connectionLost follows."""

    def _write(self) -> None:
        session = cast("Session", self.session)
        if self._writing or self._closing:
            return
        self._writing = True
        try:
            while session.writable and (data := session.take()):
                cast("Any", self.transport).write(data)
        finally:
            self._writing = False
        if session.closed or ((session.leaving or session.peer_leaving) and not session.streams):
            self._close()

    def _close(self) -> None:
        self._closing = True
        self._waited = 0
        transport = cast("Any", self.transport)
        transport.unregisterProducer()
        transport.loseConnection()

    # The service's side

    def leave(self) -> None:
        """Serve the open tunnels to their end, and no others."""
        if self.session is None:
            cast("Any", self.transport).abortConnection()
        else:
            self.session.leave()
            self._write()

    def abort(self) -> None:
        """Drop the client and its tunnels."""
        cast("Any", self.transport).abortConnection()

    def look_at_watch(self, patience: Patience) -> None:
        """Called once a second: end what a client has kept waiting for too long."""
        session = self.session
        state: tuple[object, ...]
        if self._closing:
            state, limit = ("closing",), patience.closing
        elif session is None:
            state, limit = ("handshake",), patience.handshake
        elif session.half_finished:
            state, limit = ("headers", session.frames_received), patience.headers
        elif all(stream.ended for stream in session.streams.values()):
            # Of a stream that we have ended, only its client could make more.
            state, limit = ("idle", session.frames_received), patience.idle
        else:
            self._seen = ()
            return
        if state != self._seen:
            self._seen = state
            self._waited = 0
            return
        self._waited += 1
        if self._waited < limit:
            return
        if session is None or self._closing:
            self.abort()
        elif session.half_finished:
            session.fail(ErrorCodes.ENHANCE_YOUR_CALM)
        elif session.streams:
            session.fail(ErrorCodes.NO_ERROR)
        else:
            self.leave()
