"""A connection's streams, and all that is said on it: the half of a session that speaks."""

from __future__ import annotations

from collections.abc import Callable

from h2.errors import ErrorCodes

from wireleap_relay.tunnel import abuse, frames
from wireleap_relay.tunnel.fields import write_fields
from wireleap_relay.tunnel.growth import Growth
from wireleap_relay.tunnel.sender import Sender
from wireleap_relay.tunnel.settings import SessionLimits
from wireleap_relay.tunnel.stream import Headers, Stream
from wireleap_relay.tunnel.windows import ReceiveWindow, WindowPool

#: Streams that we reset whose ids are remembered, for what their peer sent before it knew.
_REMEMBERED = 1000

_OFFENCES = {
    ErrorCodes.FLOW_CONTROL_ERROR: abuse.FLOW_CONTROL,
    ErrorCodes.COMPRESSION_ERROR: abuse.COMPRESSION,
    ErrorCodes.STREAM_CLOSED: abuse.STREAM_IDS,
}


class TooManyStreams(Exception):
    """The peer allows no more streams at once."""


class Streams:
    """What either side of a connection says, and its streams.

    :ivar streams: the open ones, by their ids.
    :ivar peer_streams: how many the peer lets us open at once.
    :ivar closed: the connection is over: write what :meth:`take` still gives, and close.
    :ivar error: why it is over, where the peer broke the protocol.
    :ivar offence: what the peer did then, as :mod:`wireleap_relay.tunnel.abuse` calls it.
    :ivar budget: what it may do without end, but not without measure.
    :ivar when_all_is_read: what is to be done before a turn's answers are sent.
    :ivar leaving: we have said that we serve no more streams (GOAWAY).
    """

    def __init__(
        self,
        wake: Callable[[], None],
        limits: SessionLimits,
        pool: WindowPool,
        clock: Callable[[], float],
        preface: bytes,
    ) -> None:
        """Begin with the first bytes of a connection."""
        self.limits = limits
        self.streams: dict[int, Stream] = {}
        self.peer_streams = 2**31
        self.closed = False
        self.error: ErrorCodes | None = None
        self.offence = ""
        self.budget = abuse.Budget(limits.rates)
        self.when_all_is_read: list[Callable[[], None]] = []
        self.leaving = False
        self._last_stream_id = 0
        self._we_reset: dict[int, None] = {}
        self._before_fields = b""
        self._pool = pool
        self._clock = clock
        self._growth: Growth | None = None
        self._preface = preface
        self._sender = sender = Sender(wake)
        sender.corked = True
        sender.say(preface)
        sender.corked = False

    @property
    def writable(self) -> bool:
        """Whether the transport takes more."""
        return self._sender.writable

    @writable.setter
    def writable(self, value: bool) -> None:
        self._sender.writable = value

    def take(self) -> bytes:
        """Take what is to be written now; empty when nothing is. Call it only while writable."""
        return self._sender.take()

    def leave(self) -> None:
        """Tell the peer that no new streams will be served; the open ones go on (RFC 9113, section 6.8)."""
        if not self.leaving and not self.closed:
            self.leaving = True
            self._sender.say(frames.goaway(self._last_stream_id, ErrorCodes.NO_ERROR))

    def fail(self, code: ErrorCodes, offence: str = "") -> None:
        """End the connection with an error (RFC 9113, section 5.4.1).

        :param offence: what the peer did, where the code does not say.
        """
        if not self.closed:
            self.error = code
            self.offence = offence or _OFFENCES.get(code, abuse.PROTOCOL)
            # RFC 9113, section 3.4: SETTINGS come first, whatever the peer has done before it could have them.
            greeting = self._preface if self._sender.waits(self._preface) else b""
            self._abandon()
            self._sender.say(greeting + frames.goaway(self._last_stream_id, code))

    def spend(self, kind: str, amount: int = 1) -> bool:
        """Account for what the peer did; too much of it ends the connection.

        :param kind: as :mod:`wireleap_relay.tunnel.abuse` calls it.
        :returns: whether it goes on.
        """
        if self.budget.spend(kind, amount):
            return True
        self.fail(ErrorCodes.ENHANCE_YOUR_CALM, kind)
        return False

    def _abandon(self) -> None:
        self.closed = True
        self._sender.clear()
        for stream in list(self.streams.values()):
            self._remove(stream)
            stream.handler.was_reset(int(ErrorCodes.CONNECT_ERROR))

    # The verbs of streams. One that ends is gone before its last words are spoken, for whoever writes
    # them closes a connection that is being left when no stream is open.

    def open(self, headers: Headers) -> Stream:
        """Open a stream, as a client; the caller sets its handler before anything else.

        :raises TooManyStreams: where the peer allows no more.
        """
        if len(self.streams) >= self.peer_streams:
            raise TooManyStreams
        self._last_stream_id = stream_id = self._last_stream_id + 2 if self._last_stream_id else 1
        stream = self._add_stream(stream_id)
        self._say_fields(stream_id, headers, end=False)
        return stream

    def send_headers(self, stream: Stream, headers: Headers, end: bool) -> None:
        """Send a response's headers, or trailers."""
        stream.answered = True
        if end:
            stream.ended = True
            self._retire(stream)
        self._say_fields(stream.id, headers, end)

    def end(self, stream: Stream, trailers: Headers) -> None:
        """End our side of a stream whose queue is empty."""
        if trailers:
            return self.send_headers(stream, trailers, end=True)
        stream.ended = True
        self._retire(stream)
        return self._sender.say(frames.header(0, frames.DATA, frames.END_STREAM, stream.id))

    def reset(self, stream: Stream, code: ErrorCodes) -> None:
        """End a stream at once (RST_STREAM)."""
        self._remove(stream)
        self._send_reset(stream.id, code)

    def give_credit(self, stream: Stream, increment: int) -> None:
        """Let the peer send more on a stream, as much as was taken or more."""
        if self._growth is None:
            limits = self.limits
            self._growth = Growth(self._clock, self._pool, limits.stream_window, limits.largest_stream_window)
        more, question = self._growth.credited(stream)
        self._sender.say(frames.window_update(stream.id, increment + more) + question)

    def _is_idle(self, stream_id: int) -> bool:
        """Tell whether no stream ever had this id."""
        return stream_id > self._last_stream_id or not stream_id & 1

    def _say_fields(self, stream_id: int, headers: Headers, end: bool) -> None:
        block = self._before_fields + write_fields(headers)
        self._before_fields = b""
        for frame in frames.header_frames(stream_id, block, end, self._sender.largest_frame):
            self._sender.say(frame)

    def _add_stream(self, stream_id: int) -> Stream:
        size = self.limits.stream_window
        window = ReceiveWindow(size, size, self._pool)
        stream = Stream(self, self._sender, stream_id, self._sender.new_stream_window, window)
        self.streams[stream_id] = stream
        return stream

    def _send_reset(self, stream_id: int, code: ErrorCodes) -> None:
        self._sender.say(frames.rst_stream(stream_id, code))
        self._we_reset[stream_id] = None
        if len(self._we_reset) > _REMEMBERED:
            del self._we_reset[next(iter(self._we_reset))]

    def _retire(self, stream: Stream) -> None:
        if stream.ended and stream.peer_ended:
            self._remove(stream)

    def _remove(self, stream: Stream) -> None:
        stream.forget()
        self._pool.forget(stream.receiving)
        self.streams.pop(stream.id, None)
