"""The one thread that works on the sharetoken database. What waits for it while it is busy shares the next commit."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, Protocol, TypeVar

from twisted.internet.defer import Deferred, fail, succeed
from twisted.python.failure import Failure

from wireleap_relay.tokens.books import Tally
from wireleap_relay.tokens.store import TokenDatabase

T = TypeVar("T")
Work = Callable[[TokenDatabase], Any]
_Job = tuple[Work, Deferred[Any]]

#: Jobs that share one commit at the most.
_TOGETHER = 500
_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
#: The file is as it was, and the connection to it is good; others are made anew.
_FULL = frozenset({sqlite3.SQLITE_FULL})
_PASSING = frozenset({*_FULL, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})


class Owner(Protocol):
    """Whom a writer works for; it is called in the writer's thread, but for :meth:`kept` and :meth:`failed`."""

    def open(self) -> TokenDatabase:
        """Open the database."""

    def prepare(self, database: TokenDatabase) -> None:
        """Do what has to be done before anything else is."""

    def repair(self, damage: str) -> bool:
        """Do something about a damaged database that nobody has open.

        :returns: whether it is worth to go on.
        """

    def kept(self, tally: Tally) -> None:
        """Something was committed, and that is how things stand now."""

    def failed(self, why: str) -> None:
        """Nothing can be committed."""


class Writer:
    """Does jobs on the database, and tells of each when it is on disk."""

    def __init__(self, reactor: Any, owner: Owner) -> None:
        """Work for somebody, from :meth:`start` on."""
        self._reactor = reactor
        self._owner = owner
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._database: TokenDatabase | None = None
        self._prepared = False
        self._closed = True
        self._ended: Deferred[None] = succeed(None)

    def start(self, database: TokenDatabase | None) -> None:
        """Begin, with a database that is open, or with opening one."""
        self._database = database
        self._prepared = False
        self._closed = False
        self._ended = Deferred()
        Thread(target=self._work, name="sharetokens", daemon=True).start()

    def stop(self) -> Deferred[None]:
        """Finish what was asked for, and close the database."""
        if not self._closed:
            self._closed = True
            self._jobs.put(None)
        return self._ended

    def do(self, work: Callable[[TokenDatabase], T]) -> Deferred[T]:
        """Do something, together with whatever else is waiting.

        :returns: fires when it is committed; fails with :exc:`sqlite3.Error` or
            :exc:`OSError` where the disk won't take it. Then nothing has changed.
        """
        if self._closed:
            return fail(OSError("the sharetokens' database is closed"))
        done: Deferred[T] = Deferred()
        self._jobs.put((work, done))
        return done

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            self._attempt([job, *self._waiting()])
        self._let_go()
        self._reactor.callFromThread(self._ended.callback, None)

    def _waiting(self) -> Iterator[_Job]:
        for _ in range(_TOGETHER - 1):
            try:
                job = self._jobs.get_nowait()
            except Empty:
                return
            if job is None:
                self._jobs.put(None)  # the end comes after these
                return
            yield job

    def _attempt(self, jobs: list[_Job], mends: bool = True) -> None:
        try:
            *results, tally = self._ready().together([*(work for work, _ in jobs), TokenDatabase.tally])
        except (sqlite3.Error, OSError) as e:
            self._reactor.callFromThread(self._owner.failed, str(e))
            if not _is_among(e, _PASSING):
                self._let_go()
            if _is_among(e, _FULL) and len(jobs) > 1:
                # Whoever only asks gets an answer all the same.
                for job in jobs:
                    self._attempt([job])
            elif mends and _is_among(e, _DAMAGED) and self._repair(str(e)):
                self._attempt(jobs, mends=False)
            else:
                self._reactor.callFromThread(_fail, jobs, Failure(e))
        except Exception:  # noqa: BLE001 - it belongs to whoever asked, and to nobody else
            if len(jobs) == 1:
                self._reactor.callFromThread(_fail, jobs, Failure())
            else:
                for job in jobs:
                    self._attempt([job])
        else:
            self._reactor.callFromThread(self._tell, jobs, results, tally)

    def _ready(self) -> TokenDatabase:
        if self._database is None:
            self._database, self._prepared = self._owner.open(), False
        if not self._prepared:
            self._owner.prepare(self._database)
            self._prepared = True
        return self._database

    def _tell(self, jobs: list[_Job], results: list[Any], tally: Tally) -> None:
        self._owner.kept(tally)
        for (_, done), result in zip(jobs, results, strict=True):
            done.callback(result)

    def _let_go(self) -> None:
        database, self._database = self._database, None
        if database is not None:
            try:
                database.close()
            except sqlite3.Error:
                return  # it was no good

    def _repair(self, damage: str) -> bool:
        try:
            return self._owner.repair(damage)
        except (sqlite3.Error, OSError) as e:
            self._reactor.callFromThread(self._owner.failed, str(e))
            return False


def _fail(jobs: list[_Job], failure: Failure) -> None:
    for _, done in jobs:
        done.errback(failure)


def _is_among(error: BaseException, codes: frozenset[int]) -> bool:
    """Look at SQLite's primary code."""
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & 0xFF in codes
