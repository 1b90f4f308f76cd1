"""The short form of the soak: a whole relay in processes of its own, and faults."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

_SOAK = Path(__file__).resolve().parent.parent / "benchmarks" / "soak.py"


class SoakTests(SynchronousTestCase):
    def test_ten_seconds(self) -> None:
        run = subprocess.run(
            [
                sys.executable,
                _SOAK,
                "--minutes",
                "0.15",
                "--clients",
                "4",
                "--folder",
                str(Path(self.mktemp()).absolute()),
            ],
            capture_output=True,
            text=True,
            timeout=110,
            check=False,
        )
        self.assertEqual(run.returncode, 0, run.stdout + run.stderr)
        self.assertIn("all of it holds", run.stdout)
