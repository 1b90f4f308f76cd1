"""How far traffic has come towards its limits (PROTOCOL: *Limits*); pure.

Counts and limits are bytes per window. Shares are reckoned in whole numbers, so
a limit is reached at the same byte on every machine.
"""

from __future__ import annotations

from typing import Literal

import attrs

from wireleap_relay.boundaries import UsageReading

#: ``soft``: open no new tunnels; ``hard``: close the open ones, too.
Stage = Literal["free", "soft", "hard"]

SOFT_PERCENT = 90
HARD_PERCENT = 93


def stage(carried: int, limit: int | None) -> Stage:
    """Tell which stage a count has come to under a limit."""
    if limit is None or carried * 100 <= limit * SOFT_PERCENT:
        return "free"
    return "soft" if carried * 100 <= limit * HARD_PERCENT else "hard"


@attrs.frozen
class Outlook:
    """How traffic stands with its limit, and where it is going at the present pace.

    :ivar carried: bytes in the window so far.
    :ivar limit: bytes; None for none.
    :ivar forecast: bytes at the end of the window.
    :ivar reached_at: Unix milliseconds at which no tunnel may be open any
        more; None where that won't come in this window.
    """

    carried: int
    limit: int | None
    forecast: int
    reached_at: int | None


def outlook(carried: int, pace: float, limit: int | None, reading: UsageReading) -> Outlook:
    """Look ahead to the end of the window.

    :param pace: in bytes per second.
    """
    left = max(0, reading.end - reading.now)
    reached_at = None
    if limit is not None:
        missing = -(-limit * HARD_PERCENT // 100) - carried
        if missing <= 0:
            reached_at = reading.now
        elif pace > 0 and missing / pace * 1000 <= left:
            reached_at = reading.now + round(missing / pace * 1000)
    return Outlook(carried, limit, carried + round(pace * left / 1000), reached_at)


@attrs.frozen
class GlobalLimit:
    """Over all contracts.

    :ivar limit: bytes; None for none.
    :ivar soft: whether it has a soft stage, too; the network's relays have none.
    """

    limit: int | None = None
    soft: bool = False

    def stage(self, reading: UsageReading) -> Stage:
        """Tell which stage all traffic together has come to."""
        found = stage(reading.total, self.limit)
        return "free" if found == "soft" and not self.soft else found

    def outlook(self, reading: UsageReading) -> Outlook:
        """Look ahead."""
        return outlook(reading.total, sum(reading.pace.values()), self.limit, reading)


def worst(*stages: Stage) -> Stage:
    """Give the strictest of several stages."""
    return max(stages, key=("free", "soft", "hard").index)
