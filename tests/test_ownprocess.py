"""What is asked and done also when a process is short of everything."""

from __future__ import annotations

import os
import re
import resource
from tempfile import TemporaryFile
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from wireleap_relay import ownprocess
from wireleap_relay.ownprocess import Steady, resident_memory, tcp_memory_is_short
from wireleap_relay.workers.health import ProcessHealth


class NoDescriptorsTests(SynchronousTestCase):
    def use_up(self) -> None:
        """Leave no descriptor to be had."""
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        free = os.dup(0)
        os.close(free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        self.assertRaises(OSError, os.dup, 0)

    def test_memory_is_known(self) -> None:
        before = resident_memory()
        self.assertGreater(before, 10_000_000)
        self.use_up()
        self.assertGreater(resident_memory(), before // 2)

    def test_the_system_tells_whether_its_buffers_are_full(self) -> None:
        self.assertFalse(tcp_memory_is_short())
        self.use_up()
        self.assertFalse(tcp_memory_is_short())

    def test_its_buffers_are_full(self) -> None:
        table = os.pread(ownprocess._protocols(os.getpid()), 16 * 1024, 0)
        with TemporaryFile() as shown:
            shown.write(re.sub(rb"(?m)^(TCP .*?)no ", rb"\1yes ", table, count=1))
            shown.flush()
            self.patch(ownprocess, "_protocols", lambda _: shown.fileno())
            self.assertTrue(tcp_memory_is_short())

    def test_a_process_knows_how_it_is_doing(self) -> None:
        clock = Clock()
        health = ProcessHealth(clock)
        health.start()
        before = health.status()
        self.assertGreater(before.most_descriptors, before.descriptors)
        self.use_up()
        clock.pump([0.25] * 4)
        self.assertEqual(health.status().descriptors, health.status().most_descriptors)
        health.stop()


class SteadyTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.calls: list[Any] = []

    def call(self) -> None:
        self.calls.append(self.clock.seconds())
        if len(self.calls) == 2:
            raise MemoryError

    def test_it_goes_on_when_it_fails(self) -> None:
        steady = Steady(self.clock, 2.0, self.call)
        steady.start(now=True)
        self.clock.pump([1.0] * 9)
        self.assertEqual(self.calls, [0.0, 2.0, 4.0, 6.0, 8.0])
        self.assertEqual(len(self.flushLoggedErrors(MemoryError)), 1)
        steady.stop()
        self.clock.advance(10)
        self.assertEqual(len(self.calls), 5)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_it_may_be_stopped_by_what_fails(self) -> None:
        def call() -> None:
            steady.stop()
            raise MemoryError

        steady = Steady(self.clock, 2.0, call)
        steady.start()
        self.clock.pump([1.0] * 9)
        self.assertEqual(len(self.flushLoggedErrors(MemoryError)), 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])
