"""A daemon whose machine's clock is set back: what it does every so many seconds goes on."""

from __future__ import annotations

import os
from pathlib import Path

from tests.daemon.homes import ROOT, DaemonTestCase

_SITE = ROOT / "benchmarks" / "soaking" / "site"


class ClockTests(DaemonTestCase):
    def test_a_clock_that_is_set_back(self) -> None:
        clock = Path(self.mktemp()).absolute()
        clock.mkdir()
        paths = os.pathsep.join([str(_SITE), str(ROOT)])
        self.patch(os, "environ", {**os.environ, "PYTHONPATH": paths, "SOAK": str(clock)})
        self.write_config(workers=1, network_usage={"timeframe": "1d", "write_interval": "1s"})
        self.launch()
        self.until(self.home.stats.exists)
        (clock / "clock").write_text("-86400")
        for _ in range(2):
            before = self.home.stats.stat().st_mtime_ns
            self.until(lambda before=before: self.home.stats.stat().st_mtime_ns != before, 10)  # type: ignore[misc]
        self.assertEqual(self.state(), "running")
