"""Keeps sharetokens on disk, and hands them to the contracts that owe for them."""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Callable
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any, TypeVar

import attrs
from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredSemaphore, gatherResults, succeed
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from wireleap_relay.boundaries import SubmissionFailed, Submitter, WallClock
from wireleap_relay.tokens.store import HeldToken, TokenCounts, TokenDatabase
from wireleap_relay.wire.keys import PublicKey
from wireleap_relay.wire.sharetoken import Sharetoken

T = TypeVar("T")
_Job = tuple[Callable[[TokenDatabase], Any], Deferred[Any]]

#: Tokens that share one commit at the most.
_BATCH = 500
#: Tokens taken from the store for one contract at a time.
_SUBMISSION_BATCH = 100
#: Requests to one contract at once.
_AT_ONCE = 4


@attrs.frozen
class TokensStatus:
    """The ledger.

    :ivar counts: by contract; what was last read from disk.
    :ivar trouble: why tokens can't be kept right now; empty when they can.
    """

    counts: dict[PublicKey, TokenCounts]
    trouble: str


class TokenStoreService(Service):
    """Owns the database and the one thread that works on it.

    Deposits that arrive while a commit is under way share the next one, so the
    disk is asked once for all of them.
    """

    _log = Logger()

    def __init__(self, reactor: Any, path: Path, clock: WallClock) -> None:
        """Keep tokens in the file at ``path``."""
        self._reactor = reactor
        self._path = path
        self._clock = clock
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._waiting: list[tuple[Sharetoken, str, Deferred[bool]]] = []
        self._thread: Thread | None = None
        self._trouble = ""
        self._counts: dict[PublicKey, TokenCounts] = {}

    def startService(self) -> None:
        """Open the database.

        :raises sqlite3.Error: where it can't be opened.
        """
        super().startService()
        database = TokenDatabase(self._path)
        self._note_counts(database.counts())
        self._thread = Thread(target=self._work, args=(database,), name="sharetokens", daemon=True)
        self._thread.start()

    def stopService(self) -> Deferred[None]:
        """Finish what was asked for, and close the database."""
        super().stopService()
        closed: Deferred[None] = Deferred()
        self._jobs.put((TokenDatabase.close, closed))
        self._jobs.put(None)
        return closed

    def status(self) -> TokensStatus:
        """Tell how the tokens stand."""
        return TokensStatus(dict(self._counts), self._trouble)

    def deposit(self, token: Sharetoken) -> Deferred[bool]:
        """Commit a token.

        :returns: fires with False where it was seen before; fails with
            :exc:`sqlite3.Error` where the disk won't take it.
        """
        done: Deferred[bool] = Deferred()
        self._waiting.append((token, secrets.token_hex(16), done))
        if len(self._waiting) == 1:
            self._next_batch()
        return done

    def ask(self, job: Callable[[TokenDatabase], T]) -> Deferred[T]:
        """Run something on the database, in its thread."""
        done: Deferred[T] = Deferred()
        self._jobs.put((job, done))
        return done

    def refresh_counts(self) -> Deferred[None]:
        """Read the ledger's figures anew."""
        return self.ask(TokenDatabase.counts).addCallback(self._note_counts)

    def _next_batch(self) -> None:
        batch = self._waiting[:_BATCH]
        now = self._clock()
        committed = self.ask(lambda database: database.deposit([(token, key) for token, key, _ in batch], now))
        committed.addCallbacks(self._committed, self._failed, callbackArgs=(batch,), errbackArgs=(batch,))
        committed.addBoth(self._batch_done, len(batch))

    def _committed(self, new: list[bool], batch: list[tuple[Sharetoken, str, Deferred[bool]]]) -> None:
        if self._trouble:
            self._log.info("Sharetokens are kept again")
            self._trouble = ""
        for is_new, (token, _, done) in zip(new, batch, strict=True):
            if is_new:
                self._count_held(token.contract.public_key)
            done.callback(is_new)

    def _failed(self, failure: Failure, batch: list[tuple[Sharetoken, str, Deferred[bool]]]) -> None:
        failure.trap(sqlite3.Error, OSError)
        if not self._trouble:
            self._log.error("Sharetokens can't be kept, so new tunnels are refused: {why}", why=str(failure.value))
        self._trouble = str(failure.value)
        for _, _, done in batch:
            done.errback(failure)

    def _batch_done(self, result: Any, size: int) -> Any:
        del self._waiting[:size]
        if self._waiting:
            self._next_batch()
        return result

    def _count_held(self, contract: PublicKey) -> None:
        counts = self._counts.get(contract, TokenCounts())
        self._counts[contract] = attrs.evolve(counts, held=counts.held + 1)

    def _note_counts(self, counts: dict[bytes, TokenCounts]) -> None:
        self._counts = {PublicKey(key): value for key, value in counts.items()}

    def _work(self, database: TokenDatabase) -> None:
        while (job := self._jobs.get()) is not None:
            work, done = job
            try:
                result = work(database)
            except BaseException:  # noqa: BLE001 - it belongs to whoever asked
                self._reactor.callFromThread(done.errback, Failure())
            else:
                self._reactor.callFromThread(done.callback, result)


class SubmissionService(Service):
    """Hands held tokens to their contracts, again and again until they take them or close.

    :ivar interval: seconds between rounds; 0 turns submission off.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        store: TokenStoreService,
        submitter: Submitter,
        clock: WallClock,
        interval: float,
        archive: Callable[[Sharetoken], None] | None,
    ) -> None:
        """Submit from a store through a submitter; ``archive`` keeps what was accepted."""
        self._store = store
        self._submitter = submitter
        self._clock = clock
        self._archive = archive
        self.interval = interval
        self._reactor = reactor
        self._round = LoopingCall(self._submit_due)
        self._running: Deferred[Any] | None = None

    def startService(self) -> None:
        """Begin with a round at once: tokens may have become due while the relay was down."""
        super().startService()
        self._begin()

    def stopService(self) -> Deferred[Any]:
        """Stop after the request under way."""
        super().stopService()
        if self._round.running:
            self._round.stop()
        return self._running or succeed(None)

    def apply(self, interval: float, archive: Callable[[Sharetoken], None] | None) -> None:
        """Submit in other intervals from here on, or archive elsewhere."""
        self._archive = archive
        if interval != self.interval:
            self.interval = interval
            if self._round.running:
                self._round.stop()
            self._begin()

    def _begin(self) -> None:
        # A new one each time: one that is stopped in a round would go on when it is started again.
        self._round = LoopingCall(self._submit_due)
        self._round.clock = self._reactor
        if self.interval:
            self._running = self._round.start(self.interval)
            self._running.addErrback(lambda failure: self._log.failure("Submission has stopped", failure))

    def _submit_due(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._submit_round()).addErrback(self._round_failed)

    def _round_failed(self, failure: Failure) -> None:
        failure.trap(sqlite3.Error, OSError)
        self._log.error("The sharetoken store can't be read: {why}", why=str(failure.value))

    async def _submit_round(self) -> None:
        now = self._clock()
        expired = await self._store.ask(lambda database: database.expire(now))
        if expired:
            self._log.warn("{count} sharetokens have expired before a contract took them", count=expired)
        contracts = await self._store.ask(TokenDatabase.contracts)
        await gatherResults([Deferred.fromCoroutine(self._submit_for(key)) for key in contracts], consumeErrors=True)
        await self._store.refresh_counts()

    async def _submit_for(self, contract: bytes) -> None:
        """Submit what one contract owes for, until it is done or the contract has trouble."""
        at_once = DeferredSemaphore(_AT_ONCE)
        while self.running:
            opened_before = self._clock() - 1
            batch = await self._store.ask(
                partial(TokenDatabase.due, contract=contract, now=opened_before, most=_SUBMISSION_BATCH)
            )
            attempts = [at_once.run(lambda h: Deferred.fromCoroutine(self._submit(h)), held) for held in batch]
            settled = await gatherResults(attempts, consumeErrors=True)
            if not all(settled) or len(batch) < _SUBMISSION_BATCH:
                return

    async def _submit(self, held: HeldToken) -> bool:
        """Submit one token.

        :returns: whether it needs no further attempt.
        """
        token = held.token
        try:
            outcome = await self._submitter.submit(token, held.idempotency_key)
        except SubmissionFailed as e:
            self._log.warn(
                "Contract {contract} did not take a sharetoken: {why}", contract=token.contract.public_key, why=str(e)
            )
            if e.answered:
                await self._store.ask(lambda database: database.renew_key(token, secrets.token_hex(16)))
            return False
        now = self._clock()

        def settle(database: TokenDatabase) -> None:
            if outcome.state == "submitted" and self._archive is not None:
                self._archive(token)
            database.settle(token, outcome.state, outcome.reason, now)

        await self._store.ask(settle)
        return True
