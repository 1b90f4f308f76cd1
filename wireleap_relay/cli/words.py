"""How figures are written for people."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

_UNITS = ("B", "KB", "MB", "GB", "TB", "PB", "EB")
_SPANS = ((86400, "day"), (3600, "hour"), (60, "minute"), (1, "second"))


def size(count: float) -> str:
    """Write bytes with three digits or so; units are powers of 1024, as in the config."""
    for unit in _UNITS[:-1]:
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 99.95 else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} {_UNITS[-1]}"


def duration(seconds: float) -> str:
    """Write a duration in its largest unit: ``3 days``."""
    for span, name in _SPANS:
        count = int(seconds // span)
        if count >= 1:
            return f"{count} {name}" + ("s" if count > 1 else "")
    return "0 seconds"


def until(at: float, now: float) -> str:
    """Write how far away a time is; both are Unix milliseconds."""
    return duration(max(0.0, at - now) / 1000)


def columns(rows: Sequence[Sequence[str]], dress: Callable[[int, int, str], str] | None = None) -> Iterator[str]:
    """Write a table.

    :param dress: colours a padded cell, given its row and column.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for number, row in enumerate(rows):
        padded = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        if dress is not None:
            padded = [dress(number, column, cell) for column, cell in enumerate(padded)]
        yield "  ".join(padded).rstrip()
