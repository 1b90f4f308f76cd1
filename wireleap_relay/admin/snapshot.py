"""The relay's status as the network's tools know it (PROTOCOL: *REST API*)."""

from __future__ import annotations

from typing import Any

from wireleap_relay.boundaries import UsageReading
from wireleap_relay.contracts.limits import Outlook
from wireleap_relay.contracts.service import ContractStatus


def api_status(
    started: bool, contracts: tuple[ContractStatus, ...], reading: UsageReading | None, usage: Outlook | None
) -> dict[str, Any]:
    """Give the JSON data of ``/api/status``. Times are Unix milliseconds, sizes bytes.

    :param reading: None where nothing is measured.
    :param usage: of all contracts together.
    """
    return {
        "controller_started": started,
        "network_usage": _network_usage(contracts, reading, usage),
        "relay_status": [_contract(status) for status in contracts],
    }


def _network_usage(
    contracts: tuple[ContractStatus, ...], reading: UsageReading | None, usage: Outlook | None
) -> dict[str, Any] | None:
    if reading is None or usage is None:
        return None
    cap = usage.limit
    if cap is None and any(status.limit is not None for status in contracts):
        cap = 0  # each contract has its own
    return {"timeframe_since": reading.start, "timeframe_until": reading.end, "cap": cap, "usage": usage.carried}


def _contract(status: ContractStatus) -> dict[str, Any]:
    return {
        "id": str(status.id or ""),
        "address": str(status.address),
        "role": status.role,
        "status": {
            "enrolled": status.enrolled,
            "network_cap_reached": status.state in ("soft-limited", "hard-limited"),
        },
        "network_cap": status.limit,
        "network_usage": status.usage.carried if status.usage is not None else 0,
    }
