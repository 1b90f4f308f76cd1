"""Bytes, read as what is to happen."""

from __future__ import annotations


class Tape:
    """Gives zeros after its end."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def ended(self) -> bool:
        return self._at >= len(self._data)

    def byte(self) -> int:
        return self.bytes(1)[0] if not self.ended else 0

    def number(self) -> int:
        return self.byte() << 8 | self.byte()

    def bytes(self, size: int) -> bytes:
        taken = self._data[self._at : self._at + size]
        self._at += size
        return taken
