"""What of a new config a running relay can take on; pure."""

from __future__ import annotations

import attrs

from wireleap_relay.config import Config
from wireleap_relay.wire.jsontext import below


def applicable(old: Config, new: Config) -> tuple[Config, list[str]]:
    """Keep what can't change under way as it was.

    :returns: the config to go on with, and the paths of what keeps its old
        value until a restart.
    """
    kept: list[str] = []
    if new.address != old.address:
        kept.append("address")
        new = attrs.evolve(new, address=old.address)
    if new.rest_api != old.rest_api:
        kept.append("rest_api")
        new = attrs.evolve(new, rest_api=old.rest_api)
    if new.manhole != old.manhole:
        kept.append("manhole")
        new = attrs.evolve(new, manhole=old.manhole)
    if new.user != old.user:
        kept.append("user")
        new = attrs.evolve(new, user=old.user)
    if new.workers != old.workers:
        kept.append("workers")
        new = attrs.evolve(new, workers=old.workers)
    if new.network_usage.measured != old.network_usage.measured:
        kept.append("network_usage.timeframe and network_usage.start (measuring on or off)")
        measured = attrs.evolve(new.network_usage, timeframe=old.network_usage.timeframe, start=old.network_usage.start)
        new = attrs.evolve(new, network_usage=measured)
    contracts = dict(new.contracts)
    for url, contract in new.contracts.items():
        before = old.contracts.get(url)
        if before is not None and before.role != contract.role:
            kept.append(below(below("contracts", url), "role"))
            contracts[url] = attrs.evolve(contract, role=before.role)
    return attrs.evolve(new, contracts=contracts), kept
