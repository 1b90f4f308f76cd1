"""Submission, with a real store and a contract that answers as its test says."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred, gatherResults

from tests.tokens.test_service import StoreServiceTestCase
from tests.tokens.test_store import Mint
from wireleap_relay.boundaries import Outcome, SubmissionFailed
from wireleap_relay.tokens.archive import Archive
from wireleap_relay.tokens.ledger import TokenCounts
from wireleap_relay.tokens.store import TokenDatabase
from wireleap_relay.tokens.submission import SubmissionService
from wireleap_relay.wire.sharetoken import Sharetoken

reactor: Any = global_reactor
Answer = Outcome | SubmissionFailed


class FakeContract:
    """Answers submissions as its test says."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.always: Answer = Outcome("submitted")
        self.seen: list[tuple[Sharetoken, str]] = []
        self.hold: Deferred[None] | None = None
        self.at_once = self.most_at_once = 0

    async def submit(self, token: Sharetoken, idempotency_key: str) -> Outcome:
        self.seen.append((token, idempotency_key))
        self.at_once += 1
        self.most_at_once = max(self.at_once, self.most_at_once)
        try:
            if self.hold is not None:
                waiting: Deferred[None] = Deferred()
                self.hold.addCallback(lambda _: waiting.callback(None))
                await waiting
        finally:
            self.at_once -= 1
        answer = self.answers.pop(0) if self.answers else self.always
        if isinstance(answer, SubmissionFailed):
            raise answer
        return answer

    @property
    def keys(self) -> list[str]:
        return [key for _, key in self.seen]


class ThreadsToo:
    """A clock's timers, and the reactor's threads."""

    def __init__(self, timers: Any) -> None:
        self.callLater = timers.callLater
        self.seconds = timers.seconds
        self.getThreadPool = reactor.getThreadPool
        self.callFromThread = reactor.callFromThread


class SubmissionTestCase(StoreServiceTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.contract = FakeContract()
        self.folder = Path(self.mktemp())
        self.submission = self.serve(self.contract)

    def serve(self, contract: Any, interval: float = 300.0) -> SubmissionService:
        archive = Archive(self.folder)
        return SubmissionService(ThreadsToo(self.timers), self.store, contract, lambda: self.now, interval, archive)

    async def start(self) -> None:
        self.submission.startService()
        self.addCleanup(lambda: self.submission.stopService() if self.submission.running else None)
        await self.settled()

    async def settled(self) -> None:
        """Let a tick pass, and all that it begins."""
        for _ in range(3):
            await self.until(lambda: not self.submission._rounds and self.submission._archiving is None)
            await self.store.refresh()

    async def at(self, now: float) -> TokenCounts:
        """Let the time come."""
        self.now = now
        self.timers.advance(1)
        await self.store.refresh()
        await self.settled()
        return self.counts()


class SubmissionTests(SubmissionTestCase):
    async def test_from_one_second_after_settlement_opens_and_spread(self) -> None:
        tokens = [self.mint.token() for _ in range(5)]
        await gatherResults([self.store.deposit(token) for token in tokens])
        await self.start()
        for now in (999.0, 1000.0, 1000.9):
            self.assertEqual(await self.at(now), TokenCounts(held=5))
        self.assertEqual(await self.at(1101.0), TokenCounts(submitted=5))
        self.assertEqual({token.signature for token, _ in self.contract.seen}, {token.signature for token in tokens})
        await self.at(1500.0)
        self.assertEqual(len(self.contract.seen), 5)

    async def test_without_an_answer_it_goes_again_with_the_same_key(self) -> None:
        await self.store.deposit(self.mint.token())
        self.contract.answers = [SubmissionFailed("out of reach")] * 2
        await self.start()
        self.assertEqual(await self.at(1200.0), TokenCounts(submitting=1))
        self.assertEqual(await self.at(1499.0), TokenCounts(submitting=1))
        self.assertEqual(len(self.contract.seen), 1)
        self.assertEqual(await self.at(1500.0), TokenCounts(submitting=1))
        self.assertEqual(self.store.status().contracts[0].trouble, "out of reach")
        self.assertEqual(await self.at(1800.0), TokenCounts(submitted=1))
        self.assertEqual((len(self.contract.seen), len(set(self.contract.keys))), (3, 1))
        self.assertEqual(self.store.status().contracts[0].trouble, "")

    async def test_an_answer_that_decides_nothing_makes_the_key_stale(self) -> None:
        await self.store.deposit(self.mint.token())
        self.contract.answers = [SubmissionFailed("500", answered=True), SubmissionFailed("lost")]
        await self.start()
        for now in (1200.0, 1500.0, 1800.0):
            await self.at(now)
        first, second, third = self.contract.keys
        self.assertNotEqual(first, second)
        self.assertEqual(second, third)

    async def test_last_efforts_before_the_window_closes(self) -> None:
        await self.store.deposit(self.mint.token())
        self.contract.always = SubmissionFailed("down")
        await self.start()
        tried = []
        for now in range(1990, 2001):
            self.now = now - 140.0
            before = len(self.contract.seen)
            await self.at(self.now)
            tried += [self.now] if len(self.contract.seen) > before else []
        self.assertEqual(tried, [1850.0])
        for now in range(1900, 2001):
            before = len(self.contract.seen)
            await self.at(float(now))
            tried += [now] if len(self.contract.seen) > before else []
        self.assertEqual(tried, [1850, 1940, 1970, 1985, 1993, 1997, 1999])
        self.timers.advance(5)
        await self.until(lambda: self.counts() == TokenCounts(expired=1))

    async def test_refused_and_expired(self) -> None:
        await gatherResults([self.store.deposit(self.mint.token()) for _ in range(2)])
        self.contract.answers = [Outcome("refused", "not ours"), Outcome("expired", "closed")]
        await self.start()
        self.assertEqual(await self.at(1200.0), TokenCounts(refused=1, expired=1))
        self.assertFalse(self.folder.exists())
        await self.at(1900.0)
        self.assertEqual(len(self.contract.seen), 2)

    async def test_many_tokens_go_in_one_round_a_few_at_once(self) -> None:
        await gatherResults([self.store.deposit(self.mint.token()) for _ in range(250)])
        await self.start()
        self.contract.hold = Deferred()
        self.now = 1200.0
        self.timers.advance(1)
        await self.until(lambda: self.contract.at_once == 8)
        self.contract.hold.callback(None)
        await self.settled()
        self.assertEqual(self.counts(), TokenCounts(submitted=250))
        self.assertEqual((len(self.contract.seen), self.contract.most_at_once), (250, 8))

    async def test_a_contract_that_is_down_is_left_alone_for_a_while(self) -> None:
        await gatherResults([self.store.deposit(self.mint.token()) for _ in range(30)])
        self.contract.always = SubmissionFailed("down")
        await self.start()
        await self.at(1200.0)
        tried = len(self.contract.seen)
        self.assertLess(tried, 16)  # those that were under way when it became clear
        await self.at(1201.0)
        self.assertEqual(len(self.contract.seen), tried)
        self.contract.always = Outcome("submitted")
        await self.at(1500.0)
        self.assertEqual(self.counts(), TokenCounts(submitted=30))

    async def test_tokens_that_are_never_taken_hold_nothing_up(self) -> None:
        poisoned = [self.mint.token() for _ in range(20)]
        await gatherResults([self.store.deposit(token) for token in poisoned])
        await gatherResults([self.store.deposit(self.mint.token()) for _ in range(5)])
        signatures = {token.signature for token in poisoned}
        original = self.contract.submit

        async def submit(token: Sharetoken, key: str) -> Outcome:
            outcome = await original(token, key)
            if token.signature in signatures:
                raise SubmissionFailed("403", answered=True)
            return outcome

        self.patch(self.contract, "submit", submit)
        await self.start()
        for now in (1200.0, 1500.0, 1800.0):
            counts = await self.at(now)
        self.assertEqual(counts, TokenCounts(submitting=20, submitted=5))

    async def test_one_contract_waits_for_no_other(self) -> None:
        other = Mint()
        await gatherResults([self.store.deposit(mint.token()) for mint in (self.mint, other)])
        hanging = self.mint.contract.public_key
        original = self.contract.submit

        async def submit(token: Sharetoken, key: str) -> Outcome:
            if token.contract.public_key == hanging:
                await Deferred()
            return await original(token, key)

        self.patch(self.contract, "submit", submit)
        await self.start()
        self.now = 1200.0
        self.timers.advance(1)
        key = other.contract.public_key
        await self.until(lambda: self.store.status().counts[key] == TokenCounts(submitted=1))
        # Not even when it is to stop; and what was not answered keeps its key.
        await self.submission.stopService()
        self.assertEqual(self.counts(), TokenCounts(submitting=1))

    async def test_what_was_under_way_is_handed_in_again_with_its_key(self) -> None:
        await self.store.deposit(self.mint.token())
        self.contract.hold = Deferred()
        await self.start()
        self.now = 1200.0
        self.timers.advance(1)
        await self.until(lambda: self.contract.at_once == 1)
        await self.submission.stopService()
        self.assertEqual(self.contract.at_once, 0)
        self.contract.hold = None
        await self.start()
        await self.until(lambda: self.counts() == TokenCounts(submitted=1))
        self.assertEqual(len(set(self.contract.keys)), 1)

    async def test_an_interval_of_nothing_turns_it_off(self) -> None:
        await self.store.deposit(self.mint.token())
        self.submission.interval = 0.0
        await self.start()
        self.assertEqual(await self.at(1200.0), TokenCounts(held=1))
        self.submission.apply(100.0, None)
        self.assertEqual(await self.at(1201.0), TokenCounts(submitted=1))

    async def test_a_shorter_interval_holds_for_those_that_wait(self) -> None:
        await self.store.deposit(self.mint.token())
        self.contract.always = SubmissionFailed("down")
        await self.start()
        await self.at(1200.0)
        self.submission.apply(50.0, None)
        await self.at(1249.0)
        self.assertEqual(len(self.contract.seen), 1)
        await self.at(1250.0)
        self.assertEqual(len(self.contract.seen), 2)


class FullDiskTests(SubmissionTestCase):
    def fill(self) -> Callable[[], None]:
        """Let nothing be written any more.

        :returns: lets it.
        """

        def full(*_: Any, **__: Any) -> None:
            error = sqlite3.OperationalError("database or disk is full")
            error.sqlite_errorcode = sqlite3.SQLITE_FULL
            raise error

        patches = [self.patch(TokenDatabase, name, full) for name in ("claim", "settle", "postpone")]
        return lambda: [patch.restore() for patch in patches] and None

    async def test_tokens_are_handed_in_all_the_same_and_settled_later(self) -> None:
        await gatherResults([self.store.deposit(self.mint.token()) for _ in range(150)])
        await self.start()
        empty = self.fill()
        for now in (1200.0, 1205.0, 1211.0, 1225.0):
            self.assertEqual(await self.at(now), TokenCounts(held=150))
        self.assertEqual(len(self.contract.seen), 150)  # each of them once
        self.assertTrue(self.store.status().trouble)
        empty()
        self.assertEqual(await self.at(1300.0), TokenCounts(submitted=150))
        self.assertEqual(len(self.contract.seen), 150)

    async def test_a_contract_that_is_down_too_is_not_pestered(self) -> None:
        await gatherResults([self.store.deposit(self.mint.token()) for _ in range(20)])
        self.contract.always = SubmissionFailed("down")
        await self.start()
        self.fill()
        await self.at(1200.0)
        tried = len(self.contract.seen)
        self.assertLess(tried, 17)
        for second in range(1, 10):
            await self.at(1200.0 + second)
        self.assertEqual(len(self.contract.seen), tried)


class ArchiveTests(SubmissionTestCase):
    def files(self) -> list[str]:
        return sorted(str(file.relative_to(self.folder)) for file in self.folder.rglob("*.json"))

    async def test_accepted_tokens_are_archived(self) -> None:
        token = self.mint.token()
        await self.store.deposit(token)
        await self.start()
        await self.at(1200.0)
        await self.at(1201.0)
        self.assertEqual(self.files(), [f"{self.mint.contract.public_key}/{token.signature}.json"])
        self.assertEqual((self.folder / self.files()[0]).read_text(), token.to_json())
        self.assertEqual(await self.store.do(lambda database: database.to_archive(9)), [])

    async def test_an_archive_that_can_not_be_written_is_written_later(self) -> None:
        await self.store.deposit(self.mint.token())
        self.folder.write_text("in the way")
        await self.start()
        self.assertEqual(await self.at(1200.0), TokenCounts(submitted=1))
        await self.at(1201.0)
        [alarm] = self.store.status().alarms
        self.assertIn("can't be archived", alarm)
        self.folder.unlink()
        await self.at(1501.0)
        await self.at(1502.0)
        self.assertEqual(self.store.status().alarms, ())
        self.assertEqual(len(self.files()), 1)

    async def test_without_an_archive_nothing_waits_for_one(self) -> None:
        await self.store.deposit(self.mint.token())
        self.submission.apply(300.0, None)
        await self.start()
        await self.at(1200.0)
        self.assertEqual(await self.store.do(lambda database: database.to_archive(9)), [])
        self.assertEqual(await self.store.do(lambda database: database.forget(1e9, 9)), 1)


class WrongClockTests(SubmissionTestCase):
    async def test_what_expired_while_the_clock_was_ahead_is_handed_in(self) -> None:
        await gatherResults([self.store.deposit(self.mint.token()) for _ in range(2)])
        self.contract.answers = [SubmissionFailed("not yet", answered=True)] * 2
        await self.start()
        self.assertEqual(await self.at(1200.0), TokenCounts(submitting=2))
        await self.store.deposit(self.mint.token())
        self.now = 90_000.0
        await self.look()
        await self.until(lambda: self.counts() == TokenCounts(expired=3))
        self.assertEqual(await self.at(1210.0), TokenCounts(submitted=1, submitting=2))
        self.assertEqual(await self.at(1510.0), TokenCounts(submitted=3))

    async def test_what_was_put_off_while_the_clock_was_ahead_is_put_off_no_longer_than_ever(self) -> None:
        mint = self.mint = Mint(1000, 9000)
        await self.store.deposit(mint.token())
        self.contract.answers = [SubmissionFailed("not yet", answered=True)]
        await self.start()
        self.assertEqual(await self.at(8000.0), TokenCounts(submitting=1))
        self.assertEqual(await self.at(2000.0), TokenCounts(submitting=1))
        self.assertEqual(await self.at(2300.0), TokenCounts(submitted=1))

    async def test_what_a_contract_called_closed_stays_so(self) -> None:
        self.now = 1150.0
        token = self.mint.token()
        await self.store.deposit(token)
        await self.store.do(lambda database: database.settle(token, Outcome("expired", "closed"), 1100.0))
        await self.start()
        self.assertEqual(await self.at(1200.0), TokenCounts(expired=1))
