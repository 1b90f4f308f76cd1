"""Processes that are killed in the middle of an upgrade: some of the steps of ``benchmarks/upgrades.py``."""

from __future__ import annotations

from tests.upgrade.kills import ALL, OLD_AND_SUPERVISOR, KillTestCase


class Kills(KillTestCase):
    async def test_all_but_the_new_one_on_probation(self) -> None:
        outcome = await self.kill("probation", OLD_AND_SUPERVISOR)
        self.assertEqual((outcome.state, outcome.restarted, outcome.refused), ("rolled back", False, 0))

    async def test_a_power_cut_once_it_is_decided(self) -> None:
        outcome = await self.kill("committed", ALL)
        self.assertEqual((outcome.state, outcome.restarted), ("committed", True))
