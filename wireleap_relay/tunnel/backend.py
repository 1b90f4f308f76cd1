"""Another web server on this machine, which strangers are shown: what they send goes there, and its answers come back.

It is told nothing of who they are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from h2.errors import ErrorCodes
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import Agent, ResponseDone
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers as WebHeaders
from twisted.web.iweb import UNKNOWN_LENGTH, IBodyProducer
from zope.interface import implementer

from wireleap_relay.configvalues import ListenAddress
from wireleap_relay.tunnel.abuse import Rates
from wireleap_relay.tunnel.stream import HIGH_WATER, Headers, Stream, StreamHandler, header_value
from wireleap_relay.tunnel.visitor import Conversation, Http1Conversation
from wireleap_relay.webclient import make_pool

#: Seconds for a connection to it.
_PATIENCE = 5.0
#: Bytes of a visitor that wait for a connection.
_MOST_EARLY = 64 * 1024
#: Those are between two neighbours only (RFC 9113, section 8.2.2).
_BETWEEN_NEIGHBOURS = frozenset(
    (b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade", b"te", b"host")
)


class WebServerDecoy:
    """Shows another web server; see :class:`wireleap_relay.tunnel.decoy.Decoy`."""

    hides = True

    def __init__(self, reactor: Any, server: ListenAddress) -> None:
        """Show the web server at an address."""
        self._agent = Agent(reactor, connectTimeout=_PATIENCE, pool=make_pool(reactor))
        self._reactor = reactor
        self._server = server

    def request(self, stream: Stream, headers: Headers) -> None:
        """Answer a request over HTTP/2."""
        stream.handler = forwarded = _Forwarded(stream)
        path = header_value(headers, b":path") or b""
        if not path.startswith(b"/"):
            return forwarded.refuse(400)
        fields = WebHeaders()
        for name, value in headers:
            if not name.startswith(b":") and name not in _BETWEEN_NEIGHBOURS:
                fields.addRawHeader(name, value)
        host = header_value(headers, b":authority") or header_value(headers, b"host")
        fields.setRawHeaders(b"host", [host or str(self._server).encode()])
        body = None
        if not stream.peer_ended:
            body = _Upload(stream)
            fields.removeHeader(b"content-length")
        forwarded.body = body
        try:
            asked = self._agent.request(
                header_value(headers, b":method") or b"", b"http://" + str(self._server).encode() + path, fields, body
            )
        except ValueError:
            return forwarded.refuse(400)
        forwarded.start(asked)
        return None

    def conversation(self, transport: Any, wake: Callable[[], None], rates: Rates) -> Conversation:
        """Talk to somebody who speaks HTTP/1.1: every byte goes there and back."""
        kind = TCP6ClientEndpoint if ":" in self._server.host else TCP4ClientEndpoint
        endpoint = kind(self._reactor, self._server.host, self._server.port, timeout=int(_PATIENCE))
        pipe = Pipe(transport, wake, rates)
        connectProtocol(endpoint, pipe).addErrback(pipe.unreachable)
        return pipe


class _Forwarded(StreamHandler):
    """A request that another web server answers."""

    def __init__(self, stream: Stream) -> None:
        self.body: _Upload | None = None
        self._stream = stream
        self._asked: Deferred[Any] | None = None
        self._page: _Download | None = None

    def start(self, asked: Deferred[Any]) -> None:
        """Wait for the answer."""
        self._asked = asked
        asked.addCallbacks(self._answered, self._failed)

    def _answered(self, response: Any) -> None:
        fields = [(b":status", b"%d" % response.code)]
        # Of an answer to HEAD the agent keeps the length to itself.
        if response.length is not UNKNOWN_LENGTH and response.request.method != b"HEAD":
            fields.append((b"content-length", b"%d" % response.length))
        for name, values in response.headers.getAllRawHeaders():
            if name.lower() not in _BETWEEN_NEIGHBOURS and name.lower() != b"content-length":
                fields += [(name.lower(), value) for value in values]
        self._stream.respond(fields)
        self._page = _Download(self._stream)
        response.deliverBody(self._page)

    def _failed(self, failure: Failure) -> None:
        if not failure.check(CancelledError):
            self.refuse(502)

    def refuse(self, code: int) -> None:
        """Answer in place of the web server."""
        self._stream.respond([(b":status", b"%d" % code)], end=True)

    def data_received(self, data: bytes, frame_done: bool) -> None:
        """Some of the request's body."""
        if self.body is not None:
            self.body.write(data)

    def ended(self, trailers: Headers) -> None:
        """The request is whole."""
        if self.body is not None:
            self.body.end()

    def was_reset(self, code: int) -> None:
        """The client wants no answer any more."""
        if self._page is not None:
            self._page.drop()
        elif self._asked is not None:
            self._asked.cancel()

    def pause(self) -> None:
        """The client does not keep up."""
        if self._page is not None:
            self._page.pause()

    def resume(self) -> None:
        """The client has caught up."""
        if self._page is not None:
            self._page.resume()

    def responded(self, headers: Headers) -> None:
        """Not for servers."""


@implementer(IBodyProducer)
class _Upload:
    """A request's body: its client may send as much as the web server takes."""

    length = UNKNOWN_LENGTH

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._consumer: Any = None
        self._early: list[bytes] = []
        self._ended = False
        self._paused = False
        self._owed = 0
        self._done: Deferred[None] = Deferred()

    def startProducing(self, consumer: Any) -> Deferred[None]:
        self._consumer = consumer
        early, self._early = self._early, []
        for data in early:
            self.write(data)
        self._end_if_through()
        return self._done

    def write(self, data: bytes) -> None:
        """Pass some on; at most a stream's window waits for a connection."""
        if self._consumer is None:
            self._early.append(data)
            return
        self._consumer.write(data)
        self._owed += len(data)
        if not self._paused:
            self.resumeProducing()

    def end(self) -> None:
        """That was all."""
        self._ended = True
        self._end_if_through()

    def _end_if_through(self) -> None:
        if self._ended and self._consumer is not None and not self._done.called:
            self._done.callback(None)

    def pauseProducing(self) -> None:
        self._paused = True

    def resumeProducing(self) -> None:
        self._paused = False
        owed, self._owed = self._owed, 0
        self._stream.credit(owed)

    def stopProducing(self) -> None:
        """The web server does not want the rest."""
        self._consumer = None
        self._early.clear()


class _Download(Protocol):
    """An answer's body on its way to the client."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def dataReceived(self, data: bytes) -> None:
        self._stream.send(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if reason.check(ResponseDone, PotentialDataLoss):
            self._stream.finish()
        else:
            self._stream.reset(ErrorCodes.INTERNAL_ERROR)

    def pause(self) -> None:
        cast("Any", self.transport).pauseProducing()

    def resume(self) -> None:
        cast("Any", self.transport).resumeProducing()

    def drop(self) -> None:
        cast("Any", self.transport).loseConnection()


class Pipe(Http1Conversation, Protocol):
    """A visitor's bytes to the web server and back; see :class:`wireleap_relay.tunnel.visitor.Conversation`."""

    def __init__(self, client: Any, wake: Callable[[], None], rates: Rates) -> None:
        """Join a client's transport; the web server's comes when it is connected."""
        super().__init__(rates)
        self.half_finished = False
        self._client = client
        self._wake = wake
        self._early = b""
        self._waiting: list[bytes] = []
        self._queued = 0
        self._over = False

    # The visitor's side

    @property
    def closed(self) -> bool:
        """Whether all that the web server had to say is out."""
        return self._over and not self._waiting

    def receive(self, data: bytes) -> None:
        """Bytes for the web server."""
        self.frames_received += 1
        if self.transport is not None:
            self.transport.write(data)
        elif len(self._early) < _MOST_EARLY:
            self._early += data
        else:
            self.fail(ErrorCodes.ENHANCE_YOUR_CALM)

    def take(self) -> bytes:
        """Give what the web server has said."""
        data = b"".join(self._waiting)
        self._waiting.clear()
        if self._queued >= HIGH_WATER and not self._over:
            cast("Any", self.transport).resumeProducing()
        self._queued = 0
        return data

    def leave(self) -> None:
        """Let it go."""
        self.leaving = True
        self.connection_lost()

    def fail(self, code: ErrorCodes, offence: str = "") -> None:
        """Let it go."""
        self.offence = offence
        self.connection_lost()

    def connection_lost(self) -> None:
        """The visitor is gone."""
        self._over = True
        self._waiting.clear()
        if self.transport is not None:
            cast("Any", self.transport).abortConnection()

    # The web server's side

    def connectionMade(self) -> None:
        """Here it is."""
        transport = cast("Any", self.transport)
        if self._over:
            transport.abortConnection()
            return
        transport.registerProducer(self._client, True)
        transport.write(self._early)
        self._early = b""

    def unreachable(self, failure: Failure) -> None:
        """There is none."""
        self._say_and_end(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

    def dataReceived(self, data: bytes) -> None:
        """Bytes for the visitor."""
        self.frames_received += 1
        self._waiting.append(data)
        self._queued += len(data)
        if self._queued >= HIGH_WATER:
            cast("Any", self.transport).pauseProducing()
        self._wake()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The web server has said all it has to say."""
        cast("Any", self.transport).unregisterProducer()
        self._client.resumeProducing()
        self._say_and_end(b"")

    def _say_and_end(self, data: bytes) -> None:
        if data and not self._over:
            self._waiting.append(data)
        if not self._over:
            self._over = True
            self._wake()
