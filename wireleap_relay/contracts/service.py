"""Serves every contract of the relay, each on its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import attrs
from twisted.application.service import MultiService, Service
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred

from wireleap_relay.boundaries import UsageReading
from wireleap_relay.contracts.desk import DEGRADED_AFTER, EnrollmentDesk
from wireleap_relay.contracts.limits import GlobalLimit, Outlook
from wireleap_relay.contracts.machine import State
from wireleap_relay.contracts.office import Office
from wireleap_relay.wire.address import Address
from wireleap_relay.wire.keys import PublicKey
from wireleap_relay.wire.relayentry import RelayEntry, Role
from wireleap_relay.wire.versions import Version


class ContractSettings(Protocol):
    """What the operator has set for one contract."""

    @property
    def address(self) -> Address:
        """To publish."""

    @property
    def role(self) -> Role:
        """To take on."""

    @property
    def key(self) -> str | None:
        """To show to the directory."""

    @property
    def network_usage_limit(self) -> int | None:
        """In bytes per window."""

    @property
    def upgrade_channel(self) -> str | None:
        """To follow, where this contract is the one to follow."""


@attrs.frozen
class ContractStatus:
    """How the relay stands with one contract.

    :ivar id: None until the contract has answered.
    :ivar trouble: what went wrong last; empty when all is well.
    :ivar upgrade: a newer version that the directory asks for.
    :ivar next_try: seconds until it tries to enroll again; None where it isn't waiting to.
    :ivar missed_heartbeats: in a row.
    :ivar limit: bytes per window; None for none.
    :ivar usage: None where nothing is measured, and until the contract has answered.
    """

    url: str
    id: PublicKey | None
    address: Address
    role: Role
    state: State
    trouble: str
    upgrade: Version | None
    next_try: float | None = None
    missed_heartbeats: int = 0
    limit: int | None = None
    usage: Outlook | None = None

    @property
    def enrolled(self) -> bool:
        """Whether it takes tunnels."""
        return self.state == "enrolled"

    @property
    def limited(self) -> bool:
        """Whether it takes none because of a limit."""
        return self.state in ("soft-limited", "hard-limited")

    @property
    def degraded(self) -> bool:
        """Whether it is enrolled with a directory that does not answer any more."""
        return self.missed_heartbeats >= DEGRADED_AFTER


class EnrollmentService(Service):
    """Serves one contract."""

    def __init__(self, office: Office, url: str, entry: RelayEntry, watches_upgrades: bool) -> None:
        """Serve the contract at a URL; the service goes by that name.

        :param entry: what the directory is to list.
        :param watches_upgrades: whether its directory's wish for another version counts.
        :raises WireError: where it isn't such a URL.
        """
        self.setName(url)
        self._office = office
        self._desk = EnrollmentDesk(office, url, entry, watches_upgrades)

    def startService(self) -> None:
        """Begin to enroll."""
        super().startService()
        self._desk.machine.start()

    def stopService(self) -> Deferred[None]:
        """Disenroll, and let open tunnels finish.

        :returns: fires when that is done, after ``drain_timeout`` at the latest.
        """
        super().stopService()
        stopped = self._desk.when_stopped()
        self._desk.machine.stop()
        return stopped

    def change(self, entry: RelayEntry, watches_upgrades: bool) -> None:
        """Have something else listed; the role stays."""
        self._desk.watches_upgrades = watches_upgrades
        self._desk.change(entry)

    def stay(self) -> None:
        """Have the directory know that it is this version which serves."""
        self._desk.machine.changed()

    def look(self) -> None:
        """Heed what traffic has come to."""
        self._desk.look()

    def hurry(self) -> None:
        """Stop without waiting for anybody."""
        self._desk.hurry()

    def status(self) -> ContractStatus:
        """Tell how things stand."""
        desk = self._desk
        return ContractStatus(
            url=desk.url,
            id=desk.id,
            address=desk.entry.address,
            role=desk.entry.role,
            state=desk.state,
            trouble=desk.trouble,
            upgrade=desk.upgrade,
            next_try=desk.next_try,
            missed_heartbeats=desk.missed,
            limit=desk.entry.network_usage_limit,
            usage=self._office.outlook(desk.id, desk.entry.network_usage_limit) if desk.id is not None else None,
        )

    def when_attempted(self) -> Deferred[None]:
        """Wait for the end of the attempt to enroll that is under way, or of the next one."""
        return self._desk.when_attempted()


class ContractsService(MultiService):
    """Every contract of the relay.

    :ivar book: tells which of them take tunnels.
    """

    def __init__(self, office: Office, contracts: Mapping[str, ContractSettings], software: str) -> None:
        """Serve contracts by their URLs.

        :param software: the version of this software.
        :raises WireError: where a URL isn't one.
        """
        super().__init__()
        self.setName("contracts")
        self.book = office.book
        self._office = office
        self._software = software
        self._served: dict[str, EnrollmentService] = {}
        self._leaving: dict[str, tuple[EnrollmentService, Deferred[object]]] = {}
        for url, settings in contracts.items():
            self._add(url, settings)

    def stopService(self) -> Deferred[list[object]]:
        """Disenroll from all at once, and let open tunnels finish."""
        parts = [maybeDeferred(super().stopService), *(left for _, left in self._leaving.values())]
        return gatherResults(parts, consumeErrors=True)

    def apply(self, contracts: Mapping[str, ContractSettings], global_limit: GlobalLimit, drain_timeout: float) -> None:
        """Serve other contracts, or the same ones otherwise; a role stays what it was."""
        self._office.global_limit = global_limit
        self._office.drain_timeout = drain_timeout
        for url in [url for url in self._served if url not in contracts]:
            self._remove(url)
        for url, settings in contracts.items():
            if url in self._served:
                self._served[url].change(self._entry(settings), settings.upgrade_channel is not None)
            else:
                self._add(url, settings)
        self._served = {url: self._served[url] for url in contracts}
        self._look()

    def usage_seen(self, reading: UsageReading) -> None:
        """Heed what traffic has come to."""
        self._office.reading = reading
        self._look()

    def leave(self) -> None:
        """Tell directories nothing any more: another process serves in the relay's name."""
        self._office.silent = True

    def stay(self) -> None:
        """Have directories know that it is this version which serves."""
        for service in self._served.values():
            service.stay()

    def hurry(self) -> None:
        """Stop without waiting for anybody."""
        for service in [*self._served.values(), *(service for service, _ in self._leaving.values())]:
            service.hurry()

    def status(self) -> tuple[ContractStatus, ...]:
        """Tell how things stand with each, in the order of the configuration; then with those that are leaving."""
        leaving = (service for service, _ in self._leaving.values())
        return tuple(service.status() for service in (*self._served.values(), *leaving))

    def usage(self) -> Outlook | None:
        """Tell how all traffic stands; None where nothing is measured."""
        reading = self._office.reading
        return self._office.global_limit.outlook(reading) if reading is not None else None

    def when_attempted(self) -> Deferred[list[None]]:
        """Wait until enrolling has been tried with every contract."""
        return gatherResults([service.when_attempted() for service in self._served.values()])

    def _look(self) -> None:
        for service in [*self._served.values(), *(service for service, _ in self._leaving.values())]:
            service.look()

    def _entry(self, settings: ContractSettings) -> RelayEntry:
        return RelayEntry.of_this_software(
            role=settings.role,
            address=settings.address,
            pubkey=self._office.relay,
            software=self._software,
            key=settings.key,
            limit=settings.network_usage_limit,
        )

    def _add(self, url: str, settings: ContractSettings) -> None:
        entry, watches = self._entry(settings), settings.upgrade_channel is not None
        if url in self._leaving:
            service, _ = self._leaving.pop(url)
            service.change(entry, watches)
        else:
            service = EnrollmentService(self._office, url, entry, watches)
        self._served[url] = service
        service.setServiceParent(self)

    def _remove(self, url: str) -> None:
        service = self._served.pop(url)
        left = maybeDeferred(service.disownServiceParent)
        self._leaving[url] = (service, left)
        left.addBoth(self._has_left, url, service)

    def _has_left(self, _: object, url: str, service: EnrollmentService) -> None:
        if url in self._leaving and self._leaving[url][0] is service:
            del self._leaving[url]
