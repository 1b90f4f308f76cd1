"""Puts blocks of header fields together, which may come in several frames (RFC 9113, section 4.3)."""

from __future__ import annotations

import attrs
from h2.errors import ErrorCodes
from hpack.exceptions import HPACKDecodingError, OversizedHeaderListError

from wireleap_relay.tunnel import abuse, frames
from wireleap_relay.tunnel.fields import FieldReader, Fields

#: CONTINUATION frames to one HEADERS: more serve nobody but an attacker.
_MOST_FRAMES = 64


class BadBlock(Exception):
    """A block is broken, and the connection's compression with it.

    :ivar offence: as :mod:`wireleap_relay.tunnel.abuse` calls it.
    """

    def __init__(self, code: ErrorCodes, offence: str) -> None:
        super().__init__(code, offence)
        self.code = code
        self.offence = offence


@attrs.frozen
class Block:
    """The fields of a request, a response or trailers.

    :ivar end: the stream's other side ends with it.
    """

    stream_id: int
    fields: Fields
    end: bool


class BlockReader:
    """Collects one connection's blocks."""

    def __init__(self, longest: int) -> None:
        """Take lists of at most ``longest`` bytes."""
        self._fields = FieldReader(longest)
        # Fields are never much longer on the wire than they are in a list.
        self._most_bytes = 2 * longest
        self._stream_id = 0
        self._end = False
        self._pieces: list[bytes] = []

    def headers(self, stream_id: int, frame: bytes) -> Block | None:
        """Take a HEADERS frame; give the block where it is whole.

        :raises BadBlock: where it is malformed.
        """
        piece = frames.header_block(frame)
        if piece is None or not stream_id or self._pieces:
            raise BadBlock(ErrorCodes.PROTOCOL_ERROR, abuse.PROTOCOL)
        self._stream_id = stream_id
        self._end = bool(frame[4] & frames.END_STREAM)
        return self._add(piece, frame)

    def continuation(self, stream_id: int, frame: bytes) -> Block | None:
        """Take a CONTINUATION frame; give the block where it is whole.

        :raises BadBlock: where it is malformed, or nothing is to be continued.
        """
        if not self._pieces or stream_id != self._stream_id:
            raise BadBlock(ErrorCodes.PROTOCOL_ERROR, abuse.PROTOCOL)
        return self._add(frame[frames.HEADER_SIZE :], frame)

    def _add(self, piece: bytes, frame: bytes) -> Block | None:
        pieces = self._pieces
        pieces.append(piece)
        if len(pieces) > _MOST_FRAMES or sum(map(len, pieces)) > self._most_bytes:
            raise BadBlock(ErrorCodes.ENHANCE_YOUR_CALM, abuse.CONTINUATIONS)
        if not frame[4] & frames.END_HEADERS:
            return None
        self._pieces = []
        try:
            fields = self._fields.read(piece if len(pieces) == 1 else b"".join(pieces))
        except OversizedHeaderListError:
            raise BadBlock(ErrorCodes.ENHANCE_YOUR_CALM, abuse.HEADER_LIST) from None
        except HPACKDecodingError:
            raise BadBlock(ErrorCodes.COMPRESSION_ERROR, abuse.COMPRESSION) from None
        return Block(self._stream_id, fields, self._end)
