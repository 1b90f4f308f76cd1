"""The windows in which traffic is measured (PROTOCOL: *Limits*); pure. Times are Unix milliseconds."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from typing import Protocol

import attrs

from wireleap_relay.configvalues import CalendarStart


class Frame(Protocol):
    """How long windows are, and where they begin."""

    def first(self, now: int) -> int:
        """Give the start of a window for a relay that has none yet."""

    def end(self, start: int) -> int:
        """Give the first millisecond after the window that starts then."""

    def following(self, ended: int, now: int) -> int:
        """Give the start of the window that holds ``now``, where the last one known ended before."""


@attrs.frozen
class TimeFrame:
    """Windows of one length, in milliseconds: each starts where the last one ended, after a longer absence now."""

    length: int

    def first(self, now: int) -> int:
        """Now."""
        return now

    def end(self, start: int) -> int:
        """A length later."""
        return start + self.length

    def following(self, ended: int, now: int) -> int:
        """Where the last one ended, unless a whole window was missed."""
        return ended if now < ended + self.length else now


@attrs.frozen
class CalendarFrame:
    """Windows between days of the calendar, as hosters bill."""

    anchor: CalendarStart

    def first(self, now: int) -> int:
        """The last of those days."""
        return max(mark for mark in self._marks(now) if mark <= now)

    def end(self, start: int) -> int:
        """The next of those days."""
        return min(mark for mark in self._marks(start) if mark > start)

    def following(self, ended: int, now: int) -> int:
        """The last of those days."""
        return self.first(now)

    def _marks(self, about: int) -> Iterator[int]:
        """Give those days before and after a moment, in milliseconds."""
        zone = self.anchor.zone
        today = datetime.fromtimestamp(about / 1000, UTC).astimezone(zone).date()
        for day in self._days(today):
            at = datetime.combine(day, time(self.anchor.hour, self.anchor.minute), zone)
            yield round(at.timestamp() * 1000)

    def _days(self, today: date) -> Iterator[date]:
        match self.anchor.every:
            case "day":
                yield from (today + timedelta(days) for days in (-1, 0, 1, 2))
            case "week":
                near = today + timedelta(self.anchor.day - today.weekday())
                yield from (near + timedelta(weeks=weeks) for weeks in (-1, 0, 1, 2))
            case "month":
                yield from (_in_month(today, months, self.anchor.day) for months in (-1, 0, 1, 2))


def _in_month(today: date, months: int, day: int) -> date:
    """Give a day of a month that is so many months away; in shorter months the last one."""
    years, month = divmod(today.month - 1 + months, 12)
    first = date(today.year + years, month + 1, 1)
    beyond = (first + timedelta(31)).replace(day=1)
    return min(first + timedelta(day - 1), beyond - timedelta(1))


@attrs.frozen
class Window:
    """One window.

    :ivar end: the first millisecond after it.
    """

    start: int
    end: int

    @classmethod
    def from_start(cls, start: int, frame: Frame) -> Window:
        """Give the window that starts at a time."""
        return cls(start, frame.end(start))

    def at(self, now: int, frame: Frame) -> Window:
        """Give the window that holds ``now``: this one, or a later one.

        A clock that was set back to before the start changes nothing: the
        window goes on.
        """
        return self if now < self.end else Window.from_start(frame.following(self.end, now), frame)
