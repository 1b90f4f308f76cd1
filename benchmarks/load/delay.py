"""A path that takes its time: python -m load.delay MILLISECONDS PORT.

Prints the port that it listens on, and passes bytes on to PORT of this machine and back, each of them
MILLISECONDS later than it came. It holds as many as are under way; its end comes with standard input's.
"""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread


def _pass_on(source: socket.socket, sink: socket.socket, delay: float) -> None:
    under_way: SimpleQueue[tuple[float, bytes]] = SimpleQueue()
    _start(_deliver, under_way, sink)
    while True:
        try:
            data = source.recv(256 * 1024)
        except OSError:
            data = b""
        under_way.put((time.monotonic() + delay, data))
        if not data:
            return


def _deliver(under_way: SimpleQueue[tuple[float, bytes]], sink: socket.socket) -> None:
    while True:
        due, data = under_way.get()
        wait = due - time.monotonic()
        if wait > 0:
            time.sleep(wait)
        try:
            if data:
                sink.sendall(data)
            else:
                sink.shutdown(socket.SHUT_WR)
        except OSError:
            return
        if not data:
            return


def _start(work: Callable[..., None], *arguments: object) -> None:
    Thread(target=work, args=arguments, daemon=True).start()


def _accept(listening: socket.socket, port: int, delay: float) -> None:
    while True:
        client, _ = listening.accept()
        relay = socket.create_connection(("127.0.0.1", port))
        for end in (client, relay):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        _start(_pass_on, client, relay, delay)
        _start(_pass_on, relay, client, delay)


def main() -> None:
    """Serve until standard input ends."""
    listening = socket.create_server(("127.0.0.1", 0))
    print(listening.getsockname()[1], flush=True)
    _start(_accept, listening, int(sys.argv[2]), float(sys.argv[1]) / 1000)
    sys.stdin.read()


if __name__ == "__main__":
    main()
