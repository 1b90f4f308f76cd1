"""One meter per contract, for as long as the relay runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from wireleap_relay.boundaries import Meter
from wireleap_relay.wire.keys import PublicKey


class Meters:
    """Gives out meters, and knows them all."""

    def __init__(self) -> None:
        """Begin with none."""
        self._meters: dict[PublicKey, Meter] = {}

    def meter(self, contract: PublicKey) -> Meter:
        """Give the one meter of a contract."""
        return self._meters.setdefault(contract, Meter())

    def all(self) -> Mapping[PublicKey, Meter]:
        """Give every contract's meter."""
        return self._meters

    def totals(self) -> dict[PublicKey, int]:
        """Give each contract's bytes so far, both directions together."""
        return {contract: meter.total for contract, meter in self._meters.items()}


def totals_of(*all_meters: Meters) -> dict[PublicKey, int]:
    """Give each contract's bytes on several sets of meters together."""
    totals: Counter[PublicKey] = Counter()
    for meters in all_meters:
        totals.update(meters.totals())
    return dict(totals)
