"""What can be read off the sharetoken database, by the daemon and beside it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import attrs

from wireleap_relay.tokens.ledger import STATES, ContractTokens, State, TokenCounts, Window
from wireleap_relay.tokens.schema import VERSION, Damaged, OtherSchema, connect, schema_version
from wireleap_relay.wire.errors import WireError
from wireleap_relay.wire.keys import PUBLIC_KEY_SIZE, PublicKey
from wireleap_relay.wire.sharetoken import Sharetoken

#: For each contract: tokens ``received``, tokens in each state, and ``forgotten`` ones; counted as it happened.
Tally = dict[bytes, dict[str, int]]
_COUNTED = frozenset(("received", "forgotten", *STATES))

_FIRST_WINDOW = (
    "SELECT settlement_open, settlement_close FROM sharetoken WHERE state = ? AND contract = ?"
    " ORDER BY settlement_close LIMIT 1"
)
_LAST_WINDOW = (
    "SELECT settlement_open, settlement_close FROM sharetoken WHERE state = ? AND contract = ?"
    " ORDER BY settlement_close DESC LIMIT 1"
)


def read_tally(db: sqlite3.Connection) -> Tally:
    """Read what was counted as it happened.

    :raises Damaged: where that can't have been counted.
    """
    tally: Tally = {}
    for contract, what, count in db.execute("SELECT contract, what, count FROM tally"):
        if not _is_key(contract) or what not in _COUNTED or type(count) is not int or count < 0:
            raise Damaged("something is counted in it that can't be counted")
        tally.setdefault(contract, {})[what] = count
    return tally


def read_addresses(db: sqlite3.Connection) -> dict[bytes, str]:
    """Read where contracts are, or were.

    :raises Damaged: where one has no key, or no address.
    """
    addresses = dict(db.execute("SELECT public_key, url FROM contract").fetchall())
    if not all(_is_key(key) and type(url) is str for key, url in addresses.items()):
        raise Damaged("there is a contract in it that is none")
    return addresses


def read_token(json: Any) -> Sharetoken:
    """Read a token as it is kept.

    :raises Damaged: where it is none any more.
    """
    try:
        return Sharetoken.from_json(json)
    except (WireError, TypeError):
        raise Damaged("there is a sharetoken in it that can't be read") from None


def _time(value: Any) -> Any:
    if type(value) not in (int, float):
        raise Damaged("there is a time in it that is none")
    return value


def _is_key(raw: Any) -> bool:
    return type(raw) is bytes and len(raw) == PUBLIC_KEY_SIZE


def counts_of(tally: dict[str, int]) -> TokenCounts:
    """Give a contract's tokens by state."""
    return TokenCounts(**{state: tally.get(state, 0) for state in STATES})


def read_ledger(db: sqlite3.Connection) -> list[ContractTokens]:
    """Tell how the tokens of each contract stand; the cost does not depend on how many there are."""
    urls = read_addresses(db)
    return [_standing(db, contract, urls.get(contract, ""), counted) for contract, counted in read_tally(db).items()]


def _standing(db: sqlite3.Connection, contract: bytes, url: str, counted: dict[str, int]) -> ContractTokens:
    oldest: dict[State, float] = {}
    for state in STATES:
        (since,) = _row(db, "SELECT MIN(changed_at) FROM sharetoken WHERE contract = ? AND state = ?", contract, state)
        if since is not None:
            oldest[state] = _time(since)
    windows = [
        Window(*map(_time, row))
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
        tally, urls = read_tally(db), read_addresses(db)
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
        yield read_token(json), state


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
    db = connect(url, uri=True)
    try:
        schema_version(db)
    except sqlite3.OperationalError:
        db.close()
        if path.with_name(f"{path.name}-wal").exists():
            raise
        # Whoever may not write here can't have it open together with others; but nobody has it open.
        return connect(f"{url}&immutable=1", uri=True)
    return db


def _row(db: sqlite3.Connection, query: str, *values: Any) -> Any:
    return db.execute(query, values).fetchone()
