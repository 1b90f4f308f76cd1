"""A daemon leaves its home, and whoever looks after its process, to the next one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from wireleap_relay.daemon.lock import HomeLock
from wireleap_relay.daemon.notify import Notifier, NotifySocket
from wireleap_relay.home import Home
from wireleap_relay.readiness import ReadinessService


class Handing(SynchronousTestCase):
    def setUp(self) -> None:
        self.home = Home(Path(self.mktemp()))
        self.home.path.mkdir()
        self.clock = Clock()
        self.systemd = NotifySocket()
        self.systemd.__enter__()
        self.addCleanup(self.systemd.__exit__)

    def make(self, lock: HomeLock, environment: dict[str, str]) -> ReadinessService:
        relay: Any = None
        notifier = Notifier.from_environment(dict(environment))
        return ReadinessService(self.clock, self.home, relay, lock, notifier, Service(), environment)

    def test_systemd_is_told_of_the_successor_which_feeds_its_watchdog(self) -> None:
        lock = HomeLock.take(self.home, {})
        lock.sign()
        old = self.make(lock, {**self.systemd.environment, "WATCHDOG_USEC": "2000000"})
        new = self.make(HomeLock.take(self.home, {"WIRELEAP_RELAY_SUCCEEDS": str(self.pid())}), {})
        self.successResultOf(Deferred.fromCoroutine(old.hand_on(123)))
        self.assertEqual(self.systemd.receive(1), {"MAINPID": "123"})
        self.assertFalse(self.home.pid.exists())
        self.assertTrue(new._lock.try_again(), "the home is free")
        new.adopt(old.supervisor())
        self.assertEqual(self.systemd.receive(1)["READY"], "1")
        self.assertEqual(self.systemd.receive(1), {"WATCHDOG": "1"})
        self.clock.advance(1)
        self.assertEqual(self.systemd.receive(1), {"WATCHDOG": "1"})
        old._notifier.tell(STATUS="stopping")
        self.assertEqual(self.systemd.receive(0.05), {}, "the old one is silent")
        new._feeding.stop()
        new._lock.release()

    def pid(self) -> int:
        return int(self.home.pid.read_text())
