"""Damaged databases: set aside, salvaged, and a new one in their place."""

from __future__ import annotations

import random
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from twisted.internet.defer import gatherResults

from tests.tokens.test_service import StoreServiceTestCase
from wireleap_relay.boundaries import Outcome
from wireleap_relay.tokens import salvage
from wireleap_relay.tokens.ledger import TokenCounts
from wireleap_relay.tokens.salvage import set_aside, set_asides
from wireleap_relay.tokens.store import TokenDatabase
from wireleap_relay.wire.sharetoken import Sharetoken

PAGE = 4096


class SalvageTests(StoreServiceTestCase):
    async def fill(self, count: int) -> list[Sharetoken]:
        """Deposit tokens: the first is submitted, the second refused, and the rest are held."""
        tokens = [self.mint.token() for _ in range(count)]
        await gatherResults([self.store.deposit(token) for token in tokens])
        await self.store.do(lambda database: database.settle(tokens[0], Outcome("submitted"), 901.0))
        await self.store.do(lambda database: database.settle(tokens[1], Outcome("refused", "no"), 901.0))
        self.store.remember({self.mint.contract.public_key: "http://c"})
        await self.store.refresh()
        return tokens

    def new_folder(self) -> Path:
        folder = Path(self.mktemp())
        folder.mkdir()
        return folder

    def damage(self, start: int, size: int, content: bytes = b"\xa5") -> None:
        with self.path.open("r+b") as file:
            file.seek(start)
            file.write(content * size)

    async def damaged(self, start: int, size: int) -> None:
        """Damage the file while nobody has it open."""
        await self.store.stopService()
        self.damage(start, size)
        self.store = self.make()
        self.store.startService()

    async def test_a_file_that_is_no_database_any_more(self) -> None:
        tokens = await self.fill(30)
        await self.damaged(0, 100)
        self.assertFalse(await self.store.deposit(tokens[5]))
        self.assertTrue(await self.store.deposit(self.mint.token()))
        # Without the first page SQLite finds nothing: states are gone, but no token is.
        self.assertEqual(self.counts(), TokenCounts(held=31))
        await self.look()
        await self.until(lambda: self.store.status().alarms)
        [alarm] = self.store.status().alarms
        self.assertIn("30 sharetokens of it were salvaged", alarm)
        [folder] = set_asides(self.path)
        self.assertEqual((folder / self.path.name).read_bytes()[:100], b"\xa5" * 100)

    async def test_damage_that_is_found_under_way(self) -> None:
        tokens = await self.fill(300)
        await self.store.do(lambda database: None)
        await self.store.stopService()
        size = self.path.stat().st_size
        pages = random.Random(1).sample(range(8, size // PAGE), 12)
        for page in pages:
            self.damage(page * PAGE, PAGE)
        self.store = self.make()
        self.store.startService()
        for _ in range(50):
            await self.store.deposit(self.mint.token())
        await self.store.do(lambda database: database.claim(self.mint.contract.public_key.raw, 1200, 1000))
        [folder] = set_asides(self.path)
        status = self.store.status().contracts[0]
        # What was on the pages that are no more is lost, and is told of: the ledger goes on with what it had counted.
        self.assertGreater(status.counts.total, 300)
        lost = status.received - status.counts.total
        self.assertLess(lost, 12 * 4)
        kept = {token for token in tokens if not await self.store.deposit(token)}
        self.assertEqual(len(tokens) - len(kept), lost)

    async def test_a_damaged_index_loses_nothing(self) -> None:
        tokens = await self.fill(300)
        root = await self.store.do(
            lambda database: database._db.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'due'").fetchone()[0]
        )
        await self.damaged((root - 1) * PAGE, PAGE)
        await self.store.do(lambda database: database.claim(self.mint.contract.public_key.raw, 1200, 1))
        self.assertEqual(await gatherResults([self.store.deposit(token) for token in tokens]), [False] * 300)
        status = self.store.status().contracts[0]
        self.assertEqual(status.counts, TokenCounts(held=297, submitting=1, submitted=1, refused=1))
        self.assertEqual((status.received, status.url), (300, "http://c"))
        [folder] = set_asides(self.path)
        self.assertEqual(await self.store.do(TokenDatabase.salvaged), {folder.name: (300, 0)})

    async def test_what_was_forgotten_is_counted_on(self) -> None:
        await self.fill(20)
        await self.store.do(lambda database: database.forget(10_000, 9))
        await self.store.stopService()
        set_aside(self.path, 1.0)
        self.store = self.make()
        self.store.startService()
        await self.store.refresh()
        self.assertEqual(self.counts(), TokenCounts(held=18, submitted=1, refused=1))
        self.assertEqual(self.store.status().contracts[0].received, 20)

    async def test_what_is_only_in_the_log_of_writes_is_salvaged_too(self) -> None:
        await self.fill(10)
        copy = self.new_folder()
        for name in (self.path.name, f"{self.path.name}-wal"):
            (copy / name).write_bytes((self.path.parent / name).read_bytes())
        damaged = copy / self.path.name
        damaged.write_bytes(b"junk" * 1000)
        database = TokenDatabase(copy / "new.db")
        self.addCleanup(database.close)
        found = salvage.salvage(damaged, database, self.mint.relay.public_key, 900.0)
        self.assertEqual(found.tokens, 10)
        [standing] = database.ledger()
        self.assertEqual((standing.counts, standing.url), (TokenCounts(held=8, submitted=1, refused=1), "http://c"))

    async def test_tokens_that_only_look_like_some_are_left_behind(self) -> None:
        token = self.mint.token()
        forged = token.to_json().replace('"timestamp":500', '"timestamp":501')
        folder = self.new_folder()
        (folder / "old.db").write_text(f"xx{forged}yy{token.to_json()}zz{token.to_json()[:-9]}")
        database = TokenDatabase(folder / "new.db")
        self.addCleanup(database.close)
        self.assertEqual(salvage.salvage(folder / "old.db", database, self.mint.relay.public_key, 900.0).tokens, 1)

    async def test_a_crash_while_it_is_set_aside(self) -> None:
        tokens = await self.fill(10)
        await self.store.stopService()

        def crash(path: Any, missing_ok: bool = False) -> None:
            raise ZeroDivisionError

        self.patch(Path, "unlink", crash)
        with self.assertRaises(ZeroDivisionError):
            set_aside(self.path, 1.0)
        # The database is still there, and so is a copy of it.
        self.store = self.make()
        self.store.startService()
        self.assertEqual(await gatherResults([self.store.deposit(token) for token in tokens]), [False] * 10)
        self.assertEqual(self.counts(), TokenCounts(held=8, submitted=1, refused=1))
        self.assertEqual(self.store.status().contracts[0].received, 10)

    async def test_a_disk_that_damages_all_is_not_filled_with_copies(self) -> None:
        await self.fill(10)
        self.patch(TokenDatabase, "together", self.broken)
        for _ in range(5):
            with self.assertRaises(sqlite3.DatabaseError):
                await self.store.deposit(self.mint.token())
        self.assertEqual(len(set_asides(self.path)), 1)
        self.assertIn("malformed", self.store.status().trouble)

    def broken(self, jobs: Any) -> None:
        error = sqlite3.DatabaseError("database disk image is malformed")
        error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise error


class UnreadableTests(StoreServiceTestCase):
    """Damage that SQLite does not see: what is in a row is not what was written there."""

    async def damaged(self, query: str) -> None:
        """Write what nobody writes, while nobody has the file open."""
        await self.store.stopService()
        with closing(sqlite3.connect(self.path, isolation_level=None)) as db:
            db.execute(query)
        self.store = self.make()
        self.store.startService()

    async def check(self, query: str, expired: int = 0) -> None:
        tokens = [self.mint.token() for _ in range(10)]
        await gatherResults([self.store.deposit(token) for token in tokens])
        self.store.remember({self.mint.contract.public_key: "http://c"})
        await self.store.refresh()
        await self.damaged(query)
        self.assertTrue(await self.store.deposit(self.mint.token()))
        await self.until(lambda: set_asides(self.path))
        await self.store.refresh()
        self.assertEqual(self.counts(), TokenCounts(held=11 - expired, expired=expired))
        self.assertEqual(len(set_asides(self.path)), 1)

    async def test_a_count_that_is_none(self) -> None:
        await self.check("UPDATE tally SET count = -100 WHERE what = 'held'")

    async def test_a_word_that_is_no_text(self) -> None:
        await self.check("UPDATE tally SET what = CAST(x'68ff' AS TEXT) WHERE what = 'held'")

    async def test_a_contract_without_a_key(self) -> None:
        await self.check("UPDATE contract SET public_key = x'00'")

    async def test_a_schema_that_never_was(self) -> None:
        await self.check("PRAGMA user_version = -7")

    async def test_a_schema_that_is_no_text(self) -> None:
        tokens = [self.mint.token() for _ in range(10)]
        await gatherResults([self.store.deposit(token) for token in tokens])
        await self.store.stopService()
        with closing(sqlite3.connect(self.path)) as db:
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        content = self.path.read_bytes()
        self.assertIn(b"CREATE TABLE sharetoken", content)
        self.path.write_bytes(content.replace(b"CREATE TABLE sharetoken", b"CREATE T\xff\xfeLE sharetoken"))
        self.store = self.make()
        self.store.startService()
        self.assertTrue(await self.store.deposit(self.mint.token()))
        self.assertEqual(self.counts(), TokenCounts(held=11))

    async def test_a_token_to_be_archived_that_is_none(self) -> None:
        tokens = [self.mint.token() for _ in range(3)]
        await gatherResults([self.store.deposit(token) for token in tokens])
        await self.damaged("UPDATE sharetoken SET state = 'submitted', archive = 1, json = '{' WHERE id = 1")
        await self.store.do(lambda database: database.to_archive(10))
        self.assertEqual(self.counts(), TokenCounts(held=2))

    async def test_a_time_that_is_none(self) -> None:
        await self.check("UPDATE sharetoken SET changed_at = 'then', state = 'expired' WHERE id = 10", expired=1)
