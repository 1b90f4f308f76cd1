"""What limits and challenges cost: how far traffic overshoots a limit, and what a challenge does to tunnels.

A relay in a process of its own, a contract and a directory in this one:

    python benchmarks/contracts.py [overshoot] [challenge]
"""

from __future__ import annotations

import json
import os
import signal
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater, react

from wireleap_relay.sandbox.circuit import Circuit
from wireleap_relay.sandbox.directory import Rules
from wireleap_relay.sandbox.ledger import Terms
from wireleap_relay.sandbox.network import SandboxNetwork
from wireleap_relay.sandbox.relays import RelayProcess
from wireleap_relay.sandbox.tunnel import Tunnel, TunnelError
from wireleap_relay.sandbox.wallet import BoughtWallet

reactor: Any = global_reactor
MB = 2**20
LIMIT = 1000 * MB


class Source(Protocol):
    """Sends for as long as it is read."""

    def connectionMade(self) -> None:
        self.transport.registerProducer(self, False)  # type: ignore[union-attr]

    def resumeProducing(self) -> None:
        self.transport.write(bytes(256 * 1024))  # type: ignore[union-attr]

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
        self.opened: Deferred[None] = Deferred()
        self.ended: Deferred[TunnelError | None] = Deferred()
        self.arrived: Deferred[None] | None = None

    def tunnel_opened(self) -> None:
        self.opened.callback(None)

    def data_received(self, data: bytes, frame_done: bool) -> None:
        self.tunnel.credit(len(data))
        if self.arrived is not None:
            arrived, self.arrived = self.arrived, None
            arrived.callback(None)

    def tunnel_ended(self, error: TunnelError | None) -> None:
        self.ended.callback(error)

    def pause(self) -> None:
        """There is little to send."""

    def resume(self) -> None:
        """Likewise."""


class World:
    """A contract, its directory, a relay and a client."""

    def __init__(self, folder: Path, rules: Rules, **changes: Any) -> None:
        self.network = SandboxNetwork(reactor, time.time, terms=Terms(duration=600.0), rules=rules)
        self.network.startService()
        contract = self.network.contract
        self.home = folder / "relay"
        self.relay = RelayProcess(reactor, self.home, "backing", contract.endpoint, 60.0)
        config = json.loads((self.home / "config.json").read_text())
        [served] = config["contracts"].values()
        served.update(changes.pop("contract", {}))
        (self.home / "config.json").write_text(json.dumps({**config, "drain_timeout": "0s", **changes}))
        self.relay.startService()
        self.wallet = BoughtWallet(reactor, time.time, contract.endpoint, contract.issue)
        self.circuit = Circuit(reactor, [self.relay.hop], self.wallet)

    async def enrolled(self) -> None:
        while not self.network.directory.status():
            await deferLater(reactor, 0.01)

    async def open(self, kind: type[Protocol], circuit: Circuit | None = None) -> Reader:
        port = reactor.listenTCP(0, Factory.forProtocol(kind), interface="127.0.0.1")
        reader = Reader()
        reader.tunnel = await (circuit or self.circuit).open("tcp", f"127.0.0.1:{port.getHost().port}", reader)
        await reader.opened
        return reader

    async def stop(self) -> None:
        self.circuit.close()
        await self.relay.stopService()
        await self.network.stopService()


async def overshoot(folder: Path) -> None:
    """Download through eight tunnels, each on a connection of its own, until the hard limit ends them."""
    for number, workers in enumerate((0, 0, 2, 2, 4, 4)):
        world = World(
            folder / f"overshoot{number}",
            Rules(),
            workers=workers,
            network_usage={"timeframe": "1d"},
            contract={"network_usage_limit": f"{LIMIT // MB}MB"},
        )
        await world.enrolled()
        await world.wallet.buy()
        began = time.monotonic()
        readers = [await world.open(Source, Circuit(reactor, [world.relay.hop], world.wallet)) for _ in range(8)]
        for reader in readers:
            await reader.ended
        took = time.monotonic() - began
        await world.stop()
        [carried] = json.loads((world.home / "stats.json").read_text())["contract_stats"].values()
        over = carried["network_bytes"] - LIMIT * 93 // 100
        print(
            f"{workers} workers, limit {LIMIT // MB} MB, 8 tunnels at {carried['network_bytes'] / MB / took:.0f} MB/s:"
            f" {over / MB:.1f} MB over the hard limit ({over / LIMIT:.1%} of the limit)"
        )


async def challenge(folder: Path) -> None:
    """Echo through a tunnel while the directory forgets the relay and challenges it again."""
    for cost in (None, 10, 14):
        world = World(folder / f"challenge{cost}", Rules(cost=cost))
        await world.enrolled()
        await world.wallet.buy()
        reader = await world.open(Echo)
        world.network.directory.forget()
        config = json.loads((world.home / "config.json").read_text())
        [served] = config["contracts"].values()
        served["network_usage_limit"] = "1TB"
        (world.home / "config.json").write_text(json.dumps(config))
        os.kill(world.relay.pid or 0, signal.SIGUSR1)  # a changed entry is told at once, and the directory challenges
        times = []
        while not world.network.directory.status() or len(times) < 2000:
            began = time.perf_counter()
            reader.arrived = Deferred()
            reader.tunnel.write(b"x" * 64)
            await reader.arrived
            times.append((time.perf_counter() - began) * 1e6)
        p50, p99 = statistics.quantiles(times, n=100)[49], statistics.quantiles(times, n=100)[98]
        print(f"challenge of cost {cost}: echo p50 {p50:.0f} us, p99 {p99:.0f} us, worst {max(times) / 1000:.1f} ms")
        await world.stop()


async def main(_: Any) -> None:
    """Run what was asked for."""
    wanted = sys.argv[1:] or ["overshoot", "challenge"]
    with tempfile.TemporaryDirectory() as folder:
        for name in wanted:
            await {"overshoot": overshoot, "challenge": challenge}[name](Path(folder))


if __name__ == "__main__":
    react(lambda reactor: Deferred.fromCoroutine(main(reactor)))
