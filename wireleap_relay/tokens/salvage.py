"""What becomes of a damaged database: it is set aside whole, and what can be read of it is taken into a new one."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import sqlite3
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import attrs

from wireleap_relay.tokens.books import Tally, read_addresses, read_tally
from wireleap_relay.tokens.ledger import STATES, State
from wireleap_relay.tokens.schema import connect
from wireleap_relay.tokens.store import TokenDatabase
from wireleap_relay.tokens.takeover import DAMAGED, NotOurs, check
from wireleap_relay.wire.errors import WireError
from wireleap_relay.wire.keys import PublicKey
from wireleap_relay.wire.sharetoken import Sharetoken

#: Tokens that share a commit.
_TOGETHER = 500
#: Rows that are read at a time; where one of them is damaged they are read singly.
_ROWS = 200
#: A token as :meth:`Sharetoken.to_json` writes it, wherever in a file it stands. Its signatures tell whether it is whole.
_TOKEN = re.compile(rb'\{"version":\d{1,9},"public_key":"[\w-]{43}",[^{}]{100,1000}"contract":\{[^{}]{100,600}\}\}')
_CHUNK, _OVERLAP = 2**20, 4096


def set_aside(path: Path, now: float) -> Path:
    """Move a database that nobody has open out of the way.

    There is a whole copy before anything is missing, so a crash at any moment
    leaves what :func:`salvage` needs.

    :returns: the folder where its files are now.
    :raises OSError: where the disk won't do.
    """
    stamp = time.strftime("%Y-%m-%dT%H-%M-%S", time.gmtime(now))
    folder = path.parent / DAMAGED / f"{stamp}-{secrets.token_hex(2)}"
    folder.mkdir(parents=True, mode=0o700)
    files = [file for file in (path, path.with_name(f"{path.name}-wal")) if file.exists()]
    for file in files:
        try:
            (folder / file.name).hardlink_to(file)
        except OSError:
            shutil.copy2(file, folder / file.name)
    for each in (folder, folder.parent, path.parent):
        _sync(each)
    for file in [*files, path.with_name(f"{path.name}-shm")]:
        file.unlink(missing_ok=True)
    return folder


def set_asides(path: Path) -> list[Path]:
    """Find the folders of databases that were set aside."""
    return sorted(folder for folder in (path.parent / DAMAGED).glob("*") if (folder / path.name).exists())


@attrs.frozen
class Salvaged:
    """What could be read of a damaged database.

    :ivar tokens: that are in the new one now.
    :ivar missing: tokens that the old one had counted and that are nowhere; 0 where even that can't be read.
    """

    tokens: int
    missing: int


def salvage(old: Path, database: TokenDatabase, relay: PublicKey, now: float) -> Salvaged:
    """Take what can be read of a damaged database into a new one; twice does no harm.

    Rows that SQLite still finds keep their state. Tokens that are only found by
    looking at every byte are held again, as long as their window is open: a
    contract that has one already says so.

    :raises sqlite3.Error: where the new one can't be written.
    :raises OSError: where the old one can't be read.
    """
    taken = 0
    batch: list[_Row] = []
    for row in _rows_and_remains(old, relay, now):
        batch.append(row)
        if len(batch) == _TOGETHER:
            taken += sum(database.together([each.take for each in batch]))
            batch.clear()
    taken += sum(database.together([each.take for each in batch]))
    with contextlib.suppress(sqlite3.Error), contextlib.closing(_open(old)) as db:
        addresses, tally = read_addresses(db), read_tally(db)
        remembering = [partial(TokenDatabase.remember, contract=key, url=url) for key, url in addresses.items()]
        database.together([*remembering, partial(TokenDatabase.carry_on, before=tally)])
        return Salvaged(taken, _missing(tally, database.tally()))
    return Salvaged(taken, 0)


@attrs.frozen
class _Row:
    """A token in a damaged database."""

    token: Sharetoken
    state: State
    received_at: float
    key: str
    reason: str = ""
    archive: bool = False

    def take(self, database: TokenDatabase) -> bool:
        """Take it into a new one."""
        return database.take_over(self.token, self.state, self.received_at, self.key, self.reason, archive=self.archive)


def _rows_and_remains(old: Path, relay: PublicKey, now: float) -> Iterator[_Row]:
    seen: set[bytes] = set()
    with contextlib.suppress(sqlite3.Error), contextlib.closing(_open(old)) as db:
        for row in _rows(db):
            if _is_whole(row.token, relay):
                seen.add(row.token.signature.raw)
                yield row
    for token in _remains(old):
        known = token.signature.raw in seen or token.contract.settlement_close <= now
        if not known and _is_whole(token, relay):
            seen.add(token.signature.raw)
            yield _Row(token, "held", now, secrets.token_hex(16))


def _is_whole(token: Sharetoken, relay: PublicKey) -> bool:
    try:
        check(token, relay)
    except NotOurs:
        return False
    return True


def _open(old: Path) -> sqlite3.Connection:
    return connect(f"{old.absolute().as_uri()}?mode=ro", uri=True)


def _rows(db: sqlite3.Connection) -> Iterator[_Row]:
    """Read the rows that can be read; over damage it goes ever further ahead, until there is something again."""
    last, most, step = 0, _ROWS, 1
    while last < 2**62:
        try:
            rows = db.execute(
                "SELECT id, state, received_at, idempotency_key, reason, archive, json FROM sharetoken"
                " WHERE id > ? ORDER BY id LIMIT ?",
                (last, most),
            ).fetchall()
        except sqlite3.Error:
            if most > 1:
                most = 1
            else:
                last, step = last + step, step * 2
            continue
        if not rows:
            return
        for number, *fields in rows:
            if number <= last:
                return  # in circles
            last = number
            row = _read(*fields)
            if row is not None:
                yield row
        most, step = _ROWS, 1


def _read(state: Any, received_at: Any, key: Any, reason: Any, archive: Any, json: Any) -> _Row | None:
    """Read a row, of which anything may be damaged."""
    try:
        return _Row(
            Sharetoken.from_json(json),
            state if state in STATES else "held",
            float(received_at),
            key if re.fullmatch("[0-9a-f]{32}", key) else secrets.token_hex(16),
            str(reason),
            archive == 1,
        )
    except (WireError, TypeError, ValueError):
        return None


def _remains(old: Path) -> Iterator[Sharetoken]:
    """Look at every byte for tokens."""
    for file in (old, old.with_name(f"{old.name}-wal")):
        if not file.exists():
            continue
        with file.open("rb") as opened:
            before = b""
            while chunk := opened.read(_CHUNK):
                for match in _TOKEN.finditer(before + chunk):
                    with contextlib.suppress(WireError):
                        yield Sharetoken.from_json(match[0])
                before = chunk[-_OVERLAP:]


def _missing(before: Tally, after: Tally) -> int:
    return sum(
        max(counted.get("received", 0) - sum(after.get(key, {}).get(state, 0) for state in STATES), 0)
        for key, counted in before.items()
    )


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
