"""What this process has and its system with it, and what it does again and again: in bad times too, and whatever the time of day."""

from __future__ import annotations

import functools
import mmap
import os
import ssl
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, NoReturn

from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

#: What a process exits with that has no memory left (EX_OSERR of sysexits.h); nothing else here exits with it.
NO_MEMORY = os.EX_OSERR
#: Bytes of address space that are kept for the last words then.
_RESERVE = 4 * 2**20


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


def end_without_memory(reactor: Any, last_words: Callable[[], object] = lambda: None) -> None:
    """Have this process exit with :data:`NO_MEMORY` as soon as it has no memory left; call it before the reactor runs.

    A MemoryError comes up between any two steps, and leaves half done what was under way: bytes that were taken from
    one side of a tunnel and not given to the other. Twisted would tell the log and go on. It makes a Failure of
    whatever it catches before anybody hears of it, so that is where errors are looked at. What it does not catch
    comes up where the reactor ends, in threads, and where Python has nobody to raise it to.

    :param last_words: called before the end, with a little memory to say why.
    """
    reserve = mmap.mmap(-1, _RESERVE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)

    def end() -> NoReturn:
        try:
            if not reserve.closed:
                reserve.close()
                last_words()
        finally:
            os._exit(NO_MEMORY)

    def watch(place: Any, name: str, error_in: Callable[..., object]) -> None:
        usual = getattr(place, name)

        @functools.wraps(usual)
        def watching(*args: Any, **named: Any) -> Any:
            if _lacks_memory(error_in(*args, **named)):
                end()
            return usual(*args, **named)

        setattr(place, name, watching)

    def run(*args: Any, **named: Any) -> None:
        try:
            usual_run(*args, **named)
        except MemoryError:
            end()

    usual_run, reactor.run = reactor.run, run
    watch(Failure, "__init__", lambda _, exc_value=None, *__, **___: exc_value or sys.exception())
    watch(sys, "unraisablehook", lambda unraisable: unraisable.exc_value)
    watch(threading, "excepthook", lambda uncaught: uncaught.exc_value)


def _lacks_memory(error: object) -> bool:
    """Tell whether an error says that there is no memory left; OpenSSL has words of its own for that."""
    return isinstance(error, MemoryError) or (isinstance(error, ssl.SSLError) and "malloc failure" in str(error))


class Steady:
    """Calls something every so many seconds, and goes on when that fails.

    What keeps others within bounds must not end with the first failure: in a process that has no descriptors left for
    the moment, anything may fail.
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
