"""How a daemon gives its place to the next one, without a client noticing.

Both run for a while. They share the listening sockets, and only one of them
accepts; both count, and tell each other what they carried; only one of them,
the keeper, writes ``stats.json``, submits sharetokens and shows the relay to
its operator. Whoever supervises asks over a socket in the home; see
:mod:`wireleap_relay.upgrade.peer`.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.protocol import Factory, connectionDone
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.protocols.basic import LineOnlyReceiver
from twisted.python.failure import Failure

from wireleap_relay.daemon.path import SocketPath
from wireleap_relay.home import Home
from wireleap_relay.upgrade.peer import PeerFailed, socket_name, stopped_name
from wireleap_relay.upgrade.record import read_record
from wireleap_relay.wire.encoding import read_json
from wireleap_relay.wire.errors import WireError
from wireleap_relay.wire.keys import PublicKey
from wireleap_relay.wire.structure import structure

_COUNT_EVERY = 0.2
#: Seconds that the other side has to take the last counts.
_LAST_WORDS = 2.0

#: Payload bytes by contract: from clients, from targets.
Carried = Mapping[str, tuple[int, int]]


class Incumbent(Protocol):
    """A relay whose place can be taken."""

    @property
    def leaves(self) -> bool:
        """Whether it stops because another daemon serves in its place."""

    def hand_out(self) -> tuple[dict[str, Any], list[socket.socket]]:
        """Give what a successor needs, and the sockets that listen."""

    def accept(self, accepts: bool) -> Deferred[Any]:
        """Accept connections, or let them wait for another process."""

    def keep(self, keeps: bool) -> Deferred[Any]:
        """Be the keeper, or leave that to another process."""

    def leave(self, successor: int) -> Deferred[Any]:
        """Leave the home to another process, and stop, without a word to directories.

        :param successor: its process id.
        :returns: fires when the home is free.
        """

    def adopt(self) -> None:
        """Be the relay to whoever looks after its processes: a predecessor has left."""

    def stay(self) -> None:
        """Tell directories that it is this version which serves."""

    def carried(self) -> Carried:
        """Give what this process has carried since it started."""

    def heard(self, grown: Carried) -> None:
        """Count what another process has carried."""

    def health(self) -> dict[str, Any]:
        """Tell how it does, as JSON data."""

    def ping(self) -> Deferred[Any]:
        """Ask for a PING where it listens."""

    def supervise(self) -> Deferred[Any]:
        """Start the supervisor of the upgrade that is staged."""

    def abandoned(self) -> None:
        """Whoever supervised, or was to be succeeded, is gone before the end."""


class HandoverService(Service):
    """Answers on the handover socket, and counts to the other daemon."""

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        home: Home,
        incumbent: Incumbent,
        accept_from: Callable[[Any, socket.socket, Any], Any],
        predecessor: socket.socket | None,
    ) -> None:
        """Hand over a relay, or take over from a predecessor.

        :param accept_from: has a reactor accept from a socket.
        :param predecessor: the connection to it.
        """
        self.setName("handover")
        self.incumbent = incumbent
        self._reactor = reactor
        self._home = home
        self._accept_from = accept_from
        self._predecessor = predecessor
        self._file = home.path / socket_name(os.getpid())
        self._port: Any = None
        self._talks: set[Talk] = set()
        self._counting = LoopingCall(self._count)
        self._counting.clock = reactor

    def startService(self) -> None:
        """Listen, and take up the talk with the predecessor.

        :raises OSError: where the home can't be written.
        """
        super().startService()
        self._remove_left_over()
        factory = Factory.forProtocol(self._talk)
        factory.noisy = False
        with SocketPath(self._file) as path, socket.socket(socket.AF_UNIX) as listening:
            listening.bind(path.text)
            self._file.chmod(0o600)
            listening.listen(16)
            listening.setblocking(False)
            self._port = self._accept_from(self._reactor, listening, factory)
        if self._predecessor is not None:
            talk = self._talk()
            talk.share({})
            self._reactor.adoptStreamConnection(self._predecessor.fileno(), socket.AF_UNIX, _Once(talk))
            self._predecessor.close()
        self._counting.start(_COUNT_EVERY, now=False)

    def stopService(self) -> Deferred[Any]:
        """Tell the other daemon the last counts."""
        super().stopService()
        self._counting.stop()
        with contextlib.suppress(OSError):
            if not self.incumbent.leaves and not read_record(self._home).is_done:
                self._file.rename(self._home.path / stopped_name(os.getpid()))
            else:
                self._file.unlink()
        self._count()
        ended = [maybeDeferred(self._port.stopListening), *(talk.end() for talk in self._talks)]
        return DeferredList(ended, consumeErrors=True)

    def _talk(self) -> Talk:
        talk = Talk(self._reactor, self.incumbent, self._log, self._talks.discard)
        self._talks.add(talk)
        return talk

    def _count(self) -> None:
        for talk in list(self._talks):
            talk.count()

    def _remove_left_over(self) -> None:
        prefix = socket_name(0)[:-1]
        for file in self._home.path.glob(f"{prefix}*"):
            pid = file.name.removeprefix(prefix).partition("-")[0]
            if pid.isascii() and pid.isdigit() and (int(pid) == os.getpid() or not os.path.exists(f"/proc/{pid}")):
                file.unlink(missing_ok=True)


class Talk(LineOnlyReceiver):
    """One connection: with a supervisor, a command, or the other daemon."""

    delimiter = b"\n"
    MAX_LENGTH = 1 << 20

    def __init__(self, reactor: Any, incumbent: Incumbent, log: Logger, over: Callable[[Talk], None]) -> None:
        """Speak for a relay."""
        self._reactor = reactor
        self._incumbent = incumbent
        self._log = log
        self._over = over
        self._told: dict[str, tuple[int, int]] | None = None
        self._paused = False
        self._ended: Deferred[None] = Deferred()

    def lineReceived(self, line: bytes) -> None:
        """Do what is asked, or count what the other daemon has carried."""
        try:
            message = structure(read_json(line), dict[str, Any])
            if "carried" in message:
                self._incumbent.heard(_carried(message["carried"]))
                return
            if "do" not in message:
                raise WireError("it asks for nothing")
        except WireError as e:
            # Not an answer: the other daemon would take it for a message, and answer that.
            self._log.warn("What came at the handover socket makes no sense: {why}", why=str(e))
            self.transport.loseConnection()  # type: ignore[union-attr]
            return
        doing: Deferred[Any] = maybeDeferred(self._do, message)
        doing.addCallbacks(lambda answer: self._send({"ok": True, **(answer or {})}), self._failed)

    def share(self, told: Carried) -> None:
        """Tell the other daemon what is carried from here on."""
        self._told = dict(told)

    def count(self) -> None:
        """Tell it what has come since it was last told."""
        if self._told is None or not self.connected:
            return
        now = self._incumbent.carried()
        grown = {
            contract: (down - self._told.get(contract, (0, 0))[0], up - self._told.get(contract, (0, 0))[1])
            for contract, (down, up) in now.items()
            if (down, up) != self._told.get(contract, (0, 0))
        }
        if grown:
            self._told = dict(now)
            self._send({"carried": grown})

    def end(self) -> Deferred[None]:
        """Close the connection when all is said."""
        if self.connected:
            self.transport.loseConnection()  # type: ignore[union-attr]
            giving_up = self._reactor.callLater(_LAST_WORDS, self.transport.abortConnection)  # type: ignore[union-attr]
            self._ended.addCallback(lambda _: giving_up.cancel() if giving_up.active() else None)
        return self._ended

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Go on alone, where somebody has left it half done."""
        self._over(self)
        if self._paused:
            self._incumbent.accept(True)
        if self._paused or self._told is not None:
            self._incumbent.abandoned()
        self._ended.callback(None)

    def _do(self, message: dict[str, Any]) -> Any:
        match message.get("do"):
            case "take":
                return self._hand_out()
            case "pause" | "accept" as word:
                self._paused = word == "pause"
                return self._incumbent.accept(not self._paused).addCallback(lambda _: None)
            case "keep" | "rest" as word:
                self._paused = False
                return self._incumbent.keep(word == "keep").addCallback(lambda _: None)
            case "leave":
                successor = message.get("successor")
                if type(successor) is not int or successor < 0:
                    raise PeerFailed("nobody can leave without a successor")
                return self._incumbent.leave(successor).addCallback(lambda _: None)
            case "adopt":
                return self._incumbent.adopt()
            case "stay":
                return self._incumbent.stay()
            case "health":
                return self._incumbent.health()
            case "ping":
                return self._incumbent.ping().addCallback(lambda _: None)
            case "supervise":
                return self._incumbent.supervise()
            case other:
                raise PeerFailed(f"{other!r} is nothing that a relay does")

    def _hand_out(self) -> dict[str, Any]:
        fields, sockets = self._incumbent.hand_out()
        self.share(self._incumbent.carried())
        for each in sockets:
            self.transport.sendFileDescriptor(each.fileno())  # type: ignore[union-attr]
        return fields

    def _failed(self, failure: Failure) -> None:
        if not failure.check(PeerFailed):
            self._log.failure("A handover has met an error of its own", failure)
        self._send({"ok": False, "why": failure.getErrorMessage()})

    def _send(self, message: dict[str, Any]) -> None:
        if self.connected:
            self.sendLine(json.dumps(message).encode())


def _carried(value: Any) -> Carried:
    found = structure(value, dict[str, list[int]])
    if any(len(sizes) != 2 or min(sizes) < 0 for sizes in found.values()):
        raise WireError("expected bytes from clients and from targets")
    for contract in found:
        PublicKey.from_text(contract)
    return {contract: (down, up) for contract, (down, up) in found.items()}


class _Once(Factory):
    noisy = False

    def __init__(self, talk: Talk) -> None:
        self._talk = talk

    def buildProtocol(self, addr: Any) -> Talk:
        return self._talk
