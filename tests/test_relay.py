"""The whole relay in this process, against the sandbox's contract and directory over real sockets."""

from __future__ import annotations

import datetime
import json
import time
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred

from tests.tunnel.world import Target, WorldTestCase, reactor
from wireleap_relay.config import parse_config
from wireleap_relay.contracts.service import ContractsService
from wireleap_relay.home import Home
from wireleap_relay.relay import Relay, make_relay
from wireleap_relay.sandbox.circuit import Circuit, Hop
from wireleap_relay.sandbox.ledger import Terms
from wireleap_relay.sandbox.network import SandboxNetwork
from wireleap_relay.sandbox.relays import free_port
from wireleap_relay.sandbox.wallet import BoughtWallet
from wireleap_relay.tokens.service import TokenStoreService
from wireleap_relay.wire.address import Address


class RelayTests(WorldTestCase):
    def setUp(self) -> None:
        self.network = SandboxNetwork(reactor, time.time, terms=Terms(duration=2.0, submission_window=3.0))
        self.network.startService()
        self.addCleanup(self.network.stopService)
        self.home = Home(Path(self.mktemp()).absolute())
        self.identity = self.home.create_identity(datetime.datetime.now(datetime.UTC))
        self.port = free_port()

    def make(self, **contracts: Any) -> Relay:
        address = f"wireleap://127.0.0.1:{self.port}"
        served = {self.network.contract.endpoint: {"address": address, "role": "backing"}, **contracts}
        config = {
            "address": f"127.0.0.1:{self.port}",
            "auto_submit_interval": "500ms",
            "archive_dir": "archive",
            "drain_timeout": "1s",
            "danger_zone": {"allow_loopback": True},
            "network_usage": {"timeframe": "1d"},
            "contracts": served,
        }
        return make_relay(reactor, self.home, parse_config(json.dumps(config))[0], self.identity)

    def start(self, relay: Relay) -> None:
        relay.startService()
        self.addCleanup(lambda: relay.stopService() if relay.running else None)

    async def enrolled(self, relay: Relay) -> None:
        contracts = relay.getServiceNamed("contracts")
        assert isinstance(contracts, ContractsService)
        await self.until(lambda: any(status.enrolled for status in contracts.status()), 10)

    async def test_a_tunnel_is_paid_kept_submitted_and_archived(self) -> None:
        relay = self.make()
        self.start(relay)
        await self.enrolled(relay)
        contract = self.network.contract
        wallet = BoughtWallet(reactor, time.time, contract.endpoint, contract.issue)
        await wallet.buy()
        key = self.identity.key.public_key
        circuit = Circuit(reactor, [Hop(Address.from_text(f"wireleap://127.0.0.1:{self.port}"), key)], wallet)
        self.addCleanup(circuit.close)
        reader = await self.tunnel(circuit, self.target(Target))
        reader.tunnel.write(b"hello")
        await reader.at_least(5)
        store = relay.getServiceNamed("tokens")
        assert isinstance(store, TokenStoreService)
        self.assertEqual(store.status().counts[contract.id].held, 1)
        await self.until(lambda: store.status().counts[contract.id].submitted == 1, 10)
        self.assertEqual(contract.status().accounts[key].awaiting, 1)
        [archived] = (self.home.path / "archive" / str(contract.id)).iterdir()
        self.assertEqual(json.loads(archived.read_text())["relay_pubkey"], str(key))
        self.assertEqual(archived.stem, json.loads(archived.read_text())["signature"])
        circuit.close()
        await relay.stopService()
        stats = json.loads(self.home.stats.read_text())
        self.assertEqual(stats["contract_stats"], {str(contract.id): {"network_bytes": 10}})

    async def test_a_contract_out_of_reach_keeps_no_other_from_being_served(self) -> None:
        dead = {"address": "wireleap://127.0.0.1:1", "role": "backing", "upgrade_channel": "default"}
        relay = self.make(**{"http://127.0.0.1:1": dead})
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
        self.assertEqual(names, ["upstream", "tokens", "submission", "listener", "contracts", "usage"])
