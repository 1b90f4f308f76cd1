"""Uses a relay for a long time while things go wrong: python benchmarks/soak.py [--minutes 30] [--seed N].

A relay with two workers, a contract, a directory and a name server, a second relay in front of it, and clients who check
every byte of tunnels to targets of all kinds, as those do. By chance, from a seed that is printed, workers and the daemon are
killed and stopped, descriptors, memory and the disk run out, contract and directory are gone, name servers are silent, fail or
are gone, and clocks are wrong. Now and then all rest, and the books are made up. ``soaking/judge.py`` has what has to hold:

- every byte that comes out of a tunnel, at either end, is the one that was sent there, also where it is broken later;
- no client is told that its target has ended, and no target that its client has, unless it has, and all is there;
- tunnels that no fault touches come to a good end; a fault touches those it is meant to, with the codes it is meant to;
- the bytes counted are those carried: of each tunnel no less than came out, and no more than the relay can have read. What had
  come out in the last moments before a process was killed may be missing, and no other;
- all is gone when nobody uses the relay: tunnels, sockets, timers;
- no sharetoken of a tunnel that was served is lost, and each is handed in;
- no process grows; no more is under way to a slow client than windows and sockets hold;
- no worker dies of itself, or lives on without its daemon; the log has no error that nobody foresaw, and no target.

It exits with 1 where any of it does not hold.
"""

from __future__ import annotations

import argparse
import os
import random
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from soaking.account import Account
from soaking.faults import Faults, unheard_of
from soaking.judge import Judge
from soaking.names import NameServer
from soaking.relay import WRITE_INTERVAL, Sample, SoakedRelay
from soaking.targets import TargetFactory
from soaking.traffic import Client, Wallet
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.task import LoopingCall, deferLater, react

from wireleap_relay.sandbox.circuit import Circuit
from wireleap_relay.sandbox.ledger import Terms
from wireleap_relay.sandbox.network import SandboxNetwork

#: Short, so that tokens are handed in while it goes on, and none expires: for a short run, and for a long one.
_SHORT_TERMS, _TERMS = Terms(duration=4.0, submission_window=20.0), Terms(duration=20.0, submission_window=600.0)
#: Seconds that a worker or the daemon stands still in a long run, and is not taken for dead; a worker would be after a minute.
_LONG = 45.0
#: Faults that end processes; from a third of the run on the first of them is spared, in the last third all are.
_DEADLY = ("daemon killed", "worker killed", "no memory")
#: Seconds between looks at processes, and between rests.
_LOOK, _WORK = 2.0, 90.0
#: Seconds in which all that was used has to be gone, beyond those in which it may still be used.
_GONE = 5.0


class Soak:
    """One run."""

    def __init__(self, reactor: Any, folder: Path, seconds: float, seed: int, clients: int) -> None:
        self._reactor = reactor
        self._seconds = seconds
        self._short = seconds < 60
        self._terms = _SHORT_TERMS if self._short else _TERMS
        self._chance = random.Random(seed)
        self._folder = folder
        self._histories: dict[int, list[Sample]] = {}
        self._clients = clients
        self.account = Account(time.monotonic)
        self.judge = Judge(self.account)
        self.faults: Faults | None = None

    async def run(self) -> None:
        """Begin, go on for as long as asked, and draw up the account."""
        self.network = SandboxNetwork(self._reactor, time.time, terms=self._terms)
        self.network.startService()
        names = NameServer(self._reactor)
        endpoint = self.network.contract.endpoint
        self.relay = SoakedRelay(self._reactor, self._folder, endpoint, "backing", 2, names.port)
        self._front = SoakedRelay(self._reactor, self._folder, endpoint, "fronting", 0, names.port)
        self._targets = TargetFactory(self.account)
        port = self._reactor.listenTCP(0, self._targets, interface="127.0.0.1")
        self._port = port.getHost().port
        wallet = Wallet(self.network.contract.activate, self._terms.duration / 4)
        longest = 1.0 if self._short else 8.0
        self.faults = Faults(
            self._reactor,
            self._chance,
            self.relay,
            self.network,
            names,
            self.account,
            longest,
            lambda: self.clients[0].crowd(self._port),
        )
        try:
            for relay in (self.relay, self._front):
                relay.start()
                await relay.recovered()
            self.clients = [
                Client(
                    self._reactor,
                    random.Random(self._chance.random()),
                    self._way(number),
                    wallet,
                    self.account,
                    self._targets,
                )
                for number in range(self._clients)
            ]
            using = [Deferred.fromCoroutine(client.run(self._port)) for client in self.clients]
            looking = LoopingCall(self._look)
            looking.start(_LOOK)
            await self._torment(self.faults)
            await self._rest()
            for client in self.clients:
                client.stopping = True
            for succeeded, result in await DeferredList(using, consumeErrors=True):
                if not succeeded:
                    self.judge.broken.append(f"a client met something of its own: {result}")
            await self._settle()
            looking.stop()
            self._judge(self.faults)
        finally:
            for relay in (self.relay, self._front):
                if not relay.ended:
                    relay.kill()
            await port.stopListening()
            await names.stop()
            await self.network.stopService()

    def _way(self, number: int) -> Any:
        hops = [self._front.hop, self.relay.hop] if number % 3 == 2 else [self.relay.hop]
        return lambda wallet: Circuit(self._reactor, hops, wallet)

    async def _torment(self, faults: Faults) -> None:
        # Without any fault, to begin with: whatever is wrong then is not excused.
        await deferLater(self._reactor, 3.0 if self._short else 20.0)
        await self._rest()
        begun = rested = time.monotonic()
        long_ones = [] if self._seconds < 600 else [self._seconds / 3, self._seconds * 2 / 3]
        while time.monotonic() - begun < self._seconds:
            await deferLater(self._reactor, 0.3 if self._short else 1 + self._chance.random() * 6)
            if time.monotonic() - rested > _WORK:
                await self._rest()
                rested = time.monotonic()
            done = 0.0 if self._short else (time.monotonic() - begun) / self._seconds
            # Whoever is to show that it does not grow has to live long enough.
            faults.spared = _DEADLY[: 0 if done < 0.3 else 1 if done < 0.6 else None]
            if long_ones and time.monotonic() - begun > long_ones[0]:
                long_ones.pop(0)
                fault = await faults.long_stop(_LONG, of_daemon=bool(long_ones))
            else:
                fault = await faults.one()
            self._say(
                f"{fault.name}, {fault.ended - fault.began:.1f} s; {len(self.account.records)} tunnels,"
                f" {len(self.account.failed())} of them broken"
            )

    def _say(self, what: str) -> None:
        print(f"{time.monotonic() - self.account.begun:7.1f} s  {what}", flush=True)

    async def _rest(self) -> None:
        """Let everybody come to an end, and make up the books."""
        for client in self.clients:
            client.resting = True
        while not all(client.idle for client in self.clients):
            await deferLater(self._reactor, 0.1)
        await self.relay.recovered()
        deadline = time.monotonic() + _GONE
        while (found := await self._what_is_open()) != (0, 0, 0) and time.monotonic() < deadline:
            await deferLater(self._reactor, 0.2)
        unheard = max([await unheard_of(self.relay, each.pid) for each in self.relay.workers])
        counts = {}
        await deferLater(self._reactor, unheard)
        counts[f"after {unheard:.1f} s"] = await self.relay.counted()
        await deferLater(self._reactor, WRITE_INTERVAL + 1.0)
        counts["on the disk"] = self.relay.written()
        counts["in the end"] = counted = await self.relay.counted()
        tunnels, connections, targets = found
        came = self.judge.rest(counts, self.relay.samples(), tunnels=tunnels, connections=connections, targets=targets)
        self._say(f"all rest; {counted} bytes counted, and of what came last {came.most - came.least} are not certain")
        for client in self.clients:
            client.resting = client.idle = False

    async def _what_is_open(self) -> tuple[int, int, int]:
        """Give the tunnels of both relays, the connections of workers, and targets."""
        found = [await relay.ask("workers") for relay in (self.relay, self._front)]
        tunnels = sum(each["tunnels"]["open"] for each in found) if all(found) else -1
        return tunnels, self.relay.connections(), len(self._targets.open)

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
            self.judge.broken.append(f"{owed} sharetokens are still held when all could have been handed in")
        code = await self.relay.stop()
        if code:
            self.judge.broken.append(f"the relay stopped with {code}")

    def _look(self) -> None:
        for pid, sample in self.relay.samples().items():
            self._histories.setdefault(pid, []).append(sample)

    def _judge(self, faults: Faults) -> None:
        judge = self.judge
        judge.bytes()
        judge.tunnels(faults.injected)
        judge.broken += faults.strange
        database = self.relay.home.sharetokens / "sharetokens.db"
        print(judge.tokens(database, set(self.network.contract._ledger._seen)))
        print(*judge.growth(self._histories), sep="\n")
        for relay in (self.relay, self._front):
            judge.log(relay.log.read_text(), self._port)


async def _run(reactor: Any, options: argparse.Namespace, folder: Path) -> None:
    soak = Soak(reactor, folder, options.minutes * 60, options.seed, options.clients)
    broken, account = soak.judge.broken, soak.account
    try:
        await soak.run()
    except AssertionError as e:
        broken.append(str(e))
    faults = Counter(fault.name for fault in soak.faults.injected) if soak.faults is not None else Counter[str]()
    done = Counter(record.mode for record in account.records if not record.trouble)
    print(f"faults: {', '.join(f'{count} x {name}' for name, count in sorted(faults.items()))}")
    print(f"tunnels: {len(account.records)}, {done.total()} as they should be ({dict(done)})")
    for reason, count in Counter(record.trouble for record in account.failed()).most_common(12):
        print(f"  {count} x {reason[:200]}")
    for each in broken[:20]:
        print(f"BROKEN: {each}")
    print(f"seed {options.seed}: {'BROKEN' if broken else 'all of it holds'}")
    if broken:
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
