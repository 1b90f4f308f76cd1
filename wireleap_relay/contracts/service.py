"""Keeps the relay enrolled with every contract it serves, each on its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import attrs
from twisted.application.service import MultiService, Service
from twisted.internet.defer import Deferred, gatherResults

from wireleap_relay.boundaries import Upstream
from wireleap_relay.contracts.book import Book
from wireleap_relay.contracts.desk import EnrollmentDesk
from wireleap_relay.contracts.machine import State
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


@attrs.frozen
class ContractStatus:
    """How the relay stands with one contract.

    :ivar id: None until the contract has answered.
    :ivar trouble: what went wrong last; empty when all is well.
    :ivar upgrade: a newer version that the directory asks for.
    """

    url: str
    id: PublicKey | None
    address: Address
    role: Role
    state: State
    trouble: str
    upgrade: Version | None

    @property
    def enrolled(self) -> bool:
        """Whether it takes tunnels."""
        return self.state == "enrolled"


class EnrollmentService(Service):
    """Enrolls with one contract's directory, and stays enrolled."""

    def __init__(
        self, clock: Any, upstream: Upstream, book: Book, url: str, entry: RelayEntry, chance: Callable[[], float]
    ) -> None:
        """Enroll with the contract at a URL; the service goes by that name.

        :param clock: an IReactorTime.
        :param entry: what the directory is to list.
        :param chance: gives numbers from 0 to 1.
        :raises WireError: where it isn't such a URL.
        """
        self.setName(url)
        self._desk = EnrollmentDesk(clock, upstream, book, url, entry, chance)

    def startService(self) -> None:
        """Begin to enroll."""
        super().startService()
        self._desk.machine.start()

    def stopService(self) -> Deferred[None]:
        """Disenroll.

        :returns: fires when that is done, or can't be done, after 5 seconds at the latest.
        """
        super().stopService()
        stopped = self._desk.when_stopped()
        self._desk.machine.stop()
        return stopped

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
        )

    def when_attempted(self) -> Deferred[None]:
        """Wait for the end of the attempt to enroll that is under way, or of the next one."""
        return self._desk.when_attempted()


class ContractsService(MultiService):
    """Every contract of the relay.

    :ivar book: tells which of them take tunnels.
    """

    def __init__(
        self,
        clock: Any,
        relay: PublicKey,
        contracts: Mapping[str, ContractSettings],
        upstream: Upstream,
        software: str,
        chance: Callable[[], float],
    ) -> None:
        """Serve contracts by their URLs.

        :param clock: an IReactorTime.
        :param software: the version of this software.
        :param chance: gives numbers from 0 to 1, and spreads attempts.
        :raises WireError: where a URL isn't one.
        """
        super().__init__()
        self.setName("contracts")
        self.book = Book()
        self._enrollments: list[EnrollmentService] = []
        for url, settings in contracts.items():
            entry = RelayEntry.of_this_software(
                role=settings.role,
                address=settings.address,
                pubkey=relay,
                software=software,
                key=settings.key,
                limit=settings.network_usage_limit,
            )
            service = EnrollmentService(clock, upstream, self.book, url, entry, chance)
            service.setServiceParent(self)
            self._enrollments.append(service)

    def status(self) -> tuple[ContractStatus, ...]:
        """Tell how things stand with each, in the order of the configuration."""
        return tuple(service.status() for service in self._enrollments)

    def when_attempted(self) -> Deferred[list[None]]:
        """Wait until enrolling has been tried with every contract."""
        return gatherResults([service.when_attempted() for service in self._enrollments])
