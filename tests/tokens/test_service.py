"""The store's service, with a real thread and a real database."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

from twisted.internet import reactor as global_reactor
from twisted.internet.defer import gatherResults
from twisted.internet.task import Clock, deferLater
from twisted.trial.unittest import TestCase

from tests.tokens.test_store import Mint
from wireleap_relay.boundaries import Outcome
from wireleap_relay.tokens.ledger import TokenCounts
from wireleap_relay.tokens.schema import NewerDatabase
from wireleap_relay.tokens.service import TokenStoreService
from wireleap_relay.tokens.store import TokenDatabase

reactor: Any = global_reactor


class ClockedReactor(Clock):
    """Timers by a clock that the test moves; threads as they are."""

    def callFromThread(self, work: Any, *arguments: Any) -> None:
        reactor.callFromThread(work, *arguments)


class StoreServiceTestCase(TestCase):
    def setUp(self) -> None:
        self.mint = Mint()
        self.now = 900.0
        self.path = Path(self.mktemp()) / "sharetokens.db"
        self.timers = ClockedReactor()
        self.store = self.make()
        self.store.startService()
        self.addCleanup(lambda: self.store.stopService() if self.store.running else None)

    def make(self) -> TokenStoreService:
        return TokenStoreService(self.timers, self.path, lambda: self.now, self.mint.relay.public_key)

    def counts(self) -> TokenCounts:
        return self.store.status().counts.get(self.mint.contract.public_key, TokenCounts())

    async def look(self) -> None:
        """Let the store look at what time has changed."""
        await self.until(self.timers.getDelayedCalls)
        self.timers.advance(5)

    async def until(self, condition: Any) -> None:
        for _ in range(1000):
            if condition():
                return
            await deferLater(reactor, 0.005)
        self.fail("it did not come about")


class StoreServiceTests(StoreServiceTestCase):
    async def test_deposits_share_commits_and_find_duplicates(self) -> None:
        tokens = [self.mint.token() for _ in range(50)]
        commits: list[int] = []
        original = TokenDatabase.together

        def counting(database: TokenDatabase, jobs: Any) -> list[Any]:
            commits.append(len(jobs))
            return original(database, jobs)

        self.patch(TokenDatabase, "together", counting)
        results = await gatherResults([self.store.deposit(token) for token in [*tokens, tokens[0]]])
        self.assertEqual(results, [True] * 50 + [False])
        self.assertLessEqual(len(commits), 10)
        self.assertEqual(self.counts(), TokenCounts(held=50))

    async def test_an_error_of_one_is_nobody_elses(self) -> None:
        await self.store.refresh()
        jobs = [
            self.store.deposit(self.mint.token()),
            self.store.do(lambda _: 1 / 0),
            self.store.deposit(self.mint.token()),
        ]
        with self.assertRaises(ZeroDivisionError):
            await jobs[1]
        self.assertEqual(await gatherResults([jobs[0], jobs[2]]), [True, True])
        self.assertEqual(self.store.status().trouble, "")

    async def test_trouble_is_told_and_heals(self) -> None:
        await self.store.do(lambda database: database._db.execute("PRAGMA max_page_count=1"))
        with self.assertRaises(sqlite3.Error):
            while True:
                await self.store.deposit(self.mint.token())
        status = self.store.status()
        self.assertIn("full", status.trouble)
        self.assertIn("new tunnels are refused", status.alarms[0])
        await self.store.do(lambda database: database._db.execute("PRAGMA max_page_count=1000000"))
        self.assertIn("full", self.store.status().trouble)
        self.assertTrue(await self.store.deposit(self.mint.token()))
        self.assertEqual((self.store.status().trouble, self.store.status().alarms), ("", ()))

    async def test_trouble_heals_by_itself(self) -> None:
        self.store.failed("the disk is full")
        await self.look()
        await self.until(lambda: not self.store.status().trouble)

    async def test_a_locked_database_is_waited_for_and_then_told_of(self) -> None:
        from wireleap_relay.tokens import store

        self.patch(store, "_LOCKED", 0.05)
        await self.store.stopService()
        self.store.startService()
        other = sqlite3.connect(self.path, isolation_level=None)
        self.addCleanup(other.close)
        other.execute("BEGIN IMMEDIATE")
        with self.assertRaises(sqlite3.OperationalError):
            await self.store.deposit(self.mint.token())
        self.assertIn("locked", self.store.status().trouble)
        other.execute("ROLLBACK")
        self.assertTrue(await self.store.deposit(self.mint.token()))
        self.assertEqual(self.store.status().trouble, "")

    async def test_what_can_not_be_opened_at_first_is_opened_later(self) -> None:
        await self.store.stopService()
        self.patch(TokenDatabase, "together", TokenDatabase.together)
        original = TokenStoreService.open
        broken = [True]

        def opening(service: TokenStoreService) -> TokenDatabase:
            if broken[0]:
                raise sqlite3.OperationalError("unable to open database file")
            return original(service)

        self.patch(TokenStoreService, "open", opening)
        self.store.startService()
        self.assertIn("unable to open", self.store.status().trouble)
        with self.assertRaises(sqlite3.OperationalError):
            await self.store.deposit(self.mint.token())
        broken[0] = False
        self.assertTrue(await self.store.deposit(self.mint.token()))
        self.assertEqual(self.store.status().trouble, "")

    async def test_stopping_finishes_what_was_asked_for(self) -> None:
        depositing = self.store.deposit(self.mint.token())
        await self.store.stopService()
        self.assertTrue(await depositing)
        self.store.startService()
        self.assertEqual(self.counts(), TokenCounts(held=1))

    async def test_a_newer_database_is_no_place_to_start(self) -> None:
        await self.store.do(lambda database: database._db.execute("PRAGMA user_version=99"))
        await self.store.stopService()
        with self.assertRaises(NewerDatabase):
            self.make().startService()

    async def test_time_expires_tokens_and_lets_them_be_forgotten(self) -> None:
        held, taken = self.mint.token(), self.mint.token()
        await gatherResults([self.store.deposit(held), self.store.deposit(taken)])
        await self.store.do(lambda database: database.settle(taken, Outcome("submitted"), 1500))
        self.now = 2000.0
        await self.look()
        await self.until(lambda: self.counts() == TokenCounts(submitted=1, expired=1))
        self.assertFalse(await self.store.deposit(taken))
        self.now = 2000.0 + 86401
        await self.look()
        await self.until(self.timers.getDelayedCalls)
        self.assertEqual(self.counts(), TokenCounts(submitted=1, expired=1))
        tally = await self.store.do(TokenDatabase.tally)
        self.assertEqual(tally[self.mint.contract.public_key.raw]["forgotten"], 1)

    async def test_a_window_that_closes_raises_an_alarm(self) -> None:
        await self.store.deposit(self.mint.token())
        await self.store.refresh()
        self.assertEqual(self.store.status().alarms, ())
        self.now = 1950.0
        [alarm] = self.store.status().alarms
        self.assertEqual(
            alarm,
            f"1 sharetokens are owed by {self.mint.contract.public_key}, and in 50s it closes: they are being handed in",
        )

    async def test_contracts_addresses_are_remembered(self) -> None:
        key = self.mint.contract.public_key
        self.assertIsNone(self.store.address_of(key))
        self.store.remember({key: "http://c"})
        self.assertEqual(self.store.address_of(key), "http://c")
        await self.store.stopService()
        self.store = self.make()
        self.store.startService()
        self.assertEqual(self.store.address_of(key), "http://c")

    async def test_an_address_that_can_not_be_kept_is_kept_later(self) -> None:
        await self.store.do(lambda database: database._db.execute("PRAGMA query_only=1"))
        key = self.mint.contract.public_key
        self.store.remember({key: "http://c"})
        await self.until(lambda: self.store.status().trouble)
        # The writer has opened the file anew, and that one is not read-only.
        await self.look()
        await self.until(lambda: not self.store.status().trouble)
        self.assertEqual(await self.store.do(TokenDatabase.addresses), {key.raw: "http://c"})
