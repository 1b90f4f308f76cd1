"""A day and a bit of relaying, on a clock of the test's own, for two contracts with limits of all kinds."""

from __future__ import annotations

import json
from pathlib import Path

from twisted.trial.unittest import TestCase

from tests.contracts.offices import CONTRACT, SECOND, Notices, OpenTunnels, Settings
from tests.upstream.worlds import EPOCH, MemoryWorld
from tests.usage.clocks import ThreadedClock
from wireleap_relay.contracts.limits import GlobalLimit
from wireleap_relay.contracts.office import Office
from wireleap_relay.contracts.service import ContractsService
from wireleap_relay.sandbox.contract import SandboxContract
from wireleap_relay.usage.meters import Meters
from wireleap_relay.usage.service import UsageService, UsageSettings
from wireleap_relay.usage.window import TimeFrame
from wireleap_relay.wire.endpoint import Endpoint
from wireleap_relay.wire.keys import PublicKey, SigningKey

MB = 2**20
MINUTE = 60
#: Bytes per minute while a contract takes tunnels, and while only those go on that it has.
FULL, LEFT = 30 * MB, 3 * MB


class ADay(TestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        self.world = MemoryWorld()
        clock = ThreadedClock()
        self.clock = self.world.clock = clock
        second = SandboxContract(SigningKey.generate(), Endpoint(SECOND), self.world.directory.pointer, self.world.now)
        self.world.root.putChild(b"second", second.resource)
        self.ids = [self.world.contract.id, second.id]
        key = SigningKey.generate()
        self.tunnels = OpenTunnels()
        self.meters = Meters()
        limit = GlobalLimit(30_000 * MB)
        office = Office(
            clock,
            key.public_key,
            self.world.upstream(key),
            self.tunnels,
            Notices(),
            lambda: 0.5,
            global_limit=limit,
        )
        settings = {CONTRACT: Settings(network_usage_limit=10_000 * MB), SECOND: Settings()}
        self.contracts = ContractsService(office, settings, "0.7.0")
        self.usage = UsageService(
            clock,
            self.world.now,
            UsageSettings(TimeFrame(86_400_000), self.folder / "archive"),
            relay=key.public_key,
            file=self.folder / "stats.json",
            totals=self.meters.totals,
            active=lambda: self.ids,
            seen=self.contracts.usage_seen,
        )

    def relay_for_a_minute(self) -> None:
        """Carry what tunnels carry in a minute."""
        for status, contract in zip(self.contracts.status(), self.ids, strict=True):
            if status.state == "enrolled":
                self.tunnels.open[contract] = 10
            self.meters.meter(contract).from_targets += (
                FULL if status.state == "enrolled" else LEFT * bool(self.tunnels.open[contract])
            )
        self.clock.advance(MINUTE)

    def states(self) -> tuple[str, ...]:
        return tuple(status.state for status in self.contracts.status())

    def carried(self, contract: PublicKey) -> int:
        return self.usage.status().reading.carried.get(contract, 0) // MB

    async def stop(self) -> None:
        for contract in self.ids:
            self.tunnels.finish(contract)
        await self.contracts.stopService()
        await self.usage.stopService()

    async def test_the_timeline(self) -> None:
        self.usage.startService()
        self.contracts.startService()
        timeline: list[tuple[int, tuple[str, ...], int, int]] = []
        for minute in range(25 * 60):
            if not timeline or timeline[-1][1] != self.states():
                timeline.append((minute, self.states(), *map(self.carried, self.ids)))
            self.relay_for_a_minute()
        first, second = "soft-limited", "enrolled"
        self.assertEqual(
            timeline,
            [
                (0, ("enrolled", "enrolled"), 0, 0),
                # 9,000 MB are 90 % of the first contract's limit: 301 minutes at 30 MB.
                (301, (first, second), 9030, 9030),
                # 9,300 MB are 93 % of it: its tunnels go on at 3 MB a minute until then.
                (392, ("hard-limited", second), 9303, 11_760),
                # 27,900 MB are 93 % of the global limit, which has no soft stage.
                (620, ("hard-limited", "hard-limited"), 9303, 18_600),
                (1440, ("enrolled", "enrolled"), 0, 0),
            ],
        )
        self.assertEqual(len(self.tunnels.ended), 20)
        await self.stop()
        [record] = [json.loads(file.read_text()) for file in (self.folder / "archive").iterdir()]
        start = round(EPOCH * 1000)
        self.assertEqual((record["start_at"], record["end_at"]), (start, start + 86_400_000))
        expected = [(str(self.ids[0]), 9303 * MB), (str(self.ids[1]), 18_600 * MB)]
        self.assertEqual([(m["contract"], m["network_usage_bytes"]) for m in record["metrics"]], expected)
        stats = json.loads((self.folder / "stats.json").read_text())
        self.assertEqual(stats["created_at"], start + 86_400_000)
        self.assertEqual(stats["contract_stats"][str(self.ids[0])], {"network_bytes": 60 * FULL})

    async def test_wall_clocks_that_jump(self) -> None:
        """An hour forward and back costs no byte, and ends no window twice."""
        jump = 0.0
        self.usage._clock = lambda: self.world.now() + jump
        self.usage.startService()
        self.contracts.startService()
        for minute in range(30 * 60):
            jump = 3600.0 if minute % 300 in range(100, 110) else -3600.0 if minute % 300 in range(200, 210) else 0.0
            self.relay_for_a_minute()
        await self.stop()
        [record] = [json.loads(file.read_text()) for file in (self.folder / "archive").iterdir()]
        carried = sum(metric["network_usage_bytes"] for metric in record["metrics"])
        carried += self.usage.status().reading.total
        self.assertEqual(carried, sum(self.meters.totals().values()))
