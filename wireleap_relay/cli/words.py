"""How figures are written for people."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from wireleap_relay.admin.words import printable

_SPANS = ((86400, "day"), (3600, "hour"), (60, "minute"), (1, "second"))


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
    """Write a table; what others have written in it is made safe for a terminal.

    :param dress: colours a padded cell, given its row and column.
    """
    rows = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for number, row in enumerate(rows):
        padded = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        if dress is not None:
            padded = [dress(number, column, cell) for column, cell in enumerate(padded)]
        yield "  ".join(padded).rstrip()
