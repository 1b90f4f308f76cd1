"""What a web server before a relay costs: 100 MB up and down with checksums, and echoes, through it and beside it.

A relay in a process of its own; the web servers as operators have them; the client and its targets in this process,
which is what bounds the rates: look at the processor time of the others.

    python benchmarks/fronting.py [nginx] [haproxy] [caddy] [apache] [--h2c]
"""

from __future__ import annotations

import hashlib
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater, react
from twisted.internet.threads import deferToThread
from zope.interface import implementer

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.fronting.servers import PROGRAMS, WebServer, missing
from wireleap_relay.configvalues import listen_address
from wireleap_relay.home import Home
from wireleap_relay.sandbox.circuit import Circuit, Hop
from wireleap_relay.sandbox.ledger import Terms
from wireleap_relay.sandbox.network import SandboxNetwork
from wireleap_relay.sandbox.relays import RelayProcess
from wireleap_relay.sandbox.tunnel import Tunnel, TunnelError
from wireleap_relay.sandbox.wallet import BoughtWallet

reactor: Any = global_reactor
MB = 1_000_000
SIZE = 100 * MB
PIECE = os.urandom(MB)
SUM = hashlib.sha256(PIECE * (SIZE // MB)).hexdigest()
ECHOES = 200


@implementer(IHalfCloseableProtocol)
class Sums(Protocol):
    """Takes everything, then says what it was."""

    def connectionMade(self) -> None:
        self.sum = hashlib.sha256()

    def dataReceived(self, data: bytes) -> None:
        self.sum.update(data)

    def readConnectionLost(self) -> None:
        self.transport.write(self.sum.hexdigest().encode())  # type: ignore[union-attr]
        self.transport.loseConnection()  # type: ignore[union-attr]

    def writeConnectionLost(self) -> None:
        """It has had its say."""


class Source(Protocol):
    """Sends as much as is wanted, and goes."""

    left = SIZE

    def connectionMade(self) -> None:
        self.transport.registerProducer(self, False)  # type: ignore[union-attr]

    def resumeProducing(self) -> None:
        transport: Any = self.transport
        transport.write(PIECE)
        self.left -= MB
        if not self.left:
            transport.unregisterProducer()
            transport.loseConnection()

    def stopProducing(self) -> None:
        """The relay has gone."""


class Echo(Protocol):
    """Sends back."""

    def dataReceived(self, data: bytes) -> None:
        self.transport.write(data)  # type: ignore[union-attr]


class Reader:
    """Takes what comes."""

    def __init__(self) -> None:
        self.tunnel: Tunnel
        self.received = 0
        self.first = b""
        self.sum = hashlib.sha256()
        self.paused = False
        self.ended: Deferred[None] = Deferred()
        self.echoed: Deferred[None] | None = None

    def tunnel_opened(self) -> None:
        """Nobody waits for it."""

    def data_received(self, data: bytes, frame_done: bool) -> None:
        self.received += len(data)
        self.sum.update(data)
        self.first = (self.first + data)[:64]
        self.tunnel.credit(len(data))
        if self.received == SIZE:
            self.tunnel.end()  # some web servers tell of the end only then
        if self.echoed is not None:
            echoed, self.echoed = self.echoed, None
            echoed.callback(None)

    def tunnel_ended(self, error: TunnelError | None) -> None:
        self.ended.callback(None)

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = False


def processor_time(process: psutil.Process) -> float:
    """Give the seconds that a process and those it started have used."""
    times = [each.cpu_times() for each in (process, *process.children(recursive=True))]
    return sum(each.user + each.system for each in times)


async def open_tunnel(circuit: Circuit, target: str) -> Reader:
    """Ask for a tunnel."""
    reader = Reader()
    reader.tunnel = await circuit.open("tcp", target, reader)
    return reader


async def upload(circuit: Circuit) -> None:
    """Send it all."""
    reader = await open_tunnel(circuit, listen(Sums))
    for _ in range(SIZE // MB):
        reader.tunnel.write(PIECE)
        while reader.paused:
            await deferLater(reactor, 0)
    reader.tunnel.end()
    await reader.ended
    assert reader.first.decode() == SUM, "the checksums differ"


async def download(circuit: Circuit) -> None:
    """Take it all."""
    reader = await open_tunnel(circuit, listen(Source))
    await reader.ended
    assert reader.sum.hexdigest() == SUM, "the checksums differ"


async def echo(circuit: Circuit) -> float:
    """Give the median of echoes, a while apart, in seconds."""
    reader = await open_tunnel(circuit, listen(Echo))
    times = []
    for _ in range(ECHOES):
        began = time.perf_counter()
        reader.echoed = echoed = Deferred()
        reader.tunnel.write(b"hello")
        await echoed
        times.append(time.perf_counter() - began)
        await deferLater(reactor, 0.005)
    reader.tunnel.abort()
    return statistics.median(times)


def listen(protocol: type[Protocol]) -> str:
    """Start a target."""
    factory = Factory.forProtocol(protocol)
    factory.noisy = False
    return f"127.0.0.1:{reactor.listenTCP(0, factory, interface='127.0.0.1').getHost().port}"


async def measure(name: str, circuit: Circuit, relay: psutil.Process, server: psutil.Process | None) -> None:
    """Print a line."""
    figures = []
    for transfer in (upload, download):
        began = time.perf_counter(), processor_time(relay), processor_time(server) if server else 0.0
        await transfer(circuit)
        wall = time.perf_counter() - began[0]
        relays = processor_time(relay) - began[1]
        servers = processor_time(server) - began[2] if server else 0.0
        figures.append(f"{SIZE / MB / wall:4.0f} MB/s  relay {relays:4.2f} s  server {servers:4.2f} s")
    print(f"{name:>8}  {figures[0]}  |  {figures[1]}  |  {await echo(circuit) * 1000:5.2f} ms", flush=True)


async def main(_: Any, *words: str) -> None:
    """Measure each of the servers that are installed."""
    plain = "--h2c" in words
    kinds = [word for word in words if word in PROGRAMS] or list(PROGRAMS)
    network = SandboxNetwork(reactor, time.time, terms=Terms(duration=3600.0))
    network.startService()
    with tempfile.TemporaryDirectory() as folder:
        relay = RelayProcess(reactor, Path(folder) / "relay", "backing", network.contract.endpoint, 300.0)
        address = relay.hop.address.host_port
        if plain:
            config = Home(Path(folder) / "relay").config
            config.write_text(config.read_text().replace(f'"{address}"', f'"h2c://{address}"', 1))
        relay.startService()
        while relay.hop.pubkey not in network.directory.status():
            await deferLater(reactor, 0.05)
        wallet = BoughtWallet(reactor, time.time, network.contract.endpoint, network.contract.issue)
        await wallet.buy()
        process = psutil.Process(relay.pid)
        print(f"{'':>8}  {'100 MB up':<39}  |  {'100 MB down':<39}  |  echo")
        if not plain:
            await measure("beside", Circuit(reactor, [relay.hop], wallet), process, None)
        for kind in kinds:
            if why := missing(kind):
                print(f"{kind:>8}  {why}")
                continue
            server = WebServer(kind, listen_address(f"{'h2c://' if plain else ''}{address}"))
            await deferToThread(server.start)
            try:
                circuit = Circuit(reactor, [Hop(server.published, relay.hop.pubkey)], wallet)
                await measure(kind, circuit, process, psutil.Process(server.pid))
                circuit.close()
            finally:
                server.stop()
        await relay.stopService()
    await network.stopService()


if __name__ == "__main__":
    react(main, sys.argv[1:])
