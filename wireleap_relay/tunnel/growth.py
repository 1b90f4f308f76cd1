"""Lets the windows of a connection grow with its path: sans-IO, and with a clock that it is handed.

A window that is smaller than what a path holds (its bandwidth times its round trip) has the client wait for
credit. How long a round trip takes is measured with a PING, how much comes in one with the bytes that targets have
taken meanwhile. PINGs are sent only while a tunnel's bytes flow and its window may still grow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from wireleap_relay.tunnel import frames
from wireleap_relay.tunnel.stream import Stream
from wireleap_relay.tunnel.windows import WindowPool

#: The first time that half of a window is used up, it grows this many times: its tunnel is in use.
_FIRST_STEP = 4
#: A window grows where this much of it is taken in a round trip. Credit comes in halves, so a client is
#: never kept waiting by a window of twice what the path holds.
_FULL = 0.4
#: Seconds between two PINGs at least.
_INTERVAL = 0.01
#: And when the last answer found nothing left to grow into.
_PAUSE = 1.0
#: What our PINGs hold.
_MARK = b"windowed"


class Growth:
    """Widens the windows of one connection's streams.

    :ivar waiting: for the answer to a PING.
    """

    __slots__ = ("_asked_at", "_clock", "_first", "_largest", "_pool", "_shortest", "_taken", "waiting")

    def __init__(self, clock: Callable[[], float], pool: WindowPool, first: int, largest: int) -> None:
        """Begin.

        :param first: bytes that windows begin with.
        :param largest: bytes that one may grow to.
        """
        self._clock = clock
        self._pool = pool
        self._first = first
        self._largest = largest
        self.waiting = False
        self._asked_at = -_INTERVAL
        self._shortest = float("inf")
        self._taken: dict[Stream, int] = {}

    def credited(self, stream: Stream) -> tuple[int, bytes]:
        """Look at a stream whose client is just about to be given credit.

        :returns: what its window has grown by, and a frame to send; either may be nothing.
        """
        window = stream.receiving
        if window.size == self._first:
            return self._pool.widen(window, min((_FIRST_STEP - 1) * self._first, self._largest - self._first)), b""
        if window.size >= self._largest:
            return 0, b""
        if self.waiting:
            self._taken.setdefault(stream, window.taken)
            return 0, b""
        now = self._clock()
        if now - self._asked_at < _INTERVAL:
            return 0, b""
        self.waiting = True
        self._asked_at = now
        self._taken = {stream: window.taken}
        return 0, frames.ping(_MARK)

    def answered(self, mark: bytes) -> Iterator[tuple[Stream, int]]:
        """Widen what was too small, on the answer to a PING.

        :returns: streams, and what their windows have grown by.
        """
        taken_before, self._taken = self._taken, {}
        if not self.waiting or mark != _MARK:
            return
        self.waiting = False
        round_trip = max(self._clock() - self._asked_at, 1e-6)
        # The client's own queue makes the answer late, and a larger window only makes that queue longer.
        self._shortest = min(self._shortest, round_trip)
        for stream, before in taken_before.items():
            window = stream.receiving
            if stream.closed or stream.peer_ended:
                continue
            if (window.taken - before) * self._shortest / round_trip < _FULL * window.size:
                continue
            self._pool.turned_over(window)
            # Half of the pool is for first steps: a few that have grown large leave everybody as much.
            wanted = min(window.size, self._largest - window.size)
            amount = self._pool.widen(window, wanted, leave=self._pool.total // 2)
            if amount:
                yield stream, amount
            else:
                self._asked_at = self._clock() + _PAUSE
