"""HTTP/2 frames as bytes (RFC 9113, sections 4 and 6)."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from h2.errors import ErrorCodes

DATA = 0x0
HEADERS = 0x1
PRIORITY = 0x2
RST_STREAM = 0x3
SETTINGS = 0x4
PUSH_PROMISE = 0x5
PING = 0x6
GOAWAY = 0x7
WINDOW_UPDATE = 0x8
CONTINUATION = 0x9

END_STREAM = 0x1
ACK = 0x1
END_HEADERS = 0x4
PADDED = 0x8
WITH_PRIORITY = 0x20

HEADER_SIZE = 9
SETTING_SIZE = 6
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
LARGEST_WINDOW = 2**31 - 1
STREAM_ID = 0x7FFFFFFF

_HEADER = struct.Struct(">HBBBL")
_U32 = struct.Struct(">L")
_SETTING = struct.Struct(">HL")

#: Reads (length >> 8, length & 255, type, flags, stream id with its reserved bit) at an offset.
unpack_header = _HEADER.unpack_from
#: Reads one number of 32 bits at an offset.
unpack_u32 = _U32.unpack_from


def header(length: int, kind: int, flags: int, stream_id: int) -> bytes:
    """Write a frame's nine bytes of header."""
    return _HEADER.pack(length >> 8, length & 0xFF, kind, flags, stream_id)


def data_frames(stream_id: int, data: bytes, largest: int) -> Iterator[bytes | memoryview]:
    """Write data as DATA frames of at most ``largest`` bytes each, as pieces for one join."""
    size = len(data)
    if size <= largest:
        yield header(size, DATA, 0, stream_id)
        yield data
        return
    view = memoryview(data)
    for start in range(0, size, largest):
        piece = view[start : start + largest]
        yield header(len(piece), DATA, 0, stream_id)
        yield piece


def header_frames(stream_id: int, block: bytes, end: bool, largest: int) -> Iterator[bytes]:
    """Write a block of header fields as HEADERS and CONTINUATION frames of at most ``largest`` bytes each."""
    kind, flags = HEADERS, END_STREAM if end else 0
    for start in range(0, len(block), largest):
        piece = block[start : start + largest]
        if start + largest >= len(block):
            flags |= END_HEADERS
        yield header(len(piece), kind, flags, stream_id) + piece
        kind, flags = CONTINUATION, 0


def header_block(frame: bytes) -> bytes | None:
    """Give the part of a HEADERS frame that holds fields; None where the frame is malformed.

    Priorities are read over, as RFC 9113, section 5.3.2, allows; but a stream that depends on itself is an error.
    """
    flags = frame[4]
    start, end = HEADER_SIZE, len(frame)
    if flags & PADDED:
        if start == end:
            return None
        end -= frame[start]
        start += 1
    if flags & WITH_PRIORITY:
        if end - start < 5 or depends_on_itself(frame, start):
            return None
        start += 5
    return frame[start:end] if start <= end else None


def depends_on_itself(frame: bytes, start: int) -> bool:
    """Tell whether the priority at an offset makes a stream depend on itself."""
    other: int = unpack_u32(frame, start)[0] ^ unpack_u32(frame, 5)[0]
    return other & STREAM_ID == 0


def rst_stream(stream_id: int, code: ErrorCodes | int) -> bytes:
    """Write a RST_STREAM frame."""
    return header(4, RST_STREAM, 0, stream_id) + _U32.pack(code)


def ping(mark: bytes) -> bytes:
    """Write a PING frame with eight bytes that its answer will have, too."""
    return header(8, PING, 0, 0) + mark


def ping_answer(frame: bytes) -> bytes:
    """Write the answer to a PING frame."""
    return header(8, PING, ACK, 0) + frame[HEADER_SIZE:]


def window_update(stream_id: int, increment: int) -> bytes:
    """Write a WINDOW_UPDATE frame."""
    return header(4, WINDOW_UPDATE, 0, stream_id) + _U32.pack(increment)


def settings(values: dict[int, int]) -> bytes:
    """Write a SETTINGS frame."""
    body = b"".join(_SETTING.pack(key, value) for key, value in values.items())
    return header(len(body), SETTINGS, 0, 0) + body


def iter_settings(frame: bytes) -> Iterator[tuple[int, int]]:
    """Read the values in a SETTINGS frame."""
    return _SETTING.iter_unpack(frame[HEADER_SIZE:])


#: Says that a peer's settings hold from now on.
SETTINGS_ANSWER = header(0, SETTINGS, ACK, 0)


def goaway(last_stream_id: int, code: ErrorCodes | int) -> bytes:
    """Write a GOAWAY frame; it tells no more than the code."""
    return header(8, GOAWAY, 0, 0) + _U32.pack(last_stream_id) + _U32.pack(code)
