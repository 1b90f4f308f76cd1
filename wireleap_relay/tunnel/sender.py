"""What a connection has to send, and whose turn it is: sans-IO."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from wireleap_relay.tunnel import frames
from wireleap_relay.tunnel.stream import Stream

#: Bytes of one stream's payload that leave before the next stream's turn.
QUANTUM = 16 * 1024
#: Bytes of payload handed to the transport before it is asked whether it wants more.
TURN = 128 * 1024
#: The largest DATA frame written, where the peer allows more.
LARGEST_FRAME = 64 * 1024
#: Frames other than DATA that may wait for a peer which does not read.
MOST_WAITING = 10_000

DEFAULT_WINDOW = 65_535
_DEFAULT_FRAME = 16_384


class Sender:
    """One connection's sending side.

    Streams that have payload waiting, and a window to send it in, stand in a
    ring; each turn takes a quantum from the first and puts it last. Invariant:
    a stream is ``scheduled`` if and only if it stands in the ring.

    :ivar writable: whether the transport takes more; set by whoever writes.
    :ivar corked: set while input is being worked on, so that its answers leave together.
    :ivar window: bytes the peer lets us send over all streams.
    :ivar new_stream_window: bytes it lets us send on a stream that opens.
    :ivar largest_frame: bytes of payload in a DATA frame that we write.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        """Begin; ``wake`` is called when :meth:`take` has something to give."""
        self.writable = True
        self.corked = False
        self.window = DEFAULT_WINDOW
        self.new_stream_window = DEFAULT_WINDOW
        self.largest_frame = _DEFAULT_FRAME
        self._wake = wake
        self._out: list[bytes | memoryview] = []
        self._ring: deque[Stream] = deque()

    @property
    def overrun(self) -> bool:
        """Whether more frames wait than an honest peer would leave unread."""
        return len(self._out) > MOST_WAITING

    def waits(self, frame: bytes) -> bool:
        """Tell whether this very frame is the next to be sent."""
        return bool(self._out) and self._out[0] is frame

    def say(self, frame: bytes) -> None:
        """Send a frame behind what waits already; it counts for no window."""
        self._out.append(frame)
        self._speak()

    def would_send_at_once(self, stream: Stream, size: int) -> bool:
        """Tell whether nothing stands before a stream's next payload: no window, no neighbour, no transport."""
        return self.writable and not self._ring and size <= stream.window and size <= self.window

    def send_at_once(self, stream: Stream, data: bytes) -> bool:
        """Send payload if nothing stands before it.

        :returns: whether it was sent.
        """
        size = len(data)
        if not self.would_send_at_once(stream, size):
            return False
        self._frame(stream, data, size)
        self._speak()
        return True

    def schedule(self, stream: Stream) -> None:
        """Give a stream with payload waiting its place in the ring."""
        if not stream.scheduled and stream.window > 0:
            stream.scheduled = True
            self._ring.append(stream)
            if self.window > 0:
                self._speak()

    def window_grew(self) -> None:
        """The peer lets us send more on the connection."""
        if self._ring:
            self._speak()

    def take(self) -> bytes:
        """Take what is to be written now; empty when nothing is. Call it only while writable."""
        budget = TURN
        ring = self._ring
        while ring and budget > 0 and self.window > 0:
            stream = ring.popleft()
            stream.scheduled = False
            if not stream.queue or stream.window <= 0:
                continue
            data = stream.next_payload(QUANTUM, min(stream.window, self.window))
            if data:
                self._frame(stream, data, len(data))
            budget -= len(data)
            if stream.queue and stream.window > 0:
                stream.scheduled = True
                ring.append(stream)
            stream.drained()
        out = b"".join(self._out)
        self._out.clear()
        return out

    def clear(self) -> None:
        """Forget everything: nothing can be sent any more."""
        self._out.clear()
        self._ring.clear()

    def _frame(self, stream: Stream, data: bytes, size: int) -> None:
        stream.window -= size
        self.window -= size
        self._out.extend(frames.data_frames(stream.id, data, self.largest_frame))

    def _speak(self) -> None:
        if self.writable and not self.corked:
            self._wake()
