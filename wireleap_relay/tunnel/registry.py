"""The open tunnels, and counts of those that were."""

from __future__ import annotations

import operator
from bisect import bisect_left
from collections import Counter, defaultdict
from typing import Any

import attrs
from twisted.internet.defer import Deferred

from wireleap_relay.tunnel.splice import Splice
from wireleap_relay.wire.keys import PublicKey
from wireleap_relay.wire.status import Status

#: Upper bounds of the classes that times of dialling are counted in, in seconds; the last class has none.
DIAL_TIMES = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


@attrs.frozen
class TunnelCounts:
    """What has become of clients since the start.

    :ivar open: tunnels right now.
    :ivar opened: tunnels so far.
    :ivar refused: tunnels so far, by reason.
    :ivar dials: by result: ``connected``, or the reason why not.
    :ivar dial_times: how many took how long, in the classes of :data:`DIAL_TIMES`.
    :ivar dial_seconds: what all of them took.
    :ivar handshakes: of TLS: ``done`` and ``failed``.
    :ivar offences: connections that were ended or refused, by why: see :mod:`wireleap_relay.tunnel.abuse`.
    """

    open: int = 0
    opened: int = 0
    refused: dict[str, int] = attrs.Factory(dict)
    dials: dict[str, int] = attrs.Factory(dict)
    dial_times: tuple[int, ...] = (0,) * (len(DIAL_TIMES) + 1)
    dial_seconds: float = 0.0
    handshakes: dict[str, int] = attrs.Factory(dict)
    offences: dict[str, int] = attrs.Factory(dict)

    def __add__(self, other: TunnelCounts) -> TunnelCounts:
        """Count two processes' together."""
        return TunnelCounts(
            self.open + other.open,
            self.opened + other.opened,
            _add(self.refused, other.refused),
            _add(self.dials, other.dials),
            tuple(map(operator.add, self.dial_times, other.dial_times)),
            self.dial_seconds + other.dial_seconds,
            _add(self.handshakes, other.handshakes),
            _add(self.offences, other.offences),
        )


def _add(one: dict[str, int], other: dict[str, int]) -> dict[str, int]:
    return {name: one.get(name, 0) + other.get(name, 0) for name in {**one, **other}}


class Registry:
    """Knows every tunnel that carries traffic; see :class:`wireleap_relay.boundaries.Tunnels`."""

    def __init__(self, reactor: Any, relay: PublicKey) -> None:
        """Begin with none; ``relay`` is who ends a tunnel that outlives its time."""
        self._relay = relay
        self._reactor = reactor
        self._open: defaultdict[PublicKey, set[Splice]] = defaultdict(set)
        self._drained: defaultdict[PublicKey, list[Deferred[None]]] = defaultdict(list)
        self._opened = 0
        self._refused: Counter[str] = Counter()
        self._dials: Counter[str] = Counter()
        self._dial_times = [0] * (len(DIAL_TIMES) + 1)
        self._dial_seconds = 0.0
        self._handshakes: Counter[str] = Counter()
        self._offences: Counter[str] = Counter()

    def counts(self) -> TunnelCounts:
        """Give the present figures."""
        return TunnelCounts(
            sum(map(len, self._open.values())),
            self._opened,
            dict(self._refused),
            dict(self._dials),
            tuple(self._dial_times),
            self._dial_seconds,
            dict(self._handshakes),
            dict(self._offences),
        )

    def open_by_contract(self) -> dict[PublicKey, int]:
        """Count the open tunnels of each contract that has had any."""
        return {contract: len(splices) for contract, splices in self._open.items()}

    def refused(self, reason: str) -> None:
        """Count a tunnel that was not to be."""
        self._refused[reason] += 1

    def dialled(self, result: str, seconds: float) -> None:
        """Count a dial: ``connected``, or the reason why not."""
        self._dials[result] += 1
        self._dial_times[bisect_left(DIAL_TIMES, seconds)] += 1
        self._dial_seconds += seconds

    def greeted(self, done: bool) -> None:
        """Count a TLS handshake."""
        self._handshakes["done" if done else "failed"] += 1

    def offended(self, offence: str) -> None:
        """Count a connection that is ended or refused: see :mod:`wireleap_relay.tunnel.abuse`."""
        self._offences[offence] += 1

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
