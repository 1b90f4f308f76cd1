"""The open tunnels, and counts of those that were."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

import attrs
from twisted.internet.defer import Deferred

from wireleap_relay.tunnel.splice import Splice
from wireleap_relay.wire.keys import PublicKey
from wireleap_relay.wire.status import Status


@attrs.frozen
class TunnelCounts:
    """Tunnels since the start.

    :ivar open: right now.
    :ivar opened: so far.
    :ivar refused: so far, by the status code that clients were told.
    """

    open: int
    opened: int
    refused: dict[int, int]


class Registry:
    """Knows every tunnel that carries traffic; see :class:`wireleap_relay.boundaries.Tunnels`."""

    def __init__(self, reactor: Any, relay: PublicKey) -> None:
        """Begin with none; ``relay`` is who ends a tunnel that outlives its time."""
        self._relay = relay
        self._reactor = reactor
        self._open: defaultdict[PublicKey, set[Splice]] = defaultdict(set)
        self._drained: defaultdict[PublicKey, list[Deferred[None]]] = defaultdict(list)
        self._opened = 0
        self._refused: Counter[int] = Counter()

    def counts(self) -> TunnelCounts:
        """Give the present figures."""
        return TunnelCounts(sum(map(len, self._open.values())), self._opened, dict(self._refused))

    def open_by_contract(self) -> dict[PublicKey, int]:
        """Count the open tunnels of each contract that has had any."""
        return {contract: len(splices) for contract, splices in self._open.items()}

    def refused(self, code: int) -> None:
        """Count a tunnel that was not to be."""
        self._refused[code] += 1

    def opened(self, splice: Splice, contract: PublicKey, maxtime: float) -> None:
        """Add a tunnel; it leaves by itself when it is done.

        :param maxtime: seconds after which it is ended; 0 for never.
        """
        self._opened += 1
        self._open[contract].add(splice)
        timer = self._reactor.callLater(maxtime, self._expire, splice) if maxtime else None

        def done(_: None) -> None:
            if timer is not None and timer.active():
                timer.cancel()
            self._open[contract].remove(splice)
            if not self._open[contract]:
                for waiter in self._drained.pop(contract, []):
                    waiter.callback(None)

        splice.done.addCallback(done)

    def _expire(self, splice: Splice) -> None:
        splice.end(Status(408, "the tunnel has outlived the longest time that this relay allows", str(self._relay)))

    def close(self, contract: PublicKey, status: Status) -> int:
        """End every tunnel of a contract.

        :returns: how many there were.
        """
        splices = list(self._open[contract])
        for splice in splices:
            splice.end(status)
        return len(splices)

    def close_all(self, why: str) -> int:
        """End every tunnel.

        :param why: for clients to read.
        :returns: how many there were.
        """
        status = Status(410, why, str(self._relay))
        return sum(self.close(contract, status) for contract in list(self._open))

    def when_drained(self, contract: PublicKey) -> Deferred[None]:
        """Wait until a contract has no open tunnel; it may be cancelled."""
        waiter: Deferred[None] = Deferred(lambda cancelled: self._drained[contract].remove(cancelled))
        if self._open[contract]:
            self._drained[contract].append(waiter)
        else:
            waiter.callback(None)
        return waiter
