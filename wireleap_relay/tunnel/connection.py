"""One client's connection: between its socket, TLS and the HTTP/2 session."""

from __future__ import annotations

import socket
from itertools import count
from typing import Any, cast

import attrs
from h2.errors import ErrorCodes
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from wireleap_relay.tunnel import abuse
from wireleap_relay.tunnel.hall import Hall
from wireleap_relay.tunnel.opening import Doorway
from wireleap_relay.tunnel.outlet import Outlet
from wireleap_relay.tunnel.session import Session
from wireleap_relay.tunnel.settings import SessionLimits
from wireleap_relay.tunnel.tls import Plain, TLSConnection, TLSFailed
from wireleap_relay.tunnel.visitor import NOT_TLS, Conversation

_NUMBERS = count()
#: Bytes that may wait to be sent in the socket of a client with several tunnels.
_UNSENT = 128 * 1024
#: Seconds that a client may need for what waits for it, at its pace of late, and still counts as one who reads.
_SLOW = 60


@attrs.frozen
class Patience:
    """How long a relay waits for what a client owes it, in seconds.

    :ivar handshake: for TLS and the first SETTINGS.
    :ivar headers: for the rest of a frame, or of a block of headers, that has begun.
    :ivar idle: for anything, on a connection without a tunnel that is open from our side.
    :ivar stall: for the client to read any of what its tunnels bring.
    :ivar closing: for the client to take the last bytes.
    """

    handshake: int = 10
    headers: int = 10
    idle: int = 600
    stall: int = 600
    closing: int = 5


class ClientConnection(Protocol):
    """A client, another relay's client, or the web server in front of them.

    :ivar session: there once TLS is up.
    :ivar number: it is higher for those who came later.
    :ivar network: what stands for where the client comes from; see :meth:`wireleap_relay.tunnel.hall.Hall.network`.
    """

    session: Conversation | None = None
    _outlet: Outlet
    _writing = False
    _closing = False
    _is_shared = False
    _waited = 0
    _pace = 1e6
    _sent = 0
    _seen: tuple[object, ...] = ()

    def __init__(
        self, tls: TLSConnection | Plain, doorway: Doorway, hall: Hall, limits: SessionLimits, network: bytes
    ) -> None:
        """Serve one client.

        :param hall: knows this as long as it is connected.
        """
        self.number = next(_NUMBERS)
        self._tls = tls
        self._doorway = doorway
        self._hall = hall
        self._limits = limits
        self.network = network

    # The transport's side

    def connectionMade(self) -> None:
        """A TCP connection; TLS comes next."""
        transport = cast("Any", self.transport)
        # What Twisted logs while it works for a client it signs with this, which has the client's address in it.
        transport.logstr = "client"
        if transport.getHandle().family != socket.AF_UNIX:
            transport.setTcpNoDelay(True)
            transport.setTcpKeepAlive(True)
        self._outlet = Outlet(transport, self._drained)
        self._hall.entered(self, transport.fileno())

    def dataReceived(self, data: bytes) -> None:
        """Bytes from the client."""
        if self._closing:
            return
        try:
            plain = self._tls.receive(data)
        except TLSFailed as e:
            said = self._tls.said()
            self._outlet.write(NOT_TLS if e.is_http else said)
            self._offended(abuse.TLS)
            self._hang_up()
            return
        if self._say_for_tls() and self.session is not None:
            self.session.spend(abuse.KEY_UPDATES)
        if self.session is None:
            if not self._tls.established:
                return
            self._doorway.registry.greeted(True)
            self.session = self._converse()
        if plain:
            self.session.receive(plain)
        self._write()
        if self._tls.ended:
            self._outlet.write(self._tls.close())
            self._hang_up()

    def _converse(self) -> Conversation:
        if self._tls.speaks_h2:
            return Session(
                wake=self._write,
                opened=self._doorway.request,
                limits=self._limits,
                pool=self._hall.pool,
                clock=self._doorway.reactor.seconds,
            )
        return self._doorway.decoy.conversation(self.transport, self._write, self._limits.rates)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The client is gone, and its tunnels with it."""
        self._hall.left(self)
        if self.session is not None:
            self.session.connection_lost()
        else:
            self._doorway.registry.greeted(False)

    def _drained(self) -> None:
        """The client has caught up."""
        if self.session is not None:
            self.session.writable = True
            self._write()

    def _offended(self, offence: str) -> None:
        self._hall.offended(self, offence)

    def _say_for_tls(self) -> bool:
        said = self._tls.said()
        if said:
            self._outlet.write(said)
        return bool(said)

    def _write(self) -> None:
        session = cast("Conversation", self.session)
        if self._writing or self._closing:
            return
        if not self._is_shared and len(session.streams) > 1:
            self._share()
        self._writing = True
        outlet = self._outlet
        try:
            while session.writable and (data := session.take()):
                outlet.write(self._tls.encrypt(data))
                session.writable = not outlet.waiting
        except Exception:
            # What was taken is lost, of any of its tunnels: nothing may come after that.
            self._closing = True
            self.abort()
            raise
        finally:
            self._writing = False
        if session.closed or ((session.leaving or session.peer_leaving) and not session.streams):
            self._close()

    def _share(self) -> None:
        """Keep little in the socket: nothing overtakes what is there, and a tunnel's echo waits for others' bulk.

        It costs a twentieth of the bulk's speed, so a connection with one tunnel is left as it is.
        """
        self._is_shared = True
        handle = cast("Any", self.transport).getHandle()
        if handle.family != socket.AF_UNIX:
            handle.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT)

    def _close(self) -> None:
        """Say the last bytes. That the client closes its end then tells that it has them."""
        if not self._closing:
            offence = cast("Conversation", self.session).offence
            if offence:
                self._offended(offence)
            self._outlet.write(self._tls.close())
            if offence and offence != abuse.IDLE:
                # Nobody waits for them to agree: meanwhile they would send on.
                self._hang_up()
            else:
                self._end().loseWriteConnection()

    def _hang_up(self) -> None:
        """Close both ends, once what waits is sent."""
        self._end().loseConnection()

    def _end(self) -> Any:
        self._closing = True
        self._waited = 0
        self._outlet.forget()
        return self.transport

    # The service's side

    @property
    def has_tunnels(self) -> bool:
        """Whether anybody would miss it."""
        return self.session is not None and not all(stream.for_strangers for stream in self.session.streams.values())

    @property
    def waiting(self) -> int:
        """Bytes that are kept here because somebody does not take them: the client, or its targets."""
        if self.session is None:
            return 0
        return sum(stream.queued + stream.receiving.held for stream in self.session.streams.values())

    @property
    def unread(self) -> int:
        """Bytes that wait for a client which takes next to nothing of them; 0 for one that gets on."""
        if self.session is None:
            return 0
        queued = sum(stream.queued for stream in self.session.streams.values())
        return queued if queued > self._pace * _SLOW else 0

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
        if session is not None:
            session.budget.second_passed()
            sent = session.sent
            self._pace = (self._pace + sent - self._sent) / 2
            self._sent = sent
        state: tuple[object, ...]
        if self._closing:
            state, limit = ("closing",), patience.closing
        elif session is None:
            state, limit = ("handshake",), patience.handshake
        elif session.half_finished:
            state, limit = ("headers", session.frames_received), patience.headers
        elif all(stream.ended or (stream.for_strangers and not stream.queued) for stream in session.streams.values()):
            # Of a stream that we have ended, only its client could make more; nobody has paid for what strangers want.
            state, limit = ("idle", session.frames_received), patience.idle
        elif any(stream.queued for stream in session.streams.values()):
            state, limit = ("stalled", session.sent), patience.stall
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
            if session is None and not self._closing:
                self._offended(abuse.SLOW_HANDSHAKE)
            self.abort()
            return
        if session.half_finished:
            session.fail(ErrorCodes.ENHANCE_YOUR_CALM, abuse.SLOW_HEADERS)
        elif state[0] == "stalled":
            session.fail(ErrorCodes.ENHANCE_YOUR_CALM, abuse.STALLED)
        elif session.streams:
            session.fail(ErrorCodes.NO_ERROR, abuse.IDLE)
        else:
            self._offended(abuse.IDLE)
            session.leave()
        self._write()
