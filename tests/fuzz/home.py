"""What a relay finds in its home, written by others, by another version, or by a disk that lies."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import attrs

from tests.admin.views import make_view
from tests.fuzz.reader import Tape
from tests.fuzz.rig import CLIENT, CONTRACT, NOW, RELAY, STATEMENT
from tests.upgrade.keys import NOW as SIGNED_AT
from tests.upgrade.keys import Signer
from wireleap_relay.admin.archive import read_archive
from wireleap_relay.admin.metrics import exposition
from wireleap_relay.admin.snapshot import api_tokens, api_usage
from wireleap_relay.boundaries import Outcome
from wireleap_relay.configvalues import CalendarStart
from wireleap_relay.home import Home, HomeError
from wireleap_relay.tokens.books import audit, kept
from wireleap_relay.tokens.salvage import salvage
from wireleap_relay.tokens.schema import OtherSchema
from wireleap_relay.tokens.service import TokenStoreService
from wireleap_relay.tokens.store import TokenDatabase
from wireleap_relay.tokens.takeover import Takeover
from wireleap_relay.tunnel.resolver import _Files, _read_files
from wireleap_relay.upgrade.migrations import migrate
from wireleap_relay.upgrade.peer import Peer, PeerFailed
from wireleap_relay.upgrade.record import Record, read_record
from wireleap_relay.upgrade.release import NotGenuine, read_keys, read_listing, read_successor
from wireleap_relay.upgrade.rules import Unwanted, read_skipped
from wireleap_relay.usage.recorder import Recorder
from wireleap_relay.usage.stats import Stats
from wireleap_relay.usage.window import CalendarFrame, Frame, TimeFrame
from wireleap_relay.wire.encoding import read_json, write_json
from wireleap_relay.wire.errors import WireError
from wireleap_relay.wire.keys import SigningKey
from wireleap_relay.wire.sharetoken import ContractStatement, Sharetoken
from wireleap_relay.wire.versions import Version

_MEMORY = "/dev/shm" if os.path.isdir("/dev/shm") else None
_OTHER = SigningKey(bytes([9]) * 32)


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(dir=_MEMORY))
    try:
        yield path
    finally:
        shutil.rmtree(path)


# Sharetokens


def _sharetoken(number: int, contract: SigningKey = CONTRACT) -> Sharetoken:
    statement = STATEMENT if contract is CONTRACT else ContractStatement.sign(contract, NOW + 1000, NOW + 2000)
    return Sharetoken.sign(CLIENT, statement, RELAY.public_key, NOW + number)


@cache
def _whole() -> bytes:
    """A database with tokens in every state."""
    with _folder() as folder:
        database = TokenDatabase(folder / "db")
        tokens = [_sharetoken(number, CONTRACT if number % 3 else _OTHER) for number in range(12)]
        for number, token in enumerate(tokens):
            database.together([lambda each, t=token, n=number: each.deposit(t, f"{n:032x}", NOW + n)])
        database.settle(tokens[0], Outcome("submitted"), NOW, archive=True)
        database.settle(tokens[1], Outcome("refused", "no"), NOW)
        database.settle(tokens[2], Outcome("expired"), NOW)
        database.claim(CONTRACT.public_key.raw, NOW + 1900, 3)
        database.postpone(tokens[4], NOW + 1950, "nobody there")
        database.remember(CONTRACT.public_key.raw, "http://c")
        database.note_salvaged("then", NOW, 1, 1)
        database._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        database.close()
        return (folder / "db").read_bytes()


def _show(database: TokenDatabase) -> None:
    """Tell of the tokens as the daemon does."""
    service: Any = TokenStoreService.__new__(TokenStoreService)
    service._busy = service._trouble = ""
    service._clock = lambda: NOW
    service._alarms = {}
    service.note_all(database)
    view = attrs.evolve(make_view(), tokens=service.status())
    exposition(view)
    write_json(api_tokens(view))


_WORK: list[Callable[[TokenDatabase], object]] = [
    _show,
    lambda database: database.due(NOW + 1900),
    lambda database: database.claim(CONTRACT.public_key.raw, NOW + 1900, 8),
    lambda database: database.peek(CONTRACT.public_key.raw, NOW + 1900, 8),
    lambda database: database.hasten(NOW),
    lambda database: database.to_archive(10),
    lambda database: database.deposit(_sharetoken(99), "0" * 32, NOW),
    lambda database: database.settle(_sharetoken(99), Outcome("refused", "no"), NOW),
    lambda database: database.revive(NOW),
    lambda database: database.expire(NOW + 5000, 200),
    lambda database: database.forget(NOW + 90_000, 200),
    lambda database: database.salvaged(),
    lambda database: audit(database._db) if not database._db.in_transaction else None,
    lambda database: list(kept(database._db)),
]


def database(data: bytes) -> None:
    """Changes to a database of sharetokens: three bytes say where, one how many, and then what is there now."""
    tape, content = Tape(data), bytearray(_whole())
    while not tape.ended:
        at = int.from_bytes(tape.bytes(3)) % len(content)
        new = tape.bytes(1 + tape.byte() % 32)
        content[at : at + len(new)] = new
    with _folder() as folder:
        old, other = folder / "db", folder / "new"
        old.write_bytes(content)
        with contextlib.suppress(sqlite3.Error):
            opened = TokenDatabase(old)
            try:
                for work in _WORK:
                    with contextlib.suppress(sqlite3.Error, OtherSchema):
                        opened.together([work])
            finally:
                opened.close()
        old.write_bytes(content)
        for file in folder.glob("db-*"):
            file.unlink()
        mended = TokenDatabase(other)
        try:
            found = salvage(old, mended, RELAY.public_key, NOW)
            assert found.tokens >= 0
            assert found.missing >= 0
            _show(mended)
            assert all(each.adds_up or each.missing for each in audit(mended._db))
        finally:
            mended.close()


def token_file(data: bytes) -> None:
    """A file of a sharetoken, as the Go relay keeps them."""
    with _folder() as folder:
        token = None
        with contextlib.suppress(WireError):
            token = Sharetoken.from_json(data)
        parent = folder / (str(token.contract.public_key) if token else "x")
        parent.mkdir()
        (parent / f"{token.signature if token else 'x'}.json").write_bytes(data)
        database = TokenDatabase(folder / "db")
        try:
            takeover = Takeover(folder, RELAY.public_key)
            takeover.run(takeover.files(), database, NOW, lambda *_: None)
            if token is not None:
                # Whatever its signature says.
                database.together([lambda each: each.take_over(token, "held", NOW, "0" * 32)])
            for work in _WORK:
                database.together([work])
        finally:
            database.close()


# Usage

_FRAMES: list[Frame] = [
    TimeFrame(86_400_000),
    CalendarFrame(CalendarStart("day", hour=6)),
    CalendarFrame(CalendarStart("week", 6)),
    CalendarFrame(CalendarStart("month", 31)),
]


def stats(data: bytes) -> None:
    """What was carried, as a file has it, and the windows that follow."""
    try:
        found = Stats.from_json(data)
    except WireError:
        return
    assert Stats.from_json(json.dumps(found.to_fields())) == found
    for frame in _FRAMES:
        recorder = Recorder(frame, NOW * 1000, found)
        for days in (0, 1, 40, 400):
            recorder.look(NOW * 1000 + days * 86_400_000, {CONTRACT.public_key: days})
        now = recorder.stats()
        now.with_every([RELAY.public_key]).to_record(RELAY.public_key, 1, [])
        if max(found.carried.values(), default=0) < 2**62:
            assert Stats.from_json(json.dumps(now.to_fields())) == now


def archive(data: bytes) -> None:
    """Records of closed windows: the name of each, behind its length, and what is in it, behind its length."""
    tape = Tape(data)
    with _folder() as folder:
        while not tape.ended:
            name = tape.bytes(tape.byte() % 24).decode("utf-8", "replace").replace("/", "").replace("\0", "")
            content = tape.bytes(tape.byte())
            with contextlib.suppress(OSError):
                (folder / f"relay-{name}.json").write_bytes(content)
        found = read_archive(folder, "relay")
        write_json(api_usage(make_view(), found))


# The rest


def home_files(data: bytes) -> None:
    """A file of the home: the first byte says which."""
    which, content = data[0] % 6 if data else 0, data[1:]
    with _folder() as folder:
        home = Home(folder)
        names = (home.key_seed, home.certificate, home.tls_key, home.upgrade_record, home.skip_upgrade_version)
        (*names, folder / "resolv.conf")[which].write_bytes(content)
        with contextlib.suppress(HomeError, Unwanted, WireError):
            match which:
                case 0:
                    home.load_key()
                case 1:
                    home._load_certificate()
                case 2:
                    home._load_tls_key()
                case 3:
                    assert isinstance(read_record(home), Record)
                case 4:
                    read_skipped(home.skip_upgrade_version)
                case _:
                    assert _read_files(_Files(), folder / "resolv.conf", folder / "resolv.conf", 53).servers
                    config = read_json(content)
                    if isinstance(config, dict):
                        migrate(config, Version(0, 6, 0))


@cache
def _signer() -> Signer:
    return Signer()


def release(data: bytes) -> None:
    """What a release site has: a list that nobody has signed, a key, and a key that follows another."""
    cert = _signer().cert
    for read in (
        lambda: read_keys(data),
        lambda: read_listing(data, [cert], SIGNED_AT),
        lambda: read_successor(data, cert, SIGNED_AT),
    ):
        with contextlib.suppress(NotGenuine):
            read()


def signed_list(data: bytes) -> None:
    """What a release site has, signed, with anything in it, and then changed: the first byte says where."""
    at, text = data[0] if data else 0, data[1:]
    signed = bytearray(_signer().sign(text))
    if at:
        signed[at * 3 % len(signed)] ^= 1 + at % 7
    with contextlib.suppress(NotGenuine):
        read_listing(bytes(signed), [_signer().cert], SIGNED_AT)


def signed_seeds() -> list[bytes]:
    """Make lists that are signed, to be changed."""
    listing = _signer().listing("0.8.0", one=bytes(64), two=bytes(range(64)))
    return [listing, bytes(_signer().cert), _signer().sign(bytes(_signer().cert)), bytes(_signer().revoked())]


def peer(data: bytes) -> None:
    """What another daemon answers at its handover socket."""
    asking: Any = Peer.__new__(Peer)
    asking.pid, asking.inherited, asking._buffer = 1, [], b""
    asking.socket, other = socket.socketpair()
    with asking.socket, other:
        other.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            other.sendall(data)
        other.shutdown(socket.SHUT_WR)
        with contextlib.suppress(PeerFailed):
            for _ in range(3):
                assert asking.ask("health")["ok"]
