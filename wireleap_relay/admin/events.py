"""What was worth a line in the log lately."""

from __future__ import annotations

from collections import deque
from typing import Any

import attrs
from twisted.application.service import Service
from twisted.logger import ILogObserver, LogEvent, LogLevel, formatEvent
from zope.interface import implementer

_KEPT = 50
_LONGEST = 300


@attrs.frozen
class Event:
    """A line.

    :ivar at: Unix milliseconds.
    :ivar level: as :class:`twisted.logger.LogLevel` has it.
    """

    at: int
    level: str
    text: str


@implementer(ILogObserver)
class EventsService(Service):
    """Remembers the relay's last events, from ``info`` up; what it is told twice in a row it has once."""

    def __init__(self, publisher: Any) -> None:
        """Listen to a log."""
        self.setName("events")
        self._publisher = publisher
        self._events: deque[Event] = deque(maxlen=_KEPT)

    def startService(self) -> None:
        """Begin to listen."""
        super().startService()
        self._publisher.addObserver(self)

    def stopService(self) -> None:
        """Listen no longer."""
        super().stopService()
        self._publisher.removeObserver(self)

    def status(self) -> tuple[Event, ...]:
        """Give the events, newest first."""
        return tuple(reversed(self._events))

    def __call__(self, event: LogEvent) -> None:
        """Remember an event, if it is one of the relay's."""
        level = event.get("log_level", LogLevel.info)
        if level is LogLevel.debug or not str(event.get("log_namespace", "")).startswith("wireleap_relay"):
            return
        text = formatEvent(event)[:_LONGEST].partition("\n")[0]
        at = round(event["log_time"] * 1000)
        if self._events and self._events[-1].text == text:
            self._events.pop()
        self._events.append(Event(at, level.name, text))
