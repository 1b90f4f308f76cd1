"""What is done to a relay that is soaked, and whom each of it may touch."""

from __future__ import annotations

import random
import resource
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any

import attrs
import psutil
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from soaking.account import Account, Record
from soaking.names import Mood, NameServer
from soaking.relay import WRITE_INTERVAL, SoakedRelay
from wireleap_relay.sandbox.network import SandboxNetwork

#: Seconds before and after a fault in which a tunnel may be touched that was opened, or ended, then.
_SLACK = 1.0
#: Seconds between two reports of a worker (docs/architecture.md, *Workers*), and what they take to be made and heard.
_COUNTING, _HEARD = 0.2, 0.2
#: Seconds that the disk may take for the account, and workers to notice that their daemon is gone.
_DISK, _ORPHANED = 2.0, 10.0
#: Seconds between two looks at a process that may die at any moment.
_GLANCE = 0.02
#: Codes of tunnels that break with their connection, before they are open: no status, and what clients and other relays make of it.
_BROKEN = frozenset({0, 410, 502})


@attrs.define(eq=False)
class Fault:
    """One fault that was injected. Times are seconds of this process's clock.

    :ivar codes: that tunnels may be refused with which are being opened meanwhile; 0 for failing without one.
    :ivar by_name: only those whose target is asked for by name.
    :ivar ended: when all was well again.
    :ivar ports: of the connections that it broke, with clients and with targets; None where it broke none, and "all" of
        them where all.
    :ivar elsewhere: ports of connections of processes that it left alone.
    :ivar unseen: it may have broken others, too, which came while it lasted.
    """

    name: str
    began: float
    codes: frozenset[int] = frozenset()
    by_name: bool = False
    ended: float = float("inf")
    ports: set[int] | str | None = None
    elsewhere: set[int] = attrs.Factory(set)
    unseen: bool = False

    def excuses(self, record: Record) -> bool:
        """Tell whether a tunnel may have failed because of it."""
        if record.ended < self.began - _SLACK or record.begun > self.ended + _SLACK:
            return False
        # Whether it was being opened at the time, or asked for.
        opening = not record.opened or record.opened > self.began - _SLACK
        if opening and record.code in self.codes and (record.by_name or not self.by_name):
            return True
        # Whoever loses a connection knows that soon.
        return record.ended < self.ended + _SLACK and self.ends(record)

    def ends(self, record: Record) -> bool:
        """Tell whether it may have ended the process that a tunnel went through."""
        if record.ended < self.began - _SLACK or record.begun > self.ended + _SLACK:
            return False
        if not isinstance(self.ports, set):
            return self.ports == "all"
        if record.client_port in self.ports or record.relay_port in self.ports:
            return True
        if self.unseen and record.begun > self.began:
            return True
        return not record.direct and record.relay_port not in self.elsewhere


@attrs.frozen
class _Kind:
    """A kind of faults.

    :ivar deadly: it may end processes.
    """

    inject: Callable[[Fault], Awaitable[None]]
    codes: frozenset[int] = frozenset()
    deadly: bool = False
    by_name: bool = False


class Faults:
    """Does one thing after the other to a relay, by chance.

    :ivar injected: so far.
    :ivar spared: kinds that are not injected any more.
    :ivar strange: what no fault explains.
    """

    def __init__(
        self,
        reactor: Any,
        chance: random.Random,
        relay: SoakedRelay,
        network: SandboxNetwork,
        names: NameServer,
        account: Account,
        longest: float,
        crowd: Callable[[], Coroutine[Any, Any, None]],
    ) -> None:
        """Prepare.

        :param longest: that a fault may last, in seconds.
        :param crowd: has many clients come at once, and waits until they are gone.
        """
        self._reactor = reactor
        self._chance = chance
        self._relay = relay
        self._network = network
        self._names = names
        self._account = account
        self._longest = longest
        self._crowd = crowd
        self.injected: list[Fault] = []
        self.strange: list[str] = []
        self._kinds = {
            "worker killed": _Kind(self._kill_worker, _BROKEN, deadly=True),
            "worker stopped": _Kind(self._stop_worker),
            "daemon killed": _Kind(self._kill_daemon, deadly=True),
            "daemon stopped": _Kind(self._stop_daemon),
            "no descriptors": _Kind(self._no_descriptors, _BROKEN),
            "no memory": _Kind(self._no_memory, _BROKEN, deadly=True),
            "disk full": _Kind(self._disk_full, frozenset({500})),
            "network down": _Kind(self._network_down),
            "clock ahead": _Kind(self._clock_ahead, frozenset({400})),
            "clock behind": _Kind(self._clock_behind),
            "names silent": _Kind(self._names_silent, frozenset({408}), by_name=True),
            "names failing": _Kind(self._names_failing, frozenset({502}), by_name=True),
            "names gone": _Kind(self._names_gone, frozenset({502}), by_name=True),
        }
        self._queue: list[str] = []
        self.spared: tuple[str, ...] = ()

    async def one(self) -> Fault:
        """Inject the next one, and wait until all is well again."""
        self._queue = [name for name in self._queue if name not in self.spared]
        if not self._queue:
            self._queue = [name for name in self._kinds if name not in self.spared]
            self._chance.shuffle(self._queue)
        name = self._queue.pop()
        kind = self._kinds[name]
        fault = Fault(name, time.monotonic(), kind.codes, kind.by_name)
        await self._through(fault, kind.inject, kind.deadly)
        return fault

    async def long_stop(self, seconds: float, *, of_daemon: bool) -> Fault:
        """Stop the daemon, or a worker, for long enough that nobody would wait for it."""
        process = self._relay.daemon if of_daemon else self._relay.workers[0]
        fault = Fault(f"{'daemon' if of_daemon else 'worker'} stopped for long", time.monotonic(), frozenset({0}))

        async def stop(_: Fault) -> None:
            process.suspend()
            await deferLater(self._reactor, seconds)
            process.resume()

        await self._through(fault, stop, deadly=False)
        return fault

    async def _through(self, fault: Fault, inject: Callable[[Fault], Awaitable[None]], deadly: bool) -> None:
        self.injected.append(fault)
        before = {each.pid for each in self._relay.workers}
        try:
            await inject(fault)
        except psutil.NoSuchProcess:
            fault.ports = "all"  # what was to be tormented has died of itself
        await self._relay.recovered()
        gone = before - {each.pid for each in self._relay.workers}
        if gone and not deadly:
            self.strange.append(f"{len(gone)} workers have died: {fault.name}")
        fault.ended = time.monotonic()

    async def _wait(self, least: float = 0.5) -> None:
        await deferLater(self._reactor, least + self._chance.random() * max(self._longest - least, 0.0))

    # Processes

    def _worker(self) -> psutil.Process:
        return self._chance.choice(self._relay.workers)

    @staticmethod
    def _ports(process: psutil.Process) -> set[int]:
        """Give the ports of its clients, and its own towards targets."""
        connections = process.net_connections("tcp")
        return {port for each in connections if each.raddr for port in (each.laddr.port, each.raddr.port)}

    def _look_at(self, worker: psutil.Process, fault: Fault) -> None:
        """Note which connections are a worker's, which is about to die or may, and which are others'."""
        others = [each for each in self._relay.workers if each.pid != worker.pid]
        fault.elsewhere = set().union(*map(self._ports, others))
        fault.ports = self._ports(worker) - fault.elsewhere

    async def _kill_worker(self, fault: Fault) -> None:
        worker = self._worker()
        unheard = await unheard_of(self._relay, worker.pid)
        worker.suspend()  # so that no connection comes to it while it is looked at
        stood_still = time.monotonic()
        self._look_at(worker, fault)
        worker.kill()
        self._account.lost_since(stood_still - unheard, fault.elsewhere)

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
        workers = self._relay.workers
        unheard = max([await unheard_of(self._relay, each.pid) for each in workers], default=1.0)
        self._relay.kill()
        written = self._relay.seconds_since_written()
        if written > WRITE_INTERVAL + _DISK:
            self.strange.append(f"network usage was written {written:.1f} s before the daemon was killed")
        self._account.lost_since(time.monotonic() - written - unheard, set())
        await deferLater(self._reactor, self._chance.choice([0.0, self._chance.random() * self._longest]))
        self._relay.start()
        for each in workers:
            deadline = time.monotonic() + _ORPHANED
            while _lives(each) and time.monotonic() < deadline:
                await deferLater(self._reactor, 0.05)
            if _lives(each):
                self.strange.append(f"a worker is still there {_ORPHANED:.0f} s after its daemon was killed")

    # What they need

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
        unheard = await unheard_of(self._relay, worker.pid)
        self._look_at(worker, fault)  # it may not live through that
        size = worker.memory_info().data + self._chance.choice([0, self._chance.randrange(2**20)])
        before = worker.rlimit(resource.RLIMIT_DATA)
        worker.rlimit(resource.RLIMIT_DATA, (size, before[1]))
        crowd = Deferred.fromCoroutine(self._crowd())
        died = 0.0
        while not crowd.called:
            await deferLater(self._reactor, _GLANCE)
            if not died and not _lives(worker):
                died = time.monotonic() - _GLANCE
        await crowd
        with suppress(psutil.NoSuchProcess):
            worker.rlimit(resource.RLIMIT_DATA, before)
        if died:
            fault.unseen = True
            self._account.lost_since(died - 2 * _GLANCE - unheard, fault.elsewhere)

    async def _disk_full(self, fault: Fault) -> None:
        await self._limited(self._relay.daemon, resource.RLIMIT_FSIZE, self._chance.choice([0, 4096]))

    # What is around them

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

    async def _names_silent(self, fault: Fault) -> None:
        await self._names_are("silent")

    async def _names_failing(self, fault: Fault) -> None:
        await self._names_are("failing")

    async def _names_are(self, mood: Mood) -> None:
        self._names.mood = mood
        try:
            await self._wait(1.0)
        finally:
            self._names.mood = "well"

    async def _names_gone(self, fault: Fault) -> None:
        await self._names.stop()
        try:
            await self._wait(1.0)
        finally:
            self._names.start()


async def unheard_of(relay: SoakedRelay, worker: int) -> float:
    """Give the seconds of counting that nobody may have heard of from a worker."""
    found = await relay.ask("workers")
    lags = [each["process"]["lag"] for each in found["workers"] if each["pid"] == worker] if found else []
    return _COUNTING + _HEARD + float(max(lags, default=1.0))


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
