"""All that an operator may see of a relay, at one moment: what is shown anywhere is made of this."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from wireleap_relay.admin.earnings import Earnings
from wireleap_relay.admin.events import Event
from wireleap_relay.admin.history import Point, Rate
from wireleap_relay.boundaries import UsageReading
from wireleap_relay.contracts.limits import Outlook
from wireleap_relay.contracts.service import ContractStatus
from wireleap_relay.tokens.ledger import TokensStatus
from wireleap_relay.upgrade.service import UpgradeStatus
from wireleap_relay.wire.keys import PublicKey
from wireleap_relay.workers.health import ProcessStatus
from wireleap_relay.workers.plane import PlaneStatus


@attrs.frozen
class Carried:
    """Payload bytes of one contract since the relay started."""

    from_clients: int
    from_targets: int


@attrs.frozen
class View:
    """One moment. Times are Unix milliseconds, sizes bytes.

    :ivar running: whether the relay is neither starting nor stopping.
    :ivar reading: of the present window; None where nothing is measured.
    :ivar outlook: of all contracts together; None where nothing is measured.
    :ivar usage_trouble: why usage can't be written; empty when it can.
    :ivar earnings: by the contract's URL.
    :ivar listens_at: for clients; empty where it does not.
    :ivar process: the daemon's.
    :ivar rates: of the last quarter of an hour, oldest first.
    :ivar points: how traffic has grown over the window.
    :ivar upgrade: how the last one went.
    :ivar events: newest first.
    """

    now: int
    started_at: int
    version: str
    relay: PublicKey
    running: bool
    contracts: tuple[ContractStatus, ...]
    reading: UsageReading | None
    outlook: Outlook | None
    usage_trouble: str
    tokens: TokensStatus
    earnings: Mapping[str, Earnings]
    plane: PlaneStatus
    listens_at: str
    process: ProcessStatus
    carried: Mapping[PublicKey, Carried]
    rates: tuple[Rate, ...]
    points: tuple[Point, ...]
    upgrade: UpgradeStatus
    events: tuple[Event, ...]

    def url(self, contract: PublicKey) -> str:
        """Name a contract: by its URL, or by its key where the URL is not known any more."""
        return next((status.url for status in self.contracts if status.id == contract), str(contract))

    def processes(self) -> dict[str, ProcessStatus]:
        """Give the relay's processes by name."""
        workers = self.plane.workers
        return {"daemon": self.process, **{f"worker {worker.number}": worker.process for worker in workers}}
