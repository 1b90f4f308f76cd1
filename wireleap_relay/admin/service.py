"""Watches a relay, and tells what there is to see of it."""

from __future__ import annotations

from typing import Any, Protocol

from twisted.application.service import MultiService
from twisted.internet.task import LoopingCall
from twisted.logger import Logger, globalLogPublisher

from wireleap_relay import __version__
from wireleap_relay.admin.earnings import EarningsService
from wireleap_relay.admin.events import EventsService
from wireleap_relay.admin.history import LOOK_EVERY, History
from wireleap_relay.admin.view import Carried, View
from wireleap_relay.boundaries import Upstream, WallClock
from wireleap_relay.contracts.service import ContractsService
from wireleap_relay.tokens.service import TokenStoreService
from wireleap_relay.upgrade.service import UpgradeService
from wireleap_relay.usage.meters import Meters
from wireleap_relay.usage.service import UsageService
from wireleap_relay.wire.keys import PublicKey
from wireleap_relay.workers.health import ProcessHealth
from wireleap_relay.workers.plane import DataPlane


class Parts(Protocol):
    """What of a relay is watched."""

    @property
    def relay(self) -> PublicKey:
        """Its public key."""

    @property
    def contracts(self) -> ContractsService:
        """Keeps it enrolled."""

    @property
    def tokens(self) -> TokenStoreService:
        """Keeps its sharetokens."""

    @property
    def plane(self) -> DataPlane:
        """Serves its clients."""

    @property
    def usage(self) -> UsageService | None:
        """Measures; None where nothing is measured."""

    @property
    def upgrades(self) -> UpgradeService:
        """Changes its version."""

    @property
    def meters(self) -> Meters:
        """Count."""


class AdminService(MultiService):
    """Takes a look every ten seconds, and gives a view whenever it is asked.

    Whoever shows it to an operator, over HTTP say, is a part of this.
    """

    _log = Logger()

    def __init__(self, reactor: Any, parts: Parts, upstream: Upstream, clock: WallClock) -> None:
        """Watch a relay."""
        super().__init__()
        self.setName("admin")
        self._reactor = reactor
        self._parts = parts
        self._clock = clock
        self._started_at = self._now()
        self._history = History()
        self._health = ProcessHealth(reactor)
        self._looking = LoopingCall(self._look)
        self._looking.clock = reactor
        self._events = EventsService(globalLogPublisher)
        self._events.setServiceParent(self)
        self._earnings = EarningsService(reactor, upstream, clock, parts.contracts.status)
        self._earnings.setServiceParent(self)

    def startService(self) -> None:
        """Begin to watch."""
        self._started_at = self._now()
        self._health.start()
        self._looking.start(LOOK_EVERY).addErrback(
            lambda failure: self._log.failure("The relay is watched no longer", failure)
        )
        super().startService()

    def stopService(self) -> Any:
        """Watch no longer."""
        self._looking.stop()
        self._health.stop()
        return super().stopService()

    def view(self) -> View:
        """Give all that there is to see right now."""
        parts = self._parts
        usage = parts.usage.status() if parts.usage is not None else None
        listening = parts.plane.listening
        return View(
            now=self._now(),
            started_at=self._started_at,
            version=__version__,
            relay=parts.relay,
            running=bool(parts.contracts.running),
            contracts=parts.contracts.status(),
            reading=usage.reading if usage is not None else None,
            outlook=parts.contracts.usage(),
            usage_trouble=usage.trouble if usage is not None else "",
            tokens=parts.tokens.status(),
            earnings=self._earnings.status(),
            plane=parts.plane.status(),
            listens_at=str(listening.address) if listening is not None else "",
            process=self._health.status(),
            carried={
                contract: Carried(meter.from_clients, meter.from_targets)
                for contract, meter in parts.meters.all().items()
            },
            rates=self._history.rates,
            points=self._history.points,
            upgrade=parts.upgrades.status(),
            events=self._events.status(),
        )

    def _now(self) -> int:
        return round(self._clock() * 1000)

    def _look(self) -> None:
        meters = self._parts.meters.all().values()
        self._history.look(
            self._reactor.seconds(),
            self._now(),
            sum(meter.from_clients for meter in meters),
            sum(meter.from_targets for meter in meters),
        )
        usage = self._parts.usage
        if usage is not None:
            self._history.grow(usage.status().reading)
