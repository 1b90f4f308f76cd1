"""How one process of a relay is doing: what it uses, and how late its reactor is."""

from __future__ import annotations

import os
import resource
from typing import Any

import attrs

from wireleap_relay.ownprocess import Steady, resident_memory

_LOOK_EVERY = 0.25
_LOOKS = 40


@attrs.frozen
class ProcessStatus:
    """One process.

    :ivar cpu_seconds: of processor time so far.
    :ivar memory: resident, in bytes.
    :ivar descriptors: open files and sockets.
    :ivar most_descriptors: that it may have.
    :ivar lag: seconds that the reactor was late at the worst, in the last 10 to 20 seconds.
    """

    cpu_seconds: float = 0.0
    memory: int = 0
    descriptors: int = 0
    most_descriptors: int = 0
    lag: float = 0.0


class ProcessHealth:
    """Watches the process that it runs in."""

    def __init__(self, reactor: Any) -> None:
        """Watch a reactor."""
        self._reactor = reactor
        self._looking = Steady(reactor, _LOOK_EVERY, self._look)
        self._expected = 0.0
        self._looks = 0
        self._status = ProcessStatus()
        self._worst = self._worst_before = 0.0

    def start(self) -> None:
        """Begin to watch."""
        self._status = _status()
        self._expected = self._reactor.seconds() + _LOOK_EVERY
        self._looking.start()

    def stop(self) -> None:
        """Watch no longer."""
        self._looking.stop()

    def status(self) -> ProcessStatus:
        """Tell how it is doing, or was a second ago."""
        return attrs.evolve(self._status, lag=round(max(self._worst, self._worst_before), 6))

    def _look(self) -> None:
        now = self._reactor.seconds()
        self._worst = max(self._worst, now - self._expected)
        self._expected = now + _LOOK_EVERY
        self._looks += 1
        if self._looks % 4 == 0:
            self._status = _status()  # not more often: listing many files takes its time
        if self._looks % _LOOKS == 0:
            self._worst_before, self._worst = self._worst, 0.0


def _status() -> ProcessStatus:
    used = resource.getrusage(resource.RUSAGE_SELF)
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    try:
        descriptors = len(os.listdir("/proc/self/fd")) - 1  # less the one that lists them
    except OSError:
        descriptors = most
    return ProcessStatus(
        used.ru_utime + used.ru_stime,
        resident_memory(),
        descriptors,
        most,
    )
