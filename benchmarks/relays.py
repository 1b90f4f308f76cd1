"""What whole relays cost: ours, and others beside it, measured from outside.

    python benchmarks/relays.py [WORKLOAD...] [--peer NAME=PROGRAM] [--stunnel] [--rounds N] [--json FILE]

Each workload is run against each relay in turn, round by round, so that a machine which is slow for a
while is so for all of them. What counts is the processor time of a relay's processes for a unit of work; wall
time is shown beside it. A peer is a program with the commands and files of the Go relay.
"""

from __future__ import annotations

import argparse
import datetime
import json
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import attrs
from load.plot import plot
from load.relay import Helper, Measured, Relay, Stunnel, processors
from load.report import Figure, save, table

#: Seconds until what clients have prepared has come to rest.
_SETTLING = 0.3
_TARGETS = ("source", "sink", "echo")


@attrs.frozen
class Workload:
    """What is done, and what is counted.

    :ivar does: for ``--help``.
    :ivar mode: of the clients (:mod:`load.client`).
    :ivar target: the kind that tunnels lead to.
    :ivar processes: of clients.
    :ivar delay: of the path from the clients to the relay, in milliseconds each way.
    :ivar without_http2: whether a forwarder of TLS alone can do it.
    :ivar spec: more of the clients' specification.
    """

    does: str
    mode: str
    target: str
    spec: dict[str, Any] = attrs.field(factory=dict)
    processes: int = 1
    delay: int = 0
    without_http2: bool = False


WORKLOADS = {
    "down": Workload("bulk from a target, one tunnel", "down", "source", without_http2=True),
    "down-8": Workload("bulk from a target, 8 tunnels on 2 connections", "down", "source", {"tunnels": 4}, processes=2),
    "up": Workload("bulk to a target, one tunnel", "up", "sink", without_http2=True),
    "up-8": Workload("bulk to a target, 8 tunnels on 2 connections", "up", "sink", {"tunnels": 4}, processes=2),
    "up-1k": Workload("bulk to a target in writes of 1 KB", "up", "sink", {"chunk": 1024}, without_http2=True),
    "short": Workload(
        "short tunnels, 8 at once on shared connections", "short", "echo", {"tunnels": 4, "connections": 1}, processes=2
    ),
    "fresh": Workload(
        "short tunnels, each on a TLS connection of its own", "fresh", "echo", {"tunnels": 4}, 2, without_http2=True
    ),
    "echo": Workload("64 bytes there and back", "echo", "echo", without_http2=True),
    "echo-beside": Workload(
        "the same beside 4 bulk downloads on the connection", "echo", "echo", {"beside": 4, "bulk_target": "source"}
    ),
    "tunnels": Workload("2,000 open tunnels on 20 connections", "hold", "echo", {"tunnels": 2000, "connections": 20}),
    "connections": Workload("500 idle connections", "hold", "echo", {"tunnels": 0, "connections": 500}),
    "delayed-up": Workload("bulk to a target over a path of 100 ms", "up", "sink", delay=50),
    "delayed-down": Workload("bulk from a target over a path of 100 ms", "down", "source", delay=50),
    "churn": Workload(
        "20,000 tunnels at a time, for growth", "short", "echo", {"tunnels": 32, "connections": 2, "count": 20_000}
    ),
}


class Bench:
    """Runs workloads against relays."""

    def __init__(self, servicekey: Path, targets: dict[str, Helper], ports: dict[str, int], seconds: float) -> None:
        self._servicekey = servicekey
        self._targets = targets
        self._ports = ports
        self._seconds = seconds

    def run(self, name: str, relay: Measured) -> Figure:
        """Measure one relay in one workload."""
        work = WORKLOADS[name]
        if work.mode == "hold":
            relay.restart()
        with ExitStack() as stack:
            before = relay.cost()
            clients = [stack.enter_context(client) for client in self._clients(work, relay, stack)]
            for client in clients:
                client.line()
            time.sleep(_SETTLING)
            start, read = relay.cost(), self._read()
            for client in clients:
                client.say("go")
            results = [json.loads(client.line()) for client in clients]
            end, read = relay.cost(), self._read() - read
        return _figure(name, work, relay.name, before.memory, end.cpu - start.cpu, end.memory, read, results)

    def _clients(self, work: Workload, relay: Measured, stack: ExitStack) -> list[Helper]:
        port = relay.port(work.target)
        if work.delay:
            path = stack.enter_context(Helper("delay", str(work.delay), str(port)))
            port = int(path.line())
        spec: dict[str, Any] = {
            "mode": work.mode,
            "port": port,
            "servicekey": str(self._servicekey),
            "relay": relay.key,
            "target": f"127.0.0.1:{self._ports[work.target]}",
            "seconds": self._seconds,
            **work.spec,
        }
        if "bulk_target" in spec:
            spec["bulk_target"] = f"127.0.0.1:{self._ports[spec['bulk_target']]}"
        return [Helper("client", json.dumps(spec)) for _ in range(work.processes)]

    def _read(self) -> int:
        self._targets["sink"].say("how many?")
        return int(self._targets["sink"].line())


def _figure(
    name: str, work: Workload, relay: str, memory_before: int, cpu: float, memory: int, read: int, results: list[Any]
) -> Figure:
    seconds = max(result["seconds"] for result in results)
    match work.mode:
        case "up" | "down":
            size = read if work.mode == "up" else sum(result["bytes"] for result in results)
            return Figure(
                name, relay, size / 1e6 / max(cpu, 0.01), "MB/CPU-s", size / 1e6 / seconds, "MB/s", memory=memory
            )
        case "hold":
            held = work.spec["tunnels"] or work.spec["connections"]
            return Figure(name, relay, (memory - memory_before) / 1e3 / held, "kB each", 0, "", memory=memory)
    count = sum(result["count"] for result in results)
    p99 = max(result["p99"] for result in results)
    if work.mode == "echo":
        cost = cpu * 1e6 / count if not results[0]["bytes"] else 0.0
        return Figure(name, relay, cost, "us each", results[0]["p50"] * 1e6, "us", p99 * 1e6, memory)
    return Figure(name, relay, cpu * 1e3 / count, "ms each", count / seconds, "a second", p99 * 1e3, memory)


def _arguments() -> argparse.Namespace:
    listed = "\n".join(f"  {name:<14} {work.does}" for name, work in WORKLOADS.items())
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=f"workloads:\n{listed}", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("workload", nargs="*", help="which to run [all but churn]")
    parser.add_argument("--peer", metavar="NAME=PROGRAM", action="append", default=[], help="measure this relay too")
    parser.add_argument("--stunnel", action="store_true", help="measure stunnel too, where HTTP/2 is not needed")
    parser.add_argument("--workers", type=int, default=0, help="our relay's workers; -1 for as it is by default [0]")
    parser.add_argument("--rounds", type=int, default=3, help="times that each is run [%(default)s]")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each run [%(default)s]")
    parser.add_argument("--json", type=Path, metavar="FILE", help="add the figures to a history")
    parser.add_argument("--label", default="", help="what to call them there")
    parser.add_argument(
        "--plot", type=Path, metavar="FILE", help="draw the history of --json as SVG, and do nothing else"
    )
    arguments = parser.parse_args()
    unknown = set(arguments.workload) - set(WORKLOADS)
    if unknown:
        parser.error(f"unknown workload: {', '.join(unknown)}; there are {', '.join(WORKLOADS)}")
    if arguments.plot and not arguments.json:
        parser.error("--plot draws the history that --json names")
    return arguments


def _measure(arguments: argparse.Namespace, stack: ExitStack) -> list[list[list[Figure]]]:
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="wireleap-benchmark-")))
    servicekey = folder / "servicekey.json"
    network = stack.enter_context(Helper("network", str(servicekey)))
    contract = network.line()
    targets = {kind: stack.enter_context(Helper("target", kind)) for kind in _TARGETS}
    ports = {kind: int(target.line()) for kind, target in targets.items()}
    workers = None if arguments.workers < 0 else arguments.workers
    relays: list[Measured] = [stack.enter_context(Relay("ours", None, folder / "ours", contract, workers))]
    for peer in arguments.peer:
        name, _, program = peer.rpartition("=")
        name = name or Path(program).name
        relays.append(
            stack.enter_context(Relay(name, Path(program).resolve(), folder / f"peer-{name}", contract, workers))
        )
    if arguments.stunnel:
        relays.append(stack.enter_context(Stunnel(folder / "stunnel", ports)))
    bench = Bench(servicekey, targets, ports, arguments.seconds)
    results = []
    for name in arguments.workload or [name for name in WORKLOADS if name != "churn"]:
        able = [relay for relay in relays if relay.key or WORKLOADS[name].without_http2]
        rounds: list[list[Figure]] = [[] for _ in able]
        for _ in range(arguments.rounds):
            for figures, relay in zip(rounds, able, strict=True):
                figures.append(bench.run(name, relay))
        results.append(rounds)
        print(table([rounds]).partition("\n")[2] if len(results) > 1 else table([rounds]), flush=True)
    return results


def main() -> None:
    """Measure, or draw what was measured."""
    arguments = _arguments()
    if arguments.plot:
        arguments.plot.write_text(plot(arguments.json))
        return
    print(
        f"{processors()} processors, {arguments.rounds} rounds of {arguments.seconds:g} s, our workers: {arguments.workers}"
    )
    with ExitStack() as stack:
        results = _measure(arguments, stack)
    if arguments.json:
        date = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        save(arguments.json, date, arguments.label, results)


if __name__ == "__main__":
    main()
