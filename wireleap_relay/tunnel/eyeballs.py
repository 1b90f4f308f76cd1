"""Takes the first of several addresses that answers (RFC 8305, "Happy Eyeballs"): it needs a clock, no sockets."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from itertools import chain, zip_longest
from typing import Any, Generic, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure

A = TypeVar("A")
P = TypeVar("P")

#: Seconds that an attempt has before the next one begins beside it (RFC 8305, section 5).
ATTEMPT_DELAY = 0.25


def interleave(addresses: Iterable[str]) -> list[str]:
    """Order addresses by turns of their families, IPv6 first (RFC 8305, section 4)."""
    six: list[str] = []
    four: list[str] = []
    for address in dict.fromkeys(addresses):
        (six if ":" in address else four).append(address)
    return [address for address in chain(*zip_longest(six, four)) if address is not None]


class Race(Generic[A, P]):
    """Attempts at several addresses; the first to succeed wins, and the others are given up.

    The next attempt begins when the last one begun has failed, or has had its
    time. Addresses may come while it is under way.

    :ivar won: fires with what the winning attempt gives; fails as the first
        attempt did, once all have failed and no more addresses come. Cancel it
        to give the race up.
    :ivar begun: attempts so far.
    """

    def __init__(
        self,
        clock: Any,
        attempt: Callable[[A], Deferred[P]],
        delay: float = ATTEMPT_DELAY,
        order: Callable[[Iterable[A]], list[A]] = list,
    ) -> None:
        """Wait for addresses.

        :param attempt: begins an attempt at one; cancelling what it gives ends it.
        :param delay: seconds that an attempt has before the next one begins beside it.
        :param order: puts addresses that wait in the order in which they are tried.
        """
        self.won: Deferred[P] = Deferred(lambda _: self._stop())
        self.begun = 0
        self._clock = clock
        self._attempt = attempt
        self._delay = delay
        self._order = order
        self._waiting: deque[A] = deque()
        self._running: list[Deferred[P]] = []
        self._timer: IDelayedCall | None = None
        self._more_come = True
        self._failure: Failure | None = None

    def add(self, addresses: Iterable[A]) -> None:
        """Try these too, among those that wait already."""
        if self._more_come:
            self._waiting = deque(self._order([*self._waiting, *addresses]))
            if self._timer is None:
                self._next()

    def no_more(self, reason: Exception) -> None:
        """No more addresses come.

        :param reason: how the race fails where there was no attempt.
        """
        if self._more_come:
            self._more_come = False
            if not self.begun:
                self._failure = Failure(reason)
            self._end_if_lost()

    def _next(self) -> None:
        if not self._waiting:
            return
        self.begun += 1
        attempt = self._attempt(self._waiting.popleft())
        self._running.append(attempt)
        self._timer = self._clock.callLater(self._delay, self._time_is_up)
        attempt.addCallbacks(self._succeeded, self._failed, callbackArgs=(attempt,), errbackArgs=(attempt,))

    def _time_is_up(self) -> None:
        self._timer = None
        self._next()

    def _succeeded(self, result: P, attempt: Deferred[P]) -> None:
        self._running.remove(attempt)
        self._stop()
        self.won.callback(result)

    def _failed(self, failure: Failure, attempt: Deferred[P]) -> None:
        if attempt not in self._running:
            return  # it was given up
        last = self._running[-1] is attempt
        self._running.remove(attempt)
        if self._failure is None:
            self._failure = failure
        if last and self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._next()
        self._end_if_lost()

    def _end_if_lost(self) -> None:
        if not (self._more_come or self._waiting or self._running or self.won.called):
            self._stop()
            assert self._failure is not None  # noqa: S101 - an attempt's, or the reason for having had none
            self.won.errback(self._failure)

    def _stop(self) -> None:
        self._waiting.clear()
        self._more_come = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        running, self._running = self._running, []
        for attempt in running:
            attempt.cancel()
