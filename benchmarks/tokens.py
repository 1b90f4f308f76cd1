"""What keeping sharetokens costs, and whether any of them is ever lost.

    python benchmarks/tokens.py durable [--fsync MS]     durable tokens per second
    python benchmarks/tokens.py latency [--fsync MS]     what the store adds to the opening of a tunnel
    python benchmarks/tokens.py million [--tokens N]     starting with so many held tokens, and handing in 10,000 of them
    python benchmarks/tokens.py kills [--kills N] [--seed S] [--small-disk]
                                                         SIGKILL at random instants, and what is found later

``--fsync`` adds milliseconds to each fsync (it needs a C compiler). ``kills`` exits with 1 where a token was lost, carried
two tunnels, or was taken twice. CPU cost stands beside the time on the clock: it is what a busy machine leaves alone.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import resource
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import attrs
from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred, gatherResults, succeed
from twisted.internet.protocol import Factory
from twisted.internet.task import react
from twisted.internet.utils import getProcessOutputAndValue

from tests.tokens.kills import Echo, KillLoop, SmallDisk
from wireleap_relay.boundaries import Contract, Meter
from wireleap_relay.config import parse_config
from wireleap_relay.contracts.book import Book
from wireleap_relay.contracts.submission import ContractSubmitter
from wireleap_relay.home import Home
from wireleap_relay.sandbox.circuit import Circuit, Hop
from wireleap_relay.sandbox.ledger import Terms
from wireleap_relay.sandbox.network import SandboxNetwork
from wireleap_relay.sandbox.relays import free_port
from wireleap_relay.sandbox.tunnel import Tunnel, TunnelError
from wireleap_relay.tokens.service import TokenStoreService
from wireleap_relay.tokens.store import TokenDatabase
from wireleap_relay.tokens.submission import SubmissionService
from wireleap_relay.tunnel.tls import ServerTLS
from wireleap_relay.upstream.service import UpstreamService
from wireleap_relay.wire.address import Address
from wireleap_relay.wire.endpoint import Endpoint
from wireleap_relay.wire.keys import PublicKey, Signature, SigningKey
from wireleap_relay.wire.sharetoken import ContractStatement, Sharetoken
from wireleap_relay.workers.plane import Plane

reactor: Any = global_reactor

SLOW_SYNC = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <unistd.h>
static int slow(const char *name, int fd) {
    int (*real)(int) = dlsym(RTLD_NEXT, name);
    usleep(atoi(getenv("SLOW_SYNC")));
    return real(fd);
}
int fsync(int fd) { return slow("fsync", fd); }
int fdatasync(int fd) { return slow("fdatasync", fd); }
"""


def cpu() -> float:
    """Seconds of processor time of this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def memory() -> float:
    """Megabytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def percentiles(times: list[float]) -> tuple[float, float]:
    """The median, and what one of a hundred exceeds."""
    found = statistics.quantiles(times, n=100)
    return found[49], found[98]


class Mint:
    """Makes tokens of one servicekey for one relay."""

    def __init__(self) -> None:
        self.relay, self.contract, self.servicekey = (SigningKey.generate() for _ in range(3))
        now = int(time.time())
        self.statement = ContractStatement.sign(self.contract, now + 3600, now + 7200)

    def token(self, relay: PublicKey | None = None) -> Sharetoken:
        return Sharetoken.sign(self.servicekey, self.statement, relay or self.relay.public_key, int(time.time()))


# durable


async def durable(folder: Path, _: argparse.Namespace) -> None:
    """Deposit as fast as the store takes them, so many at once."""
    mint = Mint()
    tokens = [mint.token() for _ in range(40_000)]
    for at_once in (1, 10, 100, 1000):
        store = TokenStoreService(reactor, folder / f"{at_once}" / "sharetokens.db", time.time, mint.relay.public_key)
        store.startService()
        waiting = iter(tokens)
        times: list[float] = []
        began, spent = time.perf_counter(), cpu()
        clients = [deposit_on(store, waiting, began + 3.0, times) for _ in range(at_once)]
        await gatherResults([Deferred.fromCoroutine(client) for client in clients])
        took, spent = time.perf_counter() - began, cpu() - spent
        await store.stopService()
        p50, p99 = percentiles(times)
        print(
            f"{at_once:>5} at once: {len(times) / took:7.0f} durable tokens/s, p50 {p50:6.2f} ms, p99 {p99:6.2f} ms,"
            f" {spent / len(times) * 1e6:4.0f} us of CPU each",
            flush=True,
        )


async def deposit_on(store: TokenStoreService, waiting: Any, until: float, times: list[float]) -> None:
    """Deposit one after another."""
    for token in waiting:
        began = time.perf_counter()
        await store.deposit(token)
        now = time.perf_counter()
        times.append((now - began) * 1e3)
        if now > until:
            return


# latency


class NoStore:
    """Keeps nothing."""

    def deposit(self, token: Sharetoken) -> Deferred[bool]:
        return succeed(True)


class OneMeter(Meter):
    """One meter for all contracts."""

    def meter(self, contract: PublicKey) -> Meter:
        return self


class Opening:
    """A tunnel, until it is open."""

    def __init__(self) -> None:
        self.tunnel: Tunnel
        self.done: Deferred[None] = Deferred()

    def tunnel_opened(self) -> None:
        self.tunnel.end()
        self.done.callback(None)

    def data_received(self, data: bytes, frame_done: bool) -> None:
        """Nothing is asked for."""

    def tunnel_ended(self, error: TunnelError | None) -> None:
        if not self.done.called:
            self.done.errback(error or RuntimeError("the tunnel has ended"))

    def pause(self) -> None:
        """Nothing is sent."""

    def resume(self) -> None:
        """Nothing is sent."""


async def latency(folder: Path, _: argparse.Namespace) -> None:
    """Open tunnels one after the other, with the store and without, in turns."""
    mint = Mint()
    identity = Home(folder / "home").create_identity(datetime.datetime.now(datetime.UTC))
    relay, url = identity.key.public_key, "http://contract.example"
    book = Book()
    book.enter(Contract(url, mint.contract.public_key, "backing", Address.from_text("wireleap://127.0.0.1:1")))
    book.open(url)
    wanted = {
        "workers": 0,
        "danger_zone": {"allow_loopback": True},
        "contracts": {url: {"address": "wireleap://127.0.0.1:1", "role": "backing"}},
    }
    store = TokenStoreService(reactor, folder / "sharetokens.db", time.time, relay)
    store.startService()
    target = reactor.listenTCP(0, Factory.forProtocol(Echo), interface="127.0.0.1")
    circuits: dict[str, Circuit] = {}
    planes = []
    for name, keeps in (("without a store", NoStore()), ("with the store", store)):
        config, _warnings = parse_config(json.dumps({**wanted, "address": f"127.0.0.1:{free_port()}"}))
        tls = ServerTLS(identity.certificate, identity.tls_key)
        plane = Plane(reactor, config, relay, tls, book=book, store=keeps, usage=OneMeter())
        plane.startService()
        planes.append(plane)
        hop = Hop(Address.from_text(f"wireleap://127.0.0.1:{plane.status().port}"), relay)
        circuits[name] = Circuit(reactor, [hop], mint)
    times: dict[str, list[float]] = {name: [] for name in circuits}
    for number in range(2100):
        for name, circuit in circuits.items():
            opening = Opening()
            began = time.perf_counter()
            opening.tunnel = await circuit.open("tcp", f"127.0.0.1:{target.getHost().port}", opening)
            await opening.done
            if number >= 100:
                times[name].append((time.perf_counter() - began) * 1e3)
    found = {name: percentiles(each) for name, each in times.items()}
    for name, (p50, p99) in found.items():
        print(f"opening a tunnel {name}: p50 {p50:.2f} ms, p99 {p99:.2f} ms")
    (p50, p99), (kept50, kept99) = found.values()
    print(f"the store adds: p50 {kept50 - p50:.2f} ms, p99 {kept99 - p99:.2f} ms")
    for circuit in circuits.values():
        circuit.close()
    await gatherResults([*(plane.stopService() for plane in planes), store.stopService(), target.stopListening()])


# million


async def million(folder: Path, arguments: argparse.Namespace) -> None:
    """Fill a database, start with it in a process of its own, and hand in what is due to a contract in this one."""
    network = SandboxNetwork(reactor, time.time, terms=Terms(duration=-1000.0, submission_window=86_400.0))
    network.startService()
    contract, relay, servicekey = network.contract, SigningKey.generate(), SigningKey.generate()
    statement = contract.activate(servicekey.public_key)
    path = folder / "sharetokens.db"
    began = time.perf_counter()
    database = TokenDatabase(path)
    deposit_all(database, [Sharetoken.sign(servicekey, statement, relay.public_key, 0) for _ in range(10_000)])
    later = ContractStatement.sign(contract._key, int(time.time()) + 90_000, int(time.time()) + 180_000)
    pattern = Sharetoken.sign(servicekey, later, relay.public_key, 0)
    for _ in range(0, arguments.tokens - 10_000, 5000):
        deposit_all(database, [attrs.evolve(pattern, signature=Signature(os.urandom(64))) for _ in range(5000)])
    database.close()
    size = path.stat().st_size / 1e6
    print(f"{arguments.tokens} tokens: filled in {time.perf_counter() - began:.0f} s, {size:.0f} MB", flush=True)
    os.sync()
    words = [__file__, "hand-in", "--", str(path), contract.endpoint, str(contract.id), relay.seed_text]
    out, err, code = await getProcessOutputAndValue(sys.executable, words, env=dict(os.environ))
    print((out + err).decode(), end="")
    print(f"the contract has {contract.status().accounts[relay.public_key].awaiting} of them")
    await network.stopService()
    if code:
        raise SystemExit(code)


def deposit_all(database: TokenDatabase, tokens: list[Sharetoken]) -> None:
    """Deposit in one commit."""
    deposit = partial(TokenDatabase.deposit, now=time.time())
    database.together([partial(deposit, token=token, idempotency_key=secrets.token_hex(16)) for token in tokens])


async def hand_in(_: Path, arguments: argparse.Namespace) -> None:
    """Start a store, and hand in what is due."""
    path, url, contract, seed = arguments.words
    key = SigningKey.from_text(seed)
    before, began, spent = memory(), time.perf_counter(), cpu()
    store = TokenStoreService(reactor, Path(path), time.time, key.public_key)
    store.startService()
    await store.refresh()
    took, spent = time.perf_counter() - began, cpu() - spent
    [standing] = store.status().contracts
    print(f"{standing.counts.owed} held: started in {took * 1e3:.0f} ms ({spent * 1e3:.0f} ms of CPU),", end="")
    print(f" memory {before:.0f} MB before, {memory():.0f} MB after")
    upstream = UpstreamService(reactor, key)
    upstream.startService()
    store.remember({PublicKey.from_text(contract): Endpoint(url)})
    submitter = ContractSubmitter(Book(), upstream, store.address_of)
    submission = SubmissionService(reactor, store, submitter, time.time, 300.0, None)
    began, spent = time.perf_counter(), cpu()
    submission.startService()
    while store.status().contracts[0].counts.submitted < 10_000:
        later: Deferred[None] = Deferred()
        reactor.callLater(0.02, later.callback, None)
        await later
    took, spent = time.perf_counter() - began, cpu() - spent
    print(f"10000 handed in within {took:.1f} s, {spent * 100:.0f} us of CPU each; memory {memory():.0f} MB")
    await submission.stopService()
    await upstream.stopService()
    await store.stopService()


# kills


async def kills(folder: Path, arguments: argparse.Namespace) -> None:
    """Kill a relay again and again."""
    disk = SmallDisk.mount(folder / "sharetokens", 48) if arguments.small_disk else None
    if arguments.small_disk and disk is None:
        raise SystemExit("only root can mount a small disk")
    loop = KillLoop(folder, seed=arguments.seed, fill=disk is not None)
    try:
        found = await loop.run(arguments.kills)
    finally:
        if disk is not None:
            disk.unmount()
    for name, value in attrs.asdict(found).items():
        print(f"{name:>12}: {dict(value) if isinstance(value, dict) else value}")
    if not found.well:
        raise SystemExit(1)


WORK: dict[str, Callable[[Path, argparse.Namespace], Awaitable[None]]] = {
    "durable": durable,
    "latency": latency,
    "million": million,
    "kills": kills,
    "hand-in": hand_in,
}


def slowly(folder: Path, milliseconds: float) -> None:
    """Run this once more, with something added to each fsync."""
    source, library = folder / "slow.c", folder / "slow.so"
    source.write_text(SLOW_SYNC)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"], check=True)
    environment = {**os.environ, "LD_PRELOAD": str(library), "SLOW_SYNC": str(round(milliseconds * 1000))}
    print(f"with {milliseconds:g} ms added to each fsync:", flush=True)
    subprocess.run([sys.executable, *sys.argv], env=environment, check=True)


def main() -> None:
    """Do what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=WORK)
    parser.add_argument("words", nargs="*", help=argparse.SUPPRESS)
    parser.add_argument("--fsync", type=float, default=0.0, metavar="MS")
    parser.add_argument("--tokens", type=int, default=1_000_000, metavar="N")
    parser.add_argument("--kills", type=int, default=200, metavar="N")
    parser.add_argument("--seed", type=int, default=0, metavar="S")
    parser.add_argument("--small-disk", action="store_true")
    parser.add_argument("--folder", metavar="DIR", help="on the disk to measure [default: a new one under TMPDIR]")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        if arguments.fsync and "SLOW_SYNC" not in os.environ:
            slowly(Path(folder), arguments.fsync)
            return
        react(lambda _: Deferred.fromCoroutine(WORK[arguments.what](Path(folder), arguments)))


if __name__ == "__main__":
    main()
