"""What can be read off the sharetoken database, by the daemon and beside it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import attrs

from wireleap_relay.tokens.ledger import STATES, ContractTokens, State, TokenCounts, Window
from wireleap_relay.tokens.schema import VERSION, OtherSchema, schema_version
from wireleap_relay.wire.keys import PublicKey
from wireleap_relay.wire.sharetoken import Sharetoken

#: For each contract: tokens ``received``, tokens in each state, and ``forgotten`` ones; counted as it happened.
Tally = dict[bytes, dict[str, int]]

_FIRST_WINDOW = (
    "SELECT settlement_open, settlement_close FROM sharetoken WHERE state = ? AND contract = ?"
    " ORDER BY settlement_close LIMIT 1"
)
_LAST_WINDOW = (
    "SELECT settlement_open, settlement_close FROM sharetoken WHERE state = ? AND contract = ?"
    " ORDER BY settlement_close DESC LIMIT 1"
)


def read_tally(db: sqlite3.Connection) -> Tally:
    """Read what was counted as it happened."""
    tally: Tally = {}
    for contract, what, count in db.execute("SELECT contract, what, count FROM tally"):
        tally.setdefault(contract, {})[what] = count
    return tally


def counts_of(tally: dict[str, int]) -> TokenCounts:
    """Give a contract's tokens by state."""
    return TokenCounts(**{state: tally.get(state, 0) for state in STATES})


def read_ledger(db: sqlite3.Connection) -> list[ContractTokens]:
    """Tell how the tokens of each contract stand; the cost does not depend on how many there are."""
    urls = dict(db.execute("SELECT public_key, url FROM contract").fetchall())
    return [_standing(db, contract, urls.get(contract, ""), counted) for contract, counted in read_tally(db).items()]


def _standing(db: sqlite3.Connection, contract: bytes, url: str, counted: dict[str, int]) -> ContractTokens:
    oldest: dict[State, float] = {}
    for state in STATES:
        (since,) = _row(db, "SELECT MIN(changed_at) FROM sharetoken WHERE contract = ? AND state = ?", contract, state)
        if since is not None:
            oldest[state] = since
    windows = [
        Window(*row)
        for query in (_FIRST_WINDOW, _LAST_WINDOW)
        for state in ("held", "submitting")
        if (row := _row(db, query, state, contract))
    ]
    trouble = _row(
        db,
        "SELECT reason FROM sharetoken WHERE contract = ? AND state = 'submitting' AND reason <> ''"
        " ORDER BY changed_at DESC LIMIT 1",
        contract,
    )
    return ContractTokens(
        PublicKey(contract),
        url,
        counted.get("received", 0),
        counts_of(counted),
        oldest,
        min(windows, key=lambda window: window.closes, default=None),
        max((window.closes for window in windows), default=None),
        trouble[0] if trouble else "",
    )


@attrs.frozen
class Audit:
    """The tokens of one contract, counted one by one.

    :ivar received: as it was counted while they came in.
    :ivar counts: what is there, ``submitted`` with those that were forgotten since.
    :ivar forgotten: of those.
    :ivar tallied: what had been counted as it happened.
    """

    contract: PublicKey
    url: str
    received: int
    counts: TokenCounts
    forgotten: int
    tallied: TokenCounts

    @property
    def missing(self) -> int:
        """Tokens that came in and are nowhere."""
        return self.received - self.counts.total

    @property
    def adds_up(self) -> bool:
        """Whether nothing is missing, and nothing was counted wrongly."""
        return not self.missing and self.counts == self.tallied


def audit(db: sqlite3.Connection) -> list[Audit]:
    """Count every token; the time that takes grows with their number."""
    db.execute("BEGIN")
    try:
        tally, urls = read_tally(db), dict(db.execute("SELECT public_key, url FROM contract").fetchall())
        found: dict[bytes, dict[str, int]] = {contract: {} for contract in tally}
        for contract, state, count in db.execute(
            "SELECT contract, state, COUNT(*) FROM sharetoken GROUP BY contract, state"
        ):
            found.setdefault(contract, {})[state] = count
    finally:
        db.execute("ROLLBACK")
    audits = []
    for contract, counted in found.items():
        told = tally.get(contract, {})
        forgotten = told.get("forgotten", 0)
        counted["submitted"] = counted.get("submitted", 0) + forgotten
        key, url, received = PublicKey(contract), urls.get(contract, ""), told.get("received", 0)
        audits.append(Audit(key, url, received, counts_of(counted), forgotten, counts_of(told)))
    return audits


def damage(db: sqlite3.Connection) -> str:
    """Say what is wrong with the file; empty where all of it can be read."""
    (found, *_) = db.execute("PRAGMA quick_check(1)").fetchone()
    return "" if found == "ok" else str(found)


def kept(db: sqlite3.Connection) -> Iterator[tuple[Sharetoken, State]]:
    """Give every token that is owed or has expired."""
    for state, json in db.execute(
        "SELECT state, json FROM sharetoken WHERE state IN ('held', 'submitting', 'expired') ORDER BY id"
    ):
        yield Sharetoken.from_json(json), state


@contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """Open the database to read in it, beside a daemon that may have it open.

    :raises OtherSchema: where it is of another version of this software.
    :raises sqlite3.Error: where it can't be read.
    """
    with closing(_open(path)) as db:
        version = schema_version(db)
        if version != VERSION:
            raise OtherSchema(version)
        yield db


def _open(path: Path) -> sqlite3.Connection:
    url = f"{path.absolute().as_uri()}?mode=ro"
    db = sqlite3.connect(url, uri=True, isolation_level=None)
    try:
        schema_version(db)
    except sqlite3.OperationalError:
        db.close()
        if path.with_name(f"{path.name}-wal").exists():
            raise
        # Whoever may not write here can't have it open together with others; but nobody has it open.
        return sqlite3.connect(f"{url}&immutable=1", uri=True, isolation_level=None)
    return db


def _row(db: sqlite3.Connection, query: str, *values: Any) -> Any:
    return db.execute(query, values).fetchone()
