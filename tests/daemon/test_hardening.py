"""What a daemon does about itself: no core dumps, files of its own, no rights that it has no use for."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from wireleap_relay.daemon.hardening import account_for
from wireleap_relay.home import Home, HomeError
from wireleap_relay.sandbox.relays import free_port

_NOBODY = "nobody"


class AccountTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.home = Home(Path(self.mktemp()))
        self.home.path.mkdir()

    def test_whose_rights_they_are(self) -> None:
        self.assertIsNone(account_for(None, self.home))
        self.assertIsNone(account_for(pwd.getpwuid(os.geteuid()).pw_name, self.home))

    def test_nobody_knows_them(self) -> None:
        with self.assertRaises(HomeError) as caught:
            account_for("no-such-user", self.home)
        self.assertIn("this machine knows no user no-such-user", str(caught.exception))

    def test_only_root_becomes_another(self) -> None:
        self.patch(os, "geteuid", lambda: 12345)
        with self.assertRaises(HomeError) as caught:
            account_for(_NOBODY, self.home)
        self.assertIn("only root can become nobody", str(caught.exception))

    def test_the_home_has_to_be_theirs(self) -> None:
        self.patch(os, "geteuid", lambda: 0)
        if os.stat(self.home.path).st_uid == pwd.getpwnam(_NOBODY).pw_uid:
            raise SkipTest("these tests are run by nobody")
        with self.assertRaises(HomeError) as caught:
            account_for(_NOBODY, self.home)
        self.assertIn("chown -R nobody", str(caught.exception))


class DaemonTests(SynchronousTestCase):
    """A relay's process, looked at from outside."""

    def start(self, **config: object) -> tuple[Home, int]:
        # Where others get to: trial's own folder may be out of their reach.
        folder = Path(tempfile.mkdtemp(prefix="wireleap-hardening-"))
        self.addCleanup(shutil.rmtree, folder)
        self.home = home = Home(folder)
        self.run_("init")
        contract = {"http://127.0.0.1:9/contract": {"address": "wireleap://127.0.0.1:1", "role": "entropic"}}
        fields = {"address": f"127.0.0.1:{free_port()}", "contracts": contract, "workers": 0, **config}
        home.config.write_text(json.dumps(fields))
        if "user" in config:
            shutil.chown(folder, _NOBODY)
            for file in folder.iterdir():
                shutil.chown(file, _NOBODY)
        process = subprocess.Popen(
            self.command("start", "--fg"), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self.addCleanup(process.stdout.close)  # type: ignore[union-attr]
        self.addCleanup(process.wait, 20)
        self.addCleanup(process.send_signal, signal.SIGTERM)
        deadline = time.monotonic() + 20
        while not home.pid.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                self.fail(process.communicate()[0])
            time.sleep(0.05)
        time.sleep(0.5)
        return home, process.pid

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "wireleap_relay", "--home", str(self.home.path), *words]

    def run_(self, *words: str) -> None:
        subprocess.run(self.command(*words), check=True, capture_output=True)

    def test_secrets_and_core_dumps(self) -> None:
        home, pid = self.start()
        limits = dict(line.split("  ", 1) for line in Path(f"/proc/{pid}/limits").read_text().splitlines())
        self.assertEqual(limits["Max core file size"].split()[:2], ["1", "1"])
        soft, hard = limits["Max open files"].split()[:2]
        self.assertEqual(soft, hard)
        secret = [home.key_seed, home.tls_key, *home.sharetokens.rglob("*")]
        self.assertGreaterEqual(len(secret), 3)
        for file in secret:
            mode = file.stat().st_mode
            self.assertEqual(stat.S_IMODE(mode) & 0o077, 0, f"{file}: {mode:o}")

    def test_rights_are_given_up(self) -> None:
        if os.geteuid():
            raise SkipTest("these tests are not run by root")
        try:
            subprocess.run([sys.executable, "-c", "import json"], user=_NOBODY, check=True, capture_output=True)
        except (PermissionError, subprocess.CalledProcessError):
            raise SkipTest("this Python lies where only root gets to") from None
        privileged = next(port for port in range(1023, 700, -1) if _is_free(port))
        home, pid = self.start(user=_NOBODY, address=f"127.0.0.1:{privileged}")
        status = dict(
            line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line
        )
        nobody = pwd.getpwnam(_NOBODY)
        self.assertEqual(set(status["Uid"].split()), {str(nobody.pw_uid)})
        self.assertEqual(set(status["Gid"].split()), {str(nobody.pw_gid)})
        self.assertEqual(int(status["CapEff"], 16), 0)
        for file in home.path.rglob("*"):
            self.assertEqual(file.stat().st_uid, nobody.pw_uid, file)


def _is_free(port: int) -> bool:
    try:
        with socket.create_server(("127.0.0.1", port)):
            return True
    except OSError:
        return False
