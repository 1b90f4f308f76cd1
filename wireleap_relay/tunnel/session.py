"""One HTTP/2 connection, sans-IO: bytes in, bytes out, streams between.

h2 owns what makes HTTP/2 hard: header compression, settings and the states of
streams. Payload does not go through it: h2 spends three quarters of a DATA
frame's time on a trace log that can't be switched off. DATA and WINDOW_UPDATE
frames are read and written here instead, with both sides' windows; of a DATA
frame with END_STREAM h2 sees an empty twin, so that its states stay right.

What h2 wants to say is taken from it right after each call, so that its frames
and ours leave in the order they were made.
"""

from __future__ import annotations

from collections.abc import Callable

from h2.errors import ErrorCodes
from h2.events import (
    Event,
    RemoteSettingsChanged,
    RequestReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes
from h2.utilities import HeaderValidationFlags, validate_headers
from hpack.exceptions import HPACKError

from wireleap_relay.tunnel import frames
from wireleap_relay.tunnel.engine import SessionLimits, make_engine
from wireleap_relay.tunnel.reader import FrameReader
from wireleap_relay.tunnel.sender import LARGEST_FRAME, Sender
from wireleap_relay.tunnel.stream import Headers, Stream
from wireleap_relay.tunnel.windows import ReceiveWindow

_REQUEST = HeaderValidationFlags(is_client=False, is_trailer=False, is_response_header=False, is_push_promise=False)
_TRAILERS = _REQUEST._replace(is_trailer=True)


class Session:
    """Either side of an HTTP/2 connection.

    :ivar streams: the open ones, by their ids.
    :ivar closed: the connection is over: write what :meth:`take` still gives, and close.
    :ivar error: why it is over, where the peer broke the protocol.
    :ivar leaving: we have said that we serve no more streams (GOAWAY).
    :ivar peer_leaving: the peer has said that it opens, or serves, no more streams.
    """

    def __init__(
        self,
        *,
        wake: Callable[[], None],
        opened: Callable[[Stream, Headers], None] | None = None,
        limits: SessionLimits | None = None,
    ) -> None:
        """Begin a connection.

        :param wake: called when :meth:`take` has something to give, outside of :meth:`receive`.
        :param opened: called with each stream that the client opens and its
            request's headers; it must set the stream's handler. Without it
            this is the client's side.
        """
        self.limits = limits or SessionLimits()
        self.streams: dict[int, Stream] = {}
        self.closed = False
        self.error: ErrorCodes | None = None
        self.leaving = False
        self.peer_leaving = False
        self._opened = opened
        self._last_stream_id = 0
        size = self.limits.connection_window
        self._receiving = ReceiveWindow(size, size)
        client = opened is None
        self._engine = make_engine(self.limits, client)
        self._reader = FrameReader(self, b"" if client else frames.PREFACE, self.limits.frame)
        self._sender = sender = Sender(wake)
        sender.corked = True
        sender.say((frames.PREFACE if client else b"") + self.limits.announced(client))
        sender.corked = False

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
    def writable(self) -> bool:
        """Whether the transport takes more."""
        return self._sender.writable

    @writable.setter
    def writable(self, value: bool) -> None:
        self._sender.writable = value

    def receive(self, data: bytes) -> None:
        """Take bytes off the wire. Afterwards :meth:`take` may have something to give."""
        sender = self._sender
        sender.corked = True
        try:
            self._reader.receive(data)
        finally:
            sender.corked = False
        if sender.overrun:
            self.fail(ErrorCodes.ENHANCE_YOUR_CALM)

    def take(self) -> bytes:
        """Take what is to be written now; empty when nothing is. Call it only while writable."""
        return self._sender.take()

    def leave(self) -> None:
        """Tell the peer that no new streams will be served; the open ones go on (RFC 9113, section 6.8)."""
        if not self.leaving and not self.closed:
            self.leaving = True
            self._sender.say(frames.goaway(self._last_stream_id, ErrorCodes.NO_ERROR))

    def fail(self, code: ErrorCodes) -> None:
        """End the connection with an error (RFC 9113, section 5.4.1)."""
        if not self.closed:
            self.error = code
            self._abandon()
            self._sender.say(frames.goaway(self._last_stream_id, code))

    def connection_lost(self) -> None:
        """The transport is gone: every stream ends."""
        if not self.closed:
            self._abandon()
        self._sender.clear()

    def _abandon(self) -> None:
        self.closed = True
        self._sender.clear()
        for stream in list(self.streams.values()):
            self._remove(stream)
            stream.handler.was_reset(int(ErrorCodes.CONNECT_ERROR))

    # What the reader finds

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
        if stream is None or stream.peer_ended:
            # h2 knows whether such a stream was closed, and by whom, or never was.
            self._engine_receives(frames.header(0, frames.DATA, 0, stream_id))
            return None
        if not stream.receiving.spend(length):
            self._drop(stream, ErrorCodes.FLOW_CONTROL_ERROR)
            return None
        if padding:
            stream.credit(padding)
        if stream.announced is not None:
            stream.announced -= length - padding
        return stream

    def body_ended(self, stream: Stream) -> None:
        """Tell h2 of the end, by the frame's empty twin."""
        if stream.announced:
            return self._drop(stream, ErrorCodes.PROTOCOL_ERROR)
        return self._engine_receives(frames.header(0, frames.DATA, frames.END_STREAM, stream.id))

    def frame_received(self, kind: int, stream_id: int, frame: bytes) -> None:
        """Work on a frame that is not payload."""
        if not self._reader.in_header_block:
            if kind == frames.WINDOW_UPDATE:
                return self._window_update_received(stream_id, frame)
            if kind == frames.GOAWAY:
                return self._goaway_received(stream_id, frame)
        return self._engine_receives(frame)

    def _window_update_received(self, stream_id: int, frame: bytes) -> None:
        if len(frame) != frames.HEADER_SIZE + 4:
            return self.fail(ErrorCodes.FRAME_SIZE_ERROR)
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
            # Idle or closed: h2 knows which.
            self._engine_receives(frame)
        else:
            self._sender.window += increment
            if not increment:
                return self.fail(ErrorCodes.PROTOCOL_ERROR)
            if self._sender.window > frames.LARGEST_WINDOW:
                return self.fail(ErrorCodes.FLOW_CONTROL_ERROR)
            self._sender.window_grew()
        return None

    def _goaway_received(self, stream_id: int, frame: bytes) -> None:
        # Not for h2, which would let nothing more happen on the open streams.
        if stream_id:
            return self.fail(ErrorCodes.PROTOCOL_ERROR)
        if len(frame) < frames.HEADER_SIZE + 8:
            return self.fail(ErrorCodes.FRAME_SIZE_ERROR)
        self.peer_leaving = True
        return None

    def _engine_receives(self, frame: bytes) -> None:
        try:
            events = self._engine.receive_data(frame)
        except ProtocolError as e:
            self._engine.clear_outbound_data_buffer()
            # RFC 9113, section 4.3, has an error of its own for what can't be decompressed.
            code = ErrorCodes(e.error_code)
            broken = code is ErrorCodes.PROTOCOL_ERROR and isinstance(e.__cause__, HPACKError)
            self.fail(ErrorCodes.COMPRESSION_ERROR if broken else code)
            return
        self._take_from_engine()
        for event in events:
            self._dispatch(event)

    def _dispatch(self, event: Event) -> None:
        if isinstance(event, RequestReceived):
            return self._requested(event)
        if isinstance(event, RemoteSettingsChanged):
            return self._settings_changed(event)
        stream = self.streams.get(getattr(event, "stream_id", None) or 0)
        if stream is None:
            return None
        match event:
            case ResponseReceived():
                stream.handler.responded(event.headers)
            case TrailersReceived():
                self._trailers_received(stream, event.headers)
            case StreamEnded() if not stream.peer_ended:
                self._peer_ended(stream, [])
            case StreamReset():
                self._remove(stream)
                stream.handler.was_reset(int(event.error_code))
        return None

    def _requested(self, event: RequestReceived) -> None:
        stream_id = event.stream_id
        self._last_stream_id = max(self._last_stream_id, stream_id)
        if self.leaving or len(self.streams) >= self.limits.streams:
            return self._send_reset(stream_id, ErrorCodes.REFUSED_STREAM)
        try:
            # h2 would end the whole connection for a malformed request, and
            # with it the tunnels of others behind the same web server.
            headers = list(validate_headers(event.headers, _REQUEST))
        except ProtocolError:
            return self._send_reset(stream_id, ErrorCodes.PROTOCOL_ERROR)
        assert self._opened is not None  # noqa: S101 - h2 gives requests to servers only
        stream = self._add_stream(stream_id)
        stream.peer_ended = event.stream_ended is not None
        self._opened(stream, headers)
        if stream.peer_ended and not stream.closed:
            self._peer_ended(stream, [])
        return None

    def _trailers_received(self, stream: Stream, trailers: Headers) -> None:
        try:
            list(validate_headers(trailers, _TRAILERS))
        except ProtocolError:
            return self._drop(stream, ErrorCodes.PROTOCOL_ERROR)
        if stream.announced:
            return self._drop(stream, ErrorCodes.PROTOCOL_ERROR)
        return self._peer_ended(stream, trailers)

    def _peer_ended(self, stream: Stream, trailers: Headers) -> None:
        stream.peer_ended = True
        stream.handler.ended(trailers)
        self._retire(stream)

    def _settings_changed(self, event: RemoteSettingsChanged) -> None:
        sender = self._sender
        changed = event.changed_settings
        if SettingCodes.MAX_FRAME_SIZE in changed:
            sender.largest_frame = min(changed[SettingCodes.MAX_FRAME_SIZE].new_value, LARGEST_FRAME)
        if SettingCodes.INITIAL_WINDOW_SIZE in changed:
            # RFC 9113, section 6.9.2: the difference goes to every open stream.
            size = changed[SettingCodes.INITIAL_WINDOW_SIZE].new_value
            difference = size - sender.new_stream_window
            sender.new_stream_window = size
            for stream in self.streams.values():
                stream.window += difference
                if stream.window > frames.LARGEST_WINDOW:
                    return self.fail(ErrorCodes.FLOW_CONTROL_ERROR)
                if stream.queue:
                    sender.schedule(stream)
        return None

    # The verbs of streams. One that ends is gone before its last words are spoken, for whoever writes
    # them closes a connection that is being left when no stream is open.

    def open(self, headers: Headers) -> Stream:
        """Open a stream, as a client; the caller sets its handler before anything else.

        :raises h2.exceptions.H2Error: where the peer allows no more streams.
        """
        stream_id = self._engine.get_next_available_stream_id()
        self._engine.send_headers(stream_id, headers)
        stream = self._add_stream(stream_id)
        self._take_from_engine()
        return stream

    def send_headers(self, stream: Stream, headers: Headers, end: bool) -> None:
        """Send a response's headers."""
        self._engine.send_headers(stream.id, headers, end_stream=end)
        if end:
            stream.ended = True
            self._retire(stream)
        self._take_from_engine()

    def end(self, stream: Stream, trailers: Headers) -> None:
        """End our side of a stream whose queue is empty."""
        if trailers:
            return self.send_headers(stream, trailers, end=True)
        self._engine.end_stream(stream.id)
        stream.ended = True
        self._retire(stream)
        return self._take_from_engine()

    def reset(self, stream: Stream, code: ErrorCodes) -> None:
        """End a stream at once (RST_STREAM)."""
        self._remove(stream)
        self._send_reset(stream.id, code)

    def announce_window(self, stream_id: int, increment: int) -> None:
        """Let the peer send more on a stream."""
        self._sender.say(frames.window_update(stream_id, increment))

    def _add_stream(self, stream_id: int) -> Stream:
        size = self.limits.stream_window
        stream = Stream(self, self._sender, stream_id, self._sender.new_stream_window, ReceiveWindow(size, size))
        # h2 sees empty twins only, so what a content-length announces is counted here.
        known = self._engine.streams[stream_id]
        stream.announced, known._expected_content_length = known._expected_content_length, None
        self.streams[stream_id] = stream
        return stream

    def _send_reset(self, stream_id: int, code: ErrorCodes) -> None:
        self._engine.reset_stream(stream_id, code)
        self._take_from_engine()

    def _drop(self, stream: Stream, code: ErrorCodes) -> None:
        self.reset(stream, code)
        stream.handler.was_reset(int(code))

    def _retire(self, stream: Stream) -> None:
        if stream.ended and stream.peer_ended:
            self._remove(stream)

    def _remove(self, stream: Stream) -> None:
        stream.forget()
        self.streams.pop(stream.id, None)

    def _take_from_engine(self) -> None:
        said = self._engine.data_to_send()
        if said:
            self._sender.say(said)
