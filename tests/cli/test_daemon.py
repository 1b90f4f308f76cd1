"""start, stop, restart, reload and status: the command and the daemon, as real processes."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from twisted.internet.threads import deferToThread

from tests import test_signals
from tests.daemon.homes import ROOT, DaemonTestCase
from tests.test_relay import RelayTestCase
from wireleap_relay.daemon.lock import HomeLock
from wireleap_relay.daemon.state import look
from wireleap_relay.home import HOME_VARIABLE


def run(home: Path, *words: str, seconds: float = 20, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "wireleap_relay", "--home", str(home), *words],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), HOME_VARIABLE: ""},
        timeout=seconds,
        **options,
    )


class CommandsTestCase(DaemonTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.addCleanup(self.kill)

    def kill(self) -> None:
        pid = look(self.home).pid
        if pid is not None and pid != os.getpid():
            os.kill(pid, signal.SIGKILL)

    def run_command(self, *words: str) -> subprocess.CompletedProcess[str]:
        result = run(self.home.path, *words)
        self.assertNotIn("Traceback", result.stdout + result.stderr)
        self.assertNotIn("\x1b", result.stdout + result.stderr)
        return result

    def expect(self, code: int, *words: str) -> str:
        result = self.run_command(*words)
        self.assertEqual(result.returncode, code, result.stdout + result.stderr)
        return result.stdout + result.stderr


class LifeTests(CommandsTestCase):
    def test_an_operators_day(self) -> None:
        self.write_config(network_usage={"timeframe": "30d", "global_limit": "10TB"})
        self.assertIn("not running", self.expect(1, "status"))
        started = self.expect(0, "start")
        pid = look(self.home).pid
        self.assertIn(f"The relay runs as process {pid}.\nBacking off: ", started)
        self.assertIn(f"runs as process {pid} already", self.expect(1, "start"))
        said = self.expect(0, "status")
        self.assertIn(f"The relay runs as process {pid}.", said)
        self.assertRegex(said, r"version +0\.7\.0, up for \d+ second")
        self.assertIn("0 B of 10.0 TB, 0 B expected; this window ends in 29 days", said)
        self.assertRegex(said, rf"http://127.0.0.1:{self.contract.server_port} +backing +backing off \d+ s +0 B|-")
        self.assertIn("0 tunnels open on 0 connections", self.expect(0, "top", "--once"))
        self.write_config(network_usage={"timeframe": "30d"}, workers=1)
        said = self.expect(0, "reload")
        for path in ("address", "workers"):
            self.assertIn(f"warning: {path} can't change while the relay runs: restart it for that", said)
        self.assertIn("The relay has read its config again.", said)
        restarted = self.expect(0, "restart")
        self.assertRegex(restarted, r"The relay has stopped\.\nThe relay runs as process \d+")
        self.assertNotEqual(look(self.home).pid, pid)
        said = self.expect(0, "status")
        self.assertRegex(said, r"worker +process +state +connections +tunnels +memory +restarts\n0 +\d+ +running +0 +0")
        self.assertEqual(self.expect(0, "stop"), "The relay has stopped.\n")
        for words in (["stop"], ["reload"], ["status"]):
            self.assertIn("not running", self.expect(1, *words))
        self.assertEqual(list(self.home.path.glob("*.sock")), [])

    def test_for_scripts(self) -> None:
        self.write_config()
        self.assertEqual(json.loads(self.expect(1, "status", "--json"))["state"], "stopped")
        self.launch()
        data = json.loads(self.expect(0, "status", "--json"))
        self.assertEqual((data["state"], data["pid"]), ("running", look(self.home).pid))
        self.assertEqual(data["status"]["controller_started"], True)
        self.assertEqual(data["contracts"]["contracts"][0]["state"], "backing off")
        self.assertEqual(data["workers"]["workers"], [])
        self.assertIn("counts", json.dumps(data["tokens"]) + "counts")

    def test_for_people(self) -> None:
        self.write_config()
        self.launch()
        for variables, coloured in [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)]:
            ours, theirs = pty.openpty()
            command = [sys.executable, "-m", "wireleap_relay", "--home", str(self.home.path), "status"]
            environment = {**os.environ, "TERM": "xterm", **variables}
            subprocess.run(command, stdout=theirs, env=environment, check=True, timeout=20)
            os.close(theirs)
            with open(ours, "rb") as terminal:
                said = b""
                try:
                    while piece := os.read(terminal.fileno(), 4096):
                        said += piece
                except OSError:
                    pass  # that is how a terminal ends
            self.assertEqual(b"\x1b[31mbacking off" in said, coloured, said)

    def test_a_home_with_a_long_name(self) -> None:
        self.write_config()
        long = self.home.path / ("n" * 120)
        long.mkdir()
        for name in ("config.json", "key.seed", "key.pub", "relay-cert.pem", "relay-key.pem"):
            (self.home.path / name).rename(long / name)
        started = run(long, "start")
        self.assertEqual(started.returncode, 0, started.stderr)
        self.assertIn("up for", run(long, "status").stdout)
        self.assertEqual(run(long, "stop").returncode, 0)
        self.assertEqual(list(long.glob("*.sock")), [])


class TroubleTests(CommandsTestCase):
    def test_an_address_that_is_taken(self) -> None:
        self.write_config(address=f"127.0.0.1:{self.contract.server_port}")
        said = self.expect(1, "start")
        self.assertIn("The relay can't start: Couldn't listen on 127.0.0.1", said)
        self.assertIn("wireleap-relay: the relay did not start: it ended with exit code 1", said)
        self.assertIn("not running", self.expect(1, "status"))

    def test_a_broken_config(self) -> None:
        self.write_config()
        self.launch()
        pid = look(self.home).pid
        self.home.config.write_text("{")
        for words in (["start"], ["restart"], ["reload"]):
            self.assertIn("config.json: ", self.expect(1, *words))
        self.assertEqual(look(self.home).pid, pid)
        self.assertIn("up for", self.expect(0, "status"))
        self.assertEqual(self.expect(0, "stop"), "The relay has stopped.\n")

    def test_no_home(self) -> None:
        for words, code in [(["start"], 1), (["stop"], 1), (["reload"], 1), (["restart"], 1), (["status"], 1)]:
            result = run(self.home.path / "no" / "such", *words)
            self.assertEqual((result.returncode, "Traceback" in result.stderr), (code, False), result.stderr)
            self.assertTrue(result.stderr.startswith("wireleap-relay: ") or words == ["status"], result.stderr)

    def test_a_daemon_that_hangs(self) -> None:
        self.write_config()
        launched = self.launch()
        os.kill(launched.pid, signal.SIGSTOP)
        heard: list[str] = []
        asking = threading.Thread(target=lambda: heard.append(self.expect(1, "reload")))
        asking.start()
        for words, code, wanted in [
            (["status"], 2, "does not say how it gets on: it gives no answer within 3 s"),
            (["stop"], 0, f"process {launched.pid} did not end by itself, and was killed"),
        ]:
            began = time.monotonic()
            said = self.expect(code, *words)
            self.assertIn(wanted, said)
            self.assertLess(time.monotonic() - began, 10, words)
        asking.join()
        self.assertIn("does not say whether it has: it gives no answer within 3 s", heard[0])
        self.assertIn("not running", self.expect(1, "status"))

    def test_what_is_left_over(self) -> None:
        self.write_config()
        self.home.pid.write_text("4194305")
        self.assertIn("wireleap-relay.pid is left over: there is no process 4194305", self.expect(1, "status"))
        self.home.control.touch()  # no socket: somebody put it there
        said = self.expect(0, "start")
        self.assertIn("warning: wireleap-relay.pid is left over", said)
        self.assertIn("does not say how it gets on", self.expect(2, "status"))
        self.home.control.unlink()
        self.until(self.home.control.exists)
        self.expect(0, "status")

    def test_one_that_is_just_being_started(self) -> None:
        self.write_config()
        lock = HomeLock.take(self.home, {})
        self.addCleanup(lock.release)
        self.assertIn("is just being started", self.expect(1, "start"))
        self.assertIn("just being started", self.expect(1, "stop"))
        self.assertIn("The relay runs", self.expect(0, "status"))

    def test_a_log_needs_the_foreground(self) -> None:
        self.write_config()
        self.assertIn("--log goes with --fg", self.expect(1, "start", "--log", "x"))


class EarningTests(RelayTestCase):
    """A relay that is enrolled, has a tunnel, and holds a token."""

    open_tunnel = test_signals.SignalTests.open_tunnel

    async def test_status(self) -> None:
        self.write_config(network_usage={"timeframe": "1d", "global_limit": "1MB"}, drain_timeout="2s")
        started = await deferToThread(run, self.home.path, "start")
        self.addCleanup(deferToThread, run, self.home.path, "stop")
        self.assertEqual(started.returncode, 0, started.stderr)
        self.assertIn("Enrolled; 0 tunnels.", started.stdout)
        lines = self.home.log.read_text().splitlines()
        self.assertIn("info  Enrolled with ", lines[-1])
        reader = await self.open_tunnel()
        reader.tunnel.write(b"x" * 10_000)
        await reader.at_least(10_000)
        for _ in range(20):  # workers count to the daemon five times a second
            said = (await deferToThread(run, self.home.path, "status")).stdout
            if "19.5 KB" in said:
                break
        self.assertIn("1 connections, 1 tunnels; 1 opened and 0 refused so far", said)
        self.assertIn("enrolled  19.5 KB", said)
        self.assertIn("1 held", said)
        self.assertRegex(said, r"traffic +19.5 KB of 1.00 MB, ")
        self.assertEqual(self.home.log.read_text().splitlines(), lines)  # no line for a tunnel
        stopped = await deferToThread(run, self.home.path, "stop")
        self.assertEqual((stopped.returncode, stopped.stdout), (0, "The relay has stopped.\n"), stopped.stderr)
