"""Figures as people read them; pure."""

from __future__ import annotations

import re
from datetime import UTC, datetime

_CONTROLS = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")
_UNITS = ("B", "KB", "MB", "GB", "TB", "PB", "EB")


def size(count: float) -> str:
    """Write bytes with three digits, in the units of the config: powers of 1024."""
    power = 0
    while abs(count) >= 999.5 and power < len(_UNITS) - 1:
        count /= 1024
        power += 1
    digits = 0 if power == 0 or abs(count) >= 99.95 else 1 if abs(count) >= 9.995 else 2
    return f"{count:.{digits}f} {_UNITS[power]}"


def rate(per_second: float) -> str:
    """Write bytes per second."""
    return f"{size(per_second)}/s"


def span(seconds: float) -> str:
    """Write a duration in its two largest units: ``3d 4h``, ``5m 2s``."""
    left = max(0, round(seconds))
    parts: list[str] = []
    for unit, length in (("d", 86_400), ("h", 3600), ("m", 60), ("s", 1)):
        count, left = divmod(left, length)
        if count or parts:
            parts.append(f"{count}{unit}")
    return " ".join(part for part in parts[:2] if not part.startswith("0")) or "0s"


def moment(at: int) -> str:
    """Write a time to the second.

    :param at: Unix milliseconds.
    """
    return f"{datetime.fromtimestamp(at / 1000, UTC):%Y-%m-%d %H:%M:%S} UTC"


def day(at: int) -> str:
    """Write a time to the minute.

    :param at: Unix milliseconds.
    """
    return f"{datetime.fromtimestamp(at / 1000, UTC):%Y-%m-%d %H:%M} UTC"


def printable(text: str) -> str:
    """Make text of others safe for a terminal: control characters but line feeds become question marks."""
    return _CONTROLS.sub("?", text)


def percent(part: float, whole: float) -> str:
    """Write a share."""
    return f"{100 * part / whole:.1f} %" if whole else "-"
