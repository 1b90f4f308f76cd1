"""The store's service and submission, with real threads and a real database."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

from twisted.internet import reactor as global_reactor
from twisted.internet.defer import gatherResults
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from tests.tokens.test_store import Mint
from wireleap_relay.boundaries import Outcome, SubmissionFailed
from wireleap_relay.tokens.service import SubmissionService, TokenStoreService
from wireleap_relay.tokens.store import TokenCounts, TokenDatabase
from wireleap_relay.wire.sharetoken import Sharetoken

reactor: Any = global_reactor


class StoreServiceTests(TestCase):
    def setUp(self) -> None:
        self.mint = Mint()
        self.path = Path(self.mktemp()) / "sharetokens.db"
        self.store = TokenStoreService(reactor, self.path, lambda: 900.0)
        self.store.startService()
        self.addCleanup(self.store.stopService)

    async def test_deposits_share_commits_and_find_duplicates(self) -> None:
        tokens = [self.mint.token() for _ in range(50)]
        commits: list[int] = []
        original = TokenDatabase.deposit

        def counting(database: TokenDatabase, batch: Any, now: float) -> list[bool]:
            commits.append(len(batch))
            return original(database, batch, now)

        self.patch(TokenDatabase, "deposit", counting)
        results = await gatherResults([self.store.deposit(token) for token in [*tokens, tokens[0]]])
        self.assertEqual(results, [True] * 50 + [False])
        self.assertEqual(sum(commits), 51)
        self.assertLessEqual(len(commits), 3)
        self.assertEqual(self.store.status().counts[self.mint.contract.public_key], TokenCounts(held=50))

    async def test_trouble_is_told_and_heals(self) -> None:
        await self.store.ask(lambda database: database._db.execute("PRAGMA query_only=1"))
        with self.assertRaises(sqlite3.Error):
            await self.store.deposit(self.mint.token())
        self.assertIn("readonly", self.store.status().trouble)
        await self.store.ask(lambda database: database._db.execute("PRAGMA query_only=0"))
        self.assertTrue(await self.store.deposit(self.mint.token()))
        self.assertEqual(self.store.status().trouble, "")

    async def test_stopping_finishes_what_was_asked_for(self) -> None:
        depositing = self.store.deposit(self.mint.token())
        await self.store.stopService()
        self.assertTrue(await depositing)
        self.store.startService()
        self.assertEqual(self.store.status().counts[self.mint.contract.public_key], TokenCounts(held=1))


class FakeContract:
    """Answers submissions as its test says."""

    def __init__(self) -> None:
        self.answers: list[Outcome | SubmissionFailed] = []
        self.seen: list[tuple[Sharetoken, str]] = []

    async def submit(self, token: Sharetoken, idempotency_key: str) -> Outcome:
        self.seen.append((token, idempotency_key))
        answer = self.answers.pop(0) if self.answers else Outcome("submitted")
        if isinstance(answer, SubmissionFailed):
            raise answer
        return answer


class SubmissionTests(TestCase):
    def setUp(self) -> None:
        self.mint = Mint(opens=1000, closes=2000)
        self.now = 900.0
        self.clock = Clock()
        self.contract = FakeContract()
        self.archived: list[Sharetoken] = []
        self.store = TokenStoreService(reactor, Path(self.mktemp()) / "sharetokens.db", lambda: self.now)
        self.store.startService()
        self.addCleanup(self.store.stopService)
        self.submission = SubmissionService(
            self.clock, self.store, self.contract, lambda: self.now, 300.0, self.archived.append
        )

    async def round(self) -> TokenCounts:
        await self.submission._submit_round()
        return self.store.status().counts.get(self.mint.contract.public_key, TokenCounts())

    async def test_from_one_second_after_settlement_opens(self) -> None:
        self.submission.running = 1
        token = self.mint.token()
        await self.store.deposit(token)
        for self.now in (999.0, 1000.0, 1001.0):
            self.assertEqual(await self.round(), TokenCounts(held=1))
        self.now = 1001.5
        self.assertEqual(await self.round(), TokenCounts(submitted=1))
        self.assertEqual(self.archived, [token])
        await self.round()
        self.assertEqual(len(self.contract.seen), 1)

    async def test_a_failed_submission_is_tried_again_with_the_same_key(self) -> None:
        self.submission.running = 1
        await self.store.deposit(self.mint.token())
        self.contract.answers = [SubmissionFailed("500"), SubmissionFailed("out of reach")]
        self.now = 1100.0
        self.assertEqual(await self.round(), TokenCounts(held=1))
        self.assertEqual(await self.round(), TokenCounts(held=1))
        self.assertEqual(await self.round(), TokenCounts(submitted=1))
        self.assertEqual(len({key for _, key in self.contract.seen}), 1)

    async def test_an_answer_that_decides_nothing_makes_the_key_stale(self) -> None:
        self.submission.running = 1
        await self.store.deposit(self.mint.token())
        self.contract.answers = [SubmissionFailed("500", answered=True), SubmissionFailed("lost")]
        self.now = 1100.0
        for expected in (TokenCounts(held=1), TokenCounts(held=1), TokenCounts(submitted=1)):
            self.assertEqual(await self.round(), expected)
        first, second, third = [key for _, key in self.contract.seen]
        self.assertNotEqual(first, second)
        self.assertEqual(second, third)

    async def test_refused_and_expired(self) -> None:
        self.submission.running = 1
        for _ in range(2):
            await self.store.deposit(self.mint.token())
        self.contract.answers = [Outcome("refused", "not ours"), Outcome("expired", "closed")]
        self.now = 1100.0
        self.assertEqual(await self.round(), TokenCounts(refused=1, expired=1))
        self.assertEqual(self.archived, [])

    async def test_past_its_window_a_token_expires_unsubmitted(self) -> None:
        self.submission.running = 1
        await self.store.deposit(self.mint.token())
        self.now = 2000.0
        self.assertEqual(await self.round(), TokenCounts(expired=1))
        self.assertEqual(self.contract.seen, [])

    async def test_many_tokens_go_in_one_round(self) -> None:
        self.submission.running = 1
        await gatherResults([self.store.deposit(self.mint.token()) for _ in range(250)])
        self.now = 1100.0
        self.assertEqual(await self.round(), TokenCounts(submitted=250))

    async def test_a_round_at_start_and_one_every_interval(self) -> None:
        await self.store.deposit(self.mint.token())
        self.contract.answers = [SubmissionFailed("down")]
        self.now = 1100.0
        self.submission.startService()
        await self._until(lambda: len(self.contract.seen) == 1)
        # The round that is under way ends before the next may begin.
        await self.store.refresh_counts()
        self.clock.advance(300)
        await self._until(lambda: len(self.contract.seen) == 2)
        await self.submission.stopService()

    async def test_an_interval_of_nothing_turns_it_off(self) -> None:
        self.submission.interval = 0.0
        self.submission.startService()
        await self.submission.stopService()
        self.assertEqual(self.contract.seen, [])

    async def _until(self, condition: Any) -> None:
        for _ in range(500):
            if condition():
                return
            await self.store.refresh_counts()
        self.fail("it did not come about")
