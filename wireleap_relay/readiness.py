"""Tells whoever has started the daemon how it gets on, and holds the home for it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from twisted.application.service import IService, Service
from twisted.internet.defer import maybeDeferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from wireleap_relay.daemon.lock import HomeLock
from wireleap_relay.daemon.notify import LISTENING, Notifier
from wireleap_relay.home import Home
from wireleap_relay.relay import Relay

#: Seconds for the first attempts to enroll; it is as ready as it gets without them, too.
_LONGEST_ATTEMPT = 30.0
#: Seconds beside ``drain_timeout`` that stopping may take.
_LONGEST_FAREWELL = 15.0
_LOOK_EVERY = 0.25


class ReadinessService(Service):
    """Signs the home's lock, and says READY, STATUS and WATCHDOG as sd_notify(3) has it."""

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        home: Home,
        relay: Relay,
        lock: HomeLock,
        notifier: Notifier,
        control: IService,
        environment: Mapping[str, str],
    ) -> None:
        """Speak for one relay, whose service this is to be.

        :param control: answers commands, from the moment that the home is ours.
        :param environment: may say how often a watchdog has to be told that all is well.
        """
        self.setName("readiness")
        self._home = home
        self._relay = relay
        self._lock = lock
        self._notifier = notifier
        self._control = control
        self._reactor = reactor
        self._said = ""
        self._ready = False
        self._began = 0.0
        self._telling = LoopingCall(self._tell)
        self._telling.clock = reactor
        self._feeding = LoopingCall(lambda: self._notifier.tell(WATCHDOG=1))
        self._feeding.clock = reactor
        self._given = {name: environment[name] for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC") if name in environment}
        self._watchdog = int(environment.get("WATCHDOG_USEC", 0)) / 1e6

    def startService(self) -> None:
        """Take the home over; the relay's other services have started.

        :raises OSError: where the pid file can't be written.
        """
        super().startService()
        self._sign_when_held()
        self._reactor.addSystemEventTrigger("after", "shutdown", self._leave)
        self._reactor.callWhenRunning(self._listening)

    def stopService(self) -> None:
        """Say that it stops; the home stays ours until the last of the relay is gone."""
        super().stopService()
        longest = round((self._relay.config.drain_timeout + _LONGEST_FAREWELL) * 1e6)
        self._notifier.tell(STOPPING=1, STATUS="Stopping: open tunnels may finish", EXTEND_TIMEOUT_USEC=longest)

    def supervisor(self) -> dict[str, str]:
        """Tell a successor of systemd, or whoever else looks after this process: the variables that it was given."""
        return dict(self._given)

    async def hand_on(self, successor: int) -> None:
        """Leave the home, and the supervisor's attention, to another process."""
        self._notifier.tell(MAINPID=successor)
        self._notifier.mute()
        if self._lock.held:
            await maybeDeferred(self._control.stopService)
        self._lock.release()

    def adopt(self, given: Mapping[str, str]) -> None:
        """Speak to whoever looked after a predecessor, which has told it of this process."""
        self._notifier.mute()
        self._given = dict(given)
        self._notifier = Notifier.from_environment(dict(given))
        self._notifier.tell(READY=1, STATUS=self._said)
        self._watchdog = int(given.get("WATCHDOG_USEC", 0)) / 1e6
        if self._watchdog and not self._feeding.running:
            self._feeding.start(self._watchdog / 2)

    def reload(self) -> None:
        """Have the relay read its config again."""
        self._notifier.tell(RELOADING=1, MONOTONIC_USEC=time.monotonic_ns() // 1000)
        self._relay.reload()
        self._notifier.tell(READY=1)

    def _leave(self) -> None:
        self._log.info("The relay has stopped")
        if self._lock.held:
            self._home.control.unlink(missing_ok=True)
        self._lock.release()

    def _sign_when_held(self) -> None:
        if self._lock.try_again():
            self._lock.sign()
            self._control.startService()
        elif self.running:
            self._reactor.callLater(_LOOK_EVERY, self._sign_when_held)

    def _listening(self) -> None:
        self._notifier.tell(**{LISTENING: 1})
        if self._watchdog:
            self._feeding.start(self._watchdog / 2)
        self._began = self._reactor.seconds()
        self._telling.start(_LOOK_EVERY)

    def _tell(self) -> None:
        if not self.running:
            return
        if (sentence := self._relay.sentence()) != self._said:
            self._said = sentence
            self._notifier.tell(STATUS=sentence)
        late = self._reactor.seconds() - self._began > _LONGEST_ATTEMPT
        if not self._ready and (late or self._relay.is_up()):
            self._ready = True
            self._notifier.tell(READY=1)
