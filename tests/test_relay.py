"""The whole relay in this process, against the sandbox's contract and directory over real sockets."""

from __future__ import annotations

import datetime
import json
import sqlite3
import time
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from tests.tunnel.world import Target, WorldTestCase, reactor
from wireleap_relay.composition import make_relay
from wireleap_relay.config import parse_config
from wireleap_relay.contracts.service import ContractsService
from wireleap_relay.home import Home
from wireleap_relay.relay import Relay
from wireleap_relay.sandbox.circuit import Circuit, Hop
from wireleap_relay.sandbox.ledger import Terms
from wireleap_relay.sandbox.network import SandboxNetwork
from wireleap_relay.sandbox.relays import free_port
from wireleap_relay.sandbox.wallet import BoughtWallet
from wireleap_relay.tokens.service import TokenStoreService
from wireleap_relay.tokens.store import TokenDatabase
from wireleap_relay.wire.address import Address


class RelayTestCase(WorldTestCase):
    workers = 0
    terms = Terms(duration=600.0)

    def setUp(self) -> None:
        self.network = SandboxNetwork(reactor, time.time, terms=self.terms)
        self.network.startService()
        self.addCleanup(self.network.stopService)
        self.home = Home(Path(self.mktemp()).absolute())
        self.identity = self.home.create_identity(datetime.datetime.now(datetime.UTC))
        self.port = free_port()

    def write_config(self, contracts: dict[str, Any] | None = None, **changes: Any) -> None:
        served = {"address": f"wireleap://127.0.0.1:{self.port}", "role": "backing"}
        config = {
            "address": f"127.0.0.1:{self.port}",
            "auto_submit_interval": "500ms",
            "archive_dir": "archive",
            "drain_timeout": "1s",
            "danger_zone": {"allow_loopback": True},
            "network_usage": {"timeframe": "1d"},
            "workers": self.workers,
            "contracts": {self.network.contract.endpoint: served} if contracts is None else contracts,
            **changes,
        }
        self.home.config.write_text(json.dumps(config))

    def contract_config(self, **changes: Any) -> dict[str, Any]:
        fields = {"address": f"wireleap://127.0.0.1:{self.port}", "role": "backing", **changes}
        return {self.network.contract.endpoint: fields}

    def make(self, contracts: dict[str, Any] | None = None, **changes: Any) -> Relay:
        self.write_config(contracts, **changes)
        return make_relay(reactor, self.home, parse_config(self.home.read_config())[0], self.identity)

    def start(self, relay: Relay) -> None:
        relay.startService()
        self.addCleanup(lambda: relay.stopService() if relay.running else None)

    async def enrolled(self, relay: Relay) -> None:
        contracts = relay.getServiceNamed("contracts")
        assert isinstance(contracts, ContractsService)
        await self.until(lambda: any(status.enrolled for status in contracts.status()), 10)

    async def circuit_through(self, relay: Relay) -> Circuit:
        await self.enrolled(relay)
        return await self.circuit_to_relay()

    async def circuit_to_relay(self) -> Circuit:
        wallet = BoughtWallet(reactor, time.time, self.network.contract.endpoint, self.network.contract.issue)
        await wallet.buy()
        hop = Hop(Address.from_text(f"wireleap://127.0.0.1:{self.port}"), self.identity.key.public_key)
        circuit = Circuit(reactor, [hop], wallet)
        self.addCleanup(circuit.close)
        return circuit

    def states(self, relay: Relay) -> list[str]:
        contracts = relay.getServiceNamed("contracts")
        assert isinstance(contracts, ContractsService)
        return [status.state for status in contracts.status()]


class RelayTests(RelayTestCase):
    terms = Terms(duration=2.0, submission_window=3.0)

    async def test_a_tunnel_is_paid_kept_submitted_and_archived(self) -> None:
        relay = self.make()
        self.start(relay)
        contract, key = self.network.contract, self.identity.key.public_key
        plane: Any = relay.getServiceNamed("plane")
        # What is bought is good for two seconds, in which no process should have to be started.
        await self.until(lambda: all(worker.state == "running" for worker in plane.status().workers), 20)
        circuit = await self.circuit_through(relay)
        reader = await self.tunnel(circuit, self.target(Target))
        reader.tunnel.write(b"hello")
        await reader.at_least(5)
        store = relay.getServiceNamed("tokens")
        assert isinstance(store, TokenStoreService)
        self.assertEqual(store.status().counts[contract.id].held, 1)
        await self.until(lambda: store.status().counts[contract.id].submitted == 1, 10)
        self.assertEqual(contract.status().accounts[key].awaiting, 1)
        archive = self.home.path / "archive" / str(contract.id)
        await self.until(lambda: archive.exists() and any(archive.glob("*.json")))
        [archived] = archive.iterdir()
        self.assertEqual(json.loads(archived.read_text())["relay_pubkey"], str(key))
        self.assertEqual(archived.stem, json.loads(archived.read_text())["signature"])
        circuit.close()
        await relay.stopService()
        stats = json.loads(self.home.stats.read_text())
        self.assertEqual(stats["contract_stats"], {str(contract.id): {"network_bytes": 10}})

    async def test_a_contract_out_of_reach_keeps_no_other_from_being_served(self) -> None:
        dead = {"address": "wireleap://127.0.0.1:1", "role": "backing", "upgrade_channel": "default"}
        relay = self.make({**self.contract_config(), "http://127.0.0.1:1": dead})
        self.start(relay)
        await self.enrolled(relay)
        self.assertIn(self.identity.key.public_key, self.network.directory.status())

    async def test_it_can_be_stopped_at_any_moment(self) -> None:
        for turns in (0, 1, 3, 10, 30):
            relay = self.make()
            relay.startService()
            for _ in range(turns):
                later: Deferred[None] = Deferred()
                reactor.callLater(0.001, later.callback, None)
                await later
            stopping = relay.stopService()
            stopping.addTimeout(10, reactor)
            await stopping
        self.assertEqual(self.network.directory.status(), {})

    def test_services_have_names(self) -> None:
        relay = self.make()
        names = [service.name for service in relay]  # type: ignore[attr-defined]
        self.assertEqual(
            names, ["upgrades", "admin", "upstream", "tokens", "submission", "plane", "usage", "contracts"]
        )


class TroubleTests(RelayTestCase):
    async def test_on_a_full_disk_open_tunnels_go_on_and_new_ones_are_refused(self) -> None:
        relay = self.make()
        self.start(relay)
        store = relay.getServiceNamed("tokens")
        assert isinstance(store, TokenStoreService)
        target = self.target(Target)
        reader = await self.tunnel(await self.circuit_through(relay), target)

        def full(*_: Any, **__: Any) -> bool:
            error = sqlite3.OperationalError("database or disk is full")
            error.sqlite_errorcode = sqlite3.SQLITE_FULL
            raise error

        patch = self.patch(TokenDatabase, "deposit", full)
        circuit = await self.circuit_through(relay)
        refused = await self.failing_tunnel(circuit, target)
        assert refused.status is not None
        self.assertEqual(
            (refused.status.code, refused.status.description), (500, "the relay can't keep sharetokens at the moment")
        )
        [alarm] = store.status().alarms
        self.assertIn("new tunnels are refused: database or disk is full", alarm)
        reader.tunnel.write(b"still there")
        await reader.at_least(11)
        patch.restore()
        await self.tunnel(circuit, target)
        self.assertEqual(store.status().alarms, ())


class LimitTests(RelayTestCase):
    async def test_the_soft_limit_and_then_the_hard_one(self) -> None:
        relay = self.make(self.contract_config(network_usage_limit="10MB"))
        self.start(relay)
        circuit = await self.circuit_through(relay)
        reader = await self.tunnel(circuit, self.target(Target))
        reader.keep = False
        reader.tunnel.write(bytes(4_785_000))  # 9.57 MB with what comes back: 91.3 % of 10 MB
        await reader.at_least(4_785_000)
        await self.until(lambda: self.states(relay) == ["soft-limited"])
        refused = await self.failing_tunnel(circuit, self.target(Target))
        assert refused.status is not None
        self.assertEqual((refused.status.code, refused.status.origin), (400, str(self.identity.key.public_key)))
        self.assertEqual(refused.status.description, "the relay has reached its limit of network usage")
        self.assertEqual(self.network.directory.status(), {})
        reader.tunnel.write(bytes(200_000))
        await reader.ended
        assert reader.error is not None
        assert reader.error.status is not None
        self.assertEqual(reader.error.status.code, 410)
        self.assertEqual(reader.error.status.description, "the relay has reached its limit of network usage")
        self.assertEqual(self.states(relay), ["hard-limited"])
        status = relay.api_status()
        self.assertEqual(status["relay_status"][0]["status"], {"enrolled": False, "network_cap_reached": True})
        self.assertEqual(status["network_usage"]["cap"], 0)

    async def test_what_was_carried_before_a_restart_counts(self) -> None:
        limited = self.contract_config(network_usage_limit="1MB")
        relay = self.make(limited)
        self.start(relay)
        circuit = await self.circuit_through(relay)
        reader = await self.tunnel(circuit, self.target(Target))
        reader.tunnel.write(bytes(600_000))
        await reader.ended
        circuit.close()
        await relay.stopService()
        again = self.make(limited)
        self.start(again)
        await self.until(lambda: self.states(again) == ["hard-limited"])
        self.assertEqual(self.network.directory.status(), {})


class ReloadTests(RelayTestCase):
    async def test_a_limit_is_lifted_under_way(self) -> None:
        relay = self.make(self.contract_config(network_usage_limit="1MB"))
        self.start(relay)
        circuit = await self.circuit_through(relay)
        reader = await self.tunnel(circuit, self.target(Target))
        reader.tunnel.write(bytes(600_000))
        await reader.ended
        self.write_config(self.contract_config(network_usage_limit="1GB"))
        self.assertTrue(relay.reload())
        await self.enrolled(relay)
        await self.tunnel(circuit, self.target(Target))

    async def test_a_bad_file_changes_nothing(self) -> None:
        relay = self.make()
        self.start(relay)
        circuit = await self.circuit_through(relay)
        before = relay.config
        for text in ("{", '{"address": ":1", "contracts": {}}'):
            self.home.config.write_text(text)
            self.assertFalse(relay.reload())
        self.home.config.unlink()
        self.assertFalse(relay.reload())
        self.assertEqual((relay.config, self.states(relay)), (before, ["enrolled"]))
        await self.tunnel(circuit, self.target(Target))

    async def test_a_contract_is_removed_and_added(self) -> None:
        other = SandboxNetwork(reactor, time.time)
        other.startService()
        self.addCleanup(other.stopService)
        relay = self.make()
        self.start(relay)
        circuit = await self.circuit_through(relay)
        reader = await self.tunnel(circuit, self.target(Target))
        [fields] = self.contract_config().values()
        self.write_config({other.contract.endpoint: fields})
        self.assertTrue(relay.reload())
        await self.until(lambda: self.states(relay) == ["enrolled", "draining"])
        reader.tunnel.write(b"still there")
        await reader.at_least(11)
        await reader.ended  # after drain_timeout
        assert reader.error is not None
        assert reader.error.status is not None
        self.assertEqual(reader.error.status.code, 410)
        await self.until(lambda: self.states(relay) == ["enrolled"])
        self.assertEqual(self.network.directory.status(), {})
        self.assertEqual(list(other.directory.status()), [self.identity.key.public_key])

    async def test_what_is_applied(self) -> None:
        relay = self.make()
        self.start(relay)
        circuit = await self.circuit_through(relay)
        before = await self.tunnel(circuit, self.target(Target))
        self.write_config(
            maxtime="500ms",
            auto_submit_interval="1h",
            network_usage={"start": "daily", "write_interval": "1s", "archive_dir": "usage"},
            address="127.0.0.1:1",
        )
        self.assertTrue(relay.reload())
        parts = relay.parts
        assert parts.usage is not None
        self.assertEqual(parts.usage.status().reading.end % 86_400_000, 0)
        self.assertEqual((parts.submission.interval, relay.config.address.port), (3600.0, self.port))
        await self.until(self.home.stats.exists)
        short = await self.tunnel(await self.circuit_through(relay), self.target(Target))
        await short.ended
        assert short.error is not None
        assert short.error.status is not None
        self.assertEqual(short.error.status.code, 408)
        before.tunnel.write(b"still there")
        await before.at_least(11)
        self.write_config(danger_zone={})
        self.assertTrue(relay.reload())
        await deferLater(reactor, 0.1)
        refused = await self.failing_tunnel(await self.circuit_through(relay), self.target(Target))
        assert refused.status is not None
        self.assertEqual(
            (refused.status.code, refused.status.description), (400, "refusing to dial a loopback address")
        )


class StopTests(RelayTestCase):
    async def test_tunnels_finish(self) -> None:
        relay = self.make(drain_timeout="1h")
        self.start(relay)
        reader = await self.tunnel(await self.circuit_through(relay), self.target(Target))
        stopping = relay.stopService()
        await self.until(lambda: self.network.directory.status() == {})
        reader.tunnel.write(b"one more word")
        await reader.at_least(13)
        reader.tunnel.end()
        await reader.ended
        stopping.addTimeout(10, reactor)
        await stopping
        self.assertIsNone(reader.error)

    async def test_tunnels_that_do_not_are_told_why(self) -> None:
        relay = self.make(drain_timeout="300ms")
        self.start(relay)
        reader = await self.tunnel(await self.circuit_through(relay), self.target(Target))
        await relay.stopService()
        await reader.ended
        assert reader.error is not None
        assert reader.error.status is not None
        self.assertEqual(reader.error.status.code, 410)

    async def test_in_a_hurry(self) -> None:
        relay = self.make(drain_timeout="1h")
        self.start(relay)
        await self.tunnel(await self.circuit_through(relay), self.target(Target))
        stopping = relay.stopService()
        relay.hurry()
        stopping.addTimeout(5, reactor)
        await stopping
        stats = json.loads(self.home.stats.read_text())
        self.assertEqual(list(stats["contract_stats"]), [str(self.network.contract.id)])
