"""One process of attackers: python -m load.attacker SPEC, a JSON object that :class:`Spec` describes.

Prints ``ready``, attacks from a line on standard input to the next one, and prints what it did as JSON.
They come from another network than clients do: 127.6.6.6.
"""

from __future__ import annotations

import json
import resource
import select
import selectors
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs

from load.connection import Connection, Handler, Purse, tls
from wireleap_relay.tunnel import frames
from wireleap_relay.tunnel.fields import write_fields

_FROM = ("127.6.6.6", 0)
_BEGIN = frames.PREFACE + frames.settings({4: 2**31 - 1}) + frames.window_update(0, 2**31 - 2**17)
_GET = write_fields([(b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"x"), (b":path", b"/")])
_BAD_PUT = write_fields(
    [(b":method", b"PUT"), (b":scheme", b"https"), (b":authority", b"x"), (b":path", b"/"), (b"wl-payload", b"{" * 500)]
)
#: Streams that one connection is good for, and frames in one piece.
_STREAMS, _FRAMES = 20_000, 2000
#: Seconds between attempts of somebody who is not let in.
_PAUSE = 0.01


@attrs.frozen
class Spec:
    """What to do.

    :ivar relay: its public key.
    :ivar target: ``host:port`` of a target that sends as fast as it can.
    """

    attack: str
    port: int
    servicekey: str
    relay: str
    target: str


@attrs.define
class Score:
    """What was done so far."""

    sent: int = 0
    connections: int = 0
    ended: int = 0
    refused: int = 0


def _frame(kind: int, flags: int, stream_id: int, body: bytes = b"") -> bytes:
    return frames.header(len(body), kind, flags, stream_id) + body


def _headers(stream_id: int, block: bytes, flags: int = frames.END_HEADERS | frames.END_STREAM) -> bytes:
    return _frame(frames.HEADERS, flags, stream_id, block)


# Floods: pieces of bytes, and how many units are in each


def _on_streams(make: Callable[[int], bytes]) -> Iterator[tuple[bytes, int]]:
    for first in range(1, 2 * _STREAMS, 2 * _FRAMES // 4):
        ids = range(first, first + 2 * _FRAMES // 4, 2)
        yield b"".join(map(make, ids)), len(ids)


def _again(piece: bytes, first: bytes = b"") -> Iterator[tuple[bytes, int]]:
    yield first, 0
    many = piece * max(1, min(_FRAMES, 65_536 // len(piece)))
    while True:
        yield many, len(many) // len(piece)


def _rapid_reset() -> Iterator[tuple[bytes, int]]:
    return _on_streams(lambda i: _headers(i, _GET) + frames.rst_stream(i, 8))


def _made_you_reset() -> Iterator[tuple[bytes, int]]:
    return _on_streams(lambda i: _headers(i, _BAD_PUT, frames.END_HEADERS) + frames.window_update(i, 0))


def _continuation() -> Iterator[tuple[bytes, int]]:
    field = b"\x00\x04name" + b"\x7f\x80\x01" + b"v" * 255
    piece = _frame(frames.CONTINUATION, 0, 1, field * 50)
    return _again(piece, _headers(1, b"\x82", 0))


def _empty_continuation() -> Iterator[tuple[bytes, int]]:
    return _again(_frame(frames.CONTINUATION, 0, 1), _headers(1, b"\x82", 0))


def _hpack_bomb() -> Iterator[tuple[bytes, int]]:
    entry = b"\x40\x01a\x7f\x81\x1e" + b"v" * 4000
    yield _headers(1, _GET + entry), 1
    yield from _on_streams(lambda i: _headers(i + 2, _GET + b"\xbe" * 15_000))


def _empty_fields() -> Iterator[tuple[bytes, int]]:
    return _on_streams(lambda i: _headers(i, _GET + b"\x00\x00\x00" * 5000))


def _on_one_stream(piece: bytes) -> Iterator[tuple[bytes, int]]:
    return _again(piece, _headers(1, _GET, frames.END_HEADERS))


FLOODS: dict[str, Callable[[], Iterator[tuple[bytes, int]]]] = {
    "rapid-reset": _rapid_reset,
    "made-you-reset": _made_you_reset,
    "continuation": _continuation,
    "empty-continuation": _empty_continuation,
    "hpack-bomb": _hpack_bomb,
    "empty-fields": _empty_fields,
    "settings": lambda: _again(frames.settings({4: 65_535, 5: 16_384})),
    "ping": lambda: _again(_frame(frames.PING, 0, 0, bytes(8))),
    "priority": lambda: _again(_frame(frames.PRIORITY, 0, 99, bytes(5))),
    "window-update": lambda: _again(frames.window_update(0, 1)),
    "empty-data": lambda: _on_one_stream(_frame(frames.DATA, 0, 1)),
    "padding": lambda: _on_one_stream(_frame(frames.DATA, frames.PADDED, 1, b"\xff" + bytes(255))),
    "get": lambda: _on_streams(lambda i: _headers(i, _GET)),
    "bad-put": lambda: _on_streams(lambda i: _headers(i, _BAD_PUT)),
    "stream-ids": lambda: iter([(_headers(9, _GET) + _headers(3, _GET), 2)]),
    "overflow": lambda: iter([(frames.window_update(0, 2**31 - 1) * 2, 2)]),
    "handshakes": lambda: iter([]),
}


class Attack:
    """One way to be a nuisance."""

    threads = 4

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.score = Score()
        self.over = threading.Event()

    def work(self) -> None:
        """Attack until it is over; in several threads at once."""
        raise NotImplementedError

    def connect(self, with_tls: bool = True) -> socket.socket:
        """Connect."""
        plain = socket.create_connection(("127.0.0.1", self.spec.port), 5, source_address=_FROM)
        self.score.connections += 1
        if not with_tls:
            return plain
        try:
            return tls(True).wrap_socket(plain)
        except OSError:
            plain.close()
            raise


class Flood(Attack):
    """Sends as much as it can, reads what comes, and comes again when it is thrown out."""

    def work(self) -> None:
        while not self.over.is_set():
            try:
                connection = self.connect()
            except OSError:
                self.score.refused += 1
                time.sleep(_PAUSE)
                continue
            with connection:
                try:
                    connection.sendall(_BEGIN)
                    self._flood(connection)
                except OSError:
                    self.score.ended += 1

    def _flood(self, connection: socket.socket) -> None:
        for piece, count in FLOODS[self.spec.attack]():
            if self.over.is_set():
                return
            connection.sendall(piece)
            self.score.sent += count
            while select.select([connection], [], [], 0)[0]:
                if not connection.recv(65_536):
                    raise ConnectionResetError
        if self.spec.attack == "handshakes":
            self.score.sent += 1
        else:
            # What the relay still has to say is waited for.
            connection.settimeout(1)
            while not self.over.is_set() and connection.recv(65_536):
                pass


class Unread(Flood):
    """Asks, and reads no answer."""

    def _flood(self, connection: socket.socket) -> None:
        connection.settimeout(1)
        piece = _frame(frames.PING, 0, 0, bytes(8)) * 500
        while not self.over.is_set():
            try:
                connection.sendall(piece)
            except TimeoutError:
                self.over.wait(1)
                raise
            self.score.sent += 500


class Crowd(Attack):
    """Many connections that do next to nothing."""

    threads = 1
    count = 2000

    def work(self) -> None:
        open_: list[socket.socket] = []
        while not self.over.is_set():
            open_ = [each for each in open_ if self._is_alive(each)]
            while len(open_) < self.count and not self.over.is_set():
                try:
                    open_.append(self.begin())
                except OSError:
                    self.score.refused += 1
                    self.over.wait(_PAUSE)
            self.over.wait(0.2)
        for each in open_:
            each.close()

    def begin(self) -> socket.socket:
        """Connect, and be silent."""
        self.score.sent += 1
        connection = self.connect()
        connection.sendall(_BEGIN)
        return connection

    def _is_alive(self, connection: socket.socket) -> bool:
        connection.setblocking(False)
        try:
            while data := connection.recv(65_536):
                pass
        except (ssl.SSLWantReadError, BlockingIOError):
            return True
        except OSError:
            data = b""
        connection.close()
        self.score.ended += 1
        return bool(data)


class SlowHandshakes(Crowd):
    """Say nothing where TLS is expected."""

    def begin(self) -> socket.socket:
        self.score.sent += 1
        connection = self.connect(False)
        connection.sendall(b"\x16\x03\x01")
        return connection


class SlowHeaders(Crowd):
    """Begin requests, and never end them."""

    def begin(self) -> socket.socket:
        connection = super().begin()
        connection.sendall(_headers(1, b"\x82", 0))
        return connection


class Paid(Attack):
    """So many connections, with so many paid tunnels each."""

    threads = 1
    count = 20
    each = 25

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        self.purse = Purse(Path(spec.servicekey), spec.relay, time.time)


_FIRST_WINDOW = {"one-byte-window": 1, "zero-window": 0}


class Tunnels(Paid):
    """To a target that sends without end, which nobody reads, nobody lets send, or a byte at a time."""

    def work(self) -> None:
        small = self.spec.attack == "one-byte-window"
        window = frames.settings({4: _FIRST_WINDOW.get(self.spec.attack, 2**31 - 1)})
        begin = frames.PREFACE + window + frames.window_update(0, 2**31 - 2**17)
        open_ = []
        for _ in range(self.count):
            try:
                connection = self.connect()
                connection.sendall(begin)
                for i in range(1, 2 * self.each, 2):
                    block = write_fields(self.purse.request(self.spec.target))
                    connection.sendall(_headers(i, block, frames.END_HEADERS))
                    self.score.sent += 1
            except OSError:
                self.score.refused += 1
                continue
            open_.append(connection)
        updates = b"".join(frames.window_update(i, 1) for i in range(1, 2 * self.each, 2)) * 10
        while not self.over.is_set():
            if not small:
                self.over.wait(0.2)
            for connection in list(open_) if small else []:
                try:
                    connection.sendall(updates)
                    self.score.sent += 10 * self.each
                    while select.select([connection], [], [], 0)[0]:
                        if not connection.recv(65_536):
                            raise ConnectionResetError
                except OSError:
                    self.score.ended += 1
                    open_.remove(connection)
        for connection in open_:
            connection.close()


class Uploads(Paid):
    """To a target that reads nothing, which are sent all that they take."""

    def work(self) -> None:
        selector = selectors.DefaultSelector()
        handlers: list[Handler] = []

        def ready(connection: Connection) -> None:
            for _ in range(self.each):
                handlers.append(Handler(connection.open(self.purse.request(self.spec.target))))
                self.score.sent += 1

        for _ in range(self.count):
            Connection(selector, ("127.0.0.1", self.spec.port), False, ready, source=_FROM)
            self.score.connections += 1
        block = bytes(64 * 1024)
        while not self.over.is_set():
            for handler in handlers:
                if not handler.paused:
                    handler.stream.send(block)
            for key, events in selector.select(0.2):
                key.data.act(events)


_OTHERS: dict[str, type[Attack]] = {
    "never-reading": Unread,
    "idle": Crowd,
    "slow-handshakes": SlowHandshakes,
    "slow-headers": SlowHeaders,
    "unread-tunnels": Tunnels,
    "unread-uploads": Uploads,
    "zero-window": Tunnels,
    "one-byte-window": Tunnels,
}


def main() -> None:
    """Attack."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    spec = Spec(**json.loads(sys.argv[1]))
    attack = _OTHERS.get(spec.attack, Flood)(spec)
    threads = [threading.Thread(target=attack.work, daemon=True) for _ in range(attack.threads)]
    print("ready", flush=True)
    sys.stdin.readline()
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    sys.stdin.readline()
    seconds = time.perf_counter() - began
    attack.over.set()
    print(json.dumps({**attrs.asdict(attack.score), "seconds": seconds}), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
