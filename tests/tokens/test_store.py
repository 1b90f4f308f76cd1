"""The sharetoken database, on a real disk."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import time
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from wireleap_relay.tokens.store import TokenCounts, TokenDatabase
from wireleap_relay.wire.keys import PublicKey, SigningKey
from wireleap_relay.wire.sharetoken import ContractStatement, Sharetoken


class Mint:
    """Makes tokens of one contract for one relay."""

    def __init__(self, opens: int = 1000, closes: int = 2000) -> None:
        self.contract = SigningKey.generate()
        self.relay = SigningKey.generate()
        self.servicekey = SigningKey.generate()
        self.statement = ContractStatement.sign(self.contract, opens, closes)

    def token(self) -> Sharetoken:
        return Sharetoken.sign(self.servicekey, self.statement, self.relay.public_key, 500)


class StoreTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.path = Path(self.mktemp()) / "sharetokens.db"
        self.database = TokenDatabase(self.path)
        self.addCleanup(lambda: self.database.close())
        self.mint = Mint()

    def reopen(self) -> None:
        self.database.close()
        self.database = TokenDatabase(self.path)

    def test_a_token_is_new_once_and_for_ever(self) -> None:
        token, other = self.mint.token(), self.mint.token()
        self.assertEqual(self.database.deposit([(token, "a"), (other, "b"), (token, "c")], 1), [True, True, False])
        self.reopen()
        self.assertEqual(self.database.deposit([(token, "d")], 2), [False])
        self.database.settle(token, "submitted", "", 3)
        self.reopen()
        self.assertEqual(self.database.deposit([(token, "e")], 4), [False])

    def test_due_tokens_come_back_as_they_were(self) -> None:
        token = self.mint.token()
        self.database.deposit([(token, "key")], 1)
        contract = self.mint.contract.public_key.raw
        self.assertEqual(self.database.due(contract, 1000, 10), [])
        [held] = self.database.due(contract, 1001, 10)
        self.assertEqual((held.token, held.idempotency_key), (token, "key"))
        self.assertEqual(self.database.due(bytes(32), 1001, 10), [])
        self.assertEqual(self.database.due(contract, 2000, 10), [])

    def test_due_gives_no_more_than_asked_for(self) -> None:
        self.database.deposit([(self.mint.token(), "k") for _ in range(5)], 1)
        self.assertEqual(len(self.database.due(self.mint.contract.public_key.raw, 1500, 3)), 3)

    def test_states_and_counts(self) -> None:
        tokens = [self.mint.token() for _ in range(4)]
        self.database.deposit([(token, "k") for token in tokens], 1)
        self.database.settle(tokens[0], "submitted", "", 2)
        self.database.settle(tokens[1], "refused", "not ours", 2)
        contract = self.mint.contract.public_key.raw
        self.assertEqual(self.database.counts(), {contract: TokenCounts(held=2, submitted=1, refused=1)})
        self.assertEqual(self.database.expire(1999), 0)
        self.assertEqual(self.database.expire(2000), 2)
        self.assertEqual(self.database.counts(), {contract: TokenCounts(submitted=1, refused=1, expired=2)})
        self.assertEqual(self.database.contracts(), [])

    def test_durability_settings(self) -> None:
        database = self.database._db
        self.assertEqual(database.execute("PRAGMA journal_mode").fetchone(), ("wal",))
        self.assertEqual(database.execute("PRAGMA synchronous").fetchone(), (2,))
        self.assertEqual(self.path.stat().st_mode & 0o777, 0o600)

    def test_a_failed_batch_keeps_none_of_it(self) -> None:
        token = self.mint.token()
        self.database._db.execute("PRAGMA query_only=1")
        with self.assertRaises(sqlite3.Error):
            self.database.deposit([(token, "k")], 1)
        self.database._db.execute("PRAGMA query_only=0")
        self.assertEqual(self.database.deposit([(token, "k")], 1), [True])

    def test_a_newer_schema_is_left_alone(self) -> None:
        self.database._db.execute("PRAGMA user_version=99")
        self.database.close()
        with self.assertRaises(sqlite3.DatabaseError) as caught:
            TokenDatabase(self.path)
        self.assertIn("newer version", str(caught.exception))
        self.path.unlink()
        self.database = TokenDatabase(self.path)

    def test_a_file_that_is_no_database(self) -> None:
        other = self.path.with_name("junk.db")
        other.write_bytes(b"not a database" * 100)
        with self.assertRaises(sqlite3.DatabaseError):
            TokenDatabase(other)

    def test_what_was_deposited_survives_sigkill(self) -> None:
        path = Path(self.mktemp()).absolute() / "sharetokens.db"
        program = (
            "import sys, pathlib\n"
            "from tests.tokens.test_store import Mint\n"
            "from wireleap_relay.tokens.store import TokenDatabase\n"
            "database, mint = TokenDatabase(pathlib.Path(sys.argv[1])), Mint()\n"
            "while True:\n"
            "    token = mint.token()\n"
            "    assert database.deposit([(token, 'k')], 1) == [True]\n"
            "    print(token.signature, flush=True)\n"
        )
        writer = subprocess.Popen(
            [sys.executable, "-c", program, str(path)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        assert writer.stdout is not None
        promised = [writer.stdout.readline()]
        time.sleep(0.3)
        writer.kill()
        promised += writer.stdout.readlines()
        writer.wait()
        writer.stdout.close()
        database = TokenDatabase(path)
        self.addCleanup(database.close)
        [contract] = database.contracts()
        kept = {str(held.token.signature) for held in database.due(contract, 1500, 10**6)}
        told = {line.strip() for line in promised if line.endswith("\n")}
        self.assertGreater(len(told), 1)
        self.assertEqual(told - kept, set())
        self.assertLessEqual(len(kept - told), 1)
        self.assertIsInstance(PublicKey(contract), PublicKey)
