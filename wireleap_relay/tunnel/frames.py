"""HTTP/2 frames as bytes (RFC 9113, sections 4 and 6), for what does not go through h2."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from h2.errors import ErrorCodes

DATA = 0x0
HEADERS = 0x1
SETTINGS = 0x4
PUSH_PROMISE = 0x5
GOAWAY = 0x7
WINDOW_UPDATE = 0x8
CONTINUATION = 0x9

END_STREAM = 0x1
ACK = 0x1
END_HEADERS = 0x4
PADDED = 0x8

HEADER_SIZE = 9
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


def window_update(stream_id: int, increment: int) -> bytes:
    """Write a WINDOW_UPDATE frame."""
    return header(4, WINDOW_UPDATE, 0, stream_id) + _U32.pack(increment)


def settings(values: dict[int, int]) -> bytes:
    """Write a SETTINGS frame."""
    body = b"".join(_SETTING.pack(key, value) for key, value in values.items())
    return header(len(body), SETTINGS, 0, 0) + body


def goaway(last_stream_id: int, code: ErrorCodes | int) -> bytes:
    """Write a GOAWAY frame; it tells no more than the code."""
    return header(8, GOAWAY, 0, 0) + _U32.pack(last_stream_id) + _U32.pack(code)
