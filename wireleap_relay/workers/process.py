"""One worker, as its daemon sees it: a process, and a socket to talk with it."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import attrs
from twisted.internet.defer import Deferred, DeferredList, succeed
from twisted.internet.error import ConnectionClosed, ProcessExitedAlready
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import Factory, ProcessProtocol
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.protocols.amp import Command, RemoteAmpError, UnhandledCommand
from twisted.python.failure import Failure

from wireleap_relay.boundaries import TokenStore
from wireleap_relay.ownprocess import NO_MEMORY
from wireleap_relay.tunnel.registry import TunnelCounts
from wireleap_relay.wire.errors import WireError
from wireleap_relay.wire.keys import PublicKey
from wireleap_relay.wire.sharetoken import Sharetoken
from wireleap_relay.workers import commands
from wireleap_relay.workers.link import WorkerLink
from wireleap_relay.workers.plane import WorkerStatus
from wireleap_relay.workers.worker import CONTROL, LISTENING

#: Seconds that a worker has to live for its end to be the first in a row.
_LONG_LIFE = 30.0
_LONGEST_WAIT = 30.0
#: Seconds that a worker has to end in when it has nothing left to do.
_PATIENCE = 5.0
#: Looks, one a second, in which a worker has to say something: it counts five times a second. Looks and not
#: seconds, for a machine that slept, or a daemon that stood still, is nothing that a worker could help.
_LONGEST_SILENCE = 60
#: Payload bytes that no process carries in a second.
_FASTEST = 2**34

_NOTHING = commands.Report()


class Employer(Protocol):
    """Whom a worker works for."""

    @property
    def tokens(self) -> TokenStore:
        """Where sharetokens are kept."""

    @property
    def drain_timeout(self) -> float:
        """Seconds that open tunnels have to finish when a worker is to end."""

    def beginning(self) -> Mapping[str, Any]:
        """Give what a new worker is told."""

    def knows(self, contract: PublicKey) -> bool:
        """Tell whether a worker can have heard of a contract."""

    def check(self, token: Sharetoken) -> None:
        """Look at a sharetoken that a worker has been given, or so it says.

        :raises WireError: where it is none of this relay's.
        """

    def counted(self, number: int, carried: Mapping[PublicKey, tuple[int, int]]) -> None:
        """Count what a worker has carried since it was last heard of, by contract: from clients, from targets."""

    def gone(self, number: int) -> None:
        """A worker is gone, and its tunnels with it."""


class WorkerProcess:
    """Keeps one worker running; each of its processes takes over the sockets that listen."""

    _log = Logger()

    def __init__(self, reactor: Any, number: int, employer: Employer) -> None:
        """Employ a worker; it starts later."""
        self.number = number
        self._reactor = reactor
        self._employer = employer
        self._listening: Sequence[socket.socket] = ()
        self._link: WorkerLink | None = None
        self._process: Any = None
        self._ended: Deferred[None] = succeed(None)
        self._retry: IDelayedCall | None = None
        self._began = 0.0
        self._deaths = 0
        self._restarts = 0
        self._out_of_memory = 0
        self._silent = 0
        self._stopping = False
        self._report = _NOTHING
        self._before = TunnelCounts()

    @property
    def is_running(self) -> bool:
        """Whether there is a process that may have tunnels."""
        return self._link is not None

    @property
    def tunnels(self) -> TunnelCounts:
        """Give the figures of all of its processes."""
        return self._before + self._report.tunnels

    def open(self, contract: PublicKey) -> int:
        """Give a contract's open tunnels, as last heard of."""
        return self._report.open.get(str(contract), 0)

    def status(self) -> WorkerStatus:
        """Tell what it is doing."""
        state = "gone" if self._link is None else "running" if self._report.process.memory else "starting"
        return WorkerStatus(
            self.number,
            state,
            self._process.pid or 0 if self._process is not None else 0,
            self._restarts,
            self._out_of_memory,
            self._report.connections,
            sum(self._report.open.values()),
            self._report.process,
        )

    def start(self, listening: Sequence[socket.socket]) -> None:
        """Start the first process, which accepts from some sockets.

        :raises OSError: where the system has no room for one.
        """
        self._listening = listening
        self._stopping = False
        self._spawn()

    def tell(self, command: type[Command], **arguments: Any) -> None:
        """Tell the worker something, if there is one; one that comes later is told in the beginning."""
        if self._link is not None:
            self._link.callRemote(command, **arguments).addErrback(self._deaf)

    def accept(self, accepts: bool) -> Deferred[Any]:
        """Have it accept connections, or let them wait.

        :returns: fires when it does; a worker that comes later is told in the beginning.
        """
        if self._link is None:
            return succeed(None)
        told: Deferred[Any] = self._link.callRemote(commands.Accept, accepts=accepts)
        return told.addErrback(self._deaf)

    def look(self) -> None:
        """Called once a second: replace a worker that has stood still for too long."""
        if self._link is not None and self._link.is_behind:
            return  # it is the disk that does
        self._silent += 1
        if self._link is not None and self._silent == _LONGEST_SILENCE:
            self._log.error(
                "Worker {number} has not been heard of for {seconds} s, and is ended",
                number=self.number,
                seconds=_LONGEST_SILENCE,
            )
            _kill(self._process)

    def stop(self) -> Deferred[None]:
        """Let its tunnels finish, then the process.

        :returns: fires when that is gone.
        """
        self._stopping = True
        if self._retry is not None and self._retry.active():
            self._retry.cancel()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        link, ended = self._link, self._ended
        if link is not None:
            drained = link.callRemote(commands.Drain)
            drained.addErrback(self._deaf)
            # It keeps to that itself, unless it stands still.
            longest: Deferred[Any] = deferLater(self._reactor, self._employer.drain_timeout + _PATIENCE)
            await DeferredList([drained, link.lost, longest], fireOnOneCallback=True, consumeErrors=True)
            longest.cancel()
            link.end()
            self._let_end()
        await DeferredList([ended])

    def _let_end(self) -> None:
        """Give the process a while to end by itself in."""
        process = self._process
        killing = self._reactor.callLater(_PATIENCE, self._kill, process)
        self._ended.addCallback(lambda _: killing.cancel() if killing.active() else None)

    def _kill(self, process: Any) -> None:
        self._log.warn("Worker {number} does not end by itself", number=self.number)
        _kill(process)

    def _spawn(self) -> None:
        self._began = self._reactor.seconds()
        self._silent = 0
        ours, theirs = socket.socketpair()
        link, process = WorkerLink(self._reactor, self), _Process()
        factory = Factory.forProtocol(lambda: link)
        factory.noisy = False
        with ours, theirs, open(os.devnull, "rb") as nothing:
            ours.setblocking(False)
            # Where the rest fails, it is lost with the other end.
            self._reactor.adoptStreamConnection(ours.fileno(), socket.AF_UNIX, factory)
            files = {0: nothing.fileno(), 1: 1, 2: 2, CONTROL: theirs.fileno()}
            files.update((LISTENING + number, each.fileno()) for number, each in enumerate(self._listening))
            command = [sys.executable, "-P", "-m", "wireleap_relay.workers"]
            environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
            self._process = self._reactor.spawnProcess(process, sys.executable, command, environment, childFDs=files)
        self._link, self._ended = link, process.ended.addCallback(self._has_ended)
        beginning = {**self._employer.beginning(), "listening": len(self._listening)}
        link.callRemote(commands.Begin, **beginning).addErrback(self._deaf)

    def _respawn(self) -> None:
        try:
            self._spawn()
        except OSError as e:
            self._begin_again(f"could not be started ({e.strerror})")

    def _has_ended(self, code: int | None) -> None:
        if code == NO_MEMORY:
            self._out_of_memory += 1
            self._log.error("Worker {number} had no memory left, and ended for that", number=self.number)

    def _deaf(self, failure: Failure) -> None:
        """A worker that dies can't answer; whatever else it is, is told."""
        if failure.check(ConnectionClosed):
            return
        if failure.check(RemoteAmpError, UnhandledCommand):
            # It has told of that itself, and how it came about.
            self._log.error("Worker {number} could not do what it was told", number=self.number)
            return
        self._log.failure("Worker {number} could not be told what to do", failure, number=self.number)

    # What its link hears

    def heard(self, report: commands.Report) -> None:
        """Count.

        :raises WireError: where a worker can't have counted that.
        """
        before = self._report
        if before.from_clients.keys() - report.from_clients.keys():
            raise WireError("a contract is not counted any more")
        keys = {contract: PublicKey.from_text(contract) for contract in {*report.from_clients, *report.open}}
        if not all(map(self._employer.knows, keys.values())):
            raise WireError("a contract is counted that this relay does not have")
        total = sum(report.from_clients.values()) + sum(report.from_targets.values())
        if total > _FASTEST * (self._reactor.seconds() - self._began + 1):
            raise WireError("more is counted than any process can carry")
        carried = {
            keys[contract]: (
                size - before.from_clients.get(contract, 0),
                report.from_targets[contract] - before.from_targets.get(contract, 0),
            )
            for contract, size in report.from_clients.items()
        }
        if any(min(sizes) < 0 for sizes in carried.values()):
            raise WireError("less is counted than before")
        self._report = report
        self._silent = 0
        self._employer.counted(self.number, {key: sizes for key, sizes in carried.items() if any(sizes)})

    def deposit(self, texts: list[bytes]) -> Deferred[bytes]:
        """Keep sharetokens; see :class:`wireleap_relay.workers.commands.Deposit`.

        :raises WireError: where one is none that a worker can have been given.
        """
        tokens = list(map(Sharetoken.from_json, texts))
        for token in tokens:
            self._employer.check(token)
        keeping = DeferredList(list(map(self._employer.tokens.deposit, tokens)), consumeErrors=True)
        return keeping.addCallback(_outcomes)

    def distrust(self, why: str) -> None:
        """End a worker that says what no worker says: it is not what it was any more."""
        self._log.error("Worker {number} is ended for what it says: {why}", number=self.number, why=why)
        _kill(self._process)

    def lost(self, link: WorkerLink) -> None:
        """The process is going, or gone; unless that was wanted there is soon another one."""
        if link is not self._link:
            return
        self._link = None
        self._before = attrs.evolve(self.tunnels, open=0)
        self._report = _NOTHING
        self._employer.gone(self.number)
        if self._stopping:
            return
        self._let_end()
        self._begin_again("has died")

    def _begin_again(self, why: str) -> None:
        self._deaths = self._deaths + 1 if self._reactor.seconds() - self._began < _LONG_LIFE else 1
        self._restarts += 1
        delay = 0.0 if self._deaths == 1 else min(2.0 ** (self._deaths - 2), _LONGEST_WAIT)
        self._log.error(
            "Worker {number} {why}; another one takes its place in {delay} s", number=self.number, why=why, delay=delay
        )
        self._retry = self._reactor.callLater(delay, self._respawn)


def _kill(process: Any) -> None:
    try:
        process.signalProcess("KILL")
    except ProcessExitedAlready:
        return


def _outcomes(results: list[tuple[bool, Any]]) -> bytes:
    return b"".join((b"n" if new else b"u") if kept else b"f" for kept, new in results)


class _Process(ProcessProtocol):
    def __init__(self) -> None:
        self.ended: Deferred[int | None] = Deferred()

    def processEnded(self, reason: Failure) -> None:
        self.ended.callback(getattr(reason.value, "exitCode", None))
