"""What a running relay does on signals (PROTOCOL: *Commands*)."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

from twisted.application.service import Service
from twisted.logger import Logger

from wireleap_relay.relay import Relay

#: Seconds that a relay in a hurry has to write its books and go.
_HURRY = 2.0


class SignalService(Service):
    """SIGUSR1 reloads, SIGUSR2 reports, SIGHUP begins a new log file.

    The first SIGINT, SIGTERM or SIGQUIT drains, the second ends it at once.
    """

    _log = Logger()

    def __init__(
        self, reactor: Any, relay: Relay, reload: Callable[[], object], hang_up: Callable[[], object] | None
    ) -> None:
        """Serve one relay, in a process of its own.

        :param hang_up: what SIGHUP is for; None where the terminal it comes from is all there is to write to.
        """
        self.setName("signals")
        self._reload = reload
        self._hang_up = hang_up
        self._reactor = reactor
        self._relay = relay
        self._stopping = False

    def startService(self) -> None:
        """Take the signals over as soon as the reactor has set up its own handlers."""
        super().startService()
        self._reactor.callWhenRunning(self._install)

    def _install(self) -> None:
        self._upon(signal.SIGUSR1, self._reload)
        self._upon(signal.SIGUSR2, self._relay.report)
        self._upon(signal.SIGHUP, self._hang_up or self._stop)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT):
            self._upon(number, self._stop)

    def _upon(self, number: signal.Signals, act: Callable[[], object]) -> None:
        def handle(_number: int, _frame: FrameType | None) -> None:
            self._reactor.callFromThread(act)

        signal.signal(number, handle)

    def _stop(self) -> None:
        if not self._stopping:
            self._stopping = True
            self._log.info("Stopping: no new tunnels; a second signal ends the open ones at once")
            self._reactor.stop()
            return
        self._log.info("Stopping at once")
        self._relay.hurry()
        # Whatever may hold the process up, a challenge's hash in its thread for one.
        last = threading.Timer(_HURRY, os._exit, (1,))
        last.daemon = True
        last.start()
