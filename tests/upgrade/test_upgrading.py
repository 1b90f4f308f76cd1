"""Upgrades of a relay that runs, with real processes."""

from __future__ import annotations

import subprocess

from twisted.internet.threads import deferToThread

from tests.upgrade.world import NEW, OLD, UpgradeTestCase
from wireleap_relay.upgrade.rules import read_skipped
from wireleap_relay.wire.versions import Version


class Upgrades(UpgradeTestCase):
    async def test_an_upgrade_that_nobody_notices(self) -> None:
        """The directory asks for it; tunnels and counts go on, and no connection is refused."""
        self.publish()
        self.ask_for(NEW)
        old = await self.launch()
        reader = await self.open_tunnel()
        load = self.connect_all_the_time()
        await self.echo(reader)
        record = await self.over()
        self.assertEqual((record.state, record.version), ("committed", NEW), self.log())
        await self.echo(reader, 500)
        reader.tunnel.end()
        await self.until(lambda: old not in self.pids(), 10)
        await self.until(lambda: self.running() not in (None, old))
        await load.stop()
        self.assertEqual(load.refused, [])
        self.assertGreater(load.answered, 30)
        self.assertEqual(self.served_version(), NEW)
        self.assertNotIn("Disenrolled", self.log())
        self.assertEqual(self.home.program.read_bytes(), self.program(NEW))
        self.assertEqual(self.home.previous(self.home.program).read_bytes(), self.program(OLD))
        self.assertFalse(self.home.next(self.home.program).exists())
        self.assertFalse(self.home.quarantine.exists())
        await deferToThread(self.stop)
        self.assertEqual(self.stats(), 2 * 1500, "every byte counts, whoever carried it")
        self.assertEqual(self.network.directory.status(), {})
        self.assertEqual(list(self.home.path.glob(".handover-*")), [])

    async def test_by_hand_and_back_again(self) -> None:
        self.publish()
        old = await self.launch(auto_upgrade=False)
        self.ask_for(NEW)
        checked = await self.command("upgrade", "--check")
        self.assertEqual(checked.returncode, 3, checked)
        self.assertIn("It is better", checked.stdout)
        refused = await self.command("upgrade")
        self.assertIn("say --yes", refused.stderr)
        load = self.connect_all_the_time()
        done = await self.command("upgrade", "--yes")
        self.assertEqual(done.returncode, 0, f"{done}\n{self.log()}")
        for sentence in ("signature and sum are right", "serves new clients", f"Upgraded to version {NEW}"):
            self.assertIn(sentence, done.stdout)
        await load.stop()
        self.assertEqual(load.refused, [])
        await self.until(lambda: self.running() not in (None, old), 10)
        self.assertIn("Nothing to upgrade to", (await self.command("upgrade")).stdout)
        back = await self.command("rollback")
        self.assertEqual(back.returncode, 0, back)
        self.assertIn("It runs as process", back.stdout)
        self.assertEqual(self.home.program.read_bytes(), self.program(OLD))
        self.assertEqual(read_skipped(self.home.skip_upgrade_version), Version.from_text(NEW))
        await self.until(lambda: self.served_version() == OLD)
        again = await self.command("rollback")
        self.assertIn("there is no wireleap-relay.prev", again.stderr)

    async def test_a_relay_that_does_not_run(self) -> None:
        self.publish()
        self.ask_for(NEW)
        self.write_config()
        done = await self.command("upgrade", "--yes")
        self.assertEqual(done.returncode, 0, done)
        self.assertEqual(self.home.program.read_bytes(), self.program(NEW))
        self.assertEqual(self.pids(), [])

    async def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        return await deferToThread(self.run_command, *words)

    def stop(self) -> None:
        self.assertEqual(self.run_command("stop").returncode, 0)
