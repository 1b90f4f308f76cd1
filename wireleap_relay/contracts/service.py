"""Keeps the relay enrolled with every contract it serves, each on its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import attrs
from twisted.application.service import MultiService, Service
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from wireleap_relay.boundaries import ApiError, BadAnswer, Contract, DirectoryApi, Listed, Upstream, UpstreamFailed
from wireleap_relay.contracts.book import Book
from wireleap_relay.contracts.machine import State, backoff, enrollment
from wireleap_relay.wire.address import Address
from wireleap_relay.wire.endpoint import parse_endpoint
from wireleap_relay.wire.keys import PublicKey
from wireleap_relay.wire.relayentry import RelayEntry, Role
from wireleap_relay.wire.versions import Version

_HEARTBEAT = 300.0
#: Seconds that a directory is given to hear that the relay leaves.
_FAREWELL = 5.0


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


class _Desk:
    """Does what the machine of :mod:`wireleap_relay.contracts.machine` asks for."""

    _log = Logger()

    def __init__(
        self, clock: Any, upstream: Upstream, book: Book, url: str, entry: RelayEntry, chance: Callable[[], float]
    ) -> None:
        self.url = parse_endpoint(url)
        self.entry = entry
        self.id: PublicKey | None = None
        self.trouble = ""
        self.upgrade: Version | None = None
        self.attempted: list[Deferred[None]] = []
        self.stopped: list[Deferred[None]] = []
        self.machine = enrollment(self)
        self._clock = clock
        self._upstream = upstream
        self._book = book
        self._chance = chance
        self._heart = LoopingCall(self._beat)
        self._heart.clock = clock
        self._directory: DirectoryApi | None = None
        self._work: Deferred[None] | None = None
        self._retry: IDelayedCall | None = None
        self._failures = 0
        self._asked: Version | None = None

    # Verbs

    def enroll(self) -> None:
        self._work = Deferred.fromCoroutine(self._attempt())
        self._work.addCallbacks(lambda _: self.machine.accepted(), self._attempt_failed)
        self._work.addErrback(self._crashed)

    def give_up(self) -> None:
        self._break_off()
        _tell(self.attempted)

    def open(self) -> None:
        self._failures = 0
        self.trouble = ""
        self._book.open(self.url)
        self._log.info("Enrolled with {url} as {role}", url=self.url, role=self.entry.role)
        self._heart.start(_HEARTBEAT, now=False).addErrback(self._crashed)
        _tell(self.attempted)

    def close(self) -> None:
        self._book.close(self.url)
        self._heart.stop()
        self._break_off()

    def wait(self) -> None:
        self._failures += 1
        delay = backoff(self._failures, self._chance())
        self._log.warn(
            "Not enrolled with {url}: {why}; trying again in {delay} s",
            url=self.url,
            why=self.trouble,
            delay=round(delay),
        )
        self._retry = self._clock.callLater(delay, self.machine.waited)
        _tell(self.attempted)

    def stop_waiting(self) -> None:
        if self._retry is not None:
            self._retry.cancel()

    def leave(self) -> None:
        if self._directory is None:
            self.machine.left()
            return
        leaving = Deferred.fromCoroutine(self._directory.disenroll(self.entry))
        leaving.addTimeout(_FAREWELL, self._clock)
        leaving.addCallbacks(self._has_left, self._left_in_silence)
        leaving.addErrback(self._crashed)

    def finish(self) -> None:
        _tell(self.stopped)

    # How they are done

    async def _attempt(self) -> None:
        info = await self._upstream.contract(self.url).info()
        self._book.enter(Contract(self.url, info.pubkey, self.entry.role, self.entry.address))
        self.id = info.pubkey
        directory = self._upstream.directory(info.directory)
        if (await directory.info()).public_key != info.directory.public_key:
            raise BadAnswer("the directory has another public key than its contract says")
        # From here on the directory may list the relay, whatever becomes of its answer.
        self._directory = directory
        self._heed(await directory.enroll(self.entry))

    def _attempt_failed(self, failure: Failure) -> None:
        if not failure.check(CancelledError):
            self._note(failure)
            self.machine.failed()

    def _beat(self) -> Deferred[None]:
        self._work = Deferred.fromCoroutine(self._heartbeat())
        self._work.addErrback(self._heartbeat_failed)
        return self._work

    async def _heartbeat(self) -> None:
        if self._directory is not None:
            self._heed(await self._directory.heartbeat(self.entry))
            self.trouble = ""

    def _heartbeat_failed(self, failure: Failure) -> None:
        if failure.check(CancelledError):
            return
        self._note(failure)
        if isinstance(failure.value, ApiError) and _refuses(failure.value.code):
            self.machine.dropped()
        else:
            self._log.warn("No heartbeat to the directory of {url}: {why}", url=self.url, why=self.trouble)

    def _has_left(self, _: None) -> None:
        self._directory = None
        self._log.info("Disenrolled from {url}", url=self.url)
        self.machine.left()

    def _left_in_silence(self, failure: Failure) -> None:
        self._note(failure)
        self._log.warn("Could not disenroll from {url}: {why}", url=self.url, why=self.trouble)
        self.machine.left()

    def _note(self, failure: Failure) -> None:
        if not failure.check(UpstreamFailed, DeferredTimeout):
            self._log.failure("Enrollment with {url} met an error of its own", failure, url=self.url)
        self.trouble = failure.getErrorMessage()

    def _heed(self, listed: Listed) -> None:
        """Note the version that a directory asks for, where it is a newer one."""
        wanted, ours = listed.upgrade, self.entry.versions["software"]
        if wanted is None or wanted == self._asked:
            return
        self._asked = wanted
        if wanted > ours:
            self._log.warn("{url} asks for an upgrade to version {version}", url=self.url, version=wanted)
            self.upgrade = wanted
        else:
            self._log.info(
                "{url} asks for version {version}, and this is {ours} already", url=self.url, version=wanted, ours=ours
            )

    def _break_off(self) -> None:
        if self._work is not None and not self._work.called:
            self._work.cancel()

    def _crashed(self, failure: Failure) -> None:
        self._log.failure("Enrollment with {url} has stopped", failure, url=self.url)


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
        self._desk = _Desk(clock, upstream, book, url, entry, chance)

    def startService(self) -> None:
        """Begin to enroll."""
        super().startService()
        self._desk.machine.start()

    def stopService(self) -> Deferred[None]:
        """Disenroll.

        :returns: fires when that is done, or can't be done, after 5 seconds at the latest.
        """
        super().stopService()
        stopped = _waiter(self._desk.stopped)
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
            state=desk.machine.state(),
            trouble=desk.trouble,
            upgrade=desk.upgrade,
        )

    def when_attempted(self) -> Deferred[None]:
        """Wait for the end of the attempt to enroll that is under way, or of the next one."""
        return _waiter(self._desk.attempted)


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


def _refuses(code: int) -> bool:
    return 400 <= code < 500 and code not in (408, 429)


def _waiter(waiting: list[Deferred[None]]) -> Deferred[None]:
    waiter: Deferred[None] = Deferred()
    waiting.append(waiter)
    return waiter


def _tell(waiting: list[Deferred[None]]) -> None:
    waiters = waiting[:]
    waiting.clear()
    for waiter in waiters:
        waiter.callback(None)
