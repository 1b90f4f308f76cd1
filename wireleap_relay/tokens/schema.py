"""The form of the sharetoken database, and the way to it from older ones."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any

VERSION = 2

# Rows are added at the end, and found by small indexes: a page of a big table that is ordered by
# signatures would have to be written for each token. The tally is kept by triggers, so that
# nothing that changes a token can forget to count it.
_SCHEMA = """
CREATE TABLE sharetoken (
    id INTEGER PRIMARY KEY,
    signature BLOB NOT NULL UNIQUE,
    contract BLOB NOT NULL,
    settlement_open INTEGER NOT NULL,
    settlement_close INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('held', 'submitting', 'submitted', 'refused', 'expired')),
    received_at REAL NOT NULL,
    changed_at REAL NOT NULL,
    due_at REAL NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    idempotency_key TEXT NOT NULL,
    reason TEXT NOT NULL DEFAULT '',
    archive INTEGER NOT NULL DEFAULT 0,
    json TEXT NOT NULL
);
CREATE INDEX due ON sharetoken (contract, due_at) WHERE state IN ('held', 'submitting');
CREATE INDEX standing ON sharetoken (contract, state, changed_at);
CREATE INDEX closing ON sharetoken (state, contract, settlement_close);
CREATE INDEX to_archive ON sharetoken (id) WHERE archive = 1;
CREATE TABLE tally (
    contract BLOB NOT NULL,
    what TEXT NOT NULL,
    count INTEGER NOT NULL,
    PRIMARY KEY (contract, what)
) WITHOUT ROWID;
CREATE TRIGGER received AFTER INSERT ON sharetoken BEGIN
    INSERT INTO tally VALUES (NEW.contract, 'received', 1), (NEW.contract, NEW.state, 1)
    ON CONFLICT DO UPDATE SET count = count + 1;
END;
CREATE TRIGGER changed AFTER UPDATE OF state ON sharetoken WHEN NEW.state <> OLD.state BEGIN
    UPDATE tally SET count = count - 1 WHERE contract = OLD.contract AND what = OLD.state;
    INSERT INTO tally VALUES (NEW.contract, NEW.state, 1) ON CONFLICT DO UPDATE SET count = count + 1;
END;
CREATE TRIGGER forgotten AFTER DELETE ON sharetoken BEGIN
    INSERT INTO tally VALUES (OLD.contract, 'forgotten', 1) ON CONFLICT DO UPDATE SET count = count + 1;
END;
CREATE TABLE contract (
    public_key BLOB PRIMARY KEY,
    url TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE salvaged (
    name TEXT PRIMARY KEY,
    at REAL NOT NULL,
    tokens INTEGER NOT NULL,
    missing INTEGER NOT NULL
) WITHOUT ROWID;
"""

# Where the first version had no time at which a token came, its last change has to do.
_BEFORE_2 = "ALTER TABLE sharetoken RENAME TO old; DROP INDEX due;"
_AFTER_2 = """
INSERT INTO sharetoken (signature, contract, settlement_open, settlement_close, state, received_at, changed_at, due_at,
        idempotency_key, reason, json)
    SELECT signature, contract, settlement_open, settlement_close, state, changed_at, changed_at, settlement_open + 1,
        idempotency_key, reason, json
    FROM old ORDER BY changed_at;
DROP TABLE old;
"""
_STEPS = {0: _SCHEMA, 1: _BEFORE_2 + _SCHEMA + _AFTER_2}


class NewerDatabase(sqlite3.DatabaseError):
    """The database was made by a newer version of this software; nothing of it was touched."""


class Damaged(sqlite3.DatabaseError):
    """The database holds what nobody has written; it counts as damage that SQLite finds itself."""

    sqlite_errorcode = sqlite3.SQLITE_CORRUPT


class OtherSchema(sqlite3.DatabaseError):
    """The database was made by another version of this software."""

    def __init__(self, version: int) -> None:
        super().__init__(f"the sharetokens are kept by another version of this software (schema {version})")


def connect(path: str, **options: Any) -> sqlite3.Connection:
    """Open a database without a transaction that begins by itself.

    Where its text is no text, it and every query raise :exc:`Damaged`.

    :param path: as :func:`sqlite3.connect` takes it, and its ``options``.
    :raises sqlite3.Error: where that can't be.
    """
    db = sqlite3.connect(path, isolation_level=None, factory=_Connection, **options)
    db.text_factory = _text
    return db


def _text(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise Damaged("there is text in it that is none") from None


class _Connection(sqlite3.Connection):
    # An error's text may quote what is damaged, and Python then raises something else than that error.

    def execute(self, *args: Any) -> sqlite3.Cursor:
        return _reading(super().execute, *args)

    def executemany(self, *args: Any) -> sqlite3.Cursor:
        return _reading(super().executemany, *args)

    def executescript(self, *args: Any) -> sqlite3.Cursor:
        return _reading(super().executescript, *args)


def _reading(query: Callable[..., sqlite3.Cursor], *args: Any) -> sqlite3.Cursor:
    try:
        return query(*args)
    except UnicodeDecodeError:
        raise Damaged("there is an error in it that can't be read") from None


def bring_up_to_date(db: sqlite3.Connection) -> None:
    """Give a new database its form, or an old one the present form; either all of it or nothing is done.

    :raises NewerDatabase: where this software is too old for it.
    :raises sqlite3.Error: where the disk won't do.
    """
    version = schema_version(db)
    if version > VERSION:
        raise NewerDatabase(f"the sharetokens were kept by a newer version of this software (schema {version})")
    if version == VERSION:
        return
    if version not in _STEPS:
        raise Damaged(f"there never was a schema {version}")
    try:
        db.executescript(f"BEGIN IMMEDIATE;{_STEPS[version]};PRAGMA user_version={VERSION};COMMIT")
    except sqlite3.Error:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def schema_version(db: sqlite3.Connection) -> int:
    """Tell which form a database has; 0 for none yet."""
    (version,) = db.execute("PRAGMA user_version").fetchone()
    return int(version)
