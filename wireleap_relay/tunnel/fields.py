"""Header fields on the wire: HPACK (RFC 7541)."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from hpack.exceptions import HPACKDecodingError, InvalidTableIndexError, InvalidTableSizeError, OversizedHeaderListError
from hpack.table import HeaderTable

from wireleap_relay.tunnel import huffman

Field = tuple[bytes, bytes]
Fields = list[Field]

_STATIC: tuple[Field, ...] = tuple(HeaderTable.STATIC_TABLE)
#: What a field counts beside its bytes, in a table and in a list.
_OVERHEAD = 32
_TABLE_SIZE = 4096
#: Bytes of an integer beyond its first; more than 32 bits are no number that means anything here.
_LONGEST_INTEGER = 5

#: Has the peer empty its table: our fields never go there.
NO_TABLE = b"\x20"


class FieldReader:
    """Decodes one connection's blocks of header fields, in the order they come.

    It gives what ``hpack.Decoder`` gives, and refuses what that refuses, in a
    tenth of the time: no views, no log, no class for each field.
    """

    def __init__(self, longest: int) -> None:
        """Take lists of at most ``longest`` bytes, as RFC 9113, section 6.5.2, counts them."""
        self._longest = longest
        self._table: deque[Field] = deque()
        self._room = self._table_size = _TABLE_SIZE

    def read(self, block: bytes) -> Fields:
        """Decode a block.

        :raises OversizedHeaderListError: where there is too much in it.
        :raises HPACKDecodingError: where it is broken; so is the connection's compression then.
        """
        try:
            return self._read(block)
        except IndexError:
            raise HPACKDecodingError("a block ends in the middle of a field") from None

    def _read(self, block: bytes) -> Fields:
        fields: Fields = []
        left = self._longest
        at, end = 0, len(block)
        while at < end:
            first = block[at]
            if first & 0x80:
                index, at = _integer(block, at, 0x7F)
                field = self._field(index)
            elif first & 0xE0 == 0x20:
                if fields:
                    raise HPACKDecodingError("the table's size changes behind a field")
                size, at = _integer(block, at, 0x1F)
                self._resize(size)
                continue
            else:
                keep = first & 0x40
                index, at = _integer(block, at, 0x3F if keep else 0x0F)
                if index:
                    name = self._field(index)[0]
                else:
                    name, at = _text(block, at)
                value, at = _text(block, at)
                field = (name, value)
                if keep:
                    self._keep(field)
            fields.append(field)
            left -= len(field[0]) + len(field[1]) + _OVERHEAD
            if left < 0:
                raise OversizedHeaderListError(f"a header list has more than {self._longest} bytes")
        return fields

    def _field(self, index: int) -> Field:
        if 0 < index <= 61:
            return _STATIC[index - 1]
        if not 0 < index <= 61 + len(self._table):
            raise InvalidTableIndexError(f"no field has the index {index}")
        return self._table[index - 62]

    def _keep(self, field: Field) -> None:
        size = len(field[0]) + len(field[1]) + _OVERHEAD
        if size > self._table_size:
            # RFC 7541, section 4.4: it empties the table, and is no error.
            self._table.clear()
            self._room = self._table_size
            return
        self._room -= size
        self._table.appendleft(field)
        self._evict()

    def _resize(self, size: int) -> None:
        if size > _TABLE_SIZE:
            raise InvalidTableSizeError("the table is larger than it may be")
        self._room += size - self._table_size
        self._table_size = size
        self._evict()

    def _evict(self) -> None:
        while self._room < 0:
            name, value = self._table.pop()
            self._room += len(name) + len(value) + _OVERHEAD


def _integer(block: bytes, at: int, most: int) -> tuple[int, int]:
    """Read an integer that begins in the low bits ``most`` of a byte; give it and the position behind it."""
    number = block[at] & most
    at += 1
    if number < most:
        return number, at
    for shift in range(0, 7 * _LONGEST_INTEGER, 7):
        byte = block[at]
        at += 1
        number += (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at
    raise HPACKDecodingError("an integer is too long")


def _text(block: bytes, at: int) -> tuple[bytes, int]:
    """Read a string; give it and the position behind it."""
    coded = block[at] & 0x80
    size, at = _integer(block, at, 0x7F)
    end = at + size
    data = block[at:end]
    if len(data) != size:
        raise HPACKDecodingError("a block ends in the middle of a string")
    return (huffman.decode(data) if coded else data), end


_INDEXED = {field: bytes([0x80 | index]) for index, field in reversed(list(enumerate(_STATIC, 1)))}
_NAMED = {name: index for index, (name, _) in reversed(list(enumerate(_STATIC, 1)))}


def write_fields(fields: Iterable[Field]) -> bytes:
    """Encode a block that no table but the static one is needed for, in plain text.

    A relay says little, and always the same: a table for each connection and
    a Huffman code would cost more than the bytes they save.
    """
    block = bytearray()
    for field in fields:
        indexed = _INDEXED.get(field)
        if indexed is not None:
            block += indexed
            continue
        name, value = field
        index = _NAMED.get(name)
        if index is None:
            block += b"\x00" + _length(len(name)) + name
        else:
            block += _prefixed(index, 0x0F)
        block += _length(len(value))
        block += value
    return bytes(block)


def _length(size: int) -> bytes:
    return _prefixed(size, 0x7F)


def _prefixed(number: int, most: int) -> bytes:
    if number < most:
        return bytes((number,))
    out = bytearray((most,))
    number -= most
    while number >= 0x80:
        out.append(0x80 | number & 0x7F)
        number >>= 7
    out.append(number)
    return bytes(out)
