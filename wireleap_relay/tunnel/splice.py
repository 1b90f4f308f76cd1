"""Joins a client's stream with the socket of its target, and bounds what waits between.

From the client: its window is given back as the target's socket takes the
bytes, so at most a window and the socket's buffer wait here. From the target:
its socket is not read while more than ``HIGH_WATER`` waits for the client.
"""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone, MessageLengthError
from twisted.internet.interfaces import IHalfCloseableProtocol, ITCPTransport
from twisted.internet.protocol import DatagramProtocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from wireleap_relay.boundaries import Meter
from wireleap_relay.tunnel import answers
from wireleap_relay.tunnel.dial import Dialled
from wireleap_relay.tunnel.outlet import Outlet
from wireleap_relay.tunnel.stream import Headers, Stream, StreamHandler
from wireleap_relay.wire.status import Status

#: Seconds that a target has to take the last bytes of a client that is through, and bytes for each of which second more.
LINGER, LINGER_PACE = 30.0, 64 * 1024
#: Seconds without a datagram after which a UDP tunnel ends whose client has ended its side.
UDP_LINGER = 10.0
#: Bytes read from a target at once: at first, and of a tunnel whose client keeps up. What is read in
#: quick succession the system takes for a reason to widen the socket's buffer, which a client that reads nothing leaves full.
FIRST_READ, READ_SIZE = 32 * 1024, 128 * 1024
#: Bytes that may wait in the socket of a target that does not keep up: the system would let megabytes into it.
_UNSENT = 256 * 1024
#: Bytes of datagrams that wait for a slow client; more are dropped, as any router would.
_DATAGRAMS_WAITING = 64 * 1024
_REFUSED = "the target refused a datagram"


class Splice(StreamHandler):
    """What both kinds of tunnels share: how they end.

    :ivar stream: the client's side.
    :ivar done: fires when both sides are through with.
    """

    def __init__(self, stream: Stream, meter: Meter, origin: str, reactor: Any) -> None:
        """Join a stream to a target.

        :param origin: who is at fault where the target breaks (``wl-status``).
        """
        self.stream = stream
        self.done: Deferred[None] = Deferred()
        self._meter = meter
        self._origin = origin
        self._reactor = reactor

    def begin(self, early: list[tuple[bytes, bool]], client_ended: bool) -> None:
        """Let traffic flow, first what the client sent while its tunnel was being opened."""
        answers.tunnel_is_open(self.stream)
        self.stream.handler = self
        for data, frame_done in early:
            self.data_received(data, frame_done)
        if client_ended:
            self.ended([])

    def end(self, status: Status) -> None:
        """End the tunnel now, for a reason of the relay's own."""
        self.stream.finish_now(answers.ending(status))
        self.stream.stop_peer()
        self.abort()

    def broke(self, description: str) -> None:
        """The target's side broke: the client has what came before, and then is told."""
        if self.stream.closed:
            return
        self.stream.finish(answers.ending(Status(410, description, self._origin)))
        self.stream.stop_peer()

    def responded(self, headers: Headers) -> None:
        """Never happens to a server."""

    def abort(self) -> None:
        """Let the target go at once."""
        raise NotImplementedError


@implementer(IHalfCloseableProtocol)
class TcpSplice(Splice, Dialled):
    """A tunnel to a TCP target: the stream's handler and the target's protocol in one."""

    _begun = False
    _target_ended = False
    _client_ended = False
    _gone: Failure | None = None
    _owed = 0
    _outlet: Outlet

    def __init__(self, stream: Stream, meter: Meter, origin: str, reactor: Any) -> None:
        """Join a stream to a target."""
        super().__init__(stream, meter, origin, reactor)
        self._pieces: list[bytes] = []

    # The target's side

    def connectionMade(self) -> None:
        """Read nothing until the tunnel may carry traffic."""
        transport = cast("Any", self.transport)
        transport.setTcpNoDelay(True)
        transport.setTcpKeepAlive(True)
        transport.getHandle().setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT)
        transport.bufferSize = FIRST_READ
        self._outlet = Outlet(transport, self._drained)
        transport.pauseProducing()
        self.connected_callback()

    def begin(self, early: list[tuple[bytes, bool]], client_ended: bool) -> None:
        """Let traffic flow."""
        self._begun = True
        super().begin(early, client_ended)
        self._pass_on()
        if self._gone is not None:
            self._lost(self._gone)
        elif not self.stream.closed:
            self.resume()

    def dataReceived(self, data: bytes) -> None:
        """Bytes for the client."""
        size = len(data)
        self._meter.from_targets += size
        stream = self.stream
        stream.send(data)
        if size < READ_SIZE and not stream.queue and size >= self.transport.bufferSize:  # type: ignore[union-attr]
            self.transport.bufferSize = 2 * size  # type: ignore[union-attr]

    def readConnectionLost(self) -> None:
        """The target ended its side; what it sent before reaches the client first."""
        self._target_ended = True
        self.stream.finish()
        self._close_if_both_ended()

    def writeConnectionLost(self) -> None:
        """The target has all that the client sent."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The target's connection is gone."""
        self._gone = reason
        if self._begun:
            self._lost(reason)

    def _lost(self, reason: Failure) -> None:
        if isinstance(reason.value, ConnectionDone):
            self.stream.finish()
            self.stream.stop_peer()
        else:
            self.broke("the connection to the target broke")
        self.done.callback(None)

    # The client's side

    def data_received(self, data: bytes, frame_done: bool) -> None:
        """Bytes for the target."""
        if not self._pieces:
            self.stream.when_all_is_read(self._pass_on)
        self._pieces.append(data)

    def _pass_on(self) -> None:
        """Write in one go what came in one turn: a client's frames are small, and a write is dear."""
        pieces = self._pieces
        if not pieces:
            return
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        self._meter.from_clients += len(data)
        self._outlet.write(data)
        self._owed += len(data)
        if not self._outlet.waiting:
            self._drained()

    def ended(self, trailers: Headers) -> None:
        """The client ended its side; the target may go on."""
        self._pass_on()
        self._client_ended = True
        self._outlet.forget()
        cast("ITCPTransport", self.transport).loseWriteConnection()
        self._close_if_both_ended()

    def was_reset(self, code: int) -> None:
        """The client wants no more."""
        self._pass_on()
        if self._client_ended:
            # All that it had to say was said in order: the target shall have it.
            self._close()
        else:
            self.abort()

    def pause(self) -> None:
        """The client does not keep up."""
        if not self._target_ended:
            cast("Any", self.transport).pauseProducing()

    def resume(self) -> None:
        """The client has caught up."""
        if not self._target_ended:
            cast("Any", self.transport).resumeProducing()

    def abort(self) -> None:
        """Let the target go at once."""
        self._outlet.forget()
        cast("ITCPTransport", self.transport).abortConnection()

    def _drained(self) -> None:
        """The target has taken all there was: its client may send as much again."""
        owed, self._owed = self._owed, 0
        self.stream.credit(owed)

    def _close_if_both_ended(self) -> None:
        if self._client_ended and self._target_ended:
            self._close()

    def _close(self) -> None:
        """Close when the target has taken what waits, and not much later: no client is left who would give up."""
        # Also where nothing waits here: a socket whose buffer is full can't be closed in order.
        timer = self._reactor.callLater(LINGER + self._owed / LINGER_PACE, self.abort)
        self.done.addCallback(lambda _: timer.active() and timer.cancel())
        self.transport.loseConnection()  # type: ignore[union-attr]


class UdpSplice(Splice, DatagramProtocol):
    """A tunnel to a UDP target: each DATA frame of the client is a datagram."""

    def __init__(self, stream: Stream, meter: Meter, origin: str, reactor: Any) -> None:
        """Join a stream to a target."""
        super().__init__(stream, meter, origin, reactor)
        stream.datagrams = True
        self._pieces: list[bytes] = []
        self._begun = False
        self._aborted = False
        self._linger: Any = None

    # The target's side

    def begin(self, early: list[tuple[bytes, bool]], client_ended: bool) -> None:
        """Let traffic flow."""
        self._begun = True
        if self._aborted:
            answers.tunnel_is_open(self.stream)
            return self.broke(_REFUSED)
        return super().begin(early, client_ended)

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        """A datagram for the client; one that finds too many waiting is dropped."""
        if self._begun and self.stream.queued < _DATAGRAMS_WAITING:
            self._meter.from_targets += len(datagram)
            self.stream.send(datagram)
            if self._linger is not None:
                self._linger.reset(UDP_LINGER)

    def connectionRefused(self) -> None:
        """Nobody listens at the target, or did when an earlier socket had this one's port."""
        self.abort()
        if self._begun:
            self.broke(_REFUSED)

    # The client's side

    def data_received(self, data: bytes, frame_done: bool) -> None:
        """A piece of a datagram; it leaves when it is whole."""
        self._meter.from_clients += len(data)
        self.stream.credit(len(data))
        if not frame_done:
            self._pieces.append(data)
            return
        if self._pieces:
            data = b"".join([*self._pieces, data])
            self._pieces.clear()
        if self.transport is None:
            return
        # A datagram that the network won't take is lost, as on any other path.
        with suppress(OSError, MessageLengthError):
            cast("Any", self.transport).write(data)

    def ended(self, trailers: Headers) -> None:
        """The client asks no more; answers may still come."""
        self._linger = self._reactor.callLater(UDP_LINGER, self._finish)

    def _finish(self) -> None:
        self.stream.finish()
        self.abort()

    def was_reset(self, code: int) -> None:
        """The client wants no more."""
        self.abort()

    def pause(self) -> None:
        """Datagrams that find too many waiting are dropped instead."""

    def resume(self) -> None:
        """Nothing was paused."""

    def abort(self) -> None:
        """Close the socket."""
        self._aborted = True
        if self._linger is not None and self._linger.active():
            self._linger.cancel()
        self._linger = None
        if self.transport is not None:
            self.transport.stopListening()

    def stopProtocol(self) -> None:
        """The socket is closed: by us, or by the reactor when the target refused a datagram."""
        self.transport = None
        if not self._aborted:
            self.connectionRefused()
        self.done.callback(None)
