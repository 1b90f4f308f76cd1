"""The sharetoken database, on a real disk."""

from __future__ import annotations

import re
import sqlite3
from functools import partial
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from wireleap_relay.boundaries import Outcome
from wireleap_relay.tokens.ledger import TokenCounts, Window
from wireleap_relay.tokens.schedule import first_attempt
from wireleap_relay.tokens.schema import NewerDatabase
from wireleap_relay.tokens.store import HeldToken, TokenDatabase
from wireleap_relay.wire.keys import SigningKey
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


class StoreTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.path = Path(self.mktemp()) / "sharetokens.db"
        self.database = TokenDatabase(self.path)
        self.addCleanup(lambda: self.database.close())
        self.mint = Mint()
        self.contract = self.mint.contract.public_key.raw

    def reopen(self) -> None:
        self.database.close()
        self.database = TokenDatabase(self.path)

    def deposit(self, *tokens: Sharetoken, now: float = 1) -> list[bool]:
        return self.database.together(
            [partial(TokenDatabase.deposit, token=t, idempotency_key="k", now=now) for t in tokens]
        )

    def settle(self, token: Sharetoken, state: Any, reason: str = "", **more: Any) -> None:
        self.database.settle(token, Outcome(state, reason), 3, **more)

    def counts(self) -> TokenCounts:
        [standing] = self.database.ledger()
        return standing.counts


class StoreTests(StoreTestCase):
    def test_a_token_is_new_once_and_for_ever(self) -> None:
        token, other = self.mint.token(), self.mint.token()
        self.assertEqual(self.deposit(token, other, token), [True, True, False])
        self.reopen()
        self.assertEqual(self.deposit(token), [False])
        self.settle(token, "submitted")
        self.reopen()
        self.assertEqual(self.deposit(token), [False])
        self.assertEqual(self.counts(), TokenCounts(held=1, submitted=1))

    def test_due_tokens_come_back_as_they_were(self) -> None:
        token = self.mint.token()
        self.deposit(token)
        due_at = first_attempt(token)
        self.assertEqual(self.database.claim(self.contract, due_at - 0.1, 10), [])
        self.assertEqual(self.database.due(due_at - 0.1), [])
        self.assertEqual(self.database.due(due_at), [self.contract])
        self.assertEqual(self.database.claim(bytes(32), due_at, 10), [])
        self.assertEqual(self.counts(), TokenCounts(held=1))
        self.assertEqual(self.database.claim(self.contract, due_at, 10), [HeldToken(token, "k")])
        self.assertEqual(self.counts(), TokenCounts(submitting=1))
        self.assertEqual(self.database.claim(self.contract, 2000, 10), [])
        self.assertEqual(self.database.due(2000), [])

    def test_no_more_than_asked_for(self) -> None:
        self.deposit(*(self.mint.token() for _ in range(5)))
        self.assertEqual(len(self.database.claim(self.contract, 1500, 3)), 3)

    def test_the_longest_due_come_first(self) -> None:
        late, early = Mint(opens=1500, closes=2500), Mint()
        late.contract = early.contract
        late.statement = ContractStatement.sign(early.contract, 1500, 2500)
        token, first = late.token(), early.token()
        self.deposit(token, first)
        [held] = self.database.claim(early.contract.public_key.raw, 1900, 1)
        self.assertEqual(held.token, first)
        self.database.postpone(first, 1950, "down")
        [held] = self.database.claim(early.contract.public_key.raw, 1960, 1)
        self.assertEqual(held.token, token)

    def test_a_failed_attempt_is_made_again_later(self) -> None:
        token = self.mint.token()
        self.deposit(token)
        self.database.claim(self.contract, 1200, 1)
        self.database.postpone(token, 1500, "it is down")
        self.assertEqual(self.database.claim(self.contract, 1499, 1), [])
        self.assertEqual([held.idempotency_key for held in self.database.claim(self.contract, 1500, 1)], ["k"])
        self.database.postpone(token, 1800, "it is down", "another")
        [standing] = self.database.ledger()
        self.assertEqual(standing.trouble, "it is down")
        self.database.hasten(1600)
        [held] = self.database.claim(self.contract, 1600, 1)
        self.assertEqual(held.idempotency_key, "another")

    def test_states_and_counts(self) -> None:
        tokens = [self.mint.token() for _ in range(4)]
        self.deposit(*tokens)
        self.settle(tokens[0], "submitted")
        self.settle(tokens[1], "refused", "not ours")
        self.assertEqual(self.counts(), TokenCounts(held=2, submitted=1, refused=1))
        self.assertEqual(self.database.expire(1999, 9), 0)
        self.assertEqual(self.database.expire(2000, 1), 1)
        self.assertEqual(self.database.expire(2000, 9), 1)
        self.assertEqual(self.counts(), TokenCounts(submitted=1, refused=1, expired=2))
        self.assertEqual(self.database.due(2000), [])

    def test_what_a_contract_has_decided_stays(self) -> None:
        token = self.mint.token()
        self.deposit(token)
        # Its window closes while the contract thinks about it.
        self.database.expire(2000, 1)
        self.settle(token, "submitted")
        self.assertEqual(self.counts(), TokenCounts(submitted=1))
        self.settle(token, "expired")
        self.assertEqual(self.counts(), TokenCounts(submitted=1))

    def test_forgotten_tokens_are_counted_on(self) -> None:
        tokens = [self.mint.token() for _ in range(3)]
        self.deposit(*tokens)
        self.settle(tokens[0], "submitted")
        self.settle(tokens[1], "submitted", archive=True)
        self.settle(tokens[2], "refused")
        self.assertEqual(self.database.forget(2000, 9), 0)
        self.assertEqual(self.database.forget(2001, 9), 1)
        self.assertEqual(self.counts(), TokenCounts(submitted=2, refused=1))
        self.assertEqual(self.database.to_archive(9), [tokens[1]])
        self.database.archived([tokens[1]])
        self.assertEqual(self.database.forget(2001, 9), 1)
        self.assertEqual(self.counts(), TokenCounts(submitted=2, refused=1))
        self.assertEqual(
            self.database.tally()[self.contract],
            {"received": 3, "held": 0, "submitted": 2, "refused": 1, "forgotten": 2},
        )

    def test_the_ledger(self) -> None:
        other = Mint(opens=5000, closes=9000)
        self.deposit(self.mint.token(), now=10)
        tried = self.mint.token()
        self.deposit(tried, now=20)
        self.deposit(other.token(), now=30)
        self.database.claim(self.contract, 1500, 1)
        self.database.remember(self.contract, "http://c")
        by_contract = {standing.contract.raw: standing for standing in self.database.ledger()}
        standing = by_contract[self.contract]
        self.assertEqual((standing.url, standing.received), ("http://c", 2))
        self.assertEqual(standing.oldest, {"held": 20, "submitting": 1500})
        self.assertEqual((standing.closing, standing.last_closing), (Window(1000, 2000), 2000))
        self.assertFalse(standing.is_urgent(1899))
        self.assertTrue(standing.is_urgent(1900))
        self.assertEqual(by_contract[other.contract.public_key.raw].oldest, {"held": 30})
        self.assertEqual(self.database.addresses(), {self.contract: "http://c"})

    def test_questions_never_walk_through_the_table(self) -> None:
        self.deposit(*(self.mint.token() for _ in range(3)))
        asked: list[str] = []
        self.database._db.set_trace_callback(asked.append)
        self.database.ledger()
        self.database.due(1500)
        self.database.claim(self.contract, 1500, 1)
        self.database.expire(1500, 1)
        self.database.forget(1500, 1)
        self.database.to_archive(1)
        self.database._db.set_trace_callback(None)
        self.assertGreater(len(asked), 10)
        for question in asked:
            if not question.startswith("--"):
                for *_, how in self.database._db.execute(f"EXPLAIN QUERY PLAN {question}").fetchall():
                    self.assertFalse(
                        re.match("SCAN sharetoken(?! USING INDEX to_archive)|USE TEMP", how), (how, question)
                    )

    def test_durability_settings(self) -> None:
        database = self.database._db
        self.assertEqual(database.execute("PRAGMA journal_mode").fetchone(), ("wal",))
        self.assertEqual(database.execute("PRAGMA synchronous").fetchone(), (2,))
        self.assertEqual(self.path.stat().st_mode & 0o777, 0o600)

    def test_of_what_is_done_together_all_is_done_or_nothing(self) -> None:
        token = self.mint.token()

        def fail(_: TokenDatabase) -> bool:
            raise ZeroDivisionError

        deposit = partial(TokenDatabase.deposit, token=token, idempotency_key="k", now=1.0)
        with self.assertRaises(ZeroDivisionError):
            self.database.together([deposit, fail])
        self.assertEqual(self.deposit(token), [True])

    def test_a_row_that_can_not_be_read_holds_nothing_up(self) -> None:
        spoilt, good = self.mint.token(), self.mint.token()
        self.deposit(spoilt, good)
        self.database._db.execute("UPDATE sharetoken SET json = '{' WHERE signature = ?", (spoilt.signature.raw,))
        self.assertEqual([held.token for held in self.database.claim(self.contract, 1500, 9)], [good])
        self.assertEqual(self.counts(), TokenCounts(submitting=1, refused=1))

    def test_a_newer_schema_is_left_alone(self) -> None:
        self.database._db.execute("PRAGMA user_version=99")
        self.database.close()
        with self.assertRaises(NewerDatabase):
            TokenDatabase(self.path)
        self.path.unlink()
        self.database = TokenDatabase(self.path)

    def test_the_first_schema_is_brought_up_to_date(self) -> None:
        tokens = [self.mint.token() for _ in range(3)]
        path = self.path.with_name("old.db")
        old = sqlite3.connect(path, isolation_level=None)
        old.executescript(FIRST_SCHEMA)
        for token, state in zip(tokens, ("held", "submitted", "refused"), strict=True):
            row = (token.signature.raw, self.contract, 1000, 2000, state, 5.0, "key", "why", token.to_json())
            old.execute("INSERT INTO sharetoken VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
        old.close()
        self.database.close()
        self.database = TokenDatabase(path)
        [standing] = self.database.ledger()
        self.assertEqual((standing.received, standing.counts), (3, TokenCounts(held=1, submitted=1, refused=1)))
        self.assertEqual(self.deposit(*tokens), [False] * 3)
        self.assertEqual(self.database.claim(self.contract, 1001, 9), [HeldToken(tokens[0], "key")])
        self.assertEqual(self.database._db.execute("PRAGMA integrity_check").fetchall(), [("ok",)])

    def test_a_file_that_is_no_database(self) -> None:
        other = self.path.with_name("junk.db")
        other.write_bytes(b"not a database" * 100)
        with self.assertRaises(sqlite3.DatabaseError):
            TokenDatabase(other)


#: As the first version made it.
FIRST_SCHEMA = """
CREATE TABLE sharetoken (
    signature BLOB PRIMARY KEY,
    contract BLOB NOT NULL,
    settlement_open INTEGER NOT NULL,
    settlement_close INTEGER NOT NULL,
    state TEXT NOT NULL,
    changed_at REAL NOT NULL,
    idempotency_key TEXT NOT NULL,
    reason TEXT NOT NULL DEFAULT '',
    json TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX due ON sharetoken (contract, settlement_open) WHERE state = 'held';
PRAGMA user_version=1;
"""
