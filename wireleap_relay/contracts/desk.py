"""The work of serving one contract: enrolling, staying enrolled, leaving (PROTOCOL: *API requests*)."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from wireleap_relay.boundaries import (
    ApiError,
    BadAnswer,
    Contract,
    DirectoryApi,
    Incompatible,
    Listed,
    Unreachable,
    UpstreamFailed,
)
from wireleap_relay.contracts.limits import Stage
from wireleap_relay.contracts.machine import SLOW_WAIT, State, backoff, enrollment
from wireleap_relay.contracts.office import Office
from wireleap_relay.contracts.waiting import Waiters, break_off
from wireleap_relay.wire.endpoint import parse_endpoint
from wireleap_relay.wire.keys import PublicKey
from wireleap_relay.wire.relayentry import RelayEntry
from wireleap_relay.wire.status import Status
from wireleap_relay.wire.versions import Version

_HEARTBEAT = 300.0
#: Seconds that a directory is given to hear that the relay leaves.
_FAREWELL = 5.0
_LIMITED = "the relay has reached its limit of network usage"
_LEAVING = "the relay does not serve this contract any longer"
_TOLD_CLIENTS: dict[State, str] = {"soft-limited": _LIMITED, "hard-limited": _LIMITED, "draining": _LEAVING}
#: Heartbeats in a row without an answer, after which something is wrong.
DEGRADED_AFTER = 3


class EnrollmentDesk:
    """Does what the machine of :mod:`wireleap_relay.contracts.machine` asks for, and knows how it went.

    :ivar id: the contract's public key, once it has answered.
    :ivar trouble: what went wrong last; empty when all is well.
    :ivar upgrade: a newer version that the directory asks for.
    :ivar missed: heartbeats in a row that got no answer.
    """

    _log = Logger()

    def __init__(self, office: Office, url: str, entry: RelayEntry, watches_upgrades: bool) -> None:
        """Work for one contract.

        :param watches_upgrades: whether its directory's wish for another version counts.
        :raises WireError: where the URL isn't one.
        """
        self.url = parse_endpoint(url)
        self.entry = entry
        self.watches_upgrades = watches_upgrades
        self.id: PublicKey | None = None
        self.state: State = "waiting"
        self.trouble = ""
        self.upgrade: Version | None = None
        self.missed = 0
        self.machine = enrollment(self)
        self._office = office
        self._attempted = Waiters()
        self._stopped = Waiters()
        self._heart = LoopingCall(self._beat)
        self._heart.clock = office.clock
        self._directory: DirectoryApi | None = None
        self._work: Deferred[Any] | None = None
        self._farewell: Deferred[None] | None = None
        self._draining: Deferred[Any] | None = None
        self._retry: IDelayedCall | None = None
        self._failures = 0
        self._hopeless = False
        self._told = ""
        self._asked: Version | None = None

    @property
    def next_try(self) -> float | None:
        """Seconds until it tries to enroll again; None where it isn't waiting to."""
        if self._retry is None or not self._retry.active():
            return None
        return float(self._retry.getTime() - self._office.clock.seconds())

    def when_attempted(self) -> Deferred[None]:
        """Wait for the end of the attempt to enroll that is under way, or of the next one."""
        return self._attempted.wait()

    def when_stopped(self) -> Deferred[None]:
        """Wait until the contract is served no longer, or once more."""
        return self._stopped.wait()

    def look(self) -> None:
        """Heed what traffic has come to."""
        if self.id is not None:
            self._limit(self._office.stage(self.id, self.entry.network_usage_limit))

    def change(self, entry: RelayEntry) -> None:
        """Take on what the operator has changed."""
        if entry == self.entry:
            return
        self.entry = entry
        if self.id is not None:
            self._office.book.enter(self._contract(self.id))
        self.machine.changed()

    def hurry(self) -> None:
        """Wait for nobody any more: neither for a directory nor for tunnels."""
        for waiting in (self._farewell, self._draining):
            if waiting is not None:
                waiting.cancel()

    # Verbs of the machine

    def stands(self, state: State) -> None:
        """Note the state."""
        self.state = state
        self._office.book.explain(self.url, _TOLD_CLIENTS.get(state, ""))

    def enroll(self) -> None:
        """Try to be listed."""
        self._work = Deferred.fromCoroutine(self._attempt())
        self._work.addCallbacks(self._limit_or_accept, self._attempt_failed)
        self._work.addErrback(self._crashed)

    def give_up(self) -> None:
        """Break the try, or the farewell, under way off."""
        break_off(self._work)
        break_off(self._farewell)
        self._attempted.tell()

    def announce(self) -> None:
        """Take tunnels, and send heartbeats."""
        self._failures = self.missed = 0
        self.trouble = self._told = ""
        self._office.book.open(self.url)
        self._log.info("Enrolled with {url} as {role}", url=self.url, role=self.entry.role)
        self._heart.start(_HEARTBEAT, now=False).addErrback(self._crashed)

    def beat(self) -> None:
        """Send a heartbeat now, and the next one an interval later."""
        self._heart.stop()
        break_off(self._work)
        self._heart.start(_HEARTBEAT, now=True).addErrback(self._crashed)

    def refuse_tunnels(self) -> None:
        """Take no new tunnels, and send no heartbeats."""
        self._office.book.close(self.url)
        self._heart.stop()
        self.missed = 0
        break_off(self._work)

    def close_tunnels(self) -> None:
        """End the open tunnels."""
        self._close(_LIMITED)

    def disenroll(self) -> None:
        """Tell the directory not to list the relay, where it may do so."""
        if self._directory is not None and not self._office.silent:
            self._say_farewell(self._directory)

    def wait(self) -> None:
        """Wait longer with each failure."""
        self._failures += 1
        chance = self._office.chance()
        delay = SLOW_WAIT * (0.75 + chance / 2) if self._hopeless else backoff(self._failures, chance)
        if self.trouble != self._told:
            self._told = self.trouble
            self._log.warn(
                "Not enrolled with {url}: {why}; trying again in {delay} s{slowly}",
                url=self.url,
                why=self.trouble,
                delay=round(delay),
                slowly=": this won't heal by itself, have a look at the config" if self._hopeless else "",
            )
        self._retry = self._office.clock.callLater(delay, self.machine.waited)

    def stop_waiting(self) -> None:
        """Don't."""
        self._failures = 0
        if self._retry is not None:
            self._retry.cancel()

    def drain(self) -> None:
        """Disenroll and let open tunnels finish, both at once."""
        self.disenroll()
        parts = [self._tunnels_gone()]
        if self._farewell is not None:
            parts.append(self._farewell)
        self._draining = gatherResults(parts, consumeErrors=True)
        self._draining.addCallbacks(self._drained, self._drain_broken_off)
        self._draining.addErrback(self._crashed)

    def stop_draining(self) -> None:
        """Serve on."""
        draining, self._draining = self._draining, None
        if draining is not None:
            draining.cancel()
        self._stopped.tell()

    def finish(self) -> None:
        """Tell whoever asked that it is over."""
        self._draining = None
        self._stopped.tell()

    # How they are done

    async def _attempt(self) -> Stage:
        """Enroll, unless a limit stands against it: then tell which."""
        info = await self._office.upstream.contract(self.url).info()
        self._office.book.enter(self._contract(info.pubkey))
        self.id = info.pubkey
        found = self._office.stage(self.id, self.entry.network_usage_limit)
        if found != "free":
            return found
        directory = self._office.upstream.directory(info.directory)
        if (await directory.info()).public_key != info.directory.public_key:
            raise BadAnswer("the directory has another public key than its contract says")
        # From here on the directory may list the relay, whatever becomes of its answer.
        self._directory = directory
        self._heed(await directory.enroll(self.entry))
        return "free"

    def _limit_or_accept(self, found: Stage) -> None:
        if found == "free":
            self.machine.accepted()
        else:
            self._limit(found)
        self._attempted.tell()

    def _limit(self, found: Stage) -> None:
        before = self.state
        if found == "free":
            self.machine.limit_lifted()
        elif found == "soft":
            self.machine.soft_limit_reached()
        else:
            self.machine.hard_limit_reached()
        if self.state != before:
            self._log.warn("{url} is {state} now: network usage", url=self.url, state=self.state)

    def _attempt_failed(self, failure: Failure) -> None:
        if not failure.check(CancelledError):
            self._note(failure)
            self._hopeless = _is_hopeless(failure.value)
            self.machine.failed()
            self._attempted.tell()

    def _beat(self) -> Deferred[Any]:
        self._work = Deferred.fromCoroutine(self._heartbeat())
        self._work.addErrback(self._heartbeat_failed)
        return self._work

    async def _heartbeat(self) -> None:
        if self._directory is not None and not self._office.silent:
            self._heed(await self._directory.heartbeat(self.entry))
            if self.missed >= DEGRADED_AFTER:
                self._log.info("The directory of {url} answers heartbeats again", url=self.url)
            self.trouble = ""
            self.missed = 0

    def _heartbeat_failed(self, failure: Failure) -> None:
        if failure.check(CancelledError):
            return
        self._note(failure)
        if isinstance(failure.value, ApiError) and _is_hopeless(failure.value):
            self._hopeless = False  # an enrollment from the start may do
            self.machine.dropped()
            return
        self.missed += 1
        if self.missed in (1, DEGRADED_AFTER):
            self._log.warn(
                "{count} heartbeats to the directory of {url} without an answer: {why}",
                count=self.missed,
                url=self.url,
                why=self.trouble,
            )

    def _say_farewell(self, directory: DirectoryApi) -> None:
        leaving: Deferred[None] = Deferred.fromCoroutine(directory.disenroll(self.entry))
        leaving.addTimeout(_FAREWELL, self._office.clock, _too_late)
        leaving.addCallbacks(self._has_left, self._left_in_silence)
        leaving.addErrback(self._crashed)
        self._farewell = leaving

    def _has_left(self, _: None) -> None:
        self._directory = self._farewell = None
        self._log.info("Disenrolled from {url}", url=self.url)

    def _left_in_silence(self, failure: Failure) -> None:
        self._farewell = None
        if failure.check(CancelledError):
            return
        self._note(failure)
        self._log.warn("Could not disenroll from {url}: {why}", url=self.url, why=self.trouble)

    def _tunnels_gone(self) -> Deferred[None]:
        gone: Deferred[None] = Deferred()
        if self.id is not None:
            gone = self._office.tunnels.when_drained(self.id)
            gone.addTimeout(self._office.drain_timeout, self._office.clock, lambda *_: None)
            gone.addCallback(lambda _: self._close(_LEAVING))
        else:
            gone.callback(None)
        return gone

    def _drained(self, _: object) -> None:
        # Where a drain is broken off with nothing but a farewell to wait for, that ends well, too.
        if self._draining is not None:
            self.machine.drained()

    def _drain_broken_off(self, failure: Failure) -> None:
        """In a hurry the rest is dropped; where the contract is served once more, nobody asks."""
        if self._draining is not None:
            self._close(_LEAVING)
            self.machine.drained()

    def _close(self, why: str) -> None:
        if self.id is None:
            return
        count = self._office.tunnels.close(self.id, Status(410, why, str(self._office.relay)))
        if count:
            self._log.info("{count} tunnels of {url} were ended", count=count, url=self.url)

    def _contract(self, key: PublicKey) -> Contract:
        return Contract(self.url, key, self.entry.role, self.entry.address)

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
            if self.watches_upgrades:
                self._office.upgrades.noticed(str(wanted))
        else:
            self._log.info(
                "{url} asks for version {version}, and this is {ours} already", url=self.url, version=wanted, ours=ours
            )

    def _crashed(self, failure: Failure) -> None:
        self._log.failure("Enrollment with {url} has stopped", failure, url=self.url)


def _is_hopeless(problem: BaseException | None) -> bool:
    """Tell whether asking again won't help: the other side refuses, or speaks another version."""
    if isinstance(problem, ApiError):
        return 400 <= problem.code < 500 and problem.code not in (408, 429)
    return isinstance(problem, Incompatible)


def _too_late(_: object, timeout: float) -> None:
    raise Unreachable(f"no answer within {timeout:g} s")
