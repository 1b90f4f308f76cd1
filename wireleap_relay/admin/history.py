"""What traffic was like lately, and how it has grown over the window; pure.

Nothing is finer than ten seconds: that would show single users.
"""

from __future__ import annotations

from collections import deque

import attrs

from wireleap_relay.boundaries import UsageReading

#: Seconds between looks.
LOOK_EVERY = 10.0
_RECENT = 90
_MOST_POINTS = 240


@attrs.frozen
class Rate:
    """What ten seconds were like, in bytes per second.

    :ivar at: their end, in Unix milliseconds.
    """

    at: int
    from_clients: int
    from_targets: int


@attrs.frozen
class Point:
    """What had been carried in the window by a time, in bytes.

    :ivar at: Unix milliseconds.
    """

    at: int
    carried: int


class History:
    """Remembers a quarter of an hour of rates, and at most 240 points of the present window."""

    def __init__(self) -> None:
        """Know nothing yet."""
        self._rates: deque[Rate] = deque(maxlen=_RECENT)
        self._before: tuple[float, int, int] | None = None
        self._start: int | None = None
        self._points: list[Point] = []
        self._spacing = 0

    @property
    def rates(self) -> tuple[Rate, ...]:
        """The last quarter of an hour, oldest first."""
        return tuple(self._rates)

    @property
    def points(self) -> tuple[Point, ...]:
        """The present window; a relay that was started in it knows only where it began."""
        return tuple(self._points)

    def look(self, seconds: float, now: int, from_clients: int, from_targets: int) -> None:
        """Take the meters' word.

        :param seconds: of a clock that is never set.
        :param now: Unix milliseconds.
        """
        if self._before is not None:
            then, clients, targets = self._before
            passed = seconds - then
            if passed <= 0:
                return
            self._rates.append(
                Rate(now, round((from_clients - clients) / passed), round((from_targets - targets) / passed))
            )
        self._before = (seconds, from_clients, from_targets)

    def grow(self, reading: UsageReading) -> None:
        """Take note of what the window has come to."""
        if reading.start != self._start:
            self._start, self._spacing = reading.start, 0
            self._points = [Point(reading.start, 0)]
        if reading.now - self._points[-1].at < self._spacing:
            return
        self._points.append(Point(reading.now, reading.total))
        if len(self._points) > _MOST_POINTS:
            self._points = self._points[::2]
            self._spacing = self._points[-1].at - self._points[-2].at
