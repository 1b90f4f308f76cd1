"""How much a peer may send before it has to wait (RFC 9113, section 5.2), and who gets how much of the memory for it."""

from __future__ import annotations

import attrs

#: What one tunnel's client may send ahead of its target at first, in bytes. With the
#: target's own buffer a window bounds what a stalled target can hold here.
STREAM_WINDOW = 64 * 1024
#: What a window may grow to: over a path of 100 ms it lets 160 MB/s through.
LARGEST_STREAM_WINDOW = 32 * 2**20

#: What a connection's client may send, over all its tunnels, within one round
#: trip. It is given back at once, not as targets drain, and so holds nothing: a tunnel that stalls is
#: held by its own window and never takes its neighbours' share.
CONNECTION_WINDOW = 64 * 2**20

#: Bytes that all windows of a process may have grown by together.
POOL = 256 * 2**20
#: Growth that is less than this is not worth a frame.
_LEAST = 16 * 1024


@attrs.define(eq=False)
class ReceiveWindow:
    """One receive window; credit is returned in steps of half its size.

    :ivar size: bytes the peer may have under way.
    :ivar left: bytes the peer may still send.
    :ivar pool: where it grows from.
    :ivar excess: bytes beyond its size that the peer was promised before it was narrowed.
    :ivar taken: bytes that found their way out of here so far.
    """

    size: int
    left: int
    pool: WindowPool | None = None
    excess: int = 0
    taken: int = 0
    _due: int = 0

    @property
    def held(self) -> int:
        """Bytes that came and have not found their way out of here."""
        return self.size + self.excess - self.left - self._due

    def spend(self, amount: int) -> bool:
        """Account for bytes received.

        :returns: False where the peer was not allowed to send them.
        """
        self.left -= amount
        return self.left >= 0

    def credit(self, amount: int) -> int:
        """Account for bytes that found their way out of here.

        :returns: the increment to announce now; 0 for not yet.
        """
        self.taken += amount
        if self.excess:
            amount -= self._give_up(amount)
        due = self._due + amount
        if due * 2 < self.size:
            self._due = due
            return 0
        self._due = 0
        self.left += due
        return due

    def widen(self, amount: int) -> None:
        """Let the peer have more under way; whoever asks announces it."""
        self.size += amount
        self.left += amount

    def narrow(self, amount: int) -> None:
        """Let the peer have less under way, from when it has used up what it was promised."""
        self.size -= amount
        self.excess += amount

    def _give_up(self, amount: int) -> int:
        given_up = min(amount, self.excess)
        self.excess -= given_up
        if self.pool is not None:
            self.pool.came_back(given_up)
        return given_up


class WindowPool:
    """What the windows of a process may grow by together.

    Where there is not enough, windows that have not turned over for the longest time
    are narrowed: their targets are slow, or their clients silent. Those that have grown
    less than the one that asks are left alone.

    :ivar total: bytes.
    :ivar granted: bytes that are promised at present, beyond what windows begin with.
    """

    def __init__(self, total: int = POOL) -> None:
        """Begin with nothing granted."""
        self.total = total
        self.granted = 0
        self._coming_back = 0
        #: What each window has grown by; the one that turned over last is last.
        self._grown: dict[ReceiveWindow, int] = {}

    def widen(self, window: ReceiveWindow, wanted: int, leave: int = 0) -> int:
        """Let a window grow, by half of what is free at most: the next one may need some too.

        :param leave: bytes that are to stay free for others.
        :returns: the increment to announce; 0 where there is nothing to be had.
        """
        free = self.total - self.granted - leave
        self._narrow_others(window, 2 * wanted - free - self._coming_back)
        amount = min(wanted, free // 2)
        if amount < _LEAST:
            return 0
        self.granted += amount
        self._grown[window] = self._grown.pop(window, 0) + amount
        window.widen(amount)
        return amount

    def turned_over(self, window: ReceiveWindow) -> None:
        """A window is in use: others are narrowed first."""
        grown = self._grown.pop(window, 0)
        if grown:
            self._grown[window] = grown

    def came_back(self, amount: int) -> None:
        """A window that was narrowed has given some of its excess up."""
        self.granted -= amount
        self._coming_back -= amount

    def forget(self, window: ReceiveWindow) -> None:
        """A window's stream is gone."""
        self.granted -= self._grown.pop(window, 0) + window.excess
        self._coming_back -= window.excess
        window.excess = 0

    def _narrow_others(self, window: ReceiveWindow, missing: int) -> None:
        own = self._grown.get(window, 0)
        for other, grown in list(self._grown.items()):
            if missing <= 0:
                return
            if grown > own:
                del self._grown[other]
                other.narrow(grown)
                self._coming_back += grown
                missing -= grown
