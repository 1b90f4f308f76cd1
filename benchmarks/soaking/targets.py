"""The targets of a relay that is soaked: of all kinds, and each checks every byte."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from soaking.account import Account, Record

_STEP = 16 * 1024
_ECHOES = ("echo", "slow")
_LONGEST_HEADER = 100
#: Seconds for which a target reads nothing that stalls: longer than any client has patience with it.
STALL = 4.0


@implementer(IHalfCloseableProtocol)
class Target(Protocol):
    """Does what the first line that it gets says.

    ``echo`` and ``slow`` say as much as they hear. ``flood`` says so much, and closes. ``half`` does that too, but
    closes when it has heard all. ``early`` ends its side first, and then listens. ``deluge``
    says as much as it can until its client has ended. ``reset`` says a little, and breaks off. ``stall`` listens late.
    """

    def __init__(self, factory: TargetFactory) -> None:
        self._factory = factory
        self._line = b""
        self.record: Record | None = None

    def connectionMade(self) -> None:
        self._factory.open.add(self)

    def dataReceived(self, data: bytes) -> None:
        if self.record is not None:
            return self._hear(data)
        self._line += data
        line, end, rest = self._line.partition(b"\n")
        if not end and len(line) < _LONGEST_HEADER:
            return None
        self.record = self._factory.account.find(line + end)
        transport: Any = self.transport
        if self.record is None:
            return transport.abortConnection()
        self.record.relay_port = transport.getPeer().port
        self.record.head()
        self._begin(self.record)
        return self._hear(rest) if rest else None

    def _begin(self, record: Record) -> None:
        transport: Any = self.transport
        match record.mode:
            case "flood" | "half" | "early" | "deluge":
                transport.registerProducer(self, False)
            case "reset":
                self._say(min(record.size, 1000))
                transport.reactor.callLater(0.1, transport.abortConnection)
            case "stall":
                transport.pauseProducing()
                transport.reactor.callLater(STALL, transport.resumeProducing)

    def _say(self, size: int) -> None:
        assert self.record is not None
        self.transport.write(self.record.back.say(size))  # type: ignore[union-attr]

    def _hear(self, data: bytes) -> None:
        assert self.record is not None
        self.record.there.hear(data)
        if self.record.mode in _ECHOES:
            self._say(len(data))

    def resumeProducing(self) -> None:
        assert self.record is not None
        back, transport = self.record.back, self.transport
        endless = self.record.mode == "deluge" and not self.record.there.closed
        size = _STEP if endless else min(_STEP, self.record.size - back.sent) if self.record.mode != "deluge" else 0
        if size > 0:
            return self._say(size)
        transport.unregisterProducer()  # type: ignore[union-attr]
        return self._finish(closes=self.record.mode in ("flood", "deluge"))

    def _finish(self, *, closes: bool) -> None:
        assert self.record is not None
        self.record.back.finished = True
        transport: Any = self.transport
        transport.loseConnection() if closes else transport.loseWriteConnection()

    def stopProducing(self) -> None:
        pass

    def readConnectionLost(self) -> None:
        if self.record is None:
            self.transport.loseConnection()  # type: ignore[union-attr]
            return
        self.record.there.closed = True
        match self.record.mode:
            case "echo" | "slow":
                self._finish(closes=True)
            case "half" | "early":
                self.record.back.finished = True
                self.transport.loseConnection()  # type: ignore[union-attr]
            case "deluge":
                pass  # it finds out when it has something to say
            case _:
                self.transport.abortConnection()  # type: ignore[union-attr]

    def writeConnectionLost(self) -> None:
        pass

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._factory.open.discard(self)
        if self.record is not None:
            self.record.back.kept = self.unsent

    @property
    def unsent(self) -> int:
        """Give the bytes that were said and have not left this process."""
        transport: Any = self.transport
        return len(transport.dataBuffer) - transport.offset + int(transport._tempDataLen)

    @property
    def under_way(self) -> int:
        """Give the bytes that have left this process and have not reached the client."""
        assert self.record is not None
        return self.record.back.sent - self.unsent - self.record.back.arrived

    @property
    def room(self) -> int:
        """Give the bytes that its socket may hold."""
        return int(self.transport.getHandle().getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF))  # type: ignore[union-attr]


class TargetFactory(Factory):
    """Makes targets.

    :ivar open: those that are connected.
    :ivar reading_room: bytes that a socket may hold which nobody reads.
    """

    noisy = False

    def __init__(self, account: Account) -> None:
        self.account = account
        self.open: set[Target] = set()
        self.reading_room = int(Path("/proc/sys/net/ipv4/tcp_rmem").read_text().split()[2])

    def buildProtocol(self, addr: Any) -> Target:
        return Target(self)

    def of(self, record: Record) -> Target | None:
        """Find the target of a tunnel, while it is connected."""
        return next((each for each in self.open if each.record is record), None)
