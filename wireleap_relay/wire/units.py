"""Durations and data sizes in the network's notation (PROTOCOL: *Encodings*)."""

from __future__ import annotations

import re
from fractions import Fraction

from wireleap_relay.wire.errors import WireError

# Nanoseconds, because Go counts durations in them: sums stay exact.
_NANOSECONDS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "μs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
    "d": 86_400_000_000_000,
}
_DURATION_PART = re.compile(r"(?=\.?\d)(\d{0,20})(?:\.(\d{0,20}))?(ns|us|µs|μs|ms|s|m|h|d)", re.ASCII)
_LONGEST = 2**63 / 10**9  # compared as seconds, so that it can be read back once written
_DURATION_EXPECTED = 'expected a duration such as "5m0s", "1.5h" or "30d"'

_SIZE = re.compile(r"\s*(\d{1,20})\s*(?:([kmgtpe]b?|b)\s*)?", re.ASCII | re.IGNORECASE)
_SIZE_UNITS = ("B", "KB", "MB", "GB", "TB", "PB", "EB")
_LARGEST_SIZE = 2**64 - 1
_SIZE_EXPECTED = 'expected a data size such as "512MB" or "10TB"'


def parse_duration(text: str) -> float:
    """Read a duration: Go's syntax without a sign, plus ``d`` for 24 hours.

    :returns: seconds.
    :raises WireError: where the text is anything else.
    """
    if text == "0":
        return 0.0
    total = position = 0
    while position < len(text):
        part = _DURATION_PART.match(text, position)
        if part is None:
            raise WireError(_DURATION_EXPECTED)
        whole, fraction, unit = part.groups()
        scale = _NANOSECONDS[unit]
        total += int(whole or 0) * scale
        if fraction:
            total += int(fraction) * scale // 10 ** len(fraction)
        position = part.end()
    seconds = total / 10**9
    if not position or seconds > _LONGEST:
        raise WireError(_DURATION_EXPECTED)
    return seconds


def _nanoseconds(seconds: float) -> int:
    return round(Fraction(seconds) * 10**9)


def format_duration(seconds: float) -> str:
    """Write a duration as Go does: ``5m0s``, ``720h0m0s``, ``300ms``."""
    total = _nanoseconds(seconds)
    if total == 0:
        return "0s"
    for unit in ("ns", "µs", "ms"):
        scale = _NANOSECONDS[unit]
        if total < scale * 1000:
            return _decimal(total, scale) + unit
    minutes, rest = divmod(total, _NANOSECONDS["m"])
    hours, minutes = divmod(minutes, 60)
    text = _decimal(rest, _NANOSECONDS["s"]) + "s"
    if hours:
        return f"{hours}h{minutes}m{text}"
    return f"{minutes}m{text}" if minutes else text


def _decimal(total: int, scale: int) -> str:
    whole, rest = divmod(total, scale)
    if not rest:
        return str(whole)
    digits = len(str(scale)) - 1
    return f"{whole}." + f"{rest:0{digits}d}".rstrip("0")


def format_duration_for_people(seconds: float) -> str:
    """Write a duration with its days apart: ``30d``, ``3d3h0m0s``, ``14d13m3s``."""
    days, rest = divmod(_nanoseconds(seconds), _NANOSECONDS["d"])
    if not days:
        return format_duration(seconds)
    return f"{days}d" + (format_duration(rest / 1e9) if rest else "")


def parse_size(text: str) -> int:
    """Read a data size; units are powers of 1024, in either case.

    :returns: bytes, below 2**64.
    :raises WireError: where the text is anything else.
    """
    match = _SIZE.fullmatch(text)
    if match is None:
        raise WireError(_SIZE_EXPECTED)
    number, unit = match.groups()
    power = "bkmgtpe".index(unit[0].lower() if unit else "b")
    size: int = int(number) * 1024**power
    if size > _LARGEST_SIZE:
        raise WireError(_SIZE_EXPECTED + " below 16EB")
    return size


def format_size(size: int) -> str:
    """Write bytes in the largest unit that divides them: ``2TB``, ``1025B``."""
    power = 0
    while size and size % 1024 == 0 and power < len(_SIZE_UNITS) - 1:
        size //= 1024
        power += 1
    return f"{size}{_SIZE_UNITS[power]}"
