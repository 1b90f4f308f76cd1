"""Upgrades under load and upgrades that go wrong: what was done to them, and what came of it. Six minutes.

python benchmarks/upgrades.py [load|kills|faults] [WORD]...    only rows that have all of the words
"""

from __future__ import annotations

import sys
import unittest
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from twisted.internet.threads import deferToThread
from twisted.trial.reporter import MinimalReporter
from twisted.trial.runner import TrialRunner

from tests.upgrade.faults import FAULTS
from tests.upgrade.kills import KILLS, KillTestCase
from tests.upgrade.test_failing import FailingTestCase
from tests.upgrade.world import NEW, UpgradeTestCase
from wireleap_relay.upgrade.peer import Peer

_KINDS = ["load", "kills", "faults"]
_WORKERS, _TUNNELS, _CLIENTS = 2, 20, 4


def _row(*cells: object) -> None:
    print("| " + " | ".join(map(str, cells)) + " |", flush=True)


def _kill(step: str, victim: str) -> Callable[[Any], Any]:
    async def test(self: KillTestCase) -> None:
        try:
            outcome = await self.kill(step, victim)
        except BaseException as e:
            _row(step, victim, f"FAILED: {e}")
            raise
        how = "started again" if outcome.restarted else "by itself"
        _row(step, victim, f"{outcome.state} {how}", outcome.version, outcome.answered, outcome.refused)

    return test


def _fault(name: str) -> Callable[[Any], Any]:
    async def test(self: FailingTestCase) -> None:
        try:
            record, load = await self.taken_back(FAULTS[name])
        except BaseException as e:
            _row(name, f"FAILED: {e}")
            raise
        _row(name, record.state, record.why, load.answered, len(load.refused), f"{load.longest * 1000:.0f} ms")

    return test


def _load(number: int) -> Callable[[Any], Any]:
    async def test(self: UpgradeTestCase) -> None:
        self.publish()
        await self.launch(workers=_WORKERS)
        readers = [await self.open_tunnel() for _ in range(_TUNNELS)]
        loads = [self.connect_all_the_time(0.001) for _ in range(_CLIENTS)]
        self.ask_for(NEW)
        if number % 2:
            await deferToThread(self.run_command, "upgrade", "--yes")
        else:
            with Peer(self.home, self.running() or 0) as daemon:
                await deferToThread(daemon.ask, "stay")  # a heartbeat, which hears of it
        record = await self.over()
        for reader in readers:
            await self.echo(reader)
            reader.tunnel.end()
        for load in loads:
            await load.stop()
        refused = [why for load in loads for why in load.refused]
        audit = await deferToThread(self.run_command, "tokens", "audit")
        _row(
            "by hand" if number % 2 else "automatic",
            record.state,
            sum(load.answered for load in loads),
            len(refused),
            f"{max(load.longest for load in loads) * 1000:.0f} ms",
            f"{len(readers)} of {_TUNNELS}",
            "adds up" if audit.returncode == 0 else audit.stdout,
        )

    return test


def main() -> int:
    """Run what was asked for."""
    words = sys.argv[1:]
    kinds = [word for word in words if word in _KINDS] or _KINDS
    wanted = [word for word in words if word not in _KINDS]
    suites: list[unittest.TestSuite] = []
    if "load" in kinds:
        _row("upgrade", "outcome", "connections", "refused", "longest", "tunnels alive", "tokens")
        _row(*["---"] * 7)
        suites.append(_suite(UpgradeTestCase, {f"test_load_{number}": _load(number) for number in range(10)}, wanted))
    failed = _run(suites)
    suites.clear()
    if "kills" in kinds:
        tests = {f"test_{step}_{victim}": _kill(step, victim) for step, victim in KILLS}
        suites.append(_suite(KillTestCase, tests, wanted))
        _row("killed at", "who", "outcome", "version", "connections", "refused")
        _row(*["---"] * 6)
    failed = failed or _run(suites)
    suites.clear()
    if "faults" in kinds:
        _row("a version that", "outcome", "why", "connections", "refused", "longest")
        _row(*["---"] * 6)
        suites.append(_suite(FailingTestCase, {f"test_{name}": _fault(name) for name in FAULTS}, wanted))
    return failed or _run(suites)


def _suite(base: type, tests: dict[str, Any], wanted: list[str]) -> unittest.TestSuite:
    chosen = {name: test for name, test in tests.items() if all(word in name for word in wanted)}
    case: Any = type(base.__name__, (base,), chosen)
    return unittest.TestSuite(case(name) for name in chosen)


def _run(suites: list[unittest.TestSuite]) -> int:
    runner = TrialRunner(MinimalReporter, workingDirectory="_trial_temp.upgrades")
    return int(not all(runner.run(suite).wasSuccessful() for suite in suites))


if __name__ == "__main__":
    sys.exit(main())
