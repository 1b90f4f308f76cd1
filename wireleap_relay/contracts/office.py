"""What the desks of a relay's contracts share; no sockets, no timers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs

from wireleap_relay.boundaries import Tunnels, UpgradeWatcher, Upstream, UsageReading
from wireleap_relay.contracts.book import Book
from wireleap_relay.contracts.limits import GlobalLimit, Outlook, Stage, outlook, stage, worst
from wireleap_relay.wire.keys import PublicKey


@attrs.define
class Office:
    """What every contract needs of its relay.

    :ivar clock: an IReactorTime.
    :ivar relay: this relay's public key.
    :ivar chance: gives numbers from 0 to 1, and spreads attempts.
    :ivar drain_timeout: seconds that tunnels have to finish when a contract is served no longer.
    :ivar reading: of the traffic; None where it isn't measured.
    :ivar silent: directories are told nothing any more: another process serves in the relay's name.
    """

    clock: Any
    relay: PublicKey
    upstream: Upstream
    tunnels: Tunnels
    upgrades: UpgradeWatcher
    chance: Callable[[], float]
    drain_timeout: float = 30.0
    global_limit: GlobalLimit = attrs.field(factory=GlobalLimit)
    book: Book = attrs.field(factory=Book)
    reading: UsageReading | None = None
    silent: bool = False

    def stage(self, contract: PublicKey, limit: int | None) -> Stage:
        """Tell how far a contract's traffic has come, and that of all together.

        :param limit: the contract's own, in bytes.
        """
        if self.reading is None:
            return "free"
        return worst(stage(self.reading.carried.get(contract, 0), limit), self.global_limit.stage(self.reading))

    def outlook(self, contract: PublicKey, limit: int | None) -> Outlook | None:
        """Look ahead for a contract; None where nothing is measured."""
        if self.reading is None:
            return None
        pace = self.reading.pace.get(contract, 0.0)
        return outlook(self.reading.carried.get(contract, 0), pace, limit, self.reading)
