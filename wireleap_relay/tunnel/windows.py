"""How much a peer may send before it has to wait (RFC 9113, section 5.2)."""

from __future__ import annotations

import attrs

#: What one tunnel's client may send ahead of its target, in bytes. With the
#: target's own buffer it bounds what a stalled target can hold here.
STREAM_WINDOW = 256 * 1024

#: What a connection's client may send, over all its tunnels, within one round
#: trip. It is given back at once, not as targets drain: a tunnel that stalls is
#: held by its own window and never takes its neighbours' share.
CONNECTION_WINDOW = 1024 * 1024


@attrs.define(eq=False)
class ReceiveWindow:
    """One receive window; credit is returned in steps of half its size.

    :ivar size: bytes the peer may have under way.
    :ivar left: bytes the peer may still send.
    """

    size: int
    left: int
    _due: int = 0

    @property
    def held(self) -> int:
        """Bytes that came and have not found their way out of here."""
        return self.size - self.left - self._due

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
        due = self._due + amount
        if due * 2 < self.size:
            self._due = due
            return 0
        self._due = 0
        self.left += due
        return due
