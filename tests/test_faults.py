"""Whole relays, with workers in processes of their own, when the machine gives them next to nothing."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import deferLater
from twisted.names import dns
from twisted.trial.unittest import SkipTest

from tests.daemon.homes import ROOT
from tests.test_relay import RelayTestCase
from tests.tunnel.nameworld import NameServer, Zone
from tests.tunnel.world import Reader, Target, reactor
from wireleap_relay.relay import Relay
from wireleap_relay.sandbox.circuit import Circuit
from wireleap_relay.sandbox.ledger import Terms
from wireleap_relay.tokens.service import TokenStoreService
from wireleap_relay.tunnel.splice import READ_SIZE
from wireleap_relay.tunnel.stream import HIGH_WATER
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

    def limited(self, pid: int, what: int, least: int) -> Any:
        """Let a process have no more of something than it has; give what lifts that."""
        limited = psutil.Process(pid)
        before = limited.rlimit(what)
        limited.rlimit(what, (least, before[1]))
        return lambda: limited.rlimit(what, before)

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

    async def outcome(self, relay: Relay | None, seconds: float = 8.0, target: str = "") -> str:
        """Try to open a tunnel; give the code that it is refused with, or what else comes of it.

        :param relay: None where it is a process of its own.
        """
        circuit = await (self.circuit_through(relay) if relay is not None else self.circuit_to_relay())
        reader = Reader()
        try:
            opening = Deferred.fromCoroutine(circuit.open("tcp", target or self.target(Target), reader))
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

    async def test_a_worker_that_stands_still_for_good_is_replaced(self) -> None:
        self.patch(process, "_LONGEST_SILENCE", 4)
        relay = await self.running()
        circuit, reader = await self.open(relay)
        pid = self.worker(relay).pid
        os.kill(pid, signal.SIGSTOP)
        await self.until(lambda: self.worker(relay).pid not in (0, pid), 30)
        await reader.ended
        self.assertEqual(await self.outcome(relay), "open")
        self.assertEqual(self.worker(relay).restarts, 1)

    async def test_a_worker_that_stands_still_does_not_hold_up_the_end(self) -> None:
        self.patch(process, "_PATIENCE", 0.5)
        relay = await self.running(drain_timeout="500ms")
        pid = self.worker(relay).pid
        os.kill(pid, signal.SIGSTOP)
        await relay.stopService().addTimeout(10, reactor)
        self.assertFalse(psutil.pid_exists(pid))

    async def test_targets_that_flood_clients_who_do_not_keep_up(self) -> None:
        relay = await self.running()
        _, neighbour = await self.open(relay)
        worker = psutil.Process(self.worker(relay).pid)
        offered = Counter[str]()

        class Flood(Target):
            def connectionMade(self) -> None:
                self.transport.registerProducer(self, False)  # type: ignore[union-attr]

            def resumeProducing(self) -> None:
                offered["bytes"] += 65_536
                self.transport.write(bytes(65_536))  # type: ignore[union-attr]

            def stopProducing(self) -> None:
                pass

        before = worker.memory_info().rss
        address = self.target(Flood)
        circuit = await self.circuit_through(relay)
        readers = [await self.tunnel(circuit, address, credit=False) for _ in range(20)]
        slow = await self.tunnel(circuit, address, credit=False)
        given = 0
        for _ in range(40):
            await deferLater(reactor, 0.02)
            # One of them takes a little of what has come, now and then.
            amount = min(slow.received - given, 4096)
            slow.tunnel.credit(amount)
            given += amount
        self.assertGreater(offered["bytes"], 10_000_000)  # the system's buffers are full
        held = worker.memory_info().rss - before
        self.assertLess(held, 21 * (HIGH_WATER + READ_SIZE) + 8 * 2**20)
        await self.carries(neighbour, 500_000)
        await self.carries(await self.tunnel(circuit, self.target(Target)), 500_000)
        for reader in [*readers, slow]:
            reader.tunnel.abort()
        await self.until(lambda: self.worker(relay).tunnels == 2)


class DaemonDeathTests(FaultTestCase):
    """A daemon that is killed outright, with workers that have clients."""

    workers = 2

    def launch(self) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            daemon = subprocess.Popen(
                [sys.executable, "-m", "wireleap_relay", "--home", self.home.path, "start", "--fg"],
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.addCleanup(daemon.wait)
        self.addCleanup(daemon.kill)
        return daemon

    async def serves(self, target: str) -> None:
        """Wait until a new tunnel carries bytes."""
        for _ in range(200):
            circuit, reader = await self.circuit_to_relay(), Reader()
            try:
                opening = Deferred.fromCoroutine(circuit.open("tcp", target, reader))
                reader.tunnel = await opening.addTimeout(5, reactor)
                reader.tunnel.write(b"hello")
                await reader.at_least(5).addTimeout(1, reactor)
                return
            except Exception:  # noqa: BLE001 - it is not there yet
                circuit.close()
                await deferLater(reactor, 0.05)
        self.fail(self.log.read_text())

    async def test_it_leaves_nothing_behind_and_loses_nothing(self) -> None:
        self.log = Path(self.mktemp())
        self.write_config()
        address = self.target(Target)
        daemon = self.launch()
        await self.serves(address)
        workers = psutil.Process(daemon.pid).children()
        self.assertEqual(len(workers), 2)
        tokens, readers = [], []
        for _ in range(12):  # each with a connection of its own, so that both workers have some
            circuit = await self.circuit_to_relay()
            tokens.append(circuit._wallet.token(self.identity.key.public_key))
            self.patch(circuit._wallet, "token", lambda _, token=tokens[-1]: token)
            readers.append(await self.tunnel(circuit, address))
            await self.carries(readers[-1])
        daemon.kill()
        daemon.wait()
        daemon = self.launch()
        await self.until(lambda: not any(each.is_running() for each in workers), 20)
        for reader in readers:
            await reader.ended
        await self.serves(address)
        for token in tokens:
            circuit = await self.circuit_to_relay()
            self.patch(circuit._wallet, "token", lambda _, token=token: token)
            error = await self.failing_tunnel(circuit, address)
            self.assertEqual((error.status.code, error.status.description), (400, "the sharetoken was used before"))
        self.assertEqual(len(psutil.Process(daemon.pid).children()), 2)
        daemon.terminate()
        await self.until(lambda: daemon.poll() is not None, 20)
        self.assertEqual(daemon.returncode, 0, self.log.read_text())
        self.assertNotIn("Traceback", self.log.read_text())


class NameTests(FaultTestCase):
    """A name server that does not do what it is for, and a worker's tunnels to names and to addresses."""

    def setUp(self) -> None:
        super().setUp()
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        self.server = NameServer()
        self.addCleanup(lambda: self.server.stop())
        (folder / "nameserver").write_text(str(self.server.address[1]))
        self.patch(os, "environ", {**os.environ, "SOAK": str(folder)})
        self.patch(sys, "path", [str(ROOT / "benchmarks" / "soaking" / "site"), *sys.path])

    async def check(self, begin: Callable[[], Any], end: Callable[[], Any], refusal: str) -> None:
        self.server.zones["a.example"] = self.zone = Zone(["127.0.0.1"], ttl=0)
        relay = await self.running(timeout="3s")
        by_name = f"a.example:{self.target(Target).rpartition(':')[2]}"
        self.assertEqual(await self.outcome(relay, target=by_name), "open")
        _, reader = await self.open(relay)
        await maybeDeferred(begin)
        outcome = Deferred.fromCoroutine(self.outcome(relay, target=by_name))
        self.assertEqual(await self.outcome(relay), "open")
        await self.carries(reader)
        self.assertEqual(await outcome, refusal)
        await maybeDeferred(end)
        self.assertEqual(await self.outcome(relay, target=by_name), "open")
        self.assertEqual(self.worker(relay).restarts, 0)

    def answer_with(self, **what: Any) -> None:
        for name, value in what.items():
            setattr(self.zone, name, value)

    async def test_a_server_that_is_silent(self) -> None:
        await self.check(lambda: self.answer_with(delay=None), lambda: self.answer_with(delay=0.0), "408")

    async def test_a_server_that_fails(self) -> None:
        await self.check(lambda: self.answer_with(code=dns.ESERVER), lambda: self.answer_with(code=dns.OK), "502")

    async def test_a_server_that_is_not_there(self) -> None:
        await self.check(self.server.stop, self.server.start, "502")


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
