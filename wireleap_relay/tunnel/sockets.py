"""Sockets that listen, and outlive the processes that accept from them."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import attrs
from twisted.internet import tcp, unix
from twisted.internet.abstract import isIPv6Address
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import Factory, connectionDone
from twisted.logger import LogLevel
from twisted.python import log
from twisted.python.failure import Failure

from wireleap_relay.configvalues import ListenAddress

_NO_NEWS = {"log_level": LogLevel.debug}
_BACKLOG = 1024
#: Of a unix socket: whoever can reach its folder may connect, as anybody may to a TCP port.
_MODE = 0o666


class Listening:
    """Sockets bound to one address, one for each process that is to accept from them.

    The system spreads connections between several TCP sockets (SO_REUSEPORT). A unix socket
    listens once, and processes share it.

    :ivar address: with the port that was found, where any would do.
    :ivar sockets: as many as were wanted.
    """

    def __init__(self, address: ListenAddress, count: int = 1, inherited: Sequence[socket.socket] = ()) -> None:
        """Bind and listen, or go on listening with another process's sockets.

        :param address: with port 0 for any that is free.
        :param inherited: all sockets that are bound to the address already: however many they are, no more are
            made, for the system spreads connections over them and none must be without a process.
        :raises CannotListenError: where the address is taken or not ours.
        """
        self.address = address
        self._file: tuple[int, int] | None = None
        self.sockets: list[socket.socket] = list(inherited)
        if inherited:
            if not address.path:
                self.address = attrs.evolve(address, port=inherited[0].getsockname()[1])
            return
        try:
            if address.path:
                self._bind_path(count)
            else:
                self._bind_port(count)
        except OSError as e:
            self.close()
            host, port = ("unix", address.path) if address.path else (address.host, address.port)
            raise CannotListenError(host, port, e) from None

    def share(self, number: int, count: int) -> list[socket.socket]:
        """Give the sockets from which one of some processes is to accept; each socket has at least one process."""
        return self.sockets[number::count] or [self.sockets[number % len(self.sockets)]]

    def claim(self) -> None:
        """Be the one who removes the file of a unix socket in the end."""
        if self.address.path:
            self._file = _identity(self.address.path)

    def hand_on(self) -> None:
        """Leave that to another process."""
        self._file = None

    def close(self) -> None:
        """Listen no longer, as far as this process is concerned, and remove the file of a unix socket."""
        for each in self.sockets:
            each.close()
        with suppress(FileNotFoundError):
            if self._file is not None and self._file == _identity(self.address.path):
                os.unlink(self.address.path)

    def _bind_port(self, count: int) -> None:
        host = self.address.host
        # The first one alone finds out whether somebody else listens there: sockets that share
        # an address share it with any other process of the same user, too.
        with _tcp_socket(host) as alone:
            alone.bind((host, self.address.port))
            self.address = attrs.evolve(self.address, port=alone.getsockname()[1])
            alone.listen(1)
        for _ in range(count):
            sharing = _tcp_socket(host)
            self.sockets.append(sharing)
            sharing.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            sharing.bind((host, self.address.port))
        for each in self.sockets:
            each.listen(_BACKLOG)

    def _bind_path(self, count: int) -> None:
        path = self.address.path
        _remove_what_nobody_listens_at(path)
        shared = socket.socket(socket.AF_UNIX)
        self.sockets = [shared] * count
        shared.setblocking(False)
        shared.bind(path)
        self.claim()
        os.chmod(path, _MODE)
        shared.listen(_BACKLOG)


def accept_from(reactor: Any, listening: socket.socket, factory: Factory) -> IListeningPort:
    """Accept connections from a socket that listens already, perhaps in other processes too."""
    if listening.family == socket.AF_UNIX:
        port: IListeningPort = _UnixPort._fromListeningDescriptor(reactor, listening.fileno(), factory)
        port.startListening()
    else:
        port = reactor.adoptStreamPort(listening.fileno(), listening.family, factory)
    return port


class _UnixPort(unix.Port):
    """One of those that accept from a unix socket.

    Twisted's own takes the socket for its property: it changes the file's
    mode, and shuts the socket down and removes the file in the end. As a TCP
    port it only accepts.
    """

    def startListening(self) -> None:
        log.callWithContext(_NO_NEWS, tcp.Port.startListening, self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        tcp.Port.connectionLost(self, reason)


def _tcp_socket(host: str) -> socket.socket:
    made = socket.socket(socket.AF_INET6 if isIPv6Address(host) else socket.AF_INET, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.setblocking(False)
    return made


def _identity(path: str) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_dev, status.st_ino


def _remove_what_nobody_listens_at(path: str) -> None:
    """Remove the file of a socket whose process is gone.

    :raises OSError: where somebody listens there, or it is another kind of file.
    """
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            raise FileExistsError("a file that is no socket is there")
        with socket.socket(socket.AF_UNIX) as asking:
            asking.setblocking(False)
            asking.connect(path)
    except FileNotFoundError:
        return
    except ConnectionRefusedError:
        os.unlink(path)
        return
    except BlockingIOError:
        pass  # its queue is full, so somebody does
    raise OSError("another process listens there")
