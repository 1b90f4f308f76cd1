"""The clients that are connected: how many there may be, who has to go first, and who comes too often."""

from __future__ import annotations

import ctypes
import os
import resource
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted.logger import Logger

from wireleap_relay.clientlimits import GENEROUS, ClientLimits
from wireleap_relay.ownprocess import resident_memory, tcp_memory_is_short
from wireleap_relay.tunnel import abuse
from wireleap_relay.tunnel.neighbours import Neighbours
from wireleap_relay.tunnel.registry import Registry
from wireleap_relay.tunnel.stream import HIGH_WATER
from wireleap_relay.tunnel.windows import WindowPool

if TYPE_CHECKING:
    from wireleap_relay.tunnel.connection import ClientConnection

#: Of the descriptors that a process may have: beyond it somebody goes for each that comes. The rest is for tunnels.
_FULL = 0.9
#: Of those who might go, this part goes in a second in which memory is short.
_SHARE = 0.1
#: Connections that are let in however short memory is: a relay that sheds is still there.
_ALWAYS = 64
#: Bytes that wait on a connection which is worth shedding although it has tunnels.
_HEAVY = 1024 * 1024
#: Bytes that wait for a client whose target is not read for that: its socket's buffer is full, too.
_UNREAD = HIGH_WATER
#: Seconds between two words in the log about the same pressure.
_QUIET = 60


class Hall:
    """Keeps the connections of one process within bounds.

    :ivar connections: those that are open.
    :ivar pool: where the windows of all tunnels grow from.
    :ivar refuses: no new tunnel is to be opened, for the process is short of something.
    """

    _log = Logger()

    def __init__(
        self,
        registry: Registry,
        limits: ClientLimits = GENEROUS,
        *,
        resident: Callable[[], int] | None = None,
        buffers_are_short: Callable[[], bool] | None = None,
        descriptors: int | None = None,
        processes: int = 1,
    ) -> None:
        """Begin empty.

        :param resident: tells how many bytes of memory the process has.
        :param buffers_are_short: tells whether the system's sockets hold too much.
        :param descriptors: how many it may have open.
        :param processes: that share the machine's memory, each with a hall.
        """
        self.connections: set[ClientConnection] = set()
        self.pool = WindowPool()
        self.refuses = False
        self._registry = registry
        self._resident = resident or resident_memory
        self._buffers_are_short = buffers_are_short or tcp_memory_is_short
        self._descriptors = descriptors or resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self._processes = processes
        self._neighbours = Neighbours(limits)
        self._spare: list[ClientConnection] | None = None
        self._said: dict[str, int] = {}
        self.apply(limits)

    def apply(self, limits: ClientLimits) -> None:
        """Go by other limits from here on."""
        self._memory = limits.memory or share_of_memory(self._processes)
        self._neighbours.apply(limits)

    # Coming and going

    def network(self, host: str | None) -> bytes:
        """Give what stands for a client's network: nothing can be told from it.

        :param host: an IP address; None for a unix socket.
        :returns: empty for those that are not counted.
        """
        return b"" if host is None else self._neighbours.key(host)

    def admits(self, network: bytes) -> bool:
        """Tell whether somebody may come in, before anything is spent on them."""
        offence = ""
        if self.refuses and len(self.connections) >= _ALWAYS:
            offence = abuse.MEMORY
        offence = offence or self._neighbours.came(network)
        if offence:
            self._registry.offended(offence)
        return not offence

    def entered(self, connection: ClientConnection, descriptor: int) -> None:
        """Somebody is here; where the house is full somebody has to go."""
        self.connections.add(connection)
        # The system gives the lowest descriptor that is free: all below this one are taken.
        if descriptor >= self._descriptors * _FULL:
            self._say(abuse.DESCRIPTORS, "Nearly all {count} descriptors are in use", count=self._descriptors)
            self._registry.offended(abuse.DESCRIPTORS)
            self._next_spare(connection).abort()

    def left(self, connection: ClientConnection) -> None:
        """Somebody is gone."""
        self.connections.discard(connection)
        self._neighbours.went(connection.network)

    def offended(self, connection: ClientConnection, offence: str) -> None:
        """Somebody has to go, or went, because of what they did."""
        self._registry.offended(offence)
        self._neighbours.offended(connection.network, offence)

    def second_passed(self) -> None:
        """Look whether there is enough of everything."""
        self._neighbours.second_passed()
        self._spare = None
        memory = self._resident()
        if memory > self._memory:
            _give_back()
            memory = self._resident()
        self.refuses = memory > self._memory
        if self.refuses:
            self._shed(memory)
        if self._buffers_are_short():
            self._shed_unread()

    # Who has to go

    def _shed(self, memory: int) -> None:
        going = [each for each in self.connections if each.waiting >= _HEAVY]
        going.sort(key=lambda each: each.waiting, reverse=True)
        if len(self.connections) > _ALWAYS:
            going += self._by_worth()
        count = ceil(len(going) * _SHARE)
        self._say(
            abuse.MEMORY,
            "Memory is short: {memory} MB of {most}; {count} of {all} connections are dropped, and no tunnel is opened",
            memory=memory // 2**20,
            most=self._memory // 2**20,
            count=count,
            all=len(self.connections),
        )
        for each in going[:count]:
            self._registry.offended(abuse.MEMORY)
            each.abort()

    def _shed_unread(self) -> None:
        """Drop clients that read next to nothing: their targets' sockets are full, and slow all others down."""
        unread = {each: each.unread for each in self.connections}
        going = [each for each, size in unread.items() if size >= _UNREAD]
        going.sort(key=lambda each: unread[each], reverse=True)
        count = ceil(len(going) * _SHARE)
        if count:
            self._say(
                abuse.STALLED,
                "The system's TCP buffers are full; {count} of {all} clients that do not read are dropped",
                count=count,
                all=len(going),
            )
        for each in going[:count]:
            self.offended(each, abuse.STALLED)
            each.abort()

    def _next_spare(self, newest: ClientConnection) -> ClientConnection:
        """Find who is missed the least; the newest where nobody can be spared."""
        if self._spare is None:
            self._spare = self._by_worth()[::-1]
        while self._spare:
            connection = self._spare.pop()
            if connection in self.connections and not connection.has_tunnels:
                return connection
        return newest

    def _by_worth(self) -> list[ClientConnection]:
        """Give those without tunnels: the newest of those of whose network there are most come first."""
        spare = [each for each in self.connections if not each.has_tunnels]
        crowds = Counter(each.network for each in spare)
        return sorted(spare, key=lambda each: (crowds[each.network], each.number), reverse=True)

    def _say(self, what: str, format_: str, **fields: Any) -> None:
        self._said[what] = self._said.get(what, 0) + 1
        if self._said[what] % _QUIET == 1:
            self._log.warn(format_, **fields)


def share_of_memory(
    processes: int, groups: Path = Path("/sys/fs/cgroup"), own_groups: Path = Path("/proc/self/cgroup")
) -> int:
    """Give half of the memory that there is for each of some processes, in bytes.

    There is as much as the machine has, or the control groups that this process is in (cgroups(7), version 2), for all
    of them; and for one of them no more than its own limits let it have (RLIMIT_AS and RLIMIT_DATA, getrlimit(2)).
    """
    shared = min([os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), *_group_limits(groups, own_groups)])
    limits = [resource.getrlimit(which)[0] for which in (resource.RLIMIT_AS, resource.RLIMIT_DATA)]
    return min([shared // processes, *(limit for limit in limits if limit != resource.RLIM_INFINITY)]) // 2


def _group_limits(groups: Path, own_groups: Path) -> Iterator[int]:
    with suppress(OSError):
        for line in own_groups.read_text().splitlines():
            name = line.removeprefix("0::")
            if name == line:
                continue
            group = groups / name.lstrip("/")
            for each in (group, *group.parents):
                if each.is_relative_to(groups):
                    with suppress(OSError, ValueError):  # there is none, or it is "max"
                        yield int((each / "memory.max").read_text())


def _give_back() -> None:
    """Let the system have the memory that the C library keeps for later."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
