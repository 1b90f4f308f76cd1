"""Cuts the bytes of an HTTP/2 connection into frames; payload passes through as it arrives."""

from __future__ import annotations

from typing import Protocol

from h2.errors import ErrorCodes

from wireleap_relay.tunnel import frames
from wireleap_relay.tunnel.stream import Stream


class FrameSink(Protocol):
    """What is done with frames."""

    closed: bool

    def frame_received(self, kind: int, stream_id: int, frame: bytes) -> None:
        """A whole frame came that is not DATA, or is DATA where none may be; its header is part of it."""

    def body_begins(self, stream_id: int, length: int, padding: int) -> Stream | None:
        """A DATA frame begins.

        :param length: what counts for flow control, in bytes.
        :param padding: how much of that is padding, with the byte that tells its length.
        :returns: the stream its payload goes to; None to drop it.
        """

    def body_ended(self, stream: Stream) -> None:
        """A DATA frame with END_STREAM is through."""

    def body_was_empty(self) -> None:
        """A DATA frame had no data, and ended nothing."""

    def fail(self, code: ErrorCodes) -> None:
        """The connection is beyond repair."""


class FrameReader:
    """Reads one side of a connection.

    A DATA frame is never collected: each piece goes to its stream's handler
    at once, so a frame costs no memory however large it is.

    :ivar in_header_block: HEADERS came without END_HEADERS, so only CONTINUATION may follow.
    :ivar count: frames read so far.
    """

    def __init__(self, sink: FrameSink, preface: bytes, largest: int) -> None:
        """Begin with the preface to expect, and the largest frame to take."""
        self.in_header_block = False
        self.count = 0
        self._sink = sink
        self._preface = preface
        self._largest = largest
        self._rest = b""
        self._settings_seen = False
        self._stream: Stream | None = None
        self._body = 0
        self._padding = 0
        self._ends = False

    @property
    def half_finished(self) -> bool:
        """Whether a preface, a frame or a block of headers has begun and not ended; payload does not count."""
        return bool(self._rest or self._preface or self.in_header_block or not self._settings_seen)

    def receive(self, data: bytes) -> None:
        """Take bytes off the wire."""
        sink = self._sink
        if self._rest:
            data = self._rest + data
            self._rest = b""
        position = self._skip_preface(data) if self._preface else 0
        end = len(data)
        if self._body or self._padding:
            position = self._pass_body(data, position, end)
        while end - position >= frames.HEADER_SIZE and not sink.closed:
            high, low, kind, flags, stream_id = frames.unpack_header(data, position)
            length = high << 8 | low
            stream_id &= frames.STREAM_ID
            self.count += 1
            if length > self._largest:
                return sink.fail(ErrorCodes.FRAME_SIZE_ERROR)
            body = position + frames.HEADER_SIZE
            if kind == frames.DATA and self._settings_seen and not self.in_header_block:
                padding = 0
                if flags & frames.PADDED:
                    if not length:
                        return sink.fail(ErrorCodes.FRAME_SIZE_ERROR)
                    if body == end:
                        break
                    padding = data[body] + 1
                    body += 1
                if padding > length or not stream_id:
                    return sink.fail(ErrorCodes.PROTOCOL_ERROR)
                self._stream = sink.body_begins(stream_id, length, padding)
                self._body = length - padding
                self._padding = padding - 1 if padding else 0
                self._ends = bool(flags & frames.END_STREAM)
                if not self._body and not self._ends:
                    sink.body_was_empty()
                position = self._pass_body(data, body, end)
                continue
            if body + length > end:
                break
            if not self._settings_seen and (kind != frames.SETTINGS or flags & frames.ACK):
                # RFC 9113, section 3.4: the preface goes on with SETTINGS.
                return sink.fail(ErrorCodes.PROTOCOL_ERROR)
            self._settings_seen = True
            sink.frame_received(kind, stream_id, data[position : body + length])
            if kind in (frames.HEADERS, frames.CONTINUATION):
                self.in_header_block = not flags & frames.END_HEADERS
            position = body + length
        if position < end:
            self._rest = data[position:]
        return None

    def _skip_preface(self, data: bytes) -> int:
        size = min(len(self._preface), len(data))
        if data[:size] != self._preface[:size]:
            self._sink.fail(ErrorCodes.PROTOCOL_ERROR)
        self._preface = self._preface[size:]
        return size

    def _pass_body(self, data: bytes, position: int, end: int) -> int:
        """Hand on what is there of a DATA frame; give the position behind it."""
        stream = self._stream
        left = self._body
        if left:
            have = end - position
            size = left if have > left else have
            if size:
                self._body = left = left - size
                if stream is not None and not stream.closed:
                    # A slice of all the bytes is no copy.
                    stream.handler.data_received(data[position : position + size], not left)
                position += size
            if left:
                return position
        if self._padding:
            size = min(self._padding, end - position)
            self._padding -= size
            position += size
            if self._padding:
                return position
        if self._ends and stream is not None and not stream.closed:
            self._sink.body_ended(stream)
        self._stream = None
        return position
