"""Puts what the meters show on the windows' account; pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import attrs

from wireleap_relay.usage.stats import Stats
from wireleap_relay.usage.window import Frame, Window
from wireleap_relay.wire.keys import PublicKey


@attrs.frozen
class ClosedWindow:
    """A window that is over, and what was carried in it."""

    stats: Stats
    end: int


class Recorder:
    """The account of one relay.

    Times are Unix milliseconds. Meters only ever grow; the recorder remembers
    what it saw last, so a window's end costs no byte and counts none twice.
    """

    def __init__(self, frame: Frame, now: int, stored: Stats | None) -> None:
        """Continue what was stored, or begin now.

        :param frame: where it is another one than the stored window's, that
            window is reckoned anew from its start.
        """
        self._frame = frame
        self._window = Window.from_start(stored.created_at if stored else frame.first(now), frame)
        self._carried: Counter[PublicKey] = Counter(stored.carried if stored else {})
        self._seen: dict[PublicKey, int] = {}
        self._updated_at = stored.updated_at if stored else now

    @property
    def window(self) -> Window:
        """The present window."""
        return self._window

    def reckon(self, frame: Frame) -> None:
        """Reckon the present window anew from its start."""
        self._frame = frame
        self._window = Window.from_start(self._window.start, frame)

    def look(self, now: int, totals: Mapping[PublicKey, int]) -> ClosedWindow | None:
        """Take the meters' word.

        :param totals: by contract, all bytes since the relay started.
        :returns: the window that has ended, if one has.
        """
        for contract, total in totals.items():
            grown = total - self._seen.get(contract, 0)
            if grown:
                self._carried[contract] += grown
                self._seen[contract] = total
        self._updated_at = now
        window = self._window.at(now, self._frame)
        if window == self._window:
            return None
        closed = ClosedWindow(self.stats(), self._window.end)
        self._window = window
        self._carried = Counter()
        return closed

    def stats(self) -> Stats:
        """Give what is to be stored."""
        return Stats(self._window.start, self._updated_at, dict(self._carried))
