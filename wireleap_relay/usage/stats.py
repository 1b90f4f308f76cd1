"""``stats.json`` and the records of closed windows, as the Go relay writes them (PROTOCOL: *The relay's directory on disk*)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import attrs

from wireleap_relay.wire.errors import WireError
from wireleap_relay.wire.keys import PublicKey
from wireleap_relay.wire.structure import read

#: Unix milliseconds, in the year 5138: calendars end some time later.
_LATEST = 10**14


@attrs.frozen
class _Counter:
    network_bytes: int


@attrs.frozen
class _File:
    contract_stats: dict[str, _Counter]
    created_at: int
    updated_at: int


@attrs.frozen
class Stats:
    """What was carried in the present window.

    :ivar created_at: its start, in Unix milliseconds.
    :ivar updated_at: when it was last looked at, in Unix milliseconds.
    :ivar carried: bytes by contract, whether it is still configured or not.
    """

    created_at: int
    updated_at: int
    carried: Mapping[PublicKey, int]

    @classmethod
    def from_json(cls, text: str | bytes) -> Stats:
        """Read ``stats.json``.

        :raises WireError: where it isn't that.
        """
        file = read(text, _File)
        counts = {PublicKey.from_text(name): counter.network_bytes for name, counter in file.contract_stats.items()}
        if not 0 < file.created_at < _LATEST or any(count < 0 for count in counts.values()):
            raise WireError("expected a time of this age, and counts that are not negative")
        return cls(file.created_at, file.updated_at, counts)

    def with_every(self, contracts: Collection[PublicKey]) -> Stats:
        """Add contracts that have carried nothing."""
        return attrs.evolve(self, carried={**dict.fromkeys(contracts, 0), **self.carried})

    def to_fields(self) -> dict[str, Any]:
        """The file's JSON data."""
        return {
            "contract_stats": {str(contract): {"network_bytes": count} for contract, count in self.carried.items()},
            "created_at": self.created_at,
            "updated_at": self.updated_at,
        }

    def to_record(self, relay: PublicKey, end_at: int, active: Collection[PublicKey]) -> dict[str, Any]:
        """The JSON data of the record of a window that has closed.

        :param end_at: its end, in Unix milliseconds.
        :param active: the contracts that are configured.
        """
        return {
            "relay_id": str(relay),
            "metrics": [
                {"contract": str(contract), "active": contract in active, "network_usage_bytes": count}
                for contract, count in self.carried.items()
            ],
            "start_at": self.created_at,
            "end_at": end_at,
            "updated_at": self.updated_at,
        }
