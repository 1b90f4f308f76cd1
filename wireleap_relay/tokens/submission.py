"""Hands sharetokens to the contracts that owe for them."""

from __future__ import annotations

import secrets
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import attrs
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, DeferredList, gatherResults
from twisted.internet.task import LoopingCall
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure

from wireleap_relay.boundaries import SubmissionFailed, Submitter, WallClock
from wireleap_relay.tokens.archive import Archive
from wireleap_relay.tokens.schedule import next_attempt
from wireleap_relay.tokens.service import TokenStoreService
from wireleap_relay.tokens.store import HeldToken, TokenDatabase
from wireleap_relay.wire.keys import PublicKey, Signature
from wireleap_relay.wire.sharetoken import Sharetoken

#: Seconds between looks at what is due.
_TICK = 1.0
#: Tokens taken from the store for one contract at a time.
_BATCH = 100
#: Requests to one contract at once.
_AT_ONCE = 8
#: Failures in a row after which a contract is left alone for a while.
_ENOUGH = 8
_ARCHIVED_AT_ONCE = 50
#: Seconds between rounds, while nothing can be written.
_BREATH = 10.0


@attrs.define
class _Round:
    """What came of handing in one contract's tokens.

    :ivar failed: attempts in a row.
    :ivar again_at: when the first of those that failed is handed in again; Unix seconds.
    :ivar why: what was wrong last.
    :ivar broken: whether the relay itself is in trouble, and can't keep what comes of it.
    """

    contract: PublicKey
    outcomes: Counter[str] = attrs.field(factory=Counter)
    failed: int = 0
    again_at: float = float("inf")
    why: str = ""
    broken: bool = False

    @property
    def hopeless(self) -> bool:
        """Whether the contract had better be left alone."""
        return self.failed >= _ENOUGH


@attrs.frozen
class _Pause:
    """A contract is left alone; times are Unix seconds."""

    since: float
    until: float

    def is_over(self, now: float) -> bool:
        """Tell whether it is; a clock that was set back ends it, too."""
        return not self.since <= now < self.until


class SubmissionService(Service):
    """Hands held tokens to their contracts, again and again until they take them or close.

    :ivar interval: seconds between attempts; 0 turns submission off.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        store: TokenStoreService,
        submitter: Submitter,
        clock: WallClock,
        interval: float,
        archive: Archive | None,
    ) -> None:
        """Submit from a store through a submitter.

        :param archive: where accepted tokens go; None for nowhere.
        """
        self._reactor = reactor
        self._store = store
        self._submitter = submitter
        self._clock = clock
        self._archive = archive
        self.interval = interval
        self._ticking = LoopingCall(self._tick)
        self._ticking.clock = reactor
        self._rounds: dict[PublicKey, Deferred[None]] = {}
        self._pauses: dict[PublicKey, _Pause] = {}
        self._unsaved: dict[Signature, Callable[[TokenDatabase], None]] = {}
        self._archiving: Deferred[None] | None = None
        self._archive_again_at = 0.0
        self._ticked_at = 0.0

    def startService(self) -> None:
        """Begin at once: tokens may have become due while the relay was down."""
        super().startService()
        self._begin()

    def stopService(self) -> Deferred[Any]:
        """Give up what is under way: those tokens are handed in again, under the same key."""
        super().stopService()
        self._end()
        rounds = list(self._rounds.values())
        ended = gatherResults([_end_of(each) for each in [*rounds, *([self._archiving] if self._archiving else [])]])
        for round_ in rounds:
            round_.cancel()
        return ended

    def apply(self, interval: float, archive: Archive | None) -> None:
        """Submit in other intervals from here on, or archive elsewhere."""
        self._archive = archive
        if interval != self.interval:
            self.interval = interval
            self._end()
            self._begin()

    def _begin(self) -> None:
        if not self.interval:
            return
        self._pauses.clear()
        self._make_up(self._clock())
        # A new one each time: one that is stopped in a tick would go on when it is started again.
        self._ticking = LoopingCall(self._tick)
        self._ticking.clock = self._reactor
        self._ticking.start(min(_TICK, self.interval)).addErrback(self._stuck)

    def _make_up(self, now: float) -> None:
        """Let no token wait for a time that was reckoned from another clock, or with another interval."""
        soon = now + self.interval
        self._ticked_at = now

        def make_up(database: TokenDatabase) -> int:
            database.hasten(soon)
            return database.revive(now)

        self._store.do(make_up).addCallbacks(self._revived, self._unkept)

    def _revived(self, count: int) -> None:
        if count:
            self._log.info("{count} sharetokens had expired by a clock that was ahead: they are handed in", count=count)

    def _end(self) -> None:
        if self._ticking.running:
            self._ticking.stop()

    def _tick(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._begin_rounds()).addErrback(self._unkept)

    async def _begin_rounds(self) -> None:
        now = self._clock()
        if now < self._ticked_at:
            self._make_up(now)  # the clock was set back
        self._ticked_at = now
        self._archive_soon()
        if self._unsaved:
            self._save().addErrback(self._unkept)
        for raw in await self._store.do(lambda database: database.due(now)):
            contract = PublicKey(raw)
            pause = self._pauses.get(contract)
            if self.running and contract not in self._rounds and (pause is None or pause.is_over(now)):
                self._rounds[contract] = Deferred()  # it may be over before its name is known
                under_way = Deferred.fromCoroutine(self._hand_in(_Round(contract)))
                under_way.addErrback(self._unkept).addErrback(self._broken_off).addBoth(self._is_over, contract)
                if contract in self._rounds:
                    self._rounds[contract] = under_way

    def _save(self) -> Deferred[None]:
        """Note verdicts that could not be noted when they came."""
        verdicts = dict(self._unsaved)

        def settle(database: TokenDatabase) -> None:
            for verdict in verdicts.values():
                verdict(database)

        return self._store.do(settle).addCallback(self._saved, list(verdicts))

    def _saved(self, _: None, signatures: list[Signature]) -> None:
        for signature in signatures:
            self._unsaved.pop(signature, None)

    # One contract's round

    async def _hand_in(self, round_: _Round) -> None:
        """Hand in what is due, until there is no more of it or the contract is hopeless."""
        try:
            while self.running and not round_.hopeless and not round_.broken:
                batch = await self._claim(round_)
                if not batch:
                    break
                waiting = iter(batch)
                hands = [Deferred.fromCoroutine(self._work(waiting, round_)) for _ in range(min(_AT_ONCE, len(batch)))]
                results: list[tuple[bool, Any]] = await DeferredList(hands, consumeErrors=True)
                for failure in [result for well, result in results if not well]:
                    failure.raiseException()
        finally:
            self._note(round_)
        self._archive_soon()
        await self._store.refresh()

    async def _claim(self, round_: _Round) -> list[HeldToken]:
        """Take tokens that are due; where nothing can be written, some that may be worth nothing when it can again."""
        contract, now = round_.contract.raw, self._clock()
        try:
            found = await self._store.do(lambda database: database.claim(contract, now, _BATCH))
        except (sqlite3.Error, OSError):
            round_.broken = True
            most = _BATCH + len(self._unsaved)
            found = await self._store.do(lambda database: database.peek(contract, now, most))
        return [held for held in found if held.token.signature not in self._unsaved]

    async def _work(self, waiting: Iterator[HeldToken], round_: _Round) -> None:
        """Hand in one token after another; several of these share the tokens that wait."""
        for held in waiting:
            await self._submit(held, round_)
            if round_.hopeless or not self.running:
                return

    async def _submit(self, held: HeldToken, round_: _Round) -> None:
        token, archive = held.token, self._archive is not None
        try:
            outcome = await self._submitter.submit(token, held.idempotency_key)
        except SubmissionFailed as e:
            await self._postpone(token, e, round_)
            return
        round_.failed = 0
        now = self._clock()

        def verdict(database: TokenDatabase) -> None:
            database.settle(token, outcome, now, archive=archive)

        try:
            await self._store.do(verdict)
        except (sqlite3.Error, OSError):
            self._unsaved[token.signature] = verdict
        round_.outcomes[outcome.state] += 1
        if outcome.state != "submitted":
            round_.why = outcome.reason

    async def _postpone(self, token: Sharetoken, failure: SubmissionFailed, round_: _Round) -> None:
        window, why = token.contract, str(failure)
        again_at = next_attempt(self._clock(), self.interval, window.settlement_open, window.settlement_close)
        key = secrets.token_hex(16) if failure.answered else None
        round_.failed += 1
        round_.again_at = min(round_.again_at, again_at)
        round_.outcomes["not taken"] += 1
        round_.why = why
        try:
            await self._store.do(lambda database: database.postpone(token, again_at, why, key))
        except (sqlite3.Error, OSError):
            round_.broken = True

    def _note(self, round_: _Round) -> None:
        now = self._clock()
        if round_.broken:
            self._pauses[round_.contract] = _Pause(now, now + min(self.interval, _BREATH))
        elif round_.hopeless:
            self._pauses[round_.contract] = _Pause(now, round_.again_at)
        else:
            self._pauses.pop(round_.contract, None)
        if not round_.outcomes:
            return
        told = ", ".join(f"{count} {what}" for what, count in round_.outcomes.items())
        name = self._store.address_of(round_.contract) or str(round_.contract)
        if set(round_.outcomes) == {"submitted"}:
            self._log.info("Sharetokens handed in to {contract}: {told}", contract=name, told=told)
        else:
            self._log.warn(
                "Sharetokens handed in to {contract}: {told}: {why}", contract=name, told=told, why=round_.why
            )

    def _is_over(self, _: object, contract: PublicKey) -> None:
        del self._rounds[contract]

    # The archive

    def _archive_soon(self) -> None:
        if self._archiving is None and self._clock() >= self._archive_again_at:
            self._archiving = Deferred.fromCoroutine(self._archive_waiting()).addErrback(self._unkept)
            self._archiving.addBoth(self._has_archived)

    async def _archive_waiting(self) -> None:
        """Archive what was accepted; what can't be now is tried again in the next interval."""
        while self.running:
            tokens = await self._store.do(lambda database: database.to_archive(_ARCHIVED_AT_ONCE))
            if not tokens:
                return
            if self._archive is not None:
                pool = self._reactor.getThreadPool()
                try:
                    await deferToThreadPool(self._reactor, pool, self._archive.keep, tokens)
                except OSError as e:
                    self._archive_failed(e)
                    return
            self._store.alarm("archive", "")
            await self._store.do(partial(TokenDatabase.archived, tokens=tokens))

    def _archive_failed(self, error: OSError) -> None:
        self._archive_again_at = self._clock() + self.interval
        what = f"accepted sharetokens can't be archived, and are kept in the store: {error}"
        self._log.error("{what}", what=what)
        self._store.alarm("archive", what)

    def _has_archived(self, _: object) -> None:
        self._archiving = None

    # What goes wrong

    def _unkept(self, failure: Failure) -> None:
        failure.trap(sqlite3.Error, OSError)  # the store has told why

    def _broken_off(self, failure: Failure) -> None:
        if not failure.check(CancelledError):
            self._log.failure("Handing in sharetokens has met an error of its own", failure)

    def _stuck(self, failure: Failure) -> None:
        self._log.failure("Submission has stopped", failure)


def _end_of(under_way: Deferred[None]) -> Deferred[None]:
    """Wait for something without having its result."""
    ended: Deferred[None] = Deferred()
    under_way.addBoth(lambda _: ended.callback(None))
    return ended
