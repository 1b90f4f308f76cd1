"""A relay's process, and the signals that an operator sends it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from twisted.internet.threads import deferToThread

from tests.test_relay import RelayTestCase
from tests.tunnel.world import Target, reactor
from wireleap_relay.sandbox.circuit import Circuit, Hop
from wireleap_relay.sandbox.wallet import BoughtWallet
from wireleap_relay.wire.address import Address


class SignalTests(RelayTestCase):
    def run_relay(self, **changes: Any) -> subprocess.Popen[bytes]:
        """Start a relay as an operator would."""
        self.write_config(**changes)
        self.log = Path(self.home.path, "log")
        command = [sys.executable, "-m", "wireleap_relay", "--home", str(self.home.path), "start", "--fg"]
        with self.log.open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, env=dict(os.environ))
        self.addCleanup(self.end, process)
        return process

    def end(self, process: subprocess.Popen[bytes]) -> None:
        process.kill()
        process.wait()

    async def until_logged(self, words: str, times: int = 1) -> None:
        await self.until(lambda: self.log.read_text().count(words) >= times, 20)

    async def open_tunnel(self) -> Any:
        wallet = BoughtWallet(reactor, time.time, self.network.contract.endpoint, self.network.contract.issue)
        await wallet.buy()
        hop = Hop(Address.from_text(f"wireleap://127.0.0.1:{self.port}"), self.identity.key.public_key)
        circuit = Circuit(reactor, [hop], wallet)
        self.addCleanup(circuit.close)
        return await self.tunnel(circuit, self.target(Target))

    async def exit_code(self, process: subprocess.Popen[bytes]) -> int:
        return await deferToThread(process.wait, 20)

    async def test_each_of_three_signals_stops_it(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            process = self.run_relay()
            await self.until_logged("Enrolled")
            process.send_signal(number)
            self.assertEqual(await self.exit_code(process), 0)
            self.assertEqual(self.network.directory.status(), {})
            self.assertNotIn("Traceback", self.log.read_text())

    async def test_a_stop_waits_for_tunnels_and_a_second_one_does_not(self) -> None:
        process = self.run_relay(drain_timeout="1h")
        await self.until_logged("Enrolled")
        reader = await self.open_tunnel()
        process.send_signal(signal.SIGTERM)
        await self.until_logged("Disenrolled")
        reader.tunnel.write(b"still there")
        await reader.at_least(11)
        self.assertIsNone(process.poll())
        process.send_signal(signal.SIGTERM)
        self.assertEqual(await self.exit_code(process), 0)
        self.assertEqual(json.loads(self.home.stats.read_text())["contract_stats"][self._id()], {"network_bytes": 22})

    async def test_reports(self) -> None:
        process = self.run_relay()
        await self.until_logged("Enrolled")
        self.assertFalse(self.home.stats.exists())
        process.send_signal(signal.SIGUSR2)
        await self.until(self.home.stats.exists)
        self.assertEqual(json.loads(self.home.stats.read_text())["contract_stats"], {self._id(): {"network_bytes": 0}})
        await self.until_logged("controller_started")

    async def test_reloads(self) -> None:
        process = self.run_relay()
        await self.until_logged("Enrolled")
        self.write_config(timeout="many")
        process.send_signal(signal.SIGUSR1)
        await self.until_logged("timeout: expected a duration")
        self.write_config(self.contract_config(network_usage_limit="5TB"), address="127.0.0.1:9")
        process.send_signal(signal.SIGUSR1)
        await self.until_logged("The config has been read again")
        await self.until_logged("address can't change while the relay runs")
        [listed] = self.network.directory.status().values()
        await self.until(
            lambda: [relay.entry.network_usage_limit for relay in self.network.directory.status().values()] == [5 << 40]
        )

    async def test_limits_that_cannot_hold_are_told_at_the_start(self) -> None:
        self.run_relay(network_usage={"global_limit": "1TB"})
        await self.until_logged("network_usage.global_limit: DOES NOT HOLD")

    def _id(self) -> str:
        return str(self.network.contract.id)
