"""Whole relays, with workers in processes of their own, when the machine gives them next to nothing."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import psutil
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import SkipTest

from tests.test_relay import RelayTestCase
from tests.tunnel.world import Reader, Target, reactor
from wireleap_relay.relay import Relay
from wireleap_relay.sandbox.circuit import Circuit
from wireleap_relay.sandbox.ledger import Terms
from wireleap_relay.tokens.service import TokenStoreService
from wireleap_relay.workers import process
from wireleap_relay.workers.plane import WorkerStatus
from wireleap_relay.workers.service import WorkersService


class FaultTestCase(RelayTestCase):
    workers = 1

    async def running(self, **changes: Any) -> Relay:
        relay = self.make(**changes)
        self.start(relay)
        if self.workers:
            await self.until(lambda: self.worker(relay).state == "running", 20)
        await self.enrolled(relay)
        return relay

    def worker(self, relay: Relay) -> WorkerStatus:
        plane = relay.getServiceNamed("plane")
        assert isinstance(plane, WorkersService)
        return plane.status().workers[0]

    async def open(self, relay: Relay) -> tuple[Circuit, Reader]:
        """Open a tunnel to a target that answers with what it gets, and see that it does."""
        circuit = await self.circuit_through(relay)
        reader = await self.tunnel(circuit, self.target(Target))
        await self.carries(reader)
        return circuit, reader

    async def carries(self, reader: Reader, size: int = 50_000) -> None:
        """See that a tunnel carries bytes there and back."""
        before = reader.received
        reader.tunnel.write(os.urandom(size))
        await reader.at_least(before + size)

    async def outcome(self, relay: Relay, seconds: float = 8.0) -> str:
        """Try to open a tunnel; give the code that it is refused with, or what else comes of it."""
        circuit = await self.circuit_through(relay)
        reader = Reader()
        try:
            opening = Deferred.fromCoroutine(circuit.open("tcp", self.target(Target), reader))
            reader.tunnel = await opening.addTimeout(seconds, reactor)
            await reader.opened.addTimeout(seconds, reactor)
            reader.tunnel.write(b"hello")
            await deferLater(reactor, 0.3)
        except Exception as e:  # noqa: BLE001 - a relay in trouble may not even answer
            return type(e).__name__
        finally:
            circuit.close()
        return str(reader.error.status.code) if reader.error is not None else "open"


class WorkerFaultTests(FaultTestCase):
    def limited(self, pid: int, what: int, least: int) -> Any:
        """Let a worker have no more of something than it has; give what lifts that."""
        limited = psutil.Process(pid)
        before = limited.rlimit(what)
        limited.rlimit(what, (least, before[1]))
        return lambda: limited.rlimit(what, before)

    async def test_no_descriptors(self) -> None:
        relay = await self.running()
        circuit, reader = await self.open(relay)
        worker = self.worker(relay)
        lift = self.limited(worker.pid, resource.RLIMIT_NOFILE, psutil.Process(worker.pid).num_fds() + 1)
        outcomes = [await self.outcome(relay, 1.0) for _ in range(3)]
        # The connection takes the last one: there is none for the target.
        self.assertTrue(set(outcomes) <= {"502", "TimeoutError", "ConnectionLost"}, outcomes)
        await self.carries(reader)
        lift()
        self.assertEqual(await self.outcome(relay), "open")
        await self.carries(reader)
        circuit.close()
        await self.until(lambda: self.worker(relay).tunnels == 0)
        self.assertEqual(self.worker(relay).pid, worker.pid)
        self.assertEqual(self.worker(relay).restarts, 0)

    async def test_no_memory(self) -> None:
        relay = await self.running()
        circuit, reader = await self.open(relay)
        worker = self.worker(relay)
        lift = self.limited(worker.pid, resource.RLIMIT_AS, psutil.Process(worker.pid).memory_info().vms)
        for _ in range(3):
            await self.outcome(relay, 1.0)
        if self.worker(relay).pid == worker.pid:
            lift()
        circuit.close()
        # Whether it has lived through that or not, there is one that serves.
        await self.until(lambda: self.worker(relay).state == "running", 20)
        self.assertEqual(await self.outcome(relay), "open")

    async def test_a_worker_that_stands_still(self) -> None:
        relay = await self.running()
        _, reader = await self.open(relay)
        worker = self.worker(relay)
        os.kill(worker.pid, signal.SIGSTOP)
        opening = Deferred.fromCoroutine(self.outcome(relay))
        reader.tunnel.write(bytes(20_000))
        await deferLater(reactor, 1.5)
        self.assertFalse(opening.called)
        os.kill(worker.pid, signal.SIGCONT)
        self.assertEqual(await opening, "open")
        await reader.at_least(70_000)
        await self.carries(reader)
        self.assertEqual(self.worker(relay).pid, worker.pid)

    async def test_a_worker_that_stands_still_does_not_hold_up_the_end(self) -> None:
        self.patch(process, "_PATIENCE", 0.5)
        relay = await self.running(drain_timeout="500ms")
        pid = self.worker(relay).pid
        os.kill(pid, signal.SIGSTOP)
        await relay.stopService().addTimeout(10, reactor)
        self.assertFalse(psutil.pid_exists(pid))


class SmallDisk:
    """A disk of two megabytes, that can be filled up."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True)
        if os.geteuid() or shutil.which("mount") is None:
            raise SkipTest("only root can mount a small disk")
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", path], check=False).returncode:
            raise SkipTest("no small disk can be mounted here")

    def fill(self) -> None:
        with (self.path / "filler").open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4096))
            except OSError:
                return

    def empty(self) -> None:
        (self.path / "filler").unlink()

    def read_only(self, flag: bool) -> None:
        subprocess.run(["mount", "-o", f"remount,{'ro' if flag else 'rw'}", self.path], check=True)

    def unmount(self) -> None:
        subprocess.run(["umount", "-l", self.path], check=True)


class DiskTests(FaultTestCase):
    workers = 0
    terms = Terms(duration=600.0)

    def small_disk(self) -> SmallDisk:
        disk = SmallDisk(self.home.sharetokens)
        self.addCleanup(disk.unmount)
        return disk

    def held(self, relay: Relay) -> int:
        store = relay.getServiceNamed("tokens")
        assert isinstance(store, TokenStoreService)
        return sum(counts.held for counts in store.status().counts.values())

    async def test_a_full_disk(self) -> None:
        disk = self.small_disk()
        relay = await self.running()
        _, reader = await self.open(relay)
        disk.fill()
        self.assertEqual(await self.outcome(relay), "500")
        await self.carries(reader)
        disk.empty()
        self.assertEqual(await self.outcome(relay), "open")
        await self.carries(reader)
        self.assertEqual(self.held(relay), 2)

    async def test_a_disk_that_can_only_be_read(self) -> None:
        disk = self.small_disk()
        disk.read_only(True)
        relay = await self.running()
        self.assertEqual(await self.outcome(relay), "500")
        disk.read_only(False)
        self.assertEqual(await self.outcome(relay), "open")
        self.assertEqual(self.held(relay), 1)


class ClockTests(FaultTestCase):
    workers = 0
    terms = Terms(duration=60.0)
    wrong_by = 0.0

    def setUp(self) -> None:
        super().setUp()
        real = time.time
        self.network._clock = real  # contracts have clocks of their own
        self.patch(time, "time", lambda: real() + self.wrong_by)

    async def test_a_clock_that_jumps(self) -> None:
        relay = await self.running()
        _, reader = await self.open(relay)
        for jump, expected in ((120.0, "400"), (-86_400.0, "open"), (10 * 86_400.0, "400"), (0.0, "open")):
            ClockTests.wrong_by = 0.0
            circuit = await self.circuit_through(relay)  # with a servicekey that is good by the contract's clock
            ClockTests.wrong_by = jump
            self.assertEqual(await self._code(circuit), expected, jump)
            await self.carries(reader)
            await deferLater(reactor, 0.3)
        ClockTests.wrong_by = 0.0

    async def _code(self, circuit: Circuit) -> str:
        reader = Reader()
        reader.tunnel = await circuit.open("tcp", self.target(Target), reader)
        await reader.opened
        await deferLater(reactor, 0.2)
        return str(reader.error.status.code) if reader.error is not None else "open"
