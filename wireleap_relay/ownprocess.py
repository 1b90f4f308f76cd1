"""What this process has and its system with it, and what it does again and again: in bad times too, and whatever the time of day."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable
from typing import Any

from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure


def resident_memory() -> int:
    """Give the bytes of memory that are resident; once asked, it needs no descriptor any more."""
    return int(os.pread(_statm(os.getpid()), 100, 0).split()[1]) * os.sysconf("SC_PAGE_SIZE")


def tcp_memory_is_short() -> bool:
    """Tell whether the system keeps all TCP connections small, for their buffers hold too much (tcp(7), ``tcp_mem``).

    Once asked, it needs no descriptor any more.
    """
    try:
        table = os.pread(_protocols(os.getpid()), 16 * 1024, 0)
    except OSError:
        return False
    rows = map(bytes.split, table.splitlines())
    return any(row[0].startswith(b"TCP") and row[4] == b"yes" for row in rows)


@functools.cache
def _statm(_pid: int) -> int:
    return os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)


@functools.cache
def _protocols(_pid: int) -> int:
    return os.open("/proc/self/net/protocols", os.O_RDONLY | os.O_CLOEXEC)


def reckon_by_a_steady_clock(reactor: Any) -> None:
    """Have a reactor's timers go by a clock that nobody sets; call it before there are any.

    Twisted's go by the time of day: where that is set back by an hour, every timer stands still for an hour.
    """
    reactor.seconds = time.monotonic


class Steady:
    """Calls something every so many seconds, and goes on when that fails.

    What keeps others within bounds must not end with the first failure: in a process that has no memory, or no
    descriptors, left for the moment, anything may fail.
    """

    _log = Logger()

    def __init__(self, clock: Any, interval: float, call: Callable[[], object]) -> None:
        """Prepare to call, every ``interval`` seconds."""
        self._interval = interval
        self._calling = LoopingCall(call)
        self._calling.clock = clock
        self._running = False

    def start(self, *, now: bool = False) -> None:
        """Begin, with a call at once or with a wait."""
        self._running = True
        self._calling.start(self._interval, now=now).addErrback(self._failed)

    def stop(self) -> None:
        """Call no more."""
        self._running = False
        if self._calling.running:
            self._calling.stop()

    def _failed(self, failure: Failure) -> None:
        self._log.failure("What is done every {interval} s has failed once", failure, interval=self._interval)
        if self._running:
            self.start()
