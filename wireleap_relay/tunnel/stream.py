"""One HTTP/2 stream as the tunnel on it sees it: sans-IO."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Protocol

from h2.errors import ErrorCodes

from wireleap_relay.tunnel.fields import Fields
from wireleap_relay.tunnel.windows import ReceiveWindow

if TYPE_CHECKING:
    from wireleap_relay.tunnel.sender import Sender
    from wireleap_relay.tunnel.streams import Streams

Headers = Fields

#: Bytes that wait for a slow client before its target is paused, and below
#: which it is resumed. The bound for one tunnel is HIGH_WATER and one read.
HIGH_WATER = 64 * 1024
LOW_WATER = 32 * 1024


class StreamHandler(Protocol):
    """What happens on a stream. After ``ended`` no data comes, after ``was_reset`` nothing does."""

    def responded(self, headers: Headers) -> None:
        """A response's headers came; clients only."""

    def data_received(self, data: bytes, frame_done: bool) -> None:
        """Payload came, as it arrives: ``frame_done`` marks the last piece of a DATA frame.

        Whoever handles it owes :meth:`Stream.credit` for every byte.
        """

    def ended(self, trailers: Headers) -> None:
        """The peer ended its side."""

    def was_reset(self, code: int) -> None:
        """The peer reset the stream, or its connection is gone."""

    def pause(self) -> None:
        """More waits to be sent than should: produce no more."""

    def resume(self) -> None:
        """Produce again."""


class Stream:
    """The verbs of one stream.

    :ivar handler: hears of what the peer does; set it as soon as the stream is known.
    :ivar window: bytes the peer lets us send on this stream; may be below 0 (RFC 9113, section 6.9.2).
    :ivar receiving: what the peer may send.
    :ivar answered: the response's headers have been sent, or have come.
    :ivar announced: bytes that the peer's content-length still promises; None without one.
    :ivar queued: bytes that wait to be sent.
    :ivar datagrams: each piece sent is a frame of its own, and one that no window takes whole is dropped.
    :ivar for_strangers: it has a request that opens no tunnel.
    :ivar closed: nothing more will be sent or received.
    """

    __slots__ = (
        "_farewell",
        "_paused",
        "_sender",
        "_session",
        "_stops_peer",
        "announced",
        "answered",
        "closed",
        "datagrams",
        "ended",
        "for_strangers",
        "handler",
        "id",
        "peer_ended",
        "queue",
        "queued",
        "receiving",
        "scheduled",
        "window",
    )

    handler: StreamHandler

    def __init__(self, session: Streams, sender: Sender, stream_id: int, window: int, receiving: ReceiveWindow) -> None:
        self._session = session
        self._sender = sender
        self.id = stream_id
        self.window = window
        self.receiving = receiving
        self.queue: deque[bytes] = deque()
        self.queued = 0
        self.announced: int | None = None
        self.answered = False
        self.datagrams = False
        self.for_strangers = False
        self.scheduled = False
        self.ended = False
        self.peer_ended = False
        self.closed = False
        self._paused = False
        self._farewell: Headers | None = None
        self._stops_peer = False

    def respond(self, headers: Headers, end: bool = False) -> None:
        """Send headers, and with ``end`` nothing after them."""
        if not self.closed:
            self._session.send_headers(self, headers, end)

    def send(self, data: bytes) -> None:
        """Send payload, now or when windows and the connection allow; not after :meth:`finish`."""
        if self.closed or self.ended or not data:
            return
        if not self.queue and self._sender.send_at_once(self, data):
            return
        self.queue.append(data)
        self.queued += len(data)
        self._sender.schedule(self)
        if self.queued >= HIGH_WATER and not self._paused:
            self._paused = True
            self.handler.pause()

    def can_send_at_once(self, size: int) -> bool:
        """Tell whether payload of this size would leave without waiting."""
        return not self.closed and not self.queue and self._sender.would_send_at_once(self, size)

    def finish(self, trailers: Headers | None = None) -> None:
        """End our side once all that waits is sent, with trailers where there are any."""
        if self.closed or self.ended or self._farewell is not None:
            return
        if self.queue:
            self._farewell = trailers or []
        else:
            self._say_farewell(trailers or [])

    def finish_now(self, trailers: Headers) -> None:
        """End our side at once; what waits is dropped."""
        if not self.closed and not self.ended:
            self.queue.clear()
            self.queued = 0
            self._say_farewell(trailers)

    def stop_peer(self) -> None:
        """Tell the peer that it need not go on, once our side has ended (RFC 9113, section 8.1)."""
        if self.ended:
            self.reset(ErrorCodes.NO_ERROR)
        elif not self.peer_ended:
            self._stops_peer = True

    def reset(self, code: ErrorCodes = ErrorCodes.CANCEL) -> None:
        """End both sides at once; what waits is dropped."""
        if not self.closed:
            self._session.reset(self, code)

    def when_all_is_read(self, work: Callable[[], None]) -> None:
        """Do some work when all that has come in this turn has been handed out."""
        self._session.when_all_is_read.append(work)

    def spend(self, kind: str) -> None:
        """Account for what the peer did (:mod:`wireleap_relay.tunnel.abuse`); too much of it ends the connection."""
        self._session.spend(kind)

    def credit(self, amount: int) -> None:
        """Let the peer send this much more: as many bytes have left the process."""
        if not self.closed and not self.peer_ended:
            increment = self.receiving.credit(amount)
            if increment:
                self._session.give_credit(self, increment)

    # For the session and its queue:

    def next_payload(self, quantum: int, most: int) -> bytes:
        """Take about ``quantum`` bytes off the queue, and no more than ``most``."""
        data = self.queue.popleft()
        self.queued -= len(data)
        if self.datagrams:
            return data if len(data) <= most else b""
        most = min(most, quantum)
        if len(data) > most:
            self.queue.appendleft(data[most:])
            self.queued += len(data) - most
            return data[:most]
        pieces, room = [data], most - len(data)
        while self.queue and len(self.queue[0]) <= room:
            pieces.append(self.queue.popleft())
            room -= len(pieces[-1])
            self.queued -= len(pieces[-1])
        return b"".join(pieces) if len(pieces) > 1 else data

    def drained(self) -> None:
        """Some of the queue has left."""
        if self._paused and self.queued <= LOW_WATER:
            self._paused = False
            self.handler.resume()
        if not self.queue and self._farewell is not None:
            self._say_farewell(self._farewell)

    def _say_farewell(self, trailers: Headers) -> None:
        self._farewell = None
        self._session.end(self, trailers)
        if self._stops_peer:
            self.reset(ErrorCodes.NO_ERROR)

    def forget(self) -> None:
        """Drop what waits; nothing more will happen here."""
        self.closed = True
        self.queue.clear()
        self.queued = 0
        self._farewell = None


def header_value(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> bytes | None:
    """Find a header's value; None where it isn't there."""
    for key, value in headers:
        if key == name:
            return value
    return None
