"""The open tunnels, and counts of those that were."""

from __future__ import annotations

from collections import Counter
from typing import Any

import attrs

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
    """Knows every tunnel that carries traffic."""

    def __init__(self, reactor: Any, relay: PublicKey) -> None:
        """Begin with none; ``relay`` is who ends a tunnel that outlives its time."""
        self._relay = relay
        self._reactor = reactor
        self._open: dict[Splice, PublicKey] = {}
        self._opened = 0
        self._refused: Counter[int] = Counter()

    def counts(self) -> TunnelCounts:
        """Give the present figures."""
        return TunnelCounts(len(self._open), self._opened, dict(self._refused))

    def refused(self, code: int) -> None:
        """Count a tunnel that was not to be."""
        self._refused[code] += 1

    def opened(self, splice: Splice, contract: PublicKey, maxtime: float) -> None:
        """Add a tunnel; it leaves by itself when it is done.

        :param maxtime: seconds after which it is ended; 0 for never.
        """
        self._opened += 1
        self._open[splice] = contract
        timer = self._reactor.callLater(maxtime, self._expire, splice) if maxtime else None

        def done(_: None) -> None:
            del self._open[splice]
            if timer is not None and timer.active():
                timer.cancel()

        splice.done.addCallback(done)

    def _expire(self, splice: Splice) -> None:
        splice.end(Status(408, "the tunnel has outlived the longest time that this relay allows", str(self._relay)))

    def close(self, contract: PublicKey, status: Status) -> None:
        """End every tunnel of a contract."""
        for splice in [s for s, c in self._open.items() if c == contract]:
            splice.end(status)
