"""The windows in which traffic is measured (PROTOCOL: *Limits*); pure."""

from __future__ import annotations

import attrs


@attrs.frozen
class Window:
    """One window, in Unix milliseconds, as the network's files have them.

    :ivar length: in milliseconds.
    """

    start: int
    length: int

    @property
    def end(self) -> int:
        """The first millisecond after it."""
        return self.start + self.length

    def at(self, now: int) -> Window:
        """Give the window that holds at ``now``: this one, the next one, or one that starts now.

        A window starts where the last one ended; after more than one that
        nobody was there for, it starts now. A clock that was set back to before
        the start changes nothing: the window goes on.
        """
        if now < self.end:
            return self
        following = Window(self.end, self.length)
        return following if now < following.end else Window(now, self.length)
