"""The sharetoken store: SQLite, and nothing of Twisted.

One connection, used from one thread. Every change is committed with
``synchronous=FULL`` before anybody is told, and a batch of tokens shares one
commit. A token's signature is its identity: it is what makes a duplicate one,
across restarts and after submission, until nothing can be settled with it any
more.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import attrs

from wireleap_relay.wire.sharetoken import Sharetoken

State = Literal["held", "submitted", "refused", "expired"]

_VERSION = 1
_SCHEMA = """
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
"""


@attrs.frozen
class HeldToken:
    """A token that waits to be submitted.

    :ivar idempotency_key: goes with each attempt to submit it.
    """

    token: Sharetoken
    idempotency_key: str


@attrs.frozen
class TokenCounts:
    """How many tokens of a contract are in each state."""

    held: int = 0
    submitted: int = 0
    refused: int = 0
    expired: int = 0


class TokenDatabase:
    """The store's file.

    Every method blocks, and raises :exc:`sqlite3.Error` where the disk or the
    file won't do.
    """

    def __init__(self, path: Path) -> None:
        """Open or make the file at ``path``."""
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        try:
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            (version,) = self._db.execute("PRAGMA user_version").fetchone()
            if version > _VERSION:
                raise sqlite3.DatabaseError(f"made by a newer version of this software (schema {version})")
            if version == 0:
                self._db.executescript(f"BEGIN;{_SCHEMA};PRAGMA user_version={_VERSION};COMMIT")
            path.chmod(0o600)
        except BaseException:
            self._db.close()
            raise

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()

    def deposit(self, tokens: Sequence[tuple[Sharetoken, str]], now: float) -> list[bool]:
        """Commit tokens, each with the idempotency key it will have.

        :param now: Unix seconds.
        :returns: for each, whether it was new.
        """
        rows = [
            (
                token.signature.raw,
                token.contract.public_key.raw,
                token.contract.settlement_open,
                token.contract.settlement_close,
                now,
                key,
                token.to_json(),
            )
            for token, key in tokens
        ]
        insert = (
            "INSERT INTO sharetoken (signature, contract, settlement_open, settlement_close, state, changed_at,"
            " idempotency_key, json) VALUES (?, ?, ?, ?, 'held', ?, ?, ?) ON CONFLICT DO NOTHING"
        )
        with self._transaction():
            return [self._db.execute(insert, row).rowcount == 1 for row in rows]

    def due(self, contract: bytes, now: float, most: int) -> list[HeldToken]:
        """Give held tokens of a contract whose settlement opened before ``now`` (Unix seconds), oldest first."""
        rows = self._db.execute(
            "SELECT json, idempotency_key FROM sharetoken WHERE state = 'held' AND contract = ?"
            " AND settlement_open < ? AND settlement_close > ? ORDER BY settlement_open LIMIT ?",
            (contract, now, now, most),
        )
        return [HeldToken(Sharetoken.from_json(json), key) for json, key in rows.fetchall()]

    def contracts(self) -> list[bytes]:
        """Give the public keys of contracts that owe for held tokens."""
        rows = self._db.execute("SELECT DISTINCT contract FROM sharetoken WHERE state = 'held'")
        return [key for (key,) in rows.fetchall()]

    def settle(self, token: Sharetoken, state: State, reason: str, now: float) -> None:
        """Give a token its last state."""
        with self._transaction():
            self._db.execute(
                "UPDATE sharetoken SET state = ?, reason = ?, changed_at = ? WHERE signature = ?",
                (state, reason, now, token.signature.raw),
            )

    def renew_key(self, token: Sharetoken, key: str) -> None:
        """Give a held token another idempotency key for its next attempt."""
        with self._transaction():
            self._db.execute(
                "UPDATE sharetoken SET idempotency_key = ? WHERE signature = ?", (key, token.signature.raw)
            )

    def expire(self, now: float) -> int:
        """Mark held tokens whose settlement has closed; they are kept.

        :returns: how many.
        """
        with self._transaction():
            return self._db.execute(
                "UPDATE sharetoken SET state = 'expired', changed_at = ? WHERE state = 'held' AND settlement_close <= ?",
                (now, now),
            ).rowcount

    def counts(self) -> dict[bytes, TokenCounts]:
        """Count the tokens of each contract by state."""
        found: dict[bytes, TokenCounts] = {}
        rows = self._db.execute("SELECT contract, state, COUNT(*) FROM sharetoken GROUP BY contract, state")
        for contract, state, count in rows.fetchall():
            found[contract] = attrs.evolve(found.get(contract, TokenCounts()), **{state: count})
        return found

    def _transaction(self) -> sqlite3.Connection:
        self._db.execute("BEGIN IMMEDIATE")
        return self._db  # as a context manager it commits, or rolls back
