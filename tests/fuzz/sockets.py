"""Twisted's own TCP transports over sockets in memory, and a reactor that runs them when it is told to."""

from __future__ import annotations

import errno
import itertools
import socket
from collections.abc import Callable
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionRefusedError, TimeoutError, UserError  # noqa: A004
from twisted.internet.interfaces import IReactorPluggableNameResolver
from twisted.internet.posixbase import _DisconnectSelectableMixin
from twisted.internet.task import Clock
from twisted.internet.tcp import Connection
from twisted.python.failure import Failure
from zope.interface import implementer

_numbers = itertools.count(1000)
#: Bytes that a peer's system takes before its program reads any.
ROOM = 256 * 1024


class MemorySocket:
    """One end of a connection; the test is the other.

    :ivar sent: what was written to it.
    :ivar room: bytes that it takes before it is full.
    """

    family = socket.AF_INET

    def __init__(self) -> None:
        self.sent = bytearray()
        self.room = ROOM
        self.closed = self.finished = self.broken = self.eof = False
        self._incoming = bytearray()
        self._number = next(_numbers)

    # The other end

    def feed(self, data: bytes) -> None:
        self._incoming += data

    @property
    def readable(self) -> bool:
        return bool(self._incoming) or self.eof or self.broken

    @property
    def writable(self) -> bool:
        return self.room > 0 or self.broken

    # What a transport calls

    def recv(self, size: int) -> bytes:
        if self.broken:
            raise ConnectionResetError(errno.ECONNRESET, "reset")
        if not self._incoming:
            if self.eof:
                return b""
            raise BlockingIOError(errno.EWOULDBLOCK, "nothing there")
        data = bytes(self._incoming[:size])
        del self._incoming[:size]
        return data

    def send(self, data: bytes) -> int:
        if self.closed:
            raise OSError(errno.EBADF, "closed")
        if self.finished or self.broken:
            raise BrokenPipeError(errno.EPIPE, "broken pipe")
        if self.room <= 0:
            raise BlockingIOError(errno.EWOULDBLOCK, "full")
        taken = bytes(data[: self.room])
        self.room -= len(taken)
        self.sent += taken
        return len(taken)

    def shutdown(self, how: int) -> None:
        self.finished = True

    def close(self) -> None:
        self.closed = True

    def fileno(self) -> int:
        return self._number

    def setblocking(self, flag: bool) -> None:
        pass

    def setsockopt(self, *_: Any) -> None:
        pass

    def getsockopt(self, *_: Any) -> int:
        return 0


class Attempt:
    """A connection that is being made; see :class:`twisted.internet.interfaces.IConnector`."""

    def __init__(self, reactor: MemoryReactor, factory: Any, timeout: float) -> None:
        self.state = "connecting"
        self._reactor = reactor
        self._factory = factory
        self._transport: Connection | None = None
        self._timer = reactor.callLater(timeout, self.fail, TimeoutError())
        factory.doStart()
        factory.startedConnecting(self)

    def succeed(self) -> MemorySocket:
        self.state = "connected"
        self._timer.cancel()
        protocol = self._factory.buildProtocol(None)
        self._transport, end = self._reactor.connected(protocol)
        return end

    def fail(self, error: Exception | None = None) -> None:
        if self.state != "connecting":
            return
        self.state = "disconnected"
        if self._timer.active():
            self._timer.cancel()
        self._factory.clientConnectionFailed(self, Failure(error or ConnectionRefusedError()))

    def getDestination(self) -> IPv4Address:
        return IPv4Address("TCP", "192.0.2.9", 9)

    def disconnect(self) -> None:
        if self._transport is not None:
            self._transport.loseConnection()
        else:
            self.fail(UserError())

    stopConnecting = disconnect


class _Transport(Connection):
    def getPeer(self) -> IPv4Address:
        return IPv4Address("TCP", "192.0.2.1", 1)

    def getHost(self) -> IPv4Address:
        return IPv4Address("TCP", "192.0.2.9", 9)


class _Resolver:
    """Knows addresses only."""

    def resolveHostName(self, receiver: Any, name: str, port: int = 0, *_: Any, **__: Any) -> Any:
        receiver.resolutionBegan(self)
        receiver.addressResolved(IPv4Address("TCP", name, port))
        receiver.resolutionComplete()
        return self


@implementer(IReactorPluggableNameResolver)
class MemoryReactor(Clock, _DisconnectSelectableMixin):
    """A clock, and sockets in memory.

    :ivar attempts: connections asked for, in order.
    :ivar ends: of all connections, in order.
    """

    nameResolver = _Resolver()

    def __init__(self) -> None:
        super().__init__()
        self.attempts: list[Attempt] = []
        self.ends: list[MemorySocket] = []
        self._readers: dict[Any, None] = {}
        self._writers: dict[Any, None] = {}

    def addReader(self, reader: Any) -> None:
        self._readers[reader] = None

    def addWriter(self, writer: Any) -> None:
        self._writers[writer] = None

    def removeReader(self, reader: Any) -> None:
        self._readers.pop(reader, None)

    def removeWriter(self, writer: Any) -> None:
        self._writers.pop(writer, None)

    def connectTCP(self, host: str, port: int, factory: Any, timeout: float = 30, bindAddress: Any = None) -> Attempt:
        attempt = Attempt(self, factory, timeout)
        self.attempts.append(attempt)
        return attempt

    def connected(self, protocol: Any) -> tuple[Connection, MemorySocket]:
        """Connect a protocol; give its transport, and the other end."""
        end = MemorySocket()
        self.ends.append(end)
        transport = _Transport(end, protocol, self)  # type: ignore[arg-type]
        transport.connected = 1
        transport.startReading()
        protocol.makeConnection(transport)
        return transport, end

    def run(self) -> None:
        """Do all that can be done now."""
        for _ in range(10_000):
            self.advance(0)
            moved = [self._act(each, each.doRead, "readable", True) for each in list(self._readers)]
            moved += [self._act(each, each.doWrite, "writable", False) for each in list(self._writers)]
            if not any(moved) and not any(call.getTime() <= self.seconds() for call in self.getDelayedCalls()):
                return
        raise AssertionError("the reactor does not come to rest")

    def check_nothing_is_left(self) -> None:
        """Complain of sockets that are open, and of what is still to be called."""
        assert not any(end for end in self.ends if not end.closed), "a socket stays open"
        waiting = self.getDelayedCalls()
        assert not waiting, f"something is still to be called: {waiting[0]}"

    def _act(self, transport: Any, work: Callable[[], Any], ready: str, reads: bool) -> bool:
        waiting = self._readers if reads else self._writers
        if transport not in waiting or not hasattr(transport, "socket") or not getattr(transport.socket, ready):
            return False
        # What may have replaced the method meanwhile.
        why = (transport.doRead if reads else transport.doWrite)()
        if why:
            self._disconnectSelectable(transport, why, reads)
        return True
