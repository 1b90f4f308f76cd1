"""A relay's contracts in a world in memory, and tunnels that are only numbers."""

from __future__ import annotations

from collections import Counter
from typing import Any

import attrs
from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase

from tests.upstream.worlds import MemoryWorld
from wireleap_relay.boundaries import Refused, Upstream, UsageReading
from wireleap_relay.contracts.office import Office
from wireleap_relay.contracts.service import ContractsService, ContractStatus
from wireleap_relay.sandbox.contract import SandboxContract
from wireleap_relay.sandbox.directory import Rules
from wireleap_relay.wire.address import Address
from wireleap_relay.wire.endpoint import Endpoint
from wireleap_relay.wire.keys import PublicKey, SigningKey
from wireleap_relay.wire.relayentry import Role
from wireleap_relay.wire.status import Status

CONTRACT = "http://sandbox.test/contract"
SECOND = "http://sandbox.test/second"
DIRECTORY = "http://sandbox.test/directory"


ADDRESS = Address("wireleap", "203.0.113.5", 443)


@attrs.frozen
class Settings:
    """As an operator would write them."""

    address: Address = ADDRESS
    role: Role = "backing"
    key: str | None = None
    network_usage_limit: int | None = None
    upgrade_channel: str | None = "default"


class OpenTunnels:
    """The tunnels of contracts, by number."""

    def __init__(self) -> None:
        self.open: Counter[PublicKey] = Counter()
        self.ended: list[tuple[PublicKey, Status]] = []
        self._waiting: list[tuple[PublicKey, Deferred[None]]] = []

    def close(self, contract: PublicKey, status: Status) -> int:
        count = self.open[contract]
        self.ended += [(contract, status)] * count
        self.finish(contract)
        return count

    def when_drained(self, contract: PublicKey) -> Deferred[None]:
        if not self.open[contract]:
            return succeed(None)
        waiter: Deferred[None] = Deferred()
        self._waiting.append((contract, waiter))
        return waiter

    def finish(self, contract: PublicKey) -> None:
        """The tunnels end."""
        self.open[contract] = 0
        for waiting in [waiting for waiting in self._waiting if waiting[0] == contract]:
            self._waiting.remove(waiting)
            if not waiting[1].called:
                waiting[1].callback(None)


class Notices:
    """The versions that were asked for."""

    def __init__(self) -> None:
        self.versions: list[str] = []

    def noticed(self, version: str) -> None:
        self.versions.append(version)


class ServiceTestCase(SynchronousTestCase):
    rules: Rules | None = None
    second: SandboxContract | None = None

    def setUp(self) -> None:
        self.world = MemoryWorld(rules=self.rules)
        self.agent = self.world.agent
        self.clock = self.world.clock
        self.key = SigningKey.generate()
        self.tunnels = OpenTunnels()
        self.notices = Notices()
        self.service = self.make(CONTRACT)

    def make(self, *urls: str, settings: Settings | None = None, upstream: Upstream | None = None) -> ContractsService:
        """Make the relay's contracts."""
        self.office = Office(
            self.clock,
            self.key.public_key,
            upstream or self.world.upstream(self.key),
            self.tunnels,
            self.notices,
            lambda: 0.5,
        )
        return ContractsService(self.office, {url: settings or Settings() for url in urls}, "0.7.0")

    def second_contract(self, key: SigningKey | None = None) -> SandboxContract:
        """Put another contract into the world, with the same directory."""
        contract = SandboxContract(
            key or SigningKey.generate(), Endpoint(SECOND), self.world.directory.pointer, self.world.now
        )
        self.world.root.putChild(b"second", contract.resource)
        self.second = contract
        return contract

    def status(self, number: int = 0) -> ContractStatus:
        return self.service.status()[number]

    def accepts(self, contract: PublicKey | None = None) -> bool:
        """Tell whether a tunnel would be taken."""
        try:
            self.service.book.accepting(contract or self.world.contract.id)
        except Refused as e:
            self.assertEqual(e.code, 400)
            return False
        return True

    def pass_time(self, seconds: int) -> None:
        """Let seconds pass one by one."""
        self.clock.pump([1.0] * seconds)

    def posts(self) -> int:
        return self.agent.requests.count(("POST", f"{DIRECTORY}/relays"))

    def deletes(self) -> int:
        return self.agent.requests.count(("DELETE", f"{DIRECTORY}/relays"))

    def stop(self) -> Deferred[Any]:
        stopping: Deferred[Any] = self.service.stopService()
        return stopping

    def carried(self, pace: float = 0.0, **sizes: int) -> None:
        """Let traffic be seen: of the ``first`` contract, and of the ``second``."""
        contracts = {"first": self.world.contract.id, "second": self.second.id if self.second else None}
        now = round(self.world.now() * 1000)
        counts = {key: sizes[name] for name, key in contracts.items() if key is not None and name in sizes}
        self.service.usage_seen(UsageReading(now, now, now + 86_400_000, counts, dict.fromkeys(counts, pace)))
