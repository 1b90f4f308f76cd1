"""Versions that do not do well: each is taken back, the old one serves on, and the log says why."""

from __future__ import annotations

from tests.upgrade.faults import FAULTS, Fault
from tests.upgrade.world import NEW, OLD, Load, UpgradeTestCase
from wireleap_relay.upgrade.record import Record
from wireleap_relay.upgrade.rules import read_skipped
from wireleap_relay.wire.versions import Version


class FailingTestCase(UpgradeTestCase):
    probation = 2.5

    async def taken_back(self, fault: Fault) -> tuple[Record, Load]:
        """Upgrade to a version with a fault; give how it ended, and how clients fared."""
        self.publish(fault=fault.code)
        self.ask_for(NEW)
        old = await self.launch()
        reader = await self.open_tunnel()
        load = self.connect_all_the_time()
        await self.echo(reader)
        record = await self.over()
        self.assertEqual(record.state, "rolled back", self.log())
        self.assertIn(fault.why, record.why)
        await self.until(lambda: self.pids() == [old], 15)
        await self.until(lambda: self.served_version() == OLD)
        await self.echo(reader)
        await load.stop()
        if not fault.accepts:
            self.assertEqual(load.refused, [])
        self.assertEqual(self.running(), old)
        self.assertIn(fault.why, self.log())
        self.assertEqual(read_skipped(self.home.skip_upgrade_version), Version.from_text(NEW))
        self.assertEqual(self.home.program.read_bytes(), self.program(OLD))
        for file in (self.home.program, self.home.config):
            self.assertFalse(self.home.next(file).exists())
        self.assertFalse(self.home.quarantine.exists())
        return record, load


class FailingVersions(FailingTestCase):
    async def test_it_crashes_after_a_while(self) -> None:
        await self.taken_back(FAULTS["crashes after a while"])

    async def test_its_migration_fails(self) -> None:
        await self.taken_back(FAULTS["fails to migrate"])
