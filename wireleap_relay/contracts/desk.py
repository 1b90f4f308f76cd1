"""The work of enrolling with one contract's directory, and of staying enrolled (PROTOCOL: *API requests*)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from wireleap_relay.boundaries import (
    ApiError,
    BadAnswer,
    Contract,
    DirectoryApi,
    Listed,
    Unreachable,
    Upstream,
    UpstreamFailed,
)
from wireleap_relay.contracts.book import Book
from wireleap_relay.contracts.machine import State, backoff, enrollment
from wireleap_relay.wire.endpoint import parse_endpoint
from wireleap_relay.wire.keys import PublicKey
from wireleap_relay.wire.relayentry import RelayEntry
from wireleap_relay.wire.versions import Version

_HEARTBEAT = 300.0
#: Seconds that a directory is given to hear that the relay leaves.
_FAREWELL = 5.0


class EnrollmentDesk:
    """Does what the machine of :mod:`wireleap_relay.contracts.machine` asks for, and knows how it went.

    :ivar id: the contract's public key, once it has answered.
    :ivar trouble: what went wrong last; empty when all is well.
    :ivar upgrade: a newer version that the directory asks for.
    """

    _log = Logger()

    def __init__(
        self, clock: Any, upstream: Upstream, book: Book, url: str, entry: RelayEntry, chance: Callable[[], float]
    ) -> None:
        """Work for one contract.

        :raises WireError: where the URL isn't one.
        """
        self.url = parse_endpoint(url)
        self.entry = entry
        self.id: PublicKey | None = None
        self.state: State = "waiting"
        self.trouble = ""
        self.upgrade: Version | None = None
        self._attempted: list[Deferred[None]] = []
        self._stopped: list[Deferred[None]] = []
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

    def when_attempted(self) -> Deferred[None]:
        """Wait for the end of the attempt to enroll that is under way, or of the next one."""
        return _waiter(self._attempted)

    def when_stopped(self) -> Deferred[None]:
        """Wait until the machine has finished."""
        return _waiter(self._stopped)

    # Verbs of the machine

    def enroll(self) -> None:
        """Try to be listed."""
        self.state = "enrolling"
        self._work = Deferred.fromCoroutine(self._attempt())
        self._work.addCallbacks(lambda _: self.machine.accepted(), self._attempt_failed)
        self._work.addErrback(self._crashed)

    def give_up(self) -> None:
        """Break the try under way off."""
        self._break_off()
        _tell(self._attempted)

    def open(self) -> None:
        """Take tunnels, and send heartbeats."""
        self.state = "enrolled"
        self._failures = 0
        self.trouble = ""
        self._book.open(self.url)
        self._log.info("Enrolled with {url} as {role}", url=self.url, role=self.entry.role)
        self._heart.start(_HEARTBEAT, now=False).addErrback(self._crashed)
        _tell(self._attempted)

    def close(self) -> None:
        """Take no tunnels, and send no heartbeats."""
        self._book.close(self.url)
        self._heart.stop()
        self._break_off()

    def wait(self) -> None:
        """Wait longer with each failure."""
        self.state = "backing off"
        self._failures += 1
        delay = backoff(self._failures, self._chance())
        self._log.warn(
            "Not enrolled with {url}: {why}; trying again in {delay} s",
            url=self.url,
            why=self.trouble,
            delay=round(delay),
        )
        self._retry = self._clock.callLater(delay, self.machine.waited)
        _tell(self._attempted)

    def stop_waiting(self) -> None:
        """Don't."""
        if self._retry is not None:
            self._retry.cancel()

    def leave(self) -> None:
        """Tell the directory to list the relay no longer, where it may do so."""
        self.state = "leaving"
        if self._directory is None:
            self.machine.left()
            return
        leaving = Deferred.fromCoroutine(self._directory.disenroll(self.entry))
        leaving.addTimeout(_FAREWELL, self._clock, _too_late)
        leaving.addCallbacks(self._has_left, self._left_in_silence)
        leaving.addErrback(self._crashed)

    def finish(self) -> None:
        """Tell whoever asked that it is over."""
        self.state = "withdrawn"
        _tell(self._stopped)

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
        if not failure.check(UpstreamFailed):
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


def _refuses(code: int) -> bool:
    return 400 <= code < 500 and code not in (408, 429)


def _too_late(_: object, timeout: float) -> None:
    raise Unreachable(f"no answer within {timeout:g} s")


def _waiter(waiting: list[Deferred[None]]) -> Deferred[None]:
    waiter: Deferred[None] = Deferred()
    waiting.append(waiter)
    return waiter


def _tell(waiting: list[Deferred[None]]) -> None:
    waiters = waiting[:]
    waiting.clear()
    for waiter in waiters:
        waiter.callback(None)
