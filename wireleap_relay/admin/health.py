"""Whether a relay does what it is there for, and what stands against it; pure."""

from __future__ import annotations

from collections.abc import Iterator

import attrs

from wireleap_relay.admin.view import View
from wireleap_relay.contracts.service import ContractStatus

#: Seconds that a reactor may be late.
_LATE = 1.0
#: Share of the file descriptors that may be in use.
_CROWDED = 0.9


@attrs.frozen
class Health:
    """How a relay is.

    :ivar reasons: why it can't take the tunnels that it is meant to take; none where it can.
    :ivar warnings: what else an operator should look at.
    """

    reasons: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def healthy(self) -> bool:
        """Whether it takes tunnels, or has reached a limit that it was given."""
        return not self.reasons


def health(view: View) -> Health:
    """Judge a relay."""
    return Health(tuple(_reasons(view)), tuple(_warnings(view)))


def _reasons(view: View) -> Iterator[str]:
    if not view.running:
        yield "the relay is not running"
    if not view.listens_at:
        yield "it does not listen for clients"
    if view.plane.workers and not any(worker.state == "running" for worker in view.plane.workers):
        yield "no worker is running"
    if view.tokens.trouble:
        yield f"sharetokens can't be kept: {view.tokens.trouble}"
    if not any(_serves(contract) for contract in view.contracts):
        yield from (f"{contract.url}: {_why_not(contract)}" for contract in view.contracts)


def _warnings(view: View) -> Iterator[str]:
    if any(_serves(contract) for contract in view.contracts):
        for contract in view.contracts:
            if not _serves(contract):
                yield f"{contract.url}: {_why_not(contract)}"
    for contract in view.contracts:
        if contract.limited:
            yield f"{contract.url}: no new tunnels: network usage has reached its limit"
        if contract.degraded:
            yield f"{contract.url}: its directory does not answer heartbeats: {contract.trouble}"
        if contract.upgrade is not None:
            yield f"{contract.url}: its directory asks for version {contract.upgrade}"
    yield from (alarm for alarm in view.tokens.alarms if not view.tokens.trouble or view.tokens.trouble not in alarm)
    for worker in view.plane.workers:
        if worker.state == "gone":
            yield f"worker {worker.number} is not running"
    if view.upgrade.trouble:
        yield f"an upgrade does not go on: {view.upgrade.trouble}"
    if view.usage_trouble:
        yield f"network usage can't be written: {view.usage_trouble}"
    for name, process in view.processes().items():
        if process.lag > _LATE:
            yield f"{name}: the reactor was late by {process.lag:.1f} s"
        if process.most_descriptors and process.descriptors > process.most_descriptors * _CROWDED:
            yield f"{name}: {process.descriptors} of {process.most_descriptors} file descriptors are in use"


def _serves(contract: ContractStatus) -> bool:
    return contract.enrolled or contract.limited


def _why_not(contract: ContractStatus) -> str:
    return contract.state + (f": {contract.trouble}" if contract.trouble else "")
