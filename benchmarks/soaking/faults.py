"""What is done to a relay that is soaked, and whom each of it may touch."""

from __future__ import annotations

import random
import resource
import signal
import time
from collections.abc import Awaitable, Callable
from typing import Any

import attrs
import psutil
from twisted.internet.task import deferLater

from soaking.relay import SoakedRelay
from soaking.traffic import Record
from wireleap_relay.sandbox.network import SandboxNetwork

_AS_BEFORE = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
#: Seconds before and after a fault in which a tunnel may be touched that was opened, or ended, then.
_SLACK = 1.0


@attrs.define(eq=False)
class Fault:
    """One fault that was injected.

    :ivar ended: seconds of this process's clock; when all was well again.
    :ivar ports: of the connections that it broke; None where it broke none, and "all" of them where all.
    """

    name: str
    began: float
    ended: float = float("inf")
    ports: set[int] | str | None = None
    recovery: float = 0.0

    def excuses(self, record: Record) -> bool:
        """Tell whether a tunnel may have failed because of it."""
        if record.ended < self.began - _SLACK or record.begun > self.ended + _SLACK:
            return False
        if not record.opened or record.opened > self.began - _SLACK:
            # It was being opened at the time, or asked for.
            return self.name != "network down"
        if self.ports == "all":
            return True
        return isinstance(self.ports, set) and (record.port in self.ports or record.port == 0)


class Faults:
    """Does one thing after the other to a relay, by chance.

    :ivar injected: so far.
    :ivar spared: kinds that are not injected any more.
    """

    def __init__(
        self, reactor: Any, chance: random.Random, relay: SoakedRelay, network: SandboxNetwork, longest: float
    ) -> None:
        """Prepare; ``longest`` is how long a fault may last, in seconds."""
        self._reactor = reactor
        self._chance = chance
        self._relay = relay
        self._network = network
        self._longest = longest
        self.injected: list[Fault] = []
        self._kinds: dict[str, Callable[[Fault], Awaitable[None]]] = {
            "worker killed": self._kill_worker,
            "worker stopped": self._stop_worker,
            "daemon killed": self._kill_daemon,
            "daemon stopped": self._stop_daemon,
            "no descriptors": self._no_descriptors,
            "no memory": self._no_memory,
            "disk full": self._disk_full,
            "network down": self._network_down,
            "clock ahead": self._clock_ahead,
            "clock behind": self._clock_behind,
        }
        self._queue: list[str] = []
        self.spared: tuple[str, ...] = ()

    async def one(self) -> Fault:
        """Inject the next one, and wait until all is well again."""
        self._queue = [name for name in self._queue if name not in self.spared]
        if not self._queue:
            self._queue = [name for name in self._kinds if name not in self.spared]
            self._chance.shuffle(self._queue)
        fault = Fault(self._queue.pop(), time.monotonic())
        self.injected.append(fault)
        try:
            await self._kinds[fault.name](fault)
        except psutil.NoSuchProcess:
            fault.ports = "all"  # what was to be tormented is gone: something else had killed it
        healed = time.monotonic()
        await self._relay.recovered()
        fault.ended = time.monotonic()
        fault.recovery = fault.ended - healed
        return fault

    async def _wait(self, least: float = 0.5) -> None:
        await deferLater(self._reactor, least + self._chance.random() * max(self._longest - least, 0.0))

    def _worker(self) -> psutil.Process:
        return self._chance.choice(self._relay.workers)

    @staticmethod
    def _clients_of(process: psutil.Process) -> set[int]:
        return {each.raddr.port for each in process.net_connections("tcp") if each.raddr}

    async def _kill_worker(self, fault: Fault) -> None:
        worker = self._worker()
        worker.suspend()  # so that no connection comes to it while it is looked at
        fault.ports = self._clients_of(worker)
        worker.kill()

    async def _stop_worker(self, fault: Fault) -> None:
        await self._stopped(self._worker())

    async def _stop_daemon(self, fault: Fault) -> None:
        await self._stopped(self._relay.daemon)

    async def _stopped(self, process: psutil.Process) -> None:
        process.suspend()
        try:
            await self._wait()
        finally:
            process.resume()

    async def _kill_daemon(self, fault: Fault) -> None:
        fault.ports = "all"
        self._relay.kill()
        await self._wait(0.1)
        self._relay.start()

    async def _limited(self, process: psutil.Process, what: int, least: int) -> None:
        """Let a process have next to no more of something for a while."""
        before = process.rlimit(what)
        process.rlimit(what, (least, before[1]))
        try:
            await self._wait()
        finally:
            process.rlimit(what, before)

    async def _no_descriptors(self, fault: Fault) -> None:
        worker = self._worker()
        await self._limited(worker, resource.RLIMIT_NOFILE, worker.num_fds() + self._chance.randrange(4))

    async def _no_memory(self, fault: Fault) -> None:
        worker = self._worker()
        fault.ports = self._clients_of(worker)  # it may not live through that
        size = worker.memory_info().vms + self._chance.randrange(2**20)
        try:
            await self._limited(worker, resource.RLIMIT_AS, size)
        except psutil.NoSuchProcess:
            return

    async def _disk_full(self, fault: Fault) -> None:
        await self._limited(self._relay.daemon, resource.RLIMIT_FSIZE, self._chance.choice([0, 4096]))

    async def _network_down(self, fault: Fault) -> None:
        port: Any = self._network._port
        address, factory = port.getHost(), port.factory
        await port.stopListening()
        await self._wait()
        self._network._port = self._reactor.listenTCP(address.port, factory, interface=address.host)

    async def _clock_ahead(self, fault: Fault) -> None:
        await self._clock(self._chance.choice([5.0, self._longest * 15]))

    async def _clock_behind(self, fault: Fault) -> None:
        await self._clock(-float(self._chance.choice([20, 3600, 86_400])))

    async def _clock(self, wrong_by: float) -> None:
        self._relay.set_clock(wrong_by)
        try:
            await self._wait(1.0)
        finally:
            self._relay.set_clock(0.0)


async def long_stop(reactor: Any, relay: SoakedRelay, faults: Faults, seconds: float, of_daemon: bool) -> None:
    """Stop the daemon, or a worker, for long enough that nobody would wait for it."""
    fault = Fault(f"{'daemon' if of_daemon else 'worker'} stopped for {seconds:.0f} s", time.monotonic())
    faults.injected.append(fault)
    process = relay.daemon if of_daemon else relay.workers[0]
    process.send_signal(signal.SIGSTOP)
    await deferLater(reactor, seconds)
    process.send_signal(signal.SIGCONT)
    await relay.recovered()
    fault.ended = time.monotonic()
