"""`doctor`: what is found on this machine, and by asking others."""

from __future__ import annotations

import datetime
import json
import os
import signal
import socket
import time
from email.utils import formatdate
from typing import Any

from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase

from tests import test_relay
from tests.cli.test_daemon import CommandsTestCase, run
from wireleap_relay.cli import findings
from wireleap_relay.cli.calls import _clock
from wireleap_relay.cli.findings import Finding, local_findings
from wireleap_relay.config import parse_config
from wireleap_relay.daemon.state import DaemonState
from wireleap_relay.home import Home


class LocalTests(CommandsTestCase):
    def find(self, about: str, port: int = 443, state: DaemonState | None = None) -> list[Finding]:
        contract = {"address": f"wireleap://relay.example:{port}", "role": "backing"}
        fields = {"address": "127.0.0.1:13490", "contracts": {"https://c.example": contract}}
        config, _ = parse_config(json.dumps(fields))
        found = local_findings(self.home, config, state or DaemonState("stopped"))
        return [finding for finding in found if finding.about == about]

    def level(self, about: str, **changes: Any) -> str:
        [finding] = self.find(about, **changes)
        self.assertTrue(finding.level == "ok" or finding.todo, finding)
        return finding.level

    def test_ports(self) -> None:
        for port, level in [(443, "ok"), (13490, "ok"), (25, "warn"), (445, "warn"), (53, "warn"), (6667, "warn")]:
            self.assertEqual(self.level("port", port=port), level)

    def test_disk(self) -> None:
        real = os.statvfs(self.home.path)
        for free, level in [(50 << 20, "fail"), (500 << 20, "warn"), (2 << 30, "ok")]:
            fields = list(real)[:10]
            fields[4] = free // real.f_frsize
            self.patch(os, "statvfs", lambda _, fields=fields: os.statvfs_result(fields))
            self.assertEqual(self.level("disk"), level)

    def test_open_files(self) -> None:
        for most, level in [(256, "fail"), (1024, "warn"), (1 << 20, "ok")]:
            self.patch(findings.resource, "getrlimit", lambda _, most=most: (64, most))
            self.assertEqual(self.level("files"), level)

    def test_the_certificate(self) -> None:
        self.assertEqual(self.level("key"), "ok")
        self.home = Home(self.home.path / "tomorrow")
        self.home.create_identity(datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=1))
        self.assertEqual(self.level("key"), "fail")

    def test_the_daemon(self) -> None:
        self.assertEqual(self.level("daemon"), "warn")
        self.assertEqual(self.level("daemon", state=DaemonState("unknown", why="no")), "warn")
        self.assertEqual(self.level("daemon", state=DaemonState("running", 1, ours=False)), "ok")
        [finding] = self.find("daemon", state=DaemonState("running", 1))
        self.assertEqual(finding.level, "fail")
        self.assertIn("does not say how it gets on", finding.what)


class ClockTests(SynchronousTestCase):
    def test_levels(self) -> None:
        now = time.time()
        for off, level in [(0, "ok"), (2, "ok"), (10, "warn"), (-10, "warn"), (60, "fail"), (-3600, "fail")]:
            [finding] = _clock("https://c", formatdate(now - off, usegmt=True), now)
            self.assertEqual(finding.level, level, finding)
        [finding] = _clock("https://c", formatdate(int(now) + 90, usegmt=True), int(now))
        self.assertIn("90.5 s behind that of https://c", finding.what)
        [finding] = _clock("https://c", "", now)
        self.assertEqual(finding.level, "warn")


class TroubleTests(CommandsTestCase):
    def test_a_relay_that_is_all_wrong(self) -> None:
        self.write_config()
        launched = self.launch()
        os.kill(launched.pid, signal.SIGSTOP)
        with socket.create_server(("127.0.0.1", 0)) as silent:
            contract = {"address": f"wireleap://127.0.0.1:{silent.getsockname()[1]}", "role": "backing"}
            channel = {"upgrade_channel": "default"}
            self.write_config(
                contracts={
                    f"http://127.0.0.1:{self.contract.server_port}": {**contract, **channel},
                    f"http://127.0.0.1:{silent.getsockname()[1]}": contract,
                    "http://127.0.0.1:9": contract,
                },
            )
            began = time.monotonic()
            said = self.expect(1, "doctor")
        self.assertLess(time.monotonic() - began, 12)
        lines = said.splitlines()
        self.assertIn(f"fail  daemon      process {launched.pid} does not say how it gets on", said)
        self.assertIn("answered 404 without a status object: see whether the URL is right", said)
        self.assertIn("no answer within 3 s", said)
        self.assertEqual(len([line for line in lines if line.startswith("fail  contract")]), 3)
        self.assertEqual(len([line for line in lines if line.startswith("fail  address")]), 1)
        self.assertEqual({line[:4] for line in lines}, {"ok  ", "warn", "fail"})

    def test_no_home_and_no_config(self) -> None:
        result = run(self.home.path / "no" / "such", "doctor")
        self.assertEqual(result.returncode, 1)
        self.assertIn("config.json is missing", result.stdout)
        self.assertNotIn("Traceback", result.stdout + result.stderr)
        self.home.config.write_text('{"address": 1}')
        self.assertIn("fail  home        config.json: address: expected text", self.expect(1, "doctor"))

    def test_for_scripts(self) -> None:
        data = json.loads(self.expect(1, "doctor", "--json"))
        self.assertEqual(set(data[0]), {"level", "about", "what", "todo"})


class HealthyTests(test_relay.RelayTestCase):
    async def test_all_is_well(self) -> None:
        self.write_config()
        before = await deferToThread(run, self.home.path, "doctor")
        self.assertIn("warn  daemon      the relay is not running: wireleap-relay start", before.stdout)
        self.assertIn("this relay is not listed there: it is listed while it runs", before.stdout)
        await deferToThread(run, self.home.path, "start")
        self.addCleanup(deferToThread, run, self.home.path, "stop")
        found = await deferToThread(run, self.home.path, "doctor")
        self.assertEqual((found.returncode, found.stderr), (0, ""), found.stdout)
        self.assertEqual([line[:16].split() for line in found.stdout.splitlines()], [["ok", about] for about in _ALL])
        self.assertIn("is listed there as backing at wireleap://127.0.0.1", found.stdout)
        self.assertRegex(found.stdout, r"wireleap://127.0.0.1:\d+ has answered a PING from here in \d+ ms")


_ALL = ["home", "key", "daemon", "files", "disk", "port", "contract", "clock", "directory", "directory", "address"]
