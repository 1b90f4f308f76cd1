"""Uses a relay for a long time while things go wrong: python benchmarks/soak.py [--minutes 30] [--seed N].

A relay with two workers, a contract and a directory, a second relay in front of it, and clients who check every byte
of tunnels to targets of all kinds. By chance, from a seed that is printed, workers and the daemon are killed and
stopped, descriptors, memory and the disk run out, contract and directory are gone, and clocks are wrong. Then, all
along: tunnels that no fault touches come to a good end; no sharetoken of a tunnel that was served is lost, or taken
twice; the bytes counted are those carried; and no process grows. It exits with 1 where any of it does not hold.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import sqlite3
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from soaking.faults import Fault, Faults, long_stop
from soaking.relay import Sample, SoakedRelay
from soaking.traffic import Client, Record, TargetFactory, Wallet
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.task import LoopingCall, deferLater, react

from wireleap_relay.sandbox.circuit import Circuit
from wireleap_relay.sandbox.ledger import Terms
from wireleap_relay.sandbox.network import SandboxNetwork

#: Short, so that tokens are handed in while it goes on, and none expires: for a short run, and for a long one.
_SHORT_TERMS, _TERMS = Terms(duration=4.0, submission_window=20.0), Terms(duration=20.0, submission_window=600.0)
_LONG = 60.0
#: Faults that end processes; from a third of the run on the first of them is spared, in the last third all are.
_DEADLY = ("daemon killed", "worker killed", "no memory")
#: Of all tunnels, that faults have to leave in peace for the run to show anything.
_GOOD = 0.3
#: Seconds between looks at processes, and looks that make a history.
_LOOK, _HISTORY = 2.0, 40
#: Of a process that has done the same work for long.
_GROWTH, _MORE_MEMORY, _MORE_DESCRIPTORS, _MORE_THREADS, _MORE_CALLS = 1.15, 24 * 2**20, 12, 12, 12
#: Seconds of counting that die with a worker, and with a daemon.
_UNCOUNTED = {"worker killed": 0.6, "daemon killed": 2.5, "no memory": 0.6}


#: What a traceback in a log ends with.
_TRACE = re.compile(r"^Traceback \(most recent call last\):\n(?:[ ].*\n|\n)*(\S.*)", re.MULTILINE)


class Soak:
    """One run."""

    def __init__(self, reactor: Any, folder: Path, seconds: float, seed: int, clients: int) -> None:
        self._reactor = reactor
        self._seconds = seconds
        self._terms = _SHORT_TERMS if seconds < 60 else _TERMS
        self._chance = random.Random(seed)
        self.broken: list[str] = []
        self._folder = folder
        self._uncounted = 0
        self._histories: dict[int, list[Sample]] = {}
        self._at_rest: dict[int, Sample] = {}
        self._clients = clients

    async def run(self) -> None:
        """Begin, go on for as long as asked, and draw up the account."""
        self.network = SandboxNetwork(self._reactor, time.time, terms=self._terms)
        self.network.startService()
        endpoint = self.network.contract.endpoint
        self.relay = SoakedRelay(self._reactor, self._folder, endpoint, "backing", 2)
        self._front = SoakedRelay(self._reactor, self._folder, endpoint, "fronting", 0)
        self._targets = TargetFactory()
        port = self._reactor.listenTCP(0, self._targets, interface="127.0.0.1")
        wallet = Wallet(self.network.contract.activate, self._terms.duration / 4)
        try:
            for relay in (self.relay, self._front):
                relay.start()
                await relay.recovered()
            self.clients = [
                Client(self._reactor, random.Random(self._chance.random()), self._way(number), wallet)
                for number in range(self._clients)
            ]
            target = f"127.0.0.1:{port.getHost().port}"
            using = [Deferred.fromCoroutine(client.run(target)) for client in self.clients]
            looking = LoopingCall(self._look)
            looking.start(_LOOK)
            await self._torment()
            for client in self.clients:
                client.stopping = True
            for succeeded, result in await DeferredList(using, consumeErrors=True):
                if not succeeded:
                    self.broken.append(f"a client met something of its own: {result}")
            await self._settle()
            looking.stop()
            self._judge()
        finally:
            for relay in (self.relay, self._front):
                if not relay.ended:
                    relay.kill()
            await port.stopListening()
            await self.network.stopService()

    def _way(self, number: int) -> Any:
        hops = [self._front.hop, self.relay.hop] if number % 3 == 2 else [self.relay.hop]
        return lambda wallet: Circuit(self._reactor, hops, wallet)

    async def _torment(self) -> None:
        short = self._seconds < 60
        self.faults = Faults(self._reactor, self._chance, self.relay, self.network, 1.0 if short else 8.0)
        ends = time.monotonic() + self._seconds
        long_ones = [] if self._seconds < 600 else [self._seconds / 3, self._seconds * 2 / 3]
        begun = time.monotonic()
        while time.monotonic() < ends:
            await deferLater(self._reactor, 0.3 if short else 1 + self._chance.random() * 6)
            done = 0.0 if short else (time.monotonic() - begun) / self._seconds
            # Whoever is to show that it does not grow has to live long enough.
            self.faults.spared = _DEADLY[: 0 if done < 0.3 else 1 if done < 0.6 else None]
            if long_ones and time.monotonic() - begun > long_ones[0]:
                long_ones.pop(0)
                await long_stop(self._reactor, self.relay, self.faults, _LONG, bool(long_ones))
                continue
            before = time.monotonic()
            fault = await self.faults.one()
            for name, seconds in _UNCOUNTED.items():
                if fault.name == name or (fault.ports == "all" and name == "daemon killed"):
                    self._uncounted += self._targets.carried.lately(seconds + time.monotonic() - before)
            print(
                f"{time.monotonic() - begun:7.1f} s  {fault.name}, {fault.ended - fault.began:.1f} s;"
                f" {len(self._records())} tunnels, {len(self._failed())} of them broken",
                flush=True,
            )

    def _records(self) -> list[Record]:
        return [record for client in self.clients for record in client.records]

    def _failed(self) -> list[Record]:
        return [record for record in self._records() if record.trouble]

    async def _settle(self) -> None:
        """Let the relay hand in what it holds, and stop it."""
        await self.relay.recovered()
        deadline = time.monotonic() + self._terms.duration + self._terms.submission_window / 10 + 10
        owed = None
        while owed != 0 and time.monotonic() < deadline:
            await deferLater(self._reactor, 0.5)
            found = await self.relay.ask("tokens")
            if found:
                owed = sum(each["held"] + each["submitting"] for each in found["contracts"])
        if owed:
            self.broken.append(f"{owed} sharetokens are still held when all could have been handed in")
        await deferLater(self._reactor, 2 * _LOOK)
        self._at_rest = self.relay.samples()
        workers = await self.relay.ask("workers")
        if workers["tunnels"]["open"]:
            self.broken.append(f"{workers['tunnels']['open']} tunnels are still open")
        usage = await self.relay.ask("usage")
        self._counted = sum(each["carried"] for each in usage["window"]["contracts"])
        code = await self.relay.stop()
        if code:
            self.broken.append(f"the relay stopped with {code}")

    def _look(self) -> None:
        for pid, sample in self.relay.samples().items():
            self._histories.setdefault(pid, []).append(sample)

    # What has to hold

    def _judge(self) -> None:
        self._judge_tunnels()
        self._judge_tokens()
        self._judge_bytes()
        self._judge_growth()
        log = self.relay.log.read_text() + self._front.log.read_text()
        for error in sorted(set(_TRACE.findall(log))):
            if "MemoryError" not in error and "malloc failure" not in error:
                self.broken.append(f"the log has a traceback that ends with {error}")

    def _judge_tunnels(self) -> None:
        faults = self.faults.injected
        for record in self._failed():
            if not any(fault.excuses(record) for fault in faults):
                self.broken.append(f"no fault explains what became of {record}")
        good = len(self._records()) - len(self._failed())
        if good < len(self._records()) * _GOOD:
            self.broken.append(f"of {len(self._records())} tunnels only {good} did as they should")

    def _judge_tokens(self) -> None:
        served = {record.token for record in self._records() if record.opened and record.token is not None}
        database = sqlite3.connect(self.relay.home.sharetokens / "sharetokens.db")
        rows = database.execute("SELECT signature, state FROM sharetoken").fetchall()
        database.close()
        kept = dict(rows)
        taken = {signature.raw for signature in self.network.contract._ledger._seen}
        lost = [token for token in served if token.raw not in kept and token.raw not in taken]
        unpaid = [token for token in served if token.raw not in taken]
        if lost:
            self.broken.append(f"{len(lost)} sharetokens of served tunnels are lost")
        if unpaid:
            self.broken.append(f"{len(unpaid)} sharetokens of served tunnels were not handed in")
        refused = Counter(state for state in kept.values() if state not in ("submitted", "held", "submitting"))
        if refused:
            self.broken.append(f"sharetokens are kept as {dict(refused)}")
        print(f"{len(served)} sharetokens of served tunnels; {len(kept)} are kept, {len(taken)} taken by the contract")

    def _judge_bytes(self) -> None:
        carried = self._targets.carried.total
        # What a target wrote may have died in its socket, or in a relay that was killed.
        allowed = self._uncounted + 256 * 1024 * (
            1 + len(self._failed()) + sum(r.mode == "stall" for r in self._records())
        )
        print(
            f"{carried} bytes carried by targets, {self._counted} counted by the relay; {self._uncounted} may be missing"
        )
        if not carried - allowed <= self._counted <= carried + allowed:
            self.broken.append(f"{self._counted} bytes counted, and {carried} carried")

    def _judge_growth(self) -> None:
        for pid, history in self._histories.items():
            if len(history) < _HISTORY:
                continue
            third = len(history) // 3
            early, late = history[third // 2 : third + third // 2], history[-third:]
            for name, more in (
                ("descriptors", _MORE_DESCRIPTORS),
                ("threads", _MORE_THREADS),
                ("delayed_calls", _MORE_CALLS),
            ):
                grown = _median(late, name) - _median(early, name)
                lives = pid in self._at_rest
                at_rest = getattr(history[-1], name) - min(getattr(each, name) for each in early) if lives else 0
                if max(grown, at_rest) > more:
                    self.broken.append(f"process {pid} has more {name}: {grown:.0f} at work, {at_rest:.0f} at rest")
            memory = _median(early, "memory"), _median(late, "memory")
            print(
                f"process {pid}, seen {len(history)} times: {memory[0] / 2**20:.1f} MB early, {memory[1] / 2**20:.1f} MB late"
            )
            if memory[1] > memory[0] * _GROWTH + _MORE_MEMORY:
                self.broken.append(f"process {pid} has grown from {memory[0]} to {memory[1]} bytes")


def _median(samples: Sequence[Sample], name: str) -> float:
    return statistics.median(getattr(sample, name) for sample in samples)


def _told(faults: Sequence[Fault]) -> str:
    counts = Counter(fault.name for fault in faults)
    return ", ".join(f"{count} x {name}" for name, count in sorted(counts.items()))


async def _run(reactor: Any, options: argparse.Namespace, folder: Path) -> None:
    soak = Soak(reactor, folder, options.minutes * 60, options.seed, options.clients)
    try:
        await soak.run()
    except AssertionError as e:
        soak.broken.append(str(e))
    records = soak._records()
    done = Counter(record.mode for record in records if not record.trouble)
    print(f"faults: {_told(soak.faults.injected)}")
    print(
        f"tunnels: {len(records)}, {sum(done.values())} as they should be ({dict(done)}), {len(soak._failed())} touched by faults"
    )
    reasons = Counter(record.trouble for record in soak._failed())
    for reason, count in reasons.most_common(8):
        print(f"  {count} x {reason[:200]}")
    for each in soak.broken[:20]:
        print(f"BROKEN: {each}")
    print(f"seed {options.seed}: {'BROKEN' if soak.broken else 'all of it holds'}")
    if soak.broken:
        print(f"the relay's log: {soak.relay.log}")
        raise SystemExit(1)


def main() -> None:
    """Soak."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4)))
    parser.add_argument("--clients", type=int, default=6)
    parser.add_argument("--folder", type=Path, help="a new one, where homes and logs stay; they are removed without")
    options = parser.parse_args()
    print(f"seed {options.seed}, {options.minutes:g} minutes", flush=True)
    with tempfile.TemporaryDirectory() as passing:
        folder = options.folder or Path(passing)
        react(lambda reactor: Deferred.fromCoroutine(_run(reactor, options, folder)))


if __name__ == "__main__":
    main()
