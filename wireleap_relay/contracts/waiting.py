"""Deferreds for those who wait, and those who wait no longer."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred


class Waiters:
    """Those who wait for the next time that something happens."""

    def __init__(self) -> None:
        """Nobody waits yet."""
        self._waiting: list[Deferred[None]] = []

    def wait(self) -> Deferred[None]:
        """Wait for the next time."""
        waiter: Deferred[None] = Deferred()
        self._waiting.append(waiter)
        return waiter

    def tell(self) -> None:
        """It has happened."""
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            waiter.callback(None)


def break_off(work: Deferred[Any] | None) -> None:
    """Cancel work that may be over already."""
    if work is not None and not work.called:
        work.cancel()
