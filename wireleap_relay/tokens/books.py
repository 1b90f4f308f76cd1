"""What can be read off the sharetoken database, by the daemon and beside it."""

from __future__ import annotations

import sqlite3
from typing import Any, get_args

from wireleap_relay.tokens.ledger import ContractTokens, State, TokenCounts, Window
from wireleap_relay.wire.keys import PublicKey

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
_STATES: tuple[State, ...] = get_args(State)


def read_tally(db: sqlite3.Connection) -> Tally:
    """Read what was counted as it happened."""
    tally: Tally = {}
    for contract, what, count in db.execute("SELECT contract, what, count FROM tally"):
        tally.setdefault(contract, {})[what] = count
    return tally


def counts_of(tally: dict[str, int]) -> TokenCounts:
    """Give a contract's tokens by state."""
    return TokenCounts(**{state: tally.get(state, 0) for state in _STATES})


def read_ledger(db: sqlite3.Connection) -> list[ContractTokens]:
    """Tell how the tokens of each contract stand; the cost does not depend on how many there are."""
    urls = dict(db.execute("SELECT public_key, url FROM contract").fetchall())
    return [_standing(db, contract, urls.get(contract, ""), counted) for contract, counted in read_tally(db).items()]


def _standing(db: sqlite3.Connection, contract: bytes, url: str, counted: dict[str, int]) -> ContractTokens:
    oldest: dict[State, float] = {}
    for state in _STATES:
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


def _row(db: sqlite3.Connection, query: str, *values: Any) -> Any:
    return db.execute(query, values).fetchone()
