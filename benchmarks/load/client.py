"""One process of clients: python -m load.client SPEC, a JSON object that :class:`Spec` describes.

Prints ``ready`` when it has what it needs, begins at a line on standard input, prints its result as JSON and
keeps what it has open until standard input ends.
"""

from __future__ import annotations

import json
import resource
import selectors
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs

from load.connection import Connection, Handler, Purse
from wireleap_relay.tunnel.stream import Headers

_HELLO = b"hello"
_PING = bytes(64)
#: Seconds that tunnels for bulk have to open in.
_OPENING = 0.5
#: Of the client's socket where latency is measured beside bulk: else its queue would be what is measured.
_SMALL_BUFFER = 128 * 1024


@attrs.frozen
class Spec:
    """What to do.

    :ivar relay: its public key; empty for a forwarder without HTTP/2.
    :ivar target: ``host:port`` that tunnels lead to.
    :ivar tunnels: open at once.
    :ivar beside: bulk downloads beside the one tunnel whose latency is measured.
    :ivar chunk: bytes that the client writes at once.
    :ivar count: tunnels after which to stop, instead of ``seconds``.
    """

    mode: str
    port: int
    servicekey: str
    relay: str
    target: str
    bulk_target: str = ""
    seconds: float = 3.0
    tunnels: int = 1
    connections: int = 1
    beside: int = 0
    chunk: int = 65_536
    count: int = 0


class Load:
    """A number of connections, and what is done on them."""

    rcvbuf = 0

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.selector = selectors.DefaultSelector()
        self.raw = not spec.relay
        self._purse = None if self.raw else Purse(Path(spec.servicekey), spec.relay, time.time)
        self.started = 0.0

    def request(self, target: str | None = None) -> Headers:
        """Write a request."""
        return [] if self._purse is None else self._purse.request(target or self.spec.target)

    def connect(self, when_ready: Callable[[Connection], object] = bool) -> Connection:
        """Open a connection."""
        return Connection(self.selector, ("127.0.0.1", self.spec.port), self.raw, when_ready, self.rcvbuf)

    def turn(self, wait: float = 0.05) -> None:
        """Work on what the sockets are ready for."""
        for key, events in self.selector.select(wait):
            key.data.act(events)

    def connect_all(self) -> list[Connection]:
        """Open all connections."""
        connections = []
        for _ in range(self.spec.connections):
            connections.append(self.connect())
            while not connections[-1].ready:
                self.turn()
        return connections

    def prepare(self) -> None:
        """Open what is needed beforehand."""

    def start(self) -> None:
        """Begin."""

    def step(self) -> bool:
        """Do what waits for no socket.

        :returns: whether there is more of it.
        """
        return False

    @property
    def done(self) -> bool:
        """Whether it has been long enough."""
        return time.perf_counter() - self.started >= self.spec.seconds

    def result(self) -> dict[str, Any]:
        """Tell how it went."""
        raise NotImplementedError


class Bulk(Load):
    """Tunnels that carry as much as they can."""

    def prepare(self) -> None:
        connections = self.connect_all()
        self.handlers = [
            Handler(connections[i % len(connections)].open(self.request())) for i in range(self.spec.tunnels)
        ]
        # Not every relay answers before there are bytes from the target.
        opened = time.perf_counter() + _OPENING
        while time.perf_counter() < opened:
            self.turn()

    def result(self) -> dict[str, Any]:
        return {"bytes": sum(handler.received for handler in self.handlers)}


class Down(Bulk):
    """From targets to the client."""

    def start(self) -> None:
        for handler in self.handlers:
            handler.received = 0


class Up(Bulk):
    """From the client to targets."""

    def step(self) -> bool:
        chunk = bytes(self.spec.chunk)
        for handler in self.handlers:
            for _ in range(64):
                if handler.paused:
                    break
                handler.stream.send(chunk)
        return not all(handler.paused for handler in self.handlers)


class Short(Load):
    """Tunnels that carry an answer and end, a number of them at once on each of some connections."""

    def prepare(self) -> None:
        self.latencies: list[float] = []
        self.failed = 0
        self._connections = self.connect_all()

    def start(self) -> None:
        for i in range(self.spec.tunnels):
            self.open(self._connections[i % len(self._connections)])

    def open(self, connection: Connection) -> None:
        """Open a tunnel."""
        begun = time.perf_counter()
        _Short(self, connection, begun)

    def answered(self, connection: Connection) -> None:
        """A tunnel is through."""
        self.open(connection)

    @property
    def done(self) -> bool:
        if self.spec.count:
            return len(self.latencies) >= self.spec.count
        return super().done

    def result(self) -> dict[str, Any]:
        return {"count": len(self.latencies), **percentiles(self.latencies)}


class Fresh(Short):
    """The same, with a connection of its own for each tunnel."""

    def prepare(self) -> None:
        self.latencies = []

    def start(self) -> None:
        for _ in range(self.spec.tunnels):
            self._begin()

    def _begin(self) -> None:
        begun = time.perf_counter()
        self.connect(lambda ready: _Short(self, ready, begun))

    def answered(self, connection: Connection) -> None:
        connection.close()
        self._begin()


class _Short(Handler):
    """A tunnel that ends with the first bytes that come."""

    def __init__(self, load: Short, connection: Connection, begun: float) -> None:
        super().__init__(connection.open(load.request()))
        self._load = load
        self._connection = connection
        self._begun = begun
        self.stream.send(_HELLO)

    def data_received(self, data: bytes, frame_done: bool) -> None:
        self._load.latencies.append(time.perf_counter() - self._begun)
        self.stream.reset()
        self._load.answered(self._connection)


class Echo(Load):
    """A tunnel whose every few bytes come back, perhaps beside others that carry all they can."""

    def prepare(self) -> None:
        self.rcvbuf = _SMALL_BUFFER if self.spec.beside else 0
        (connection,) = self.connect_all()
        self._echo = _Echo(connection.open(self.request()))
        self._echo.ping()
        while not self._echo.latencies:
            self.turn()
        self._beside = [Handler(connection.open(self.request(self.spec.bulk_target))) for _ in range(self.spec.beside)]

    def start(self) -> None:
        self._echo.latencies.clear()
        self._before = sum(handler.received for handler in self._beside)
        self._echo.go_on = True
        self._echo.ping()

    def result(self) -> dict[str, Any]:
        carried = sum(handler.received for handler in self._beside) - self._before
        return {"count": len(self._echo.latencies), "bytes": carried, **percentiles(self._echo.latencies)}


class _Echo(Handler):
    def __init__(self, stream: Any) -> None:
        super().__init__(stream)
        self.latencies: list[float] = []
        self.go_on = False

    def ping(self) -> None:
        """Send a few bytes."""
        self._sent = time.perf_counter()
        self.stream.send(_PING)

    def data_received(self, data: bytes, frame_done: bool) -> None:
        super().data_received(data, frame_done)
        if self.received % len(_PING) == 0:
            self.latencies.append(time.perf_counter() - self._sent)
            if self.go_on:
                self.ping()


class Hold(Bulk):
    """Tunnels that are open and carry nothing, or connections without any."""

    def prepare(self) -> None:
        connections = self.connect_all()
        self.handlers = []
        for i in range(self.spec.tunnels):
            self.handlers.append(Handler(connections[i % len(connections)].open(self.request())))
            self.handlers[-1].stream.send(_HELLO)
            while sum(not handler.received for handler in self.handlers[-64:]) > 32:
                self.turn()
        while not all(handler.received for handler in self.handlers):
            self.turn()


def percentiles(latencies: list[float]) -> dict[str, float]:
    """Give the median and the 99th percentile, in seconds."""
    ordered = sorted(latencies) or [0.0]
    return {"p50": ordered[len(ordered) // 2], "p99": ordered[len(ordered) * 99 // 100]}


_LOADS: dict[str, type[Load]] = {
    "down": Down,
    "up": Up,
    "short": Short,
    "fresh": Fresh,
    "echo": Echo,
    "hold": Hold,
}


def main() -> None:
    """Do it."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    spec = Spec(**json.loads(sys.argv[1]))
    load = _LOADS[spec.mode](spec)
    load.prepare()
    print("ready", flush=True)
    sys.stdin.readline()
    load.started = time.perf_counter()
    load.start()
    while not load.done:
        load.turn(0 if load.step() else 0.05)
    took = time.perf_counter() - load.started
    print(json.dumps({**load.result(), "seconds": took}), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
