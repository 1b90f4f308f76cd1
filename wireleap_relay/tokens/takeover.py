"""Sharetokens as files, one each, as the Go relay keeps them (PROTOCOL: *The relay's directory on disk*).

``<contract id>/<signature>.json`` for those that are owed, and the same under
``expired/`` and ``malformed/``. What is found is taken into the database, and
its file is kept under ``taken-over/``; what is no token of this relay goes to
``malformed/``. A crash at any moment loses nothing and takes nothing twice.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache, partial
from pathlib import Path

import attrs
from twisted.logger import Logger

from wireleap_relay.tokens.ledger import State
from wireleap_relay.tokens.store import TokenDatabase
from wireleap_relay.wire.errors import WireError
from wireleap_relay.wire.keys import PublicKey
from wireleap_relay.wire.sharetoken import ContractStatement, Sharetoken

EXPIRED, MALFORMED, TAKEN_OVER, DAMAGED = "expired", "malformed", "taken-over", "damaged"
_NOT_CONTRACTS = frozenset({EXPIRED, MALFORMED, TAKEN_OVER, DAMAGED})

#: Files that share a commit.
_TOGETHER = 200
#: Bytes; a token has a thousand.
_LONGEST = 65_536
_log = Logger()


class NotOurs(Exception):
    """Something is no token of this relay; the text says why."""


def check(token: Sharetoken, relay: PublicKey) -> None:
    """Look at a token's signatures, and for whom it is.

    :raises NotOurs: where it is worth nothing to this relay.
    """
    if token.relay_pubkey != relay:
        raise NotOurs("it is for another relay")
    if not _statement_holds(token.contract):
        raise NotOurs("its contract's signature does not verify")
    if not token.verify():
        raise NotOurs("its signature does not verify")


@lru_cache(maxsize=1000)
def _statement_holds(statement: ContractStatement) -> bool:
    return statement.verify()


@attrs.frozen
class Takeover:
    """Takes tokens over out of a folder."""

    folder: Path
    relay: PublicKey

    def files(self) -> list[Path]:
        """Find the files that are to be taken over."""
        expired = self.folder / EXPIRED
        contracts = [*_folders(self.folder), *_folders(expired)]
        return [
            file
            for contract in contracts
            if contract.name not in _NOT_CONTRACTS
            for file in sorted(contract.glob("*.json"))
            if file.is_file()
        ]

    def run(
        self, files: list[Path], database: TokenDatabase, now: float, progress: Callable[[int, int], None]
    ) -> tuple[int, int]:
        """Take them over.

        :param now: Unix seconds.
        :param progress: is told how many of how many are done.
        :returns: how many were new to the database, and how many are no tokens of this relay.
        :raises sqlite3.Error: where the disk won't do.
        """
        new = bad = done = 0
        for some in _batched(files, _TOGETHER):
            tokens: dict[Path, Sharetoken] = {}
            for file in some:
                try:
                    tokens[file] = self._read(file)
                except (WireError, NotOurs) as e:
                    bad += 1
                    self._put(file, MALFORMED)
                    _log.warn(
                        "{file} is no sharetoken of this relay, and is in {malformed} now: {why}",
                        file=str(file.relative_to(self.folder)),
                        malformed=MALFORMED,
                        why=str(e),
                    )
                except OSError as e:
                    _log.error("{file} can't be read, and is left where it is: {why}", file=str(file), why=e.strerror)
            jobs = [
                partial(
                    TokenDatabase.take_over,
                    token=token,
                    state=self._state(file, token, now),
                    now=now,
                    idempotency_key=secrets.token_hex(16),
                )
                for file, token in tokens.items()
            ]
            new += sum(database.together(jobs))
            for file in tokens:
                self._put(file, TAKEN_OVER)
            done += len(some)
            progress(done, len(files))
        return new, bad

    def _read(self, file: Path) -> Sharetoken:
        with file.open("rb") as opened:
            text = opened.read(_LONGEST)
        token = Sharetoken.from_json(text)
        if (file.parent.name, file.stem) != (str(token.contract.public_key), str(token.signature)):
            raise NotOurs("its file has not the name and the folder that belong to it")
        check(token, self.relay)
        return token

    def _state(self, file: Path, token: Sharetoken, now: float) -> State:
        """An expired token whose window is open yet is worth another try."""
        was_expired = file.parent.parent.name == EXPIRED
        return "expired" if was_expired and token.contract.settlement_close <= now else "held"

    def _put(self, file: Path, where: str) -> None:
        to = self.folder / where / file.relative_to(self.folder)
        try:
            to.parent.mkdir(parents=True, exist_ok=True)
            file.replace(to)
        except OSError as e:
            # It is found again at the next start, and is known by then.
            _log.error("{file} can't be moved to {where}: {why}", file=str(file), where=where, why=e.strerror)


def export(tokens: Iterable[tuple[Sharetoken, State]], folder: Path) -> dict[State, int]:
    """Write tokens as the Go relay keeps them: those that are owed, and those that have expired.

    :returns: how many of each were written.
    :raises OSError: where the disk won't do.
    """
    written: dict[State, int] = {"held": 0, "expired": 0}
    for token, state in tokens:
        place: State = "expired" if state == "expired" else "held"
        parent = (folder / EXPIRED if place == "expired" else folder) / str(token.contract.public_key)
        parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        file = parent / f"{token.signature}.json"
        unfinished = file.with_suffix(".unfinished")
        unfinished.write_text(token.to_json())
        unfinished.replace(file)
        written[place] += 1
    os.sync()  # once for all of them; whoever is interrupted exports again
    return written


def _folders(parent: Path) -> list[Path]:
    return sorted(each for each in parent.glob("*") if each.is_dir()) if parent.is_dir() else []


def _batched(files: list[Path], size: int) -> Iterator[list[Path]]:
    for start in range(0, len(files), size):
        yield files[start : start + size]
