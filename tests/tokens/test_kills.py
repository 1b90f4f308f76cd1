"""Money outlives whatever kills the relay; ``benchmarks/tokens.py kills`` does the same for long."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.trial.unittest import SkipTest, TestCase

from tests.tokens.kills import KillLoop, SmallDisk


class KillTests(TestCase):
    timeout = 110

    def folder(self) -> Path:
        return Path(self.mktemp()).absolute()

    async def check(self, loop: KillLoop, kills: int, **options: Any) -> None:
        found = await loop.run(kills, **options)
        self.assertTrue(found.well, found)
        self.assertEqual(found.kills, kills)
        self.assertGreater(found.served, 20)
        self.assertFalse(found.said)

    async def test_killed_under_load_by_a_contract_in_all_moods(self) -> None:
        await self.check(KillLoop(self.folder(), seed=1), 3, until_killed=(0.5, 2.0))

    async def test_killed_while_its_disk_is_full(self) -> None:
        folder = self.folder()
        disk = SmallDisk.mount(folder / "sharetokens", 24)
        if disk is None:
            raise SkipTest("only root can mount a small disk")
        self.addCleanup(disk.unmount)
        await self.check(KillLoop(folder, seed=2, moods=("well", "500"), fill=True), 2, until_killed=(1.0, 2.0))
