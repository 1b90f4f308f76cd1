"""A clock of the test's own, for services that work in threads."""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor as global_reactor
from twisted.internet.task import Clock

reactor: Any = global_reactor


class ThreadedClock(Clock):
    """A clock of the test's own, and the reactor's threads."""

    def getThreadPool(self) -> Any:
        return reactor.getThreadPool()

    def callFromThread(self, *args: Any) -> None:
        reactor.callFromThread(*args)
