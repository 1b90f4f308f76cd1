"""Keeps sharetokens on disk, and the ledger of what became of them."""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import attrs
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from wireleap_relay.boundaries import WallClock
from wireleap_relay.tokens.books import Tally, counts_of
from wireleap_relay.tokens.ledger import ContractTokens, TokenCounts, TokensStatus, alarms
from wireleap_relay.tokens.salvage import salvage, set_aside, set_asides
from wireleap_relay.tokens.schema import NewerDatabase
from wireleap_relay.tokens.store import TokenDatabase
from wireleap_relay.tokens.takeover import TAKEN_OVER, Takeover
from wireleap_relay.tokens.writer import Writer
from wireleap_relay.wire.keys import PublicKey
from wireleap_relay.wire.sharetoken import Sharetoken

__all__ = ["ContractTokens", "TokenCounts", "TokenStoreService", "TokensStatus"]

T = TypeVar("T")

#: Seconds between looks at what time has changed.
_LOOK = 5.0
#: Tokens that expire or are forgotten in one commit: deposits wait no longer for it than for others.
_AT_A_TIME = 200
#: Seconds after a window's end for which its tokens are remembered: clocks are set back now and then.
_REMEMBERED = 86400.0
#: Files taken over, between two lines of the log.
_MANY = 5000
#: Seconds between two damaged databases that are set aside.
_OFTEN = 60.0


class TokenStoreService(Service):
    """Owns the database and the thread that works on it; see :class:`wireleap_relay.boundaries.TokenStore`."""

    _log = Logger()

    def __init__(self, reactor: Any, path: Path, clock: WallClock, relay: PublicKey) -> None:
        """Keep a relay's tokens in the file at ``path``."""
        self._reactor = reactor
        self._path = path
        self._relay = relay
        self._takeover = Takeover(path.parent, relay)
        self._clock = clock
        self._writer = Writer(reactor, self)
        self._looking = LoopingCall(self._look)
        self._look_under_way: Deferred[None] | None = None
        self._trouble = ""
        self._busy = ""
        self._repaired_at: float | None = None
        self._tally: Tally = {}
        self._ledger: dict[PublicKey, ContractTokens] = {}
        self._addresses: dict[PublicKey, str] = {}
        self._unsaved: dict[PublicKey, str] = {}
        self._alarms: dict[str, str] = {}

    def startService(self) -> None:
        """Open the database. Where the disk won't have it at the moment, go on without, and try again.

        :raises NewerDatabase: where a newer version of this software made it.
        :raises OSError: where its folder can't be made.
        """
        super().startService()
        database: TokenDatabase | None = None
        try:
            database = self.open()
            self.note_all(database)
        except NewerDatabase:
            raise
        except sqlite3.Error as e:
            self.failed(str(e))
        self._writer.start(database)
        # A new one each time: one that is stopped in a look would go on when it is started again.
        self._looking = LoopingCall(self._look)
        self._looking.clock = self._reactor
        self._looking.start(_LOOK).addErrback(self._blind)

    def note_all(self, database: TokenDatabase) -> None:
        """Read how all tokens stand."""
        self._tally = database.tally()
        self._ledger = {each.contract: each for each in database.ledger()}
        self._addresses = {PublicKey(key): url for key, url in database.addresses().items()}

    def stopService(self) -> Deferred[None]:
        """Finish what was asked for, and close the database."""
        super().stopService()
        if self._looking.running:
            self._looking.stop()
        if self._look_under_way is not None:
            self._look_under_way.cancel()
        return self._writer.stop()

    def status(self) -> TokensStatus:
        """Tell how the tokens stand."""
        trouble = self._busy or self._trouble
        contracts = tuple(
            attrs.evolve(
                self._ledger.get(key, ContractTokens(key)),
                url=self._addresses.get(key, ""),
                received=counted.get("received", 0),
                counts=counts_of(counted),
            )
            for key, counted in ((PublicKey(raw), counted) for raw, counted in self._tally.items())
        )
        found = alarms(self._clock(), trouble, contracts)
        return TokensStatus(trouble, contracts, (*found, *self._alarms.values()))

    def deposit(self, token: Sharetoken) -> Deferred[bool]:
        """Commit a token.

        :returns: fires with False where it was seen before; fails with
            :exc:`sqlite3.Error` or :exc:`OSError` where the disk won't take it.
        """
        if self._busy:
            return fail(OSError(self._busy))
        key, now = secrets.token_hex(16), self._clock()
        return self._writer.do(lambda database: database.deposit(token, key, now)).addCallback(self._deposited)

    def do(self, work: Callable[[TokenDatabase], T]) -> Deferred[T]:
        """Do something on the database, in its thread and in a transaction that others share.

        :returns: fails with :exc:`sqlite3.Error` or :exc:`OSError` where the disk won't take it.
        """
        return self._writer.do(work)

    def refresh(self) -> Deferred[None]:
        """Read the ledger anew."""
        return self.do(TokenDatabase.ledger).addCallback(self._refreshed)

    def remember(self, contracts: Mapping[PublicKey, str]) -> None:
        """Note where contracts are: they owe for their tokens even when the config names them no longer."""
        self._unsaved |= {key: url for key, url in contracts.items() if self._addresses.get(key) != url}
        self._addresses |= self._unsaved
        if self._unsaved and self.running:
            self._save_addresses().addErrback(self._unkept)

    def address_of(self, contract: PublicKey) -> str | None:
        """Tell where a contract is, or was when it was last heard of."""
        return self._addresses.get(contract)

    def alarm(self, about: str, what: str) -> None:
        """Have the operator look at something; empty for nothing any more."""
        self._alarms.pop(about, None)
        if what:
            self._alarms[about] = what

    # What the writer tells and asks

    def open(self) -> TokenDatabase:
        """Open the database."""
        return TokenDatabase(self._path)

    def prepare(self, database: TokenDatabase) -> None:
        """Take in what is not in the database yet: out of damaged ones, and out of files."""
        try:
            salvaged = database.salvaged()
            for folder in set_asides(self._path):
                if folder.name not in salvaged:
                    self._salvage(folder, database)
            files = self._takeover.files()
            if files:
                self._take_over(files, database)
        finally:
            self._reactor.callFromThread(self._be_busy, "")

    def repair(self, damage: str) -> bool:
        """Set a damaged database aside.

        :returns: False where that was done a moment ago: it is the disk that is damaged.
        """
        now = self._clock()
        if self._repaired_at is not None and 0 <= now - self._repaired_at < _OFTEN:
            return False
        self._repaired_at = now
        folder = set_aside(self._path, now)
        self._log.critical(
            "The sharetoken database is damaged ({damage}); it is in {folder} now, and a new one is made of what can be"
            " read of it",
            damage=damage,
            folder=str(folder),
        )
        return True

    def _salvage(self, folder: Path, database: TokenDatabase) -> None:
        self._reactor.callFromThread(self._be_busy, "what can be read of a damaged database is being salvaged")
        now = self._clock()
        found = salvage(folder / self._path.name, database, self._relay, now)
        name = folder.name
        database.together([lambda new: new.note_salvaged(name, now, found.tokens, found.missing)])
        self._log.warn(
            "{count} sharetokens were salvaged; {missing} that the old database had counted are missing",
            count=found.tokens,
            missing=found.missing,
        )

    def _take_over(self, files: list[Path], database: TokenDatabase) -> None:
        told = [0]

        def progress(done: int, of: int) -> None:
            self._reactor.callFromThread(self._be_busy, f"sharetokens are being taken over: {done} of {of}")
            if done - told[0] >= _MANY and done < of:
                told[0] = done
                self._log.info("Sharetokens are being taken over out of files: {done} of {of}", done=done, of=of)

        progress(0, len(files))
        new, bad = self._takeover.run(files, database, self._clock(), progress)
        self._log.info(
            "{new} sharetokens were taken over out of {count} files, which are in {folder} now",
            new=new,
            count=len(files) - bad,
            folder=str(self._path.parent / TAKEN_OVER),
        )

    def _be_busy(self, what: str) -> None:
        self._busy = what

    def kept(self, tally: Tally) -> None:
        """Something was committed."""
        self._tally = tally

    def failed(self, why: str) -> None:
        """Nothing can be committed."""
        if not self._trouble:
            self._log.error("Sharetokens can't be kept, so new tunnels are refused: {why}", why=why)
        self._trouble = why

    # What time does

    def _look(self) -> Deferred[None]:
        self._look_under_way = Deferred.fromCoroutine(self._look_once()).addErrback(self._unkept)
        return self._look_under_way

    async def _look_once(self) -> None:
        now = self._clock()
        expired = await self._in_pieces(partial(TokenDatabase.expire, now=now, most=_AT_A_TIME))
        if expired:
            self._log.warn("{count} sharetokens have expired before a contract took them", count=expired)
        await self._in_pieces(partial(TokenDatabase.forget, closed_before=now - _REMEMBERED, most=_AT_A_TIME))
        if self._unsaved:
            await self._save_addresses()
        await self.refresh()
        self.alarm("damaged", await self.do(self._set_asides))
        if self._trouble:
            await self.do(TokenDatabase.prove)
            self._deposited(True)

    def _set_asides(self, database: TokenDatabase) -> str:
        """Say which damaged databases there are; an operator who has seen to one takes its folder away."""
        salvaged = database.salvaged()
        there = [(str(folder), *salvaged.get(folder.name, (0, 0))) for folder in set_asides(self._path)]
        return "; ".join(
            f"a damaged sharetoken database is in {folder}: {count} sharetokens of it were salvaged, {missing} are missing"
            for folder, count, missing in there
        )

    async def _in_pieces(self, work: Callable[[TokenDatabase], int]) -> int:
        done = 0
        while self.running:
            count = await self.do(work)
            done += count
            if count < _AT_A_TIME:
                break
        return done

    def _save_addresses(self) -> Deferred[None]:
        saving = dict(self._unsaved)

        def save(database: TokenDatabase) -> None:
            for key, url in saving.items():
                database.remember(key.raw, url)

        return self.do(save).addCallback(self._saved, saving)

    def _saved(self, _: None, saved: Mapping[PublicKey, str]) -> None:
        self._unsaved = {key: url for key, url in self._unsaved.items() if saved.get(key) != url}

    def _refreshed(self, ledger: list[ContractTokens]) -> None:
        self._ledger = {each.contract: each for each in ledger}

    def _deposited(self, new: bool) -> bool:
        if self._trouble:
            self._log.info("Sharetokens are kept again")
            self._trouble = ""
        return new

    def _unkept(self, failure: Failure) -> None:
        failure.trap(sqlite3.Error, OSError, CancelledError)  # the writer has told why, or nobody needs it any more

    def _blind(self, failure: Failure) -> None:
        self._log.failure("Nobody looks at the sharetokens any more", failure)
