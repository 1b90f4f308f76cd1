"""Two releases, built from the last commit as they are published, and an upgrade from one to the other."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from unittest import SkipTest

import pytest
from twisted.internet.defer import gatherResults
from twisted.internet.threads import deferToThread

from tests.upgrade.world import NEW, OLD, ROOT, UpgradeTestCase
from wireleap_relay.upgrade.release import file_name

#: Seconds: a machine that is busy builds slowly.
pytestmark = pytest.mark.timeout(300)


class RealReleases(UpgradeTestCase):
    timeout = 280
    workers = 2

    def setUp(self) -> None:
        missing = [name for name in ("shiv", "hatchling", "towncrier") if importlib.util.find_spec(name) is None]
        if missing or not (ROOT / ".git").exists():
            raise SkipTest(f"building releases takes a git tree and {' '.join(missing)}: make .venv/release.installed")
        super().setUp()
        self.patch(os, "environ", {**os.environ, "SHIV_ROOT": str(self.home.path / "unpacked")})

    def write_key(self) -> Path:
        key = Path(self.mktemp()).absolute()
        key.parent.mkdir(parents=True, exist_ok=True)
        key.write_text(str(self.server.signer.secret))
        return key

    def build(self, version: str, key: Path) -> Path:
        dist = key.parent / version
        words = ["--version", version, "--key", str(key), "--url", self.server.url, "--dist", str(dist)]
        built = subprocess.run(
            [sys.executable, "release/build.py", *words], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        self.assertEqual(built.returncode, 0, built.stdout.decode())
        return dist

    async def test_from_one_to_the_next(self) -> None:
        key = self.write_key()
        dists = await gatherResults([deferToThread(self.build, version, key) for version in (OLD, NEW)])
        shutil.copy(dists[0] / file_name(), self.home.program)
        shutil.copytree(dists[1], self.server.folder / NEW)
        shutil.copytree(dists[1] / "changelogs", self.server.folder / "changelogs")
        old = await self.launch()
        reader = await self.open_tunnel()
        load = self.connect_all_the_time()
        self.ask_for(NEW)
        done = await deferToThread(self.run_command, "upgrade", "--yes")
        self.assertEqual(done.returncode, 0, f"{done}\n{self.log()}")
        self.assertIn(f"Upgraded to version {NEW}", done.stdout)
        await self.echo(reader)
        reader.tunnel.end()
        await self.until(lambda: old not in self.pids(), 20)
        await self.until(lambda: self.running() not in (None, old))
        await self.echo(await self.open_tunnel())
        await load.stop()
        self.assertEqual(load.refused, [])
        self.assertEqual(self.served_version(), NEW)
        version = await deferToThread(self.run_command, "version")
        self.assertEqual(version.stdout.strip(), NEW)
        audit = await deferToThread(self.run_command, "tokens", "audit")
        self.assertEqual(audit.returncode, 0, audit)
        stopped = await deferToThread(self.run_command, "stop")
        self.assertEqual(stopped.returncode, 0, stopped)
