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
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from wireleap_relay.boundaries import WallClock
from wireleap_relay.tokens.books import Tally, counts_of
from wireleap_relay.tokens.ledger import ContractTokens, TokenCounts, TokensStatus, alarms
from wireleap_relay.tokens.schema import NewerDatabase
from wireleap_relay.tokens.store import TokenDatabase
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


class TokenStoreService(Service):
    """Owns the database and the thread that works on it; see :class:`wireleap_relay.boundaries.TokenStore`."""

    _log = Logger()

    def __init__(self, reactor: Any, path: Path, clock: WallClock) -> None:
        """Keep tokens in the file at ``path``."""
        self._path = path
        self._clock = clock
        self._writer = Writer(reactor, self)
        self._looking = LoopingCall(self._look)
        self._looking.clock = reactor
        self._trouble = ""
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
            self._tally = database.tally()
            self._ledger = {each.contract: each for each in database.ledger()}
            self._addresses = {PublicKey(key): url for key, url in database.addresses().items()}
        except NewerDatabase:
            raise
        except sqlite3.Error as e:
            self.failed(str(e))
        self._writer.start(database)
        self._looking.start(_LOOK).addErrback(self._blind)

    def stopService(self) -> Deferred[None]:
        """Finish what was asked for, and close the database."""
        super().stopService()
        self._looking.stop()
        return self._writer.stop()

    def status(self) -> TokensStatus:
        """Tell how the tokens stand."""
        contracts = tuple(
            attrs.evolve(
                self._ledger.get(key, ContractTokens(key)),
                url=self._addresses.get(key, ""),
                received=counted.get("received", 0),
                counts=counts_of(counted),
            )
            for key, counted in ((PublicKey(raw), counted) for raw, counted in self._tally.items())
        )
        found = alarms(self._clock(), self._trouble, contracts)
        return TokensStatus(self._trouble, contracts, (*found, *self._alarms.values()))

    def deposit(self, token: Sharetoken) -> Deferred[bool]:
        """Commit a token.

        :returns: fires with False where it was seen before; fails with
            :exc:`sqlite3.Error` or :exc:`OSError` where the disk won't take it.
        """
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

    def repair(self, damage: str) -> None:
        """Not yet."""

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
        return Deferred.fromCoroutine(self._look_once()).addErrback(self._unkept)

    async def _look_once(self) -> None:
        now = self._clock()
        expired = await self._in_pieces(partial(TokenDatabase.expire, now=now, most=_AT_A_TIME))
        if expired:
            self._log.warn("{count} sharetokens have expired before a contract took them", count=expired)
        await self._in_pieces(partial(TokenDatabase.forget, closed_before=now - _REMEMBERED, most=_AT_A_TIME))
        if self._unsaved:
            await self._save_addresses()
        await self.refresh()
        if self._trouble:
            await self.do(TokenDatabase.prove)
            self._deposited(True)

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
        failure.trap(sqlite3.Error, OSError)  # the writer has told why

    def _blind(self, failure: Failure) -> None:
        self._log.failure("Nobody looks at the sharetokens any more", failure)
