"""Whole relays that meet a real lack of memory, under real traffic."""

from __future__ import annotations

import hashlib
import os
import resource
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path

import attrs
import psutil
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.logger import LogEvent, formatEvent, globalLogPublisher

from tests.daemon.homes import ROOT
from tests.test_faults import FaultTestCase
from tests.tunnel.world import Reader, Target, reactor
from wireleap_relay.admin.metrics import exposition
from wireleap_relay.ownprocess import NO_MEMORY
from wireleap_relay.relay import Relay
from wireleap_relay.workers.plane import WorkerStatus


@attrs.define(eq=False)
class Talk:
    """A tunnel to a target that answers with what it gets, and what it was given."""

    reader: Reader
    sent: bytearray = attrs.Factory(bytearray)

    def go_on(self) -> None:
        data = os.urandom(20_000)
        self.sent += data
        self.reader.tunnel.write(data)

    @property
    def is_whole(self) -> bool:
        return hashlib.sha256(self.reader.data).digest() == hashlib.sha256(self.sent).digest()

    @property
    def is_cut_off(self) -> bool:
        """Tell whether what came is the beginning of what was sent."""
        return self.sent.startswith(self.reader.data)


class MemoryTestCase(FaultTestCase):
    opened = 0

    async def talk(self) -> Talk:
        circuit = await self.circuit_to_relay()
        talk = Talk(await self.tunnel(circuit, self.target(Target)))
        self.opened += 1
        talk.go_on()
        await talk.reader.at_least(len(talk.sent))
        return talk

    async def crowd(self, pid: int, is_over: Callable[[], object], talks: Iterable[Talk]) -> None:
        """Let a process have no more memory than it has, and have more and more clients come until it is over."""
        self.limited(pid, resource.RLIMIT_AS, psutil.Process(pid).memory_info().vms)
        target = self.silent_target()
        while not is_over():
            circuit = await self.circuit_to_relay()
            for _ in range(5):
                reader = Reader()
                opening = Deferred.fromCoroutine(circuit.open("tcp", target, reader))
                try:
                    reader.tunnel = await opening.addTimeout(2, reactor)
                except Exception:  # noqa: BLE001 - it may be ending just now
                    break
                reader.tunnel.write(bytes(60_000))  # is kept until the target answers
            for talk in talks:
                talk.go_on()


class WorkerMemoryTests(MemoryTestCase):
    workers = 2

    def statuses(self, relay: Relay) -> tuple[WorkerStatus, ...]:
        return relay.parts.plane.status().workers

    def standard_error(self) -> Path:
        """Have what workers write there go into a file."""
        path = Path(self.mktemp())
        before = os.dup(2)
        with path.open("wb") as file:
            os.dup2(file.fileno(), 2)
        self.addCleanup(lambda: (os.dup2(before, 2), os.close(before)))
        return path

    async def test_a_worker_is_replaced_and_the_other_goes_on(self) -> None:
        said: list[str] = []

        def listen(event: LogEvent) -> None:
            said.append(formatEvent(event))

        globalLogPublisher.addObserver(listen)
        self.addCleanup(globalLogPublisher.removeObserver, listen)
        errors = self.standard_error()
        relay = await self.running()
        await self.until(lambda: all(worker.state == "running" for worker in self.statuses(relay)), 20)
        of: tuple[list[Talk], list[Talk]] = ([], [])
        while min(map(len, of)) < 2:
            talk = await self.talk()
            await self.until(lambda: sum(worker.tunnels for worker in self.statuses(relay)) == self.opened)
            of[self.statuses(relay)[0].tunnels == len(of[0])].append(talk)
        short, other = self.statuses(relay)
        await self.crowd(short.pid, lambda: self.statuses(relay)[0].out_of_memory, [*of[0], *of[1]])
        for talk in of[0]:
            await talk.reader.ended
            self.assertTrue(talk.is_cut_off)
        for talk in of[1]:
            await talk.reader.at_least(len(talk.sent))
            self.assertTrue(talk.is_whole)
            self.assertFalse(talk.reader.ended.called)
        await self.until(lambda: self.statuses(relay)[0].state == "running", 20)
        new, same = self.statuses(relay)
        self.assertEqual((new.restarts, new.out_of_memory), (1, 1))
        self.assertEqual((same.restarts, same.out_of_memory, same.pid), (0, 0, other.pid))
        for _ in range(5):
            await self.talk()
        metrics = exposition(relay._admin.view()).decode()
        self.assertIn('wireleap_relay_worker_out_of_memory_total{worker="0"} 1.0', metrics)
        self.assertIn("Worker 0 had no memory left, and ended for that", said)
        self.assertNotIn("Traceback", "\n".join(said) + errors.read_text())


class DaemonMemoryTests(MemoryTestCase):
    workers = 0

    def run_daemon(self) -> subprocess.Popen[bytes]:
        self.log = Path(self.mktemp())
        with self.log.open("wb") as file:
            daemon = subprocess.Popen(
                [sys.executable, "-m", "wireleap_relay", "--home", str(self.home.path), "start", "--fg"],
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdout=file,
                stderr=file,
            )
        self.addCleanup(lambda: (daemon.kill(), daemon.wait()))
        return daemon

    def kept(self) -> int:
        with closing(sqlite3.connect(self.home.token_database)) as database:
            [[count]] = database.execute("SELECT count(*) FROM sharetoken")
        return int(count)

    def said(self) -> str:
        return self.log.read_text()

    async def test_a_daemon_ends_and_keeps_its_tokens(self) -> None:
        self.write_config()
        daemon = self.run_daemon()
        await self.until(lambda: self.identity.key.public_key in self.network.directory.status(), 20)
        talks = [await self.talk() for _ in range(3)]
        await self.crowd(daemon.pid, lambda: daemon.poll() is not None, talks)
        self.assertEqual(daemon.returncode, NO_MEMORY)
        for talk in talks:
            await talk.reader.ended
            self.assertTrue(talk.is_cut_off)
        self.assertTrue(self.said().endswith(" There is no memory left: the relay ends, and has to be started again\n"))
        self.assertNotIn("Traceback", self.said())
        kept = self.kept()
        self.assertGreaterEqual(kept, self.opened)
        self.run_daemon()
        while await self.outcome(None) != "open":
            await deferLater(reactor, 0.1)
        self.assertEqual(self.kept(), kept + 1)
        self.assertNotIn("damaged", self.said())
