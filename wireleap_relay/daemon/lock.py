"""One daemon to a home: a lock that the system takes back from a process that dies, and the pid file."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Mapping
from typing import Self

from wireleap_relay.home import SUCCEEDS_VARIABLE, Home, HomeError, write_durably

#: Seconds: whoever only looks at the lock holds it for an instant.
_PATIENCE = 0.3


class HomeTaken(HomeError):
    """A relay runs out of this home already.

    :ivar pid: of its process; None where it is just starting.
    """

    def __init__(self, home: Home, pid: int | None) -> None:
        what = f"runs as process {pid}" if pid is not None else "is just being started"
        super().__init__(f"a relay {what} already, out of {home.path}")
        self.pid = pid


class HomeLock:
    """The right to run out of a home.

    :ivar held: whether it is ours by now; a successor gets it when its predecessor ends.
    """

    def __init__(self, home: Home, descriptor: int) -> None:
        self._home = home
        self._descriptor = descriptor
        self._signed = False
        self.held = False

    @classmethod
    def take(cls, home: Home, environment: Mapping[str, str]) -> Self:
        """Take a home.

        :param environment: may name, in ``WIRELEAP_RELAY_SUCCEEDS``, the process that still has it.
        :raises HomeTaken: where somebody else has it.
        :raises HomeError: where the home can't be written.
        """
        try:
            lock = cls(home, os.open(home.lock, os.O_RDWR | os.O_CREAT, 0o644))
        except FileNotFoundError:
            raise HomeError(f"{home.path} is missing: `wireleap-relay init` makes it") from None
        except OSError as e:
            raise HomeError(f"{home.lock} can't be written: {e.strerror}") from None
        deadline = time.monotonic() + _PATIENCE
        while not lock.try_again() and time.monotonic() < deadline:
            time.sleep(0.02)
        if not lock.held:
            pid = read_pid(lock._descriptor)
            if pid is None or environment.get(SUCCEEDS_VARIABLE) != str(pid):
                os.close(lock._descriptor)
                raise HomeTaken(home, pid)
        return lock

    def try_again(self) -> bool:
        """Take the lock if it is to be had.

        :returns: whether it is held.
        """
        if not self.held and self._descriptor >= 0:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.ftruncate(self._descriptor, 0)
                self.held = True
        return self.held

    def sign(self) -> None:
        """Write this process's id into the pid file, and then into the lock.

        :raises OSError: where the disk won't do.
        """
        text = str(os.getpid()).encode()
        write_durably(self._home.pid, text)
        os.pwrite(self._descriptor, text, 0)
        self._signed = True

    def release(self) -> None:
        """Leave the home to others; once is enough."""
        if self._descriptor < 0:
            return
        if self._signed:
            self._signed = False
            with contextlib.suppress(FileNotFoundError):
                self._home.pid.unlink()
            os.ftruncate(self._descriptor, 0)
        os.close(self._descriptor)
        self._descriptor = -1
        self.held = False


def read_pid(descriptor: int) -> int | None:
    """Read who has signed a lock."""
    text = os.pread(descriptor, 20, 0)
    return int(text) if text.isdigit() else None
