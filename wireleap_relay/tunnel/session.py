"""One HTTP/2 connection, sans-IO: bytes in, bytes out, streams between (RFC 9113).

Every frame is read and written here. h2 did it once: it makes several objects
of each frame and an event of each thing that happens, and opening a tunnel
cost four times what it does now. Tests hold this against h2.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from h2.errors import ErrorCodes
from h2.settings import SettingCodes

from wireleap_relay.tunnel import abuse, frames
from wireleap_relay.tunnel.blocks import BadBlock, Block, BlockReader
from wireleap_relay.tunnel.fields import NO_TABLE
from wireleap_relay.tunnel.reader import FrameReader
from wireleap_relay.tunnel.requests import announced_length, are_trailers, is_request, is_response
from wireleap_relay.tunnel.sender import DEFAULT_WINDOW, LARGEST_FRAME
from wireleap_relay.tunnel.settings import BadSettings, SessionLimits, read_settings
from wireleap_relay.tunnel.stream import Headers, Stream, header_value
from wireleap_relay.tunnel.streams import Streams
from wireleap_relay.tunnel.windows import ReceiveWindow, WindowPool


class Session(Streams):
    """Either side of an HTTP/2 connection.

    :ivar peer_leaving: the peer has said that it opens, or serves, no more streams.
    """

    def __init__(
        self,
        *,
        wake: Callable[[], None],
        opened: Callable[[Stream, Headers], None] | None = None,
        limits: SessionLimits | None = None,
        pool: WindowPool | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin a connection.

        :param wake: called when :meth:`take` has something to give, outside of :meth:`receive`.
        :param opened: called with each stream that the client opens and its
            request's headers; it must set the stream's handler. Without it
            this is the client's side.
        :param pool: where windows grow from; its own, if there is none to share.
        :param clock: gives seconds, from any beginning.
        """
        limits = limits or SessionLimits()
        client = opened is None
        preface = (frames.PREFACE if client else b"") + limits.announced(client)
        super().__init__(wake, limits, pool or WindowPool(), clock, preface)
        self.peer_leaving = False
        self._opened = opened
        #: Bytes that the peer has let us send on the connection so far.
        self._allowed = DEFAULT_WINDOW
        self._receiving = ReceiveWindow(limits.connection_window, limits.connection_window)
        self._blocks = BlockReader(limits.header_list)
        self._reader = FrameReader(self, b"" if client else frames.PREFACE, limits.frame)

    # What the connection is told

    @property
    def half_finished(self) -> bool:
        """Whether a preface, a frame or a block of headers has begun and not ended; payload does not count."""
        return self._reader.half_finished

    @property
    def frames_received(self) -> int:
        """Frames begun so far: while it grows, the peer is getting on."""
        return self._reader.count

    @property
    def sent(self) -> int:
        """Bytes of payload that have been sent so far."""
        return self._allowed - self._sender.window

    def receive(self, data: bytes) -> None:
        """Take bytes off the wire. Afterwards :meth:`take` may have something to give."""
        sender = self._sender
        sender.corked = True
        try:
            self._reader.receive(data)
            work, self.when_all_is_read = self.when_all_is_read, []
            for each in work:
                each()
        finally:
            sender.corked = False
        if sender.overrun:
            self.fail(ErrorCodes.ENHANCE_YOUR_CALM, abuse.UNREAD)

    def connection_lost(self) -> None:
        """The transport is gone: every stream ends."""
        if not self.closed:
            self._abandon()
        self._sender.clear()

    # Payload

    def body_begins(self, stream_id: int, length: int, padding: int) -> Stream | None:
        """Account for a DATA frame and find its stream."""
        window = self._receiving
        if not window.spend(length):
            self.fail(ErrorCodes.FLOW_CONTROL_ERROR)
            return None
        increment = window.credit(length)
        if increment:
            self._sender.say(frames.window_update(0, increment))
        stream = self.streams.get(stream_id)
        if stream is None:
            self._not_open(stream_id)
            return None
        if stream.peer_ended:
            self._drop(stream, ErrorCodes.STREAM_CLOSED)
            return None
        if not stream.receiving.spend(length):
            self._drop(stream, ErrorCodes.FLOW_CONTROL_ERROR)
            return None
        if padding:
            stream.credit(padding)
        if stream.announced is not None:
            stream.announced -= length - padding
        return stream

    def body_was_empty(self) -> None:
        """A DATA frame had no data, and ended nothing."""
        self.spend(abuse.EMPTY_FRAMES)

    def body_ended(self, stream: Stream) -> None:
        """A DATA frame ended its stream."""
        self._peer_ended(stream, [])

    # Frames other than payload

    def frame_received(self, kind: int, stream_id: int, frame: bytes) -> None:
        """Work on a frame that is not payload; a frame of unknown kind means nothing."""
        if self._reader.in_header_block and kind != frames.CONTINUATION:
            return self.fail(ErrorCodes.PROTOCOL_ERROR)
        work = _WORK.get(kind)
        if work is not None:
            return work(self, stream_id, frame)
        self.spend(abuse.OTHER_FRAMES)
        return None

    def _headers_received(self, stream_id: int, frame: bytes) -> None:
        try:
            block = self._blocks.headers(stream_id, frame)
        except BadBlock as e:
            return self.fail(e.code, e.offence)
        return None if block is None else self._block_received(block)

    def _continuation_received(self, stream_id: int, frame: bytes) -> None:
        try:
            block = self._blocks.continuation(stream_id, frame)
        except BadBlock as e:
            return self.fail(e.code, e.offence)
        return None if block is None else self._block_received(block)

    def _block_received(self, block: Block) -> None:
        stream = self.streams.get(block.stream_id)
        if stream is None:
            if self._opened is None or block.stream_id <= self._last_stream_id or not block.stream_id & 1:
                return self._not_open(block.stream_id, ends_all=True)
            return self._requested(block)
        if stream.peer_ended:
            return self._drop(stream, ErrorCodes.STREAM_CLOSED)
        if self._opened is None and not stream.answered:
            return self._answered(stream, block)
        if not block.end or not are_trailers(block.fields):
            return self._drop(stream, ErrorCodes.PROTOCOL_ERROR)
        return self._peer_ended(stream, block.fields)

    def _requested(self, block: Block) -> None:
        stream_id, fields = block.stream_id, block.fields
        self._last_stream_id = stream_id
        if self.leaving or len(self.streams) >= self.limits.streams:
            return self._refuse(stream_id, ErrorCodes.REFUSED_STREAM)
        if not is_request(fields):
            # Not the whole connection's end: others behind the same web server have tunnels on it.
            return self._refuse(stream_id, ErrorCodes.PROTOCOL_ERROR)
        stream = self._add_stream(stream_id)
        stream.peer_ended = block.end
        stream.announced = announced_length(fields)
        assert self._opened is not None  # noqa: S101 - servers only
        self._opened(stream, fields)
        if block.end and not stream.closed:
            self._peer_ended(stream, [])
        return None

    def _refuse(self, stream_id: int, code: ErrorCodes) -> None:
        """Reset a stream for something that its peer did."""
        self._send_reset(stream_id, code)
        self.spend(abuse.MADE_RESETS)

    def _drop(self, stream: Stream, code: ErrorCodes) -> None:
        self._remove(stream)
        stream.handler.was_reset(int(code))
        self._refuse(stream.id, code)

    def _answered(self, stream: Stream, block: Block) -> None:
        if not is_response(block.fields):
            return self._drop(stream, ErrorCodes.PROTOCOL_ERROR)
        if (header_value(block.fields, b":status") or b"").startswith(b"1"):
            return None
        stream.answered = True
        stream.handler.responded(block.fields)
        if block.end and not stream.closed:
            self._peer_ended(stream, [])
        return None

    def _peer_ended(self, stream: Stream, trailers: Headers) -> None:
        if stream.announced:
            return self._drop(stream, ErrorCodes.PROTOCOL_ERROR)
        stream.peer_ended = True
        stream.handler.ended(trailers)
        return self._retire(stream)

    def _priority_received(self, stream_id: int, frame: bytes) -> None:
        if len(frame) != frames.HEADER_SIZE + 5:
            return self.fail(ErrorCodes.FRAME_SIZE_ERROR)
        if not self.spend(abuse.PRIORITIES):
            return None
        if not stream_id or frames.depends_on_itself(frame, frames.HEADER_SIZE):
            return self.fail(ErrorCodes.PROTOCOL_ERROR)
        return None

    def _reset_received(self, stream_id: int, frame: bytes) -> None:
        if len(frame) != frames.HEADER_SIZE + 4:
            return self.fail(ErrorCodes.FRAME_SIZE_ERROR)
        stream = self.streams.get(stream_id)
        # A tunnel that was open was paid for, and most end like this.
        was_open = stream is not None and stream.answered and not stream.ended
        if not was_open and not self.spend(abuse.RESETS):
            return None
        if stream is not None:
            self._remove(stream)
            stream.handler.was_reset(frames.unpack_u32(frame, frames.HEADER_SIZE)[0])
        elif self._is_idle(stream_id):
            self.fail(ErrorCodes.PROTOCOL_ERROR)
        return None

    def _settings_received(self, stream_id: int, frame: bytes) -> None:
        if stream_id:
            return self.fail(ErrorCodes.PROTOCOL_ERROR)
        if not self.spend(abuse.SETTINGS, abuse.SETTINGS_COST + len(frame) // abuse.SETTINGS_BYTES):
            return None
        if frame[4] & frames.ACK:
            # Ours hold from the start: no peer breaks them before it has read them.
            return None if len(frame) == frames.HEADER_SIZE else self.fail(ErrorCodes.FRAME_SIZE_ERROR)
        try:
            values = read_settings(frame)
        except BadSettings as e:
            return self.fail(e.code)
        self._sender.say(frames.SETTINGS_ANSWER)
        if SettingCodes.HEADER_TABLE_SIZE in values:
            # RFC 9113, section 4.3.1: it waits for the word that a smaller table is in use.
            self._before_fields = NO_TABLE
        if SettingCodes.MAX_CONCURRENT_STREAMS in values:
            self.peer_streams = values[SettingCodes.MAX_CONCURRENT_STREAMS]
        if SettingCodes.MAX_FRAME_SIZE in values:
            self._sender.largest_frame = min(values[SettingCodes.MAX_FRAME_SIZE], LARGEST_FRAME)
        if SettingCodes.INITIAL_WINDOW_SIZE in values:
            self._resize_windows(values[SettingCodes.INITIAL_WINDOW_SIZE])
        return None

    def _resize_windows(self, size: int) -> None:
        # RFC 9113, section 6.9.2: the difference goes to every open stream.
        sender = self._sender
        difference = size - sender.new_stream_window
        sender.new_stream_window = size
        for stream in self.streams.values():
            stream.window += difference
            if stream.window > frames.LARGEST_WINDOW:
                return self.fail(ErrorCodes.FLOW_CONTROL_ERROR)
            if stream.queue:
                sender.schedule(stream)
        return None

    def _push_received(self, stream_id: int, frame: bytes) -> None:
        # No client pushes, and no server may where we are the client.
        self.fail(ErrorCodes.PROTOCOL_ERROR)

    def _ping_received(self, stream_id: int, frame: bytes) -> None:
        if len(frame) != frames.HEADER_SIZE + 8:
            return self.fail(ErrorCodes.FRAME_SIZE_ERROR)
        if stream_id:
            return self.fail(ErrorCodes.PROTOCOL_ERROR)
        growth, answers = self._growth, frame[4] & frames.ACK
        if not (answers and growth is not None and growth.waiting) and not self.spend(abuse.PINGS):
            return None
        if not answers:
            self._sender.say(frames.ping_answer(frame))
        elif growth is not None:
            for stream, increment in growth.answered(frame[frames.HEADER_SIZE :]):
                self._sender.say(frames.window_update(stream.id, increment))
        return None

    def _goaway_received(self, stream_id: int, frame: bytes) -> None:
        if stream_id:
            return self.fail(ErrorCodes.PROTOCOL_ERROR)
        if len(frame) < frames.HEADER_SIZE + 8:
            return self.fail(ErrorCodes.FRAME_SIZE_ERROR)
        self.peer_leaving = True
        self.spend(abuse.OTHER_FRAMES)
        return None

    def _window_update_received(self, stream_id: int, frame: bytes) -> None:
        if len(frame) != frames.HEADER_SIZE + 4:
            return self.fail(ErrorCodes.FRAME_SIZE_ERROR)
        budget = self.budget
        budget.updates -= 1
        if budget.updates < 0 and not budget.more_updates(self.sent):
            return self.fail(ErrorCodes.ENHANCE_YOUR_CALM, abuse.WINDOW_UPDATES)
        increment = frames.unpack_u32(frame, frames.HEADER_SIZE)[0] & frames.LARGEST_WINDOW
        stream = self.streams.get(stream_id)
        if stream is not None:
            stream.window += increment
            if not increment:
                self._drop(stream, ErrorCodes.PROTOCOL_ERROR)
            elif stream.window > frames.LARGEST_WINDOW:
                self._drop(stream, ErrorCodes.FLOW_CONTROL_ERROR)
            elif stream.queue:
                self._sender.schedule(stream)
        elif stream_id:
            if self._is_idle(stream_id):
                self.fail(ErrorCodes.PROTOCOL_ERROR)
        else:
            self._sender.window += increment
            self._allowed += increment
            if not increment:
                return self.fail(ErrorCodes.PROTOCOL_ERROR)
            if self._sender.window > frames.LARGEST_WINDOW:
                return self.fail(ErrorCodes.FLOW_CONTROL_ERROR)
            self._sender.window_grew()
        return None

    def _not_open(self, stream_id: int, ends_all: bool = False) -> None:
        """Answer what came for a stream that isn't open (RFC 9113, section 5.1).

        :param ends_all: the peer's idea of its streams and ours differ for good.
        """
        if self._is_idle(stream_id):
            self.fail(ErrorCodes.PROTOCOL_ERROR, abuse.STREAM_IDS)
        elif stream_id in self._we_reset:
            self.spend(abuse.LATE_FRAMES)  # it was sent before the peer knew
        elif ends_all:
            self.fail(ErrorCodes.STREAM_CLOSED)
        else:
            self._refuse(stream_id, ErrorCodes.STREAM_CLOSED)


_WORK: dict[int, Callable[[Session, int, bytes], None]] = {
    frames.HEADERS: Session._headers_received,
    frames.PRIORITY: Session._priority_received,
    frames.RST_STREAM: Session._reset_received,
    frames.SETTINGS: Session._settings_received,
    frames.PUSH_PROMISE: Session._push_received,
    frames.PING: Session._ping_received,
    frames.GOAWAY: Session._goaway_received,
    frames.WINDOW_UPDATE: Session._window_update_received,
    frames.CONTINUATION: Session._continuation_received,
}
