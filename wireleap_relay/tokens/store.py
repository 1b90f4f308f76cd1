"""The sharetoken store: SQLite, and nothing of Twisted.

One connection, used from one thread. A change is on disk (WAL with
``synchronous=FULL``) when :meth:`TokenDatabase.together` has run, and so are
all that were made in it. A token's signature is its identity: it is what
makes a duplicate one, across restarts and after submission, until nothing can
be settled with it any more. Times are Unix seconds.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

import attrs

from wireleap_relay.boundaries import Outcome
from wireleap_relay.tokens import books, schedule
from wireleap_relay.tokens.ledger import ContractTokens, State
from wireleap_relay.tokens.schema import VERSION, Damaged, bring_up_to_date, connect
from wireleap_relay.wire.sharetoken import Sharetoken

T = TypeVar("T")

#: Seconds to wait for somebody else who holds the database.
_LOCKED = 2.0
#: Characters of a contract's or a network's words that are kept.
_LONGEST_REASON = 300
#: Bytes that have to be free for a disk to count as usable again.
_ROOM = 2**20

_INSERT = (
    "INSERT INTO sharetoken (signature, contract, settlement_open, settlement_close, state, received_at, changed_at,"
    " due_at, idempotency_key, reason, archive, json) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
)


@attrs.frozen
class HeldToken:
    """A token that is being handed in.

    :ivar idempotency_key: goes with the attempt.
    """

    token: Sharetoken
    idempotency_key: str


class TokenDatabase:
    """The store's file.

    Every method blocks, and raises :exc:`sqlite3.Error` where the disk or the
    file won't do.
    """

    def __init__(self, path: Path) -> None:
        """Open or make the file at ``path``.

        :raises NewerDatabase: where a newer version of this software made it.
        :raises OSError: where its folder can't be made.
        """
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._db = connect(str(path), timeout=_LOCKED, check_same_thread=False)
        try:
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            bring_up_to_date(self._db)
            path.chmod(0o600)
        except BaseException:
            self._db.close()
            raise

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()

    def together(self, jobs: Iterable[Callable[[TokenDatabase], T]]) -> list[T]:
        """Do several things in one transaction: all of them are on disk when this returns, or none of them ever is."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            results = [job(self) for job in jobs]
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise
        return results

    # What comes in

    def deposit(self, token: Sharetoken, idempotency_key: str, now: float) -> bool:
        """Take a token.

        :param idempotency_key: that it is going to be handed in with.
        :returns: whether its signature was never seen before.
        """
        return self.take_over(token, "held", now, idempotency_key)

    def take_over(
        self,
        token: Sharetoken,
        state: State,
        now: float,
        idempotency_key: str,
        reason: str = "",
        *,
        archive: bool = False,
    ) -> bool:
        """Take a token that is in some state already.

        :param archive: whether it is to be archived.
        :returns: whether its signature was never seen before.
        """
        contract = token.contract
        row = (
            token.signature.raw,
            contract.public_key.raw,
            contract.settlement_open,
            contract.settlement_close,
            state,
            now,
            now,
            schedule.first_attempt(token),
            idempotency_key,
            reason[:_LONGEST_REASON],
            archive,
            token.to_json(),
        )
        return self._db.execute(_INSERT, row).rowcount == 1

    # What goes out

    def claim(self, contract: bytes, now: float, most: int) -> list[HeldToken]:
        """Begin an attempt to hand in tokens of a contract that are due, the longest due first."""
        rows = self._db.execute(
            "UPDATE sharetoken SET attempts = attempts + 1, state = 'submitting',"
            " changed_at = CASE state WHEN 'held' THEN ? ELSE changed_at END"
            " WHERE id IN (SELECT id FROM sharetoken WHERE contract = ? AND state IN ('held', 'submitting') AND due_at <= ?"
            " AND settlement_close > ? ORDER BY due_at LIMIT ?) RETURNING due_at, id, signature, json, idempotency_key",
            (now, contract, now, now, most),
        )
        claimed: list[HeldToken] = []
        for _, _, signature, json, key in sorted(rows.fetchall()):
            try:
                claimed.append(HeldToken(books.read_token(json), key))
            except Damaged:
                self._settle(signature, Outcome("refused", "what is kept of it can't be read"), now, archive=False)
        return claimed

    def peek(self, contract: bytes, now: float, most: int) -> list[HeldToken]:
        """Give tokens that are due, without noting that they are handed in."""
        rows = self._db.execute(
            "SELECT json, idempotency_key FROM sharetoken WHERE contract = ? AND state IN ('held', 'submitting')"
            " AND due_at <= ? AND settlement_close > ? ORDER BY due_at LIMIT ?",
            (contract, now, now, most),
        )
        return [HeldToken(books.read_token(json), key) for json, key in rows.fetchall()]

    def settle(self, token: Sharetoken, outcome: Outcome, now: float, *, archive: bool = False) -> None:
        """Give a token its last state, unless it has one that a contract has given it.

        :param archive: whether an accepted token is to be archived.
        """
        self._settle(token.signature.raw, outcome, now, archive=archive and outcome.state == "submitted")

    def _settle(self, signature: bytes, outcome: Outcome, now: float, *, archive: bool) -> None:
        self._db.execute(
            "UPDATE sharetoken SET state = ?, reason = ?, changed_at = ?, archive = ?"
            " WHERE signature = ? AND state NOT IN ('submitted', 'refused')",
            (outcome.state, outcome.reason[:_LONGEST_REASON], now, archive, signature),
        )

    def postpone(self, token: Sharetoken, due_at: float, why: str, idempotency_key: str | None = None) -> None:
        """Hand a token in later.

        :param idempotency_key: another one than before.
        """
        self._db.execute(
            "UPDATE sharetoken SET due_at = ?, reason = ?, idempotency_key = COALESCE(?, idempotency_key)"
            " WHERE signature = ? AND state IN ('held', 'submitting')",
            (due_at, why[:_LONGEST_REASON], idempotency_key, token.signature.raw),
        )

    def hasten(self, by: float) -> None:
        """Let no token that was tried wait for longer than until ``by``."""
        self._db.execute("UPDATE sharetoken SET due_at = ? WHERE state = 'submitting' AND due_at > ?", (by, by))

    def expire(self, now: float, most: int) -> int:
        """Mark tokens that nobody decided over before their window closed; they are kept.

        :returns: how many; if ``most``, there may be others.
        """
        return self._db.execute(
            "UPDATE sharetoken SET state = 'expired', changed_at = ? WHERE id IN (SELECT id FROM sharetoken"
            " WHERE state IN ('held', 'submitting') AND contract IN (SELECT contract FROM tally) AND settlement_close <= ? LIMIT ?)",
            (now, now, most),
        ).rowcount

    def revive(self, now: float) -> int:
        """Hold tokens again that a clock, which was ahead then, had marked as expired: their window is open yet.

        :returns: how many.
        """
        return self._db.execute(
            "UPDATE sharetoken SET state = CASE attempts WHEN 0 THEN 'held' ELSE 'submitting' END, changed_at = ?"
            " WHERE state = 'expired' AND contract IN (SELECT contract FROM tally) AND changed_at > ? AND settlement_close > ?",
            (now, now, now),
        ).rowcount

    def forget(self, closed_before: float, most: int) -> int:
        """Drop submitted and archived tokens whose window closed before some time: no one can be paid with them again.

        :returns: how many; if ``most``, there may be others.
        """
        return self._db.execute(
            "DELETE FROM sharetoken WHERE id IN (SELECT id FROM sharetoken WHERE state = 'submitted'"
            " AND contract IN (SELECT contract FROM tally) AND settlement_close < ? AND archive = 0 LIMIT ?)",
            (closed_before, most),
        ).rowcount

    def to_archive(self, most: int) -> list[Sharetoken]:
        """Give tokens that were accepted and are to be archived."""
        rows = self._db.execute("SELECT json FROM sharetoken WHERE archive = 1 LIMIT ?", (most,))
        return [books.read_token(json) for (json,) in rows.fetchall()]

    def archived(self, tokens: Sequence[Sharetoken]) -> None:
        """Note that tokens are in the archive."""
        self._db.executemany(
            "UPDATE sharetoken SET archive = 0 WHERE signature = ?", [(token.signature.raw,) for token in tokens]
        )

    # Contracts

    def remember(self, contract: bytes, url: str) -> None:
        """Note where a contract is, for as long as there are tokens of it."""
        self._db.execute(
            "INSERT INTO contract VALUES (?, ?) ON CONFLICT DO UPDATE SET url = excluded.url", (contract, url)
        )

    def addresses(self) -> dict[bytes, str]:
        """Tell where contracts are, or were."""
        return books.read_addresses(self._db)

    def due(self, now: float) -> list[bytes]:
        """Give the contracts that have tokens to be handed in now."""
        rows = self._db.execute(
            "SELECT DISTINCT contract FROM tally WHERE what IN ('held', 'submitting') AND count > 0 AND EXISTS (SELECT 1"
            " FROM sharetoken WHERE contract = tally.contract AND state IN ('held', 'submitting') AND due_at <= ? AND settlement_close > ?)",
            (now, now),
        )
        return [contract for (contract,) in rows.fetchall()]

    # Damaged databases

    def salvaged(self) -> dict[str, tuple[int, int]]:
        """Tell which of them were salvaged: how many tokens are in here now, and how many are missing."""
        rows = self._db.execute("SELECT name, tokens, missing FROM salvaged").fetchall()
        return {name: (tokens, missing) for name, tokens, missing in rows}

    def note_salvaged(self, name: str, at: float, tokens: int, missing: int) -> None:
        """Note that one was."""
        self._db.execute("INSERT OR REPLACE INTO salvaged VALUES (?, ?, ?, ?)", (name, at, tokens, missing))

    def carry_on(self, before: books.Tally) -> None:
        """Go on counting where a damaged database has ended."""
        for contract, counted in before.items():
            forgotten = counted.get("forgotten", 0) - self.tally().get(contract, {}).get("forgotten", 0)
            received = counted.get("received", 0) - self.tally().get(contract, {}).get("received", 0)
            for what, more in (("forgotten", forgotten), ("submitted", forgotten), ("received", received)):
                if more > 0:
                    self._db.execute(
                        "INSERT INTO tally VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET count = count + excluded.count",
                        (contract, what, more),
                    )

    # What is told of it

    def prove(self) -> None:
        """Find out whether the disk takes anything.

        :raises OSError: where next to nothing is left of it.
        """
        room = os.statvfs(self._path.parent)
        if room.f_bavail * room.f_frsize < _ROOM:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._db.execute(f"PRAGMA user_version={VERSION}")  # it writes, though nothing changes

    def tally(self) -> books.Tally:
        """Count the tokens of each contract, by what was done with them."""
        return books.read_tally(self._db)

    def ledger(self) -> list[ContractTokens]:
        """Tell how the tokens of each contract stand."""
        return books.read_ledger(self._db)
