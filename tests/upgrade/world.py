"""A relay that was installed from a release, a directory that asks for the next one, and clients at work."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall, deferLater
from twisted.internet.threads import deferToThread

from tests.test_relay import RelayTestCase
from tests.tunnel.world import Reader, Target, reactor
from tests.upgrade.site import ReleaseServer
from wireleap_relay.configvalues import ListenAddress
from wireleap_relay.daemon.control import launch
from wireleap_relay.daemon.state import look
from wireleap_relay.sandbox.circuit import Circuit, Hop
from wireleap_relay.sandbox.wallet import BoughtWallet
from wireleap_relay.tunnel.probe import NotReached, ping
from wireleap_relay.upgrade.record import Record, read_record
from wireleap_relay.wire.address import Address
from wireleap_relay.wire.versions import Version

ROOT = Path(__file__).parents[2]
OLD, NEW = "0.7.0", "0.7.1"

_PROGRAM = """\
#!{python}
# A release file in the place of a real one: this tree, under another version, perhaps with a fault.
import os, sys, threading, time
sys.path[:0] = [{root!r}]
sys.path.append(os.path.realpath(__file__))
import wireleap_relay
wireleap_relay.__version__ = {version!r}
from wireleap_relay.upgrade import release
build = release.Build(release.ReleaseSite(*{site!r}), release.read_keys({key!r}))
release.this_build = lambda: build
starts = "start" in sys.argv
{fault}
from wireleap_relay.cli.main import main
sys.exit(main())
"""


@attrs.define
class Load:
    """Clients at work.

    :ivar answered: new connections that were served.
    :ivar refused: reasons of those that weren't.
    :ivar longest: seconds that one had to wait.
    """

    answered: int = 0
    refused: list[str] = attrs.field(factory=list)
    longest: float = 0.0
    looping: Any = None
    stopped: Any = None

    async def stop(self) -> None:
        if self.looping.running:
            self.looping.stop()
            await self.stopped


class UpgradeTestCase(RelayTestCase):
    """Has a home with a release file of version ``OLD``.

    :ivar probation: seconds.
    """

    timeout = 110
    probation = 1.0

    def setUp(self) -> None:
        super().setUp()
        self.server = ReleaseServer(Path(self.mktemp()).absolute() / "site")
        self.addCleanup(self.server.stop)
        changes = {"SSL_CERT_FILE": str(self.server.ca), "WIRELEAP_RELAY_PROBATION": str(self.probation)}
        self.patch(os, "environ", {**os.environ, **changes})
        self.addCleanup(self.kill_all)
        self.install(OLD)

    def program(self, version: str, fault: str = "") -> bytes:
        key = str(self.server.signer.cert).encode()
        site = attrs.astuple(self.server.site)
        text = _PROGRAM.format(python=sys.executable, root=str(ROOT), version=version, site=site, key=key, fault=fault)
        return text.encode()

    def install(self, version: str) -> None:
        self.home.path.mkdir(exist_ok=True)
        self.home.program.write_bytes(self.program(version))
        self.home.program.chmod(0o755)

    def publish(self, version: str = NEW, fault: str = "") -> None:
        self.server.publish(version, self.program(version, fault))

    def ask_for(self, version: str) -> None:
        """Have the directory ask its relays for an upgrade."""
        rules = self.network.directory._rules
        self.network.directory._rules = attrs.evolve(rules, relay_version=Version.from_text(version))

    async def launch(self, **changes: Any) -> int:
        self.write_config(**{"workers": self.workers, "drain_timeout": "5s", **changes})
        launched = await deferToThread(launch, self.home, [str(self.home.program)], patience=60.0)
        self.addCleanup(launched.process.wait)
        self.addCleanup(launched.process.kill)
        self.assertTrue(launched.ready, self.log())
        await self.until(lambda: launched.pid in self.pids())
        return launched.pid

    def pids(self) -> list[int]:
        """Give the processes that run out of the home, workers aside."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    words = (entry / "cmdline").read_bytes().split(b"\0")
                    state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
                except OSError:
                    continue
                if str(self.home.path).encode() in words and state != "Z":
                    found.append(int(entry.name))
        return found

    async def kill_all(self) -> None:
        for pid in self.pids():
            os.kill(pid, signal.SIGKILL)
        await deferLater(reactor, 0.1)  # the network hears of it

    def running(self) -> int | None:
        return look(self.home).pid

    def record(self) -> Record:
        return read_record(self.home)

    def log(self) -> str:
        return self.home.log.read_text() if self.home.log.exists() else ""

    async def over(self, seconds: float = 60.0) -> Record:
        """Wait until an upgrade has ended, one way or the other."""
        deadline = time.monotonic() + seconds
        while not (self.record().is_done and self.record().state in ("committed", "rolled back")):
            if time.monotonic() > deadline:
                self.fail(f"it has not ended: {self.record()}\n{self.log()}")
            await deferLater(reactor, 0.1)
        return self.record()

    def served_version(self) -> str:
        """Tell which version the directory lists."""
        [listed] = self.network.directory.status().values()
        return str(listed.entry.versions["software"])

    async def circuit_to_relay(self) -> Circuit:
        wallet = BoughtWallet(reactor, time.time, self.network.contract.endpoint, self.network.contract.issue)
        await wallet.buy()
        hop = Hop(Address.from_text(f"wireleap://127.0.0.1:{self.port}"), self.identity.key.public_key)
        circuit = Circuit(reactor, [hop], wallet)
        self.addCleanup(circuit.close)
        return circuit

    async def open_tunnel(self) -> Reader:
        return await self.tunnel(await self.circuit_to_relay(), self.target(Target))

    async def echo(self, reader: Reader, size: int = 1000) -> None:
        reader.tunnel.write(bytes(size))
        await reader.at_least(reader.received + size)

    def connect_all_the_time(self, every: float = 0.02) -> Load:
        """Open connections, one after the other; each asks for a PING."""
        load = Load()
        where = ListenAddress("127.0.0.1", self.port)

        async def once() -> None:
            try:
                load.longest = max(load.longest, await ping(reactor, where, self.identity.key.public_key, 10.0))
                load.answered += 1
            except NotReached as e:
                load.refused.append(str(e))

        load.looping = LoopingCall(lambda: Deferred.fromCoroutine(once()))
        load.stopped = load.looping.start(every)
        self.addCleanup(load.stop)
        return load

    def run_command(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.home.program, *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            env=dict(os.environ),
        )

    def stats(self) -> int:
        [counted] = json.loads(self.home.stats.read_text())["contract_stats"].values()
        return int(counted["network_bytes"])
