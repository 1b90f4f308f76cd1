"""stats.json and the archive, on a real disk, on a clock of the test's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from tests.usage.clocks import ThreadedClock, reactor
from wireleap_relay.boundaries import UsageReading
from wireleap_relay.usage.service import UsageService, UsageSettings
from wireleap_relay.usage.window import TimeFrame
from wireleap_relay.wire.keys import PublicKey

A, RELAY = PublicKey(bytes(31) + b"a"), PublicKey(bytes(31) + b"r")


class UsageServiceTests(TestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        self.file = self.folder / "stats.json"
        self.clock = ThreadedClock()
        self.clock.rightNow = 1_700_000_000.0
        self.totals = {A: 0}
        self.seen: list[UsageReading] = []

    def make(self, timeframe: float = 86400.0) -> UsageService:
        return UsageService(
            self.clock,
            self.clock.seconds,
            self.settings(timeframe),
            relay=RELAY,
            file=self.file,
            totals=lambda: self.totals,
            active=lambda: {A},
            seen=self.seen.append,
        )

    def settings(self, timeframe: float, write_interval: float = 60.0) -> UsageSettings:
        return UsageSettings(TimeFrame(round(timeframe * 1000)), self.folder / "archive" / "usage", write_interval)

    async def until(self, condition: Any) -> None:
        for _ in range(500):
            if condition():
                return
            await deferLater(reactor, 0.01)
        self.fail("it did not come about in time")

    async def test_written_every_interval_and_on_stop(self) -> None:
        service = self.make()
        service.startService()
        self.totals = {A: 1000}
        self.clock.advance(59)
        self.assertFalse(self.file.exists())
        self.clock.advance(1)
        await self.until(self.file.exists)
        self.assertEqual(
            json.loads(self.file.read_text()),
            {
                "contract_stats": {str(A): {"network_bytes": 1000}},
                "created_at": 1_700_000_000_000,
                "updated_at": 1_700_000_060_000,
            },
        )
        self.totals = {A: 1500}
        await service.stopService()
        self.assertEqual(json.loads(self.file.read_text())["contract_stats"][str(A)], {"network_bytes": 1500})

    async def test_a_restart_continues_the_window(self) -> None:
        service = self.make()
        service.startService()
        self.totals = {A: 1000}
        await service.stopService()
        self.totals = {A: 0}
        self.clock.advance(100)
        again = self.make()
        again.startService()
        self.totals = {A: 5}
        await again.stopService()
        self.assertEqual(again.status().reading.carried, {A: 1005})
        self.assertEqual(again.status().reading.start, 1_700_000_000_000)

    async def test_a_closed_window_is_archived(self) -> None:
        service = self.make(timeframe=3600.0)
        service.startService()
        self.totals = {A: 1000}
        self.clock.advance(3600)
        archived = self.folder / "archive" / "usage" / f"{RELAY}-1700003600000.json"
        await self.until(archived.exists)
        record = json.loads(archived.read_text())
        self.assertEqual(record["metrics"], [{"contract": str(A), "active": True, "network_usage_bytes": 1000}])
        self.assertEqual((record["start_at"], record["end_at"]), (1_700_000_000_000, 1_700_003_600_000))
        await service.stopService()
        self.assertEqual(json.loads(self.file.read_text())["contract_stats"][str(A)], {"network_bytes": 0})

    async def test_a_damaged_file_is_set_aside(self) -> None:
        self.file.write_text('{"contract_stats": {')
        service = self.make()
        service.startService()
        await service.stopService()
        self.assertEqual(service.status().reading.carried, {A: 0})
        [aside] = self.folder.glob("stats.json.damaged-*")
        self.assertEqual(aside.read_text(), '{"contract_stats": {')
        self.assertEqual(json.loads(self.file.read_text())["created_at"], 1_700_000_000_000)

    async def test_a_disk_that_takes_nothing_is_told_of_and_heals(self) -> None:
        self.file.mkdir()
        service = self.make()
        service._recorder.look(0, {})
        writing: Deferred[None] = service.write()
        await writing
        self.assertNotEqual(service.status().trouble, "")
        self.file.rmdir()
        await service.write()
        self.assertEqual(service.status().trouble, "")
