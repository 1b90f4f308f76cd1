"""The JSON data of the REST API, each made of one view; ``openapi.json`` describes it.

Times are Unix milliseconds, sizes bytes, rates bytes per second.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs

from wireleap_relay.admin.earnings import Earnings
from wireleap_relay.admin.health import health
from wireleap_relay.admin.view import View
from wireleap_relay.contracts.limits import Outlook
from wireleap_relay.contracts.service import ContractStatus
from wireleap_relay.tokens.ledger import ContractTokens


def api_status(view: View) -> dict[str, Any]:
    """Give the relay's status as the network's tools know it (PROTOCOL: *REST API*)."""
    return {
        "controller_started": view.running,
        "network_usage": _network_usage(view),
        "relay_status": [
            {
                "id": str(status.id or ""),
                "address": str(status.address),
                "role": status.role,
                "status": {"enrolled": status.enrolled, "network_cap_reached": status.limited},
                "network_cap": status.limit,
                "network_usage": status.usage.carried if status.usage is not None else 0,
            }
            for status in view.contracts
        ],
    }


def _network_usage(view: View) -> dict[str, Any] | None:
    reading, outlook = view.reading, view.outlook
    if reading is None or outlook is None:
        return None
    cap = outlook.limit
    if cap is None and any(status.limit is not None for status in view.contracts):
        cap = 0  # each contract has its own
    return {"timeframe_since": reading.start, "timeframe_until": reading.end, "cap": cap, "usage": outlook.carried}


def api_health(view: View) -> dict[str, Any]:
    """Tell whether the relay does what it is there for."""
    found = health(view)
    return {
        "healthy": found.healthy,
        "reasons": list(found.reasons),
        "warnings": list(found.warnings),
        "id": str(view.relay),
        "version": view.version,
        "started_at": view.started_at,
    }


def api_contracts(view: View) -> dict[str, Any]:
    """Give all contracts."""
    return {"contracts": [_contract(status, view.earnings.get(status.url)) for status in view.contracts]}


def _contract(status: ContractStatus, earnings: Earnings | None) -> dict[str, Any]:
    return {
        "url": status.url,
        "id": str(status.id) if status.id is not None else None,
        "address": str(status.address),
        "role": status.role,
        "state": status.state,
        "enrolled": status.enrolled,
        "degraded": status.degraded,
        "trouble": status.trouble,
        "next_try": round(status.next_try, 1) if status.next_try is not None else None,
        "missed_heartbeats": status.missed_heartbeats,
        "upgrade": str(status.upgrade) if status.upgrade is not None else None,
        "limit": status.limit,
        "usage": _outlook(status.usage),
        "balance": _balance(earnings),
    }


def _outlook(outlook: Outlook | None) -> dict[str, Any] | None:
    return attrs.asdict(outlook) if outlook is not None else None


def _balance(earnings: Earnings | None) -> dict[str, Any] | None:
    if earnings is None or earnings.balance is None:
        return None
    return {**attrs.asdict(earnings.balance), "asked_at": earnings.asked_at}


def api_tokens(view: View) -> dict[str, Any]:
    """Give the ledger of sharetokens."""
    return {
        "trouble": view.tokens.trouble,
        "alarms": list(view.tokens.alarms),
        "contracts": [_tokens(each) for each in view.tokens.contracts],
    }


def _tokens(tokens: ContractTokens) -> dict[str, Any]:
    return {
        "id": str(tokens.contract),
        "contract": tokens.name,
        "received": tokens.received,
        **attrs.asdict(tokens.counts),
        "oldest": {state: round(since * 1000) for state, since in tokens.oldest.items()},
        "window": (
            {"opens": tokens.closing.opens * 1000, "closes": tokens.closing.closes * 1000}
            if tokens.closing is not None
            else None
        ),
        "last_closing": tokens.last_closing * 1000 if tokens.last_closing is not None else None,
        "trouble": tokens.trouble,
    }


def api_usage(view: View, archive: Sequence[object] = ()) -> dict[str, Any]:
    """Give what was carried: now, in this window and in those before it.

    :param archive: the records of closed windows, newest first.
    """
    window = None
    if view.reading is not None:
        window = {
            "start": view.reading.start,
            "end": view.reading.end,
            "total": _outlook(view.outlook),
            "contracts": [
                {"id": str(contract), "contract": view.url(contract), "carried": carried}
                for contract, carried in view.reading.carried.items()
            ],
            "points": [[point.at, point.carried] for point in view.points],
        }
    return {
        "rates": [[rate.at, rate.from_clients, rate.from_targets] for rate in view.rates],
        "window": window,
        "archive": list(archive),
    }


def api_workers(view: View) -> dict[str, Any]:
    """Give the data plane, and the processes it runs in."""
    plane = view.plane
    return {
        "address": view.listens_at,
        "port": plane.port,
        "connections": plane.connections,
        "tunnels": {
            "open": plane.tunnels.open,
            "opened": plane.tunnels.opened,
            "refused": plane.tunnels.refused,
            "dials": plane.tunnels.dials,
            "handshakes": plane.tunnels.handshakes,
            "offences": plane.tunnels.offences,
        },
        "daemon": attrs.asdict(view.process),
        "workers": [attrs.asdict(worker) for worker in plane.workers],
    }


def api_upgrade(view: View) -> dict[str, Any]:
    """Tell how the last upgrade went, or goes."""
    record = view.upgrade.record
    return {
        "possible": view.upgrade.possible,
        "state": record.state,
        "version": record.version,
        "old": record.old,
        "why": record.why,
        "trouble": view.upgrade.trouble,
    }


def api_events(view: View) -> dict[str, Any]:
    """Give the last events, newest first."""
    return {"events": [attrs.asdict(event) for event in view.events]}
