"""Text in HPACK's Huffman code (RFC 7541, section 5.2), decoded by zlib.

Nearly all of a request's bytes are in this code, and a loop over them in
Python costs more than all else that a request needs. But the code is a
canonical one (appendix B: by length, then by symbol), and a deflate stream may
name any canonical code of up to 15 bits as its own (RFC 1951, section 3.2.7).
So a stream's header is made that describes HPACK's code, and zlib does the rest:

- Symbols of more than 15 bits all begin with 15 ones. Deflate's *end of block*
  has that very code, as the last one of 15 bits: at such a symbol zlib stops.
- Padding consists of ones (HPACK), so padding and two more bytes of ones end the block.
- HPACK's first bit is a byte's highest, deflate's its lowest: each byte is turned around.

What zlib gives is right if and only if its code fills the data but for 0 to 7
bits: then the block's end began there, so the rest is ones. Everything else,
valid or not, is for the library's own decoder, which looks at each half byte.
"""

from __future__ import annotations

import zlib

from hpack.exceptions import HPACKDecodingError
from hpack.huffman_constants import REQUEST_CODES_LENGTH
from hpack.huffman_table import decode_huffman

_LONGEST = 15  # bits of a code in deflate
_BITS = bytes(REQUEST_CODES_LENGTH[:256])
_TURNED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
_END = b"\xff\xff"


def _stream_header() -> bytes:
    """Write what comes before the data in a deflate stream; it ends with a whole byte."""
    bits: list[int] = []

    def number(value: int, size: int) -> None:
        bits.extend(value >> bit & 1 for bit in range(size))

    # An empty block, of use only for the length of the whole.
    number(0b010, 3)
    number(0, 7)
    # The last block, with a code of its own: 257 symbols, and 2 unused distances.
    distances = 2
    number(0b101, 3)
    number(0, 5)
    number(distances - 1, 5)
    # The lengths of that code's words, in a code of which each word has 4 bits and is its own value.
    number(19 - 4, 4)
    for word in (16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15):
        number(4 if word < 16 else 0, 3)
    lengths = [size if size <= _LONGEST else 0 for size in _BITS]
    for length in [*lengths, _LONGEST, *[0] * distances]:
        bits.extend(length >> bit & 1 for bit in (3, 2, 1, 0))
    return bytes(sum(bit << i for i, bit in enumerate(bits[at : at + 8])) for at in range(0, len(bits), 8))


# Nothing refers back, so the smallest window will do.
_READY = zlib.decompressobj(-9)
_READY.decompress(_stream_header())


def decode(data: bytes) -> bytes:
    """Decode a text.

    :raises HPACKDecodingError: where it isn't one.
    """
    reader = _READY.copy()
    try:
        text = reader.decompress(data.translate(_TURNED) + _END)
    except zlib.error as e:  # the code is complete, so no bits are wrong: this is for zlib's own troubles
        raise HPACKDecodingError(str(e)) from None
    if reader.eof and 0 <= 8 * len(data) - sum(text.translate(_BITS)) < 8:
        return text
    return bytes(decode_huffman(data))
