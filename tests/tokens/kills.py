"""A relay that is killed again and again while clients open tunnels and sharetokens are handed in, and what is found later."""

from __future__ import annotations

import ctypes
import os
import random
import signal
import sqlite3
import subprocess
import time
from collections import Counter
from pathlib import Path
from typing import Any, Literal

import attrs
from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from wireleap_relay.sandbox.circuit import Circuit
from wireleap_relay.sandbox.ledger import Ledger, Terms
from wireleap_relay.sandbox.network import SandboxNetwork
from wireleap_relay.sandbox.relays import RelayProcess
from wireleap_relay.sandbox.tunnel import Tunnel, TunnelError
from wireleap_relay.sandbox.wallet import BoughtWallet
from wireleap_relay.tokens.books import audit, reading
from wireleap_relay.wire.keys import PublicKey
from wireleap_relay.wire.sharetoken import Sharetoken

reactor: Any = global_reactor
Mood = Literal["well", "500", "lost", "hangs", "closed", "slow"]
MOODS: tuple[Mood, ...] = (*(("well",) * 8), "500", "lost", "lost", "hangs", "closed", "slow", "slow")


#: CLONE_NEWNS of unshare(2).
_NEW_MOUNTS = 0x00020000


class Echo(Protocol):
    """A target that sends back."""

    def dataReceived(self, data: bytes) -> None:
        self.transport.write(data)  # type: ignore[union-attr]


class Moody(Resource):
    """A contract as its operator fears it: it answers 500, loses its answers, hangs, closes early, takes its time."""

    isLeaf = True

    def __init__(self, contract: Resource, chance: random.Random) -> None:
        super().__init__()
        self._contract = contract
        self._chance = chance
        self.moods: tuple[Mood, ...] = ("well",)
        self.met: Counter[str] = Counter()

    def render(self, request: Request) -> Any:
        if request.postpath != [b"submit"]:
            return self._contract.render(request)
        mood = self._chance.choice(self.moods)
        self.met[mood] += 1
        if mood == "hangs":
            reactor.callLater(2.0, self._hang_up, request)
            return NOT_DONE_YET
        if mood == "slow":
            gone: list[Any] = []
            request.notifyFinish().addErrback(gone.append)
            reactor.callLater(self._chance.random(), lambda: gone or self._contract.render(request))
            return NOT_DONE_YET
        if mood == "500":
            request.setResponseCode(500)
            return b'{"code":500,"description":"internal server error"}'
        if mood == "closed":
            request.setResponseCode(400)
            return b'{"code":400,"description":"bad request","cause":"settlement window already closed"}'
        if mood == "lost":
            # It arrives, and counts; the answer gets lost.
            request.write = lambda data: None  # type: ignore[method-assign]
            request.finish = lambda: self._hang_up(request)  # type: ignore[method-assign]
        return self._contract.render(request)

    def _hang_up(self, request: Request) -> None:
        if request.channel is not None:
            request.channel.forceAbortClient()


class Client:
    """One tunnel: who it was paid with, and whether it carried anything."""

    def __init__(self) -> None:
        self.tunnel: Tunnel
        self.served = False
        self.done: Deferred[TunnelError | None] = Deferred()

    def tunnel_opened(self) -> None:
        self.tunnel.write(b"hello")

    def data_received(self, data: bytes, frame_done: bool) -> None:
        self.served = True
        self.tunnel.abort()
        self._finish(None)

    def tunnel_ended(self, error: TunnelError | None) -> None:
        self._finish(error)

    def pause(self) -> None:
        pass

    def resume(self) -> None:
        pass

    def _finish(self, error: TunnelError | None) -> None:
        if not self.done.called:
            self.done.callback(error)


class Purse(BoughtWallet):
    """Makes tokens, and may be told to spend one again.

    :ivar last: what was spent last.
    """

    last: Sharetoken
    again: Sharetoken | None = None

    def token(self, relay: PublicKey) -> Sharetoken:
        self.last = self.again or super().token(relay)
        return self.last


@attrs.define
class Found:
    """How it ended.

    :ivar served: tunnels that carried something.
    :ivar lost: tokens of those that the relay does not have.
    :ivar twice: tokens that carried a second tunnel.
    :ivar taken_twice: tokens that the contract took as new more than once.
    :ivar refused: tunnels that were not to be, by status code.
    """

    kills: int = 0
    served: int = 0
    lost: int = 0
    twice: int = 0
    taken_twice: int = 0
    replayed: int = 0
    counts: dict[str, int] = attrs.field(factory=dict)
    adds_up: bool = False
    refused: Counter[int] = attrs.field(factory=Counter)
    answers: Counter[str] = attrs.field(factory=Counter)
    said: Counter[str] = attrs.field(factory=Counter)

    @property
    def well(self) -> bool:
        """Whether nothing was lost, and nothing paid twice."""
        return not (self.lost or self.twice or self.taken_twice) and self.adds_up


class KillLoop:
    """A network whose relay has a hard life."""

    def __init__(self, folder: Path, *, seed: int, moods: tuple[Mood, ...] = MOODS, fill: bool = False) -> None:
        """Make it.

        :param fill: whether the disk is full now and then; ``sharetokens/`` in ``folder`` is one that may be filled.
        """
        self._chance = random.Random(seed)
        self._moods = moods
        self._fill = fill
        self._folder = folder
        self.network = SandboxNetwork(reactor, time.time, terms=Terms(duration=2.5, submission_window=20.0))
        self.network.startService()
        contract = self.network.contract
        self._moody = Moody(contract.resource, self._chance)
        self._moody.moods = moods
        root = self.network._port.factory.resource
        root.putChild(b"contract", self._moody)
        self._taken: Counter[Any] = Counter()
        self._count_taken(contract._ledger)
        self.relay = RelayProcess(reactor, folder, "backing", contract.endpoint, 0.5)
        self._target = reactor.listenTCP(0, Factory.forProtocol(Echo), interface="127.0.0.1")
        self._served: dict[Any, Sharetoken] = {}
        self._going = True
        self.found = Found()

    async def run(self, kills: int, until_killed: tuple[float, float] = (0.2, 4.0)) -> Found:
        """Kill the relay so many times, let the last one finish, and look what is there."""
        self.relay.startService()
        clients = [Deferred.fromCoroutine(self._live()) for _ in range(4)]
        for _ in range(kills):
            await deferLater(reactor, self._chance.uniform(*until_killed))
            filler = self._fill_disk() if self._fill and self._chance.random() < 0.5 else None
            if filler is not None:
                await deferLater(reactor, self._chance.uniform(0.1, 1.0))
            await self._kill()
            self.relay.startService()
            if filler is not None:
                # It starts while the disk is full, and goes on by itself when there is room again.
                await deferLater(reactor, self._chance.uniform(0.0, 1.5))
                filler.unlink()
        before = len(self._served)
        await self._until(lambda: len(self._served) > before + 20, 30)  # it still serves
        self._going = False
        await gatherResults(clients)
        await deferLater(reactor, 2.5)  # some of their tokens are handed in to a contract in any mood
        self._moody.moods = ("well",)
        await self._until(lambda: not self._owed(), 75)
        await self.relay.stopService()
        self._look()
        await self.network.stopService()
        await self._target.stopListening()
        return self.found

    async def _kill(self) -> None:
        protocol: Any = self.relay._protocol
        os.kill(self.relay.pid or 0, signal.SIGKILL)
        self.found.kills += 1
        await protocol.ended

    def _fill_disk(self) -> Path:
        filler = self._folder / "sharetokens" / "filler"
        filler.parent.mkdir(exist_ok=True)
        with filler.open("wb", buffering=0) as out:
            for size in (65_536, 4096, 512):
                try:
                    while True:
                        out.write(bytes(size))
                except OSError:
                    continue
        return filler

    # Clients

    async def _live(self) -> None:
        """Open one tunnel after the other, now and then with a token that was used already."""
        contract = self.network.contract
        wallet = Purse(reactor, time.time, contract.endpoint, contract.issue)
        circuit = Circuit(reactor, [self.relay.hop], wallet, 2.0)
        bought = 0.0
        while self._going:
            if time.time() - bought > 1.5:
                await wallet.buy()
                bought = time.time()
            replays = self._served and self._chance.random() < 0.1
            wallet.again = self._chance.choice(list(self._served.values())) if replays else None
            await self._open(circuit, wallet)
            await deferLater(reactor, self._chance.uniform(0.0, 0.1))
        circuit.close()

    async def _open(self, circuit: Circuit, wallet: Purse) -> None:
        client = Client()
        again = wallet.again is not None
        try:
            client.tunnel = await circuit.open("tcp", f"127.0.0.1:{self._target.getHost().port}", client)
        except Exception:  # noqa: BLE001 - the relay is not there at the moment
            await deferLater(reactor, 0.05)
            return
        token = wallet.last  # no other tunnel was asked for since
        client.done.addTimeout(5.0, reactor, lambda *_: None)
        error = await client.done
        if client.served and again:
            self.found.twice += 1
        elif client.served:
            self._served[token.signature] = token
        elif error is not None and error.status.code != 410:
            self.found.refused[error.status.code] += 1
            await deferLater(reactor, 0.02)
        self.found.replayed += again

    # What is found

    def _count_taken(self, ledger: Ledger) -> None:
        original = ledger.submit

        def submit(token: Sharetoken, now: float) -> None:
            original(token, now)
            self._taken[token.signature] += 1

        ledger.submit = submit  # type: ignore[method-assign]

    def _owed(self) -> int:
        with reading(self._folder / "sharetokens" / "sharetokens.db") as db:
            (count,) = db.execute("SELECT COUNT(*) FROM sharetoken WHERE state IN ('held', 'submitting')").fetchone()
            return int(count)

    def _look(self) -> None:
        found, path = self.found, self._folder / "sharetokens" / "sharetokens.db"
        with reading(path) as db:
            there = {signature for (signature,) in db.execute("SELECT signature FROM sharetoken")}
            audits = audit(db)
        found.served = len(self._served)
        found.lost = len({signature.raw for signature in self._served} - there)
        found.taken_twice = sum(count > 1 for count in self._taken.values())
        found.counts = attrs.asdict(audits[0].counts)
        submitted = found.counts["submitted"]
        found.adds_up = all(each.adds_up for each in audits) and submitted >= len(self._taken) - found.counts["expired"]
        found.answers = self._moody.met
        found.said = Counter(line for line in self.relay.log.read_text().splitlines() if "Traceback" in line)

    async def _until(self, condition: Any, patience: float) -> None:
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            try:
                if condition():
                    return
            except sqlite3.Error:
                pass
            await deferLater(reactor, 0.1)
        raise AssertionError(f"it did not come about; the relay says: {self.relay.log.read_text()[-3000:]}")


@attrs.frozen
class SmallDisk:
    """A disk in memory that is soon full; only root can have one.

    It is in a namespace of this process, and gone with it however that ends.
    """

    folder: Path

    @classmethod
    def mount(cls, folder: Path, megabytes: int) -> SmallDisk | None:
        """Mount one; None where that is not allowed."""
        folder.mkdir(parents=True, exist_ok=True)
        if ctypes.CDLL(None).unshare(_NEW_MOUNTS):
            return None
        for words in (
            ["--make-rprivate", "/"],
            ["-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)],
        ):
            if subprocess.run(["mount", *words], capture_output=True).returncode:
                return None
        return cls(folder)

    def unmount(self) -> None:
        """Give it back."""
        subprocess.run(["umount", "--lazy", str(self.folder)], check=True)
