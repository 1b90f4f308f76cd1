"""The ``wireleap-relay`` command, as real processes."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from wireleap_relay import __version__
from wireleap_relay.daemon.lock import HomeLock
from wireleap_relay.home import HOME_VARIABLE, Home
from wireleap_relay.sandbox.relays import free_port

ROOT = Path(__file__).parents[2]


class CommandTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.home = Path(self.mktemp()).absolute()
        self.home.mkdir()

    def run_command(self, *words: str, home: bool = True) -> subprocess.CompletedProcess[str]:
        where = ["--home", str(self.home)] if home else []
        result = subprocess.run(
            [sys.executable, "-m", "wireleap_relay", *where, *words],
            capture_output=True,
            text=True,
            cwd=self.home,
            env={**os.environ, "PYTHONPATH": str(ROOT), HOME_VARIABLE: ""},
            timeout=60,
        )
        self.assertNotIn("Traceback", result.stderr + result.stdout)
        return result

    def write_config(self, **changes: object) -> None:
        config = {
            "address": f"127.0.0.1:{free_port()}",
            "contracts": {"http://127.0.0.1:9": {"address": "wireleap://127.0.0.1:1", "role": "backing"}},
            "drain_timeout": "1s",
            **changes,
        }
        (self.home / "config.json").write_text(json.dumps(config))


class WordsTests(CommandTestCase):
    def test_help(self) -> None:
        for words in (["help"], ["--help"]):
            said = self.run_command(*words).stdout
            for command in ("init", "check-config", "policy", "start", "sandbox", "version"):
                self.assertIn(command, said)
        self.assertIn("never overwritten", self.run_command("help", "init").stdout)

    def test_nothing_and_nonsense(self) -> None:
        nothing = self.run_command(home=False)
        self.assertEqual((nothing.returncode, nothing.stdout), (2, ""))
        for words in (["chek-config"], ["help", "chek-config"]):
            wrong = self.run_command(*words)
            self.assertEqual(wrong.returncode, 2)
            self.assertIn("did you mean check-config?", wrong.stderr)
        wrong = self.run_command("start", "--bogus")
        self.assertEqual(wrong.returncode, 2)
        self.assertIn("--bogus", wrong.stderr)

    def test_version(self) -> None:
        self.assertEqual(self.run_command("version").stdout, f"{__version__}\n")
        self.assertEqual(self.run_command("--version").stdout, f"{__version__}\n")
        self.assertIn("relay-contract interface version 0.1.0\n", self.run_command("version", "-v").stdout)


class InitTests(CommandTestCase):
    def test_makes_a_home_once(self) -> None:
        first = self.run_command("init")
        self.assertEqual(first.returncode, 0)
        key = (self.home / "key.seed").read_bytes()
        public = json.loads((self.home / "key.pub").read_text())
        self.assertIn(public, first.stdout)
        self.assertNotIn(json.loads(key), first.stdout)
        self.assertTrue((self.home / "config.example.json").exists())
        second = self.run_command("init")
        self.assertEqual(second.returncode, 1)
        self.assertIn("key.seed", second.stderr)
        self.assertEqual((self.home / "key.seed").read_bytes(), key)

    def test_no_example_beside_a_config(self) -> None:
        (self.home / "config.json").write_text("{}")
        self.assertEqual(self.run_command("init").returncode, 0)
        self.assertFalse((self.home / "config.example.json").exists())


class CheckConfigTests(CommandTestCase):
    def test_ok(self) -> None:
        self.run_command("init")
        self.write_config(timeot="1s")
        checked = self.run_command("check-config")
        self.assertEqual((checked.returncode, checked.stdout), (0, "OK\n"))
        self.assertIn("warning: timeot: unknown key; did you mean timeout?", checked.stderr)

    def test_mistakes_a_line_each(self) -> None:
        self.run_command("init")
        self.write_config(timeout=1, bufsize=0)
        checked = self.run_command("check-config")
        self.assertEqual((checked.returncode, checked.stdout), (1, ""))
        self.assertIn("config.json: timeout: expected text", checked.stderr)

    def test_nothing_there(self) -> None:
        checked = self.run_command("check-config")
        self.assertEqual(checked.returncode, 1)
        self.assertIn("config.json is missing", checked.stderr)
        self.write_config()
        checked = self.run_command("check-config")
        self.assertEqual(checked.returncode, 1)
        self.assertIn("key.seed is missing: `wireleap-relay init` makes it", checked.stderr)


class StartTests(CommandTestCase):
    def test_broken_homes(self) -> None:
        broken = self.run_command("start", "--fg")
        self.assertEqual(broken.returncode, 1)
        self.assertIn("config.json is missing", broken.stderr)

    def test_one_relay_to_a_home(self) -> None:
        self.run_command("init")
        self.write_config()
        lock = HomeLock.take(Home(self.home), {})
        self.addCleanup(lock.release)
        lock.sign()
        for words in (["start"], ["start", "--fg"]):
            started = self.run_command(*words)
            self.assertEqual(started.returncode, 1)
            self.assertIn(f"a relay runs as process {os.getpid()} already", started.stdout + started.stderr)

    def test_twistd_says_what_is_wrong_too(self) -> None:
        program = "from twisted.scripts.twistd import run; run()"
        result = subprocess.run(
            [sys.executable, "-c", program, "--nodaemon", "--pidfile=", "wireleap-relay", "--home", str(self.home)],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            timeout=60,
        )
        self.assertEqual(result.returncode, 1)
        self.assertIn("config.json is missing", result.stdout + result.stderr)
        self.assertNotIn("Traceback", result.stdout + result.stderr)

    def test_an_address_that_is_taken(self) -> None:
        self.run_command("init")
        with socket.create_server(("127.0.0.1", 0)) as taken:
            self.write_config(address=f"127.0.0.1:{taken.getsockname()[1]}")
            started = self.run_command("start", "--fg")
        self.assertEqual(started.returncode, 1)
        self.assertIn("The relay can't start: Couldn't listen on 127.0.0.1", started.stdout + started.stderr)

    def test_sharetokens_that_can_not_be_kept(self) -> None:
        self.run_command("init")
        self.write_config()
        (self.home / "sharetokens").write_text("in the way")
        started = self.run_command("start", "--fg")
        self.assertEqual(started.returncode, 1)
        self.assertIn("The relay can't start: ", started.stdout + started.stderr)
        self.assertIn("sharetokens", started.stdout + started.stderr)

    def test_runs_until_it_is_told_to_stop(self) -> None:
        self.run_command("init")
        self.write_config()
        twistd = "from twisted.scripts.twistd import run; run()"
        home = ["--home", str(self.home)]
        for command in (
            ["-m", "wireleap_relay", *home, "start", "--fg"],
            ["-c", twistd, "--nodaemon", "--pidfile=", "wireleap-relay", *home],
        ):
            log = self.home / "log"
            with log.open("w") as out:
                relay = subprocess.Popen(
                    [sys.executable, *command],
                    stdout=out,
                    stderr=out,
                    cwd=self.home,
                    env={**os.environ, "PYTHONPATH": str(ROOT)},
                )
            try:
                deadline = time.monotonic() + 20
                while "Listening at" not in log.read_text() and time.monotonic() < deadline:
                    self.assertIsNone(relay.poll(), log.read_text())
                    time.sleep(0.05)
                relay.send_signal(signal.SIGTERM)
                # twistd ends, when all is done, by the signal that it was sent.
                self.assertIn(relay.wait(20), (0, -signal.SIGTERM), log.read_text())
            finally:
                relay.kill()
                relay.wait()
            said = log.read_text()
            self.assertIn("Listening at", said)
            self.assertIsNone(re.search("Traceback|Unhandled", said), said)
