"""What tunnels lead to: python -m load.target source|far-source|sink|deaf|echo.

Prints its port. ``source`` sends as fast as it is read, ``sink`` reads, ``deaf`` does not, ``echo`` answers with what it is sent.
A ``far-source`` leaves little of what is not read in its own sockets: what many of them hold is memory of this
machine, and the system slows all connections down when they hold too much of it.
A line on standard input asks how many bytes were read so far; its end ends the process.
"""

from __future__ import annotations

import selectors
import socket
import sys
from collections.abc import Callable

_BLOCK = bytes(256 * 1024)
_FAR_BUFFER = 32 * 1024
_buffer = bytearray(256 * 1024)


class Target:
    """Serves any number of connections."""

    def __init__(self, kind: str) -> None:
        self.total = 0
        self._kind = kind
        self._unread: list[socket.socket] = []
        self._selector = selectors.DefaultSelector()
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self._listening.setblocking(False)
        if kind == "far-source":
            self._listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _FAR_BUFFER)
        self._selector.register(self._listening, selectors.EVENT_READ, self._accept)
        self._selector.register(sys.stdin, selectors.EVENT_READ, self._asked)
        print(self._listening.getsockname()[1], flush=True)

    def serve(self) -> None:
        """Until standard input ends."""
        while True:
            for key, _ in self._selector.select():
                key.data(key.fileobj)

    def _accept(self, listening: socket.socket) -> None:
        connection, _ = listening.accept()
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        work: dict[str, tuple[int, Callable[[socket.socket], None]]] = {
            "source": (selectors.EVENT_WRITE, self._send),
            "far-source": (selectors.EVENT_WRITE, self._send),
            "sink": (selectors.EVENT_READ, self._read),
            "echo": (selectors.EVENT_READ, self._echo),
        }
        if self._kind == "deaf":
            self._unread.append(connection)
        else:
            self._selector.register(connection, *work[self._kind])

    def _asked(self, stdin: object) -> None:
        if not sys.stdin.readline():
            raise SystemExit
        print(self.total, flush=True)

    def _send(self, connection: socket.socket) -> None:
        try:
            connection.send(_BLOCK)
        except BlockingIOError:
            return
        except OSError:
            self._close(connection)

    def _read(self, connection: socket.socket) -> None:
        try:
            size = connection.recv_into(_buffer)
        except OSError:
            size = 0
        self.total += size
        if not size:
            self._close(connection)

    def _echo(self, connection: socket.socket) -> None:
        try:
            data = connection.recv(65536)
            connection.send(data)
        except OSError:
            data = b""
        if not data:
            self._close(connection)

    def _close(self, connection: socket.socket) -> None:
        self._selector.unregister(connection)
        connection.close()


if __name__ == "__main__":
    Target(sys.argv[1]).serve()
