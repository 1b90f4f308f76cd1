"""What a relay says to a supervisor such as systemd, and what it is given by one."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from typing import Any

from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests import test_relay
from tests.daemon.homes import ROOT, DaemonTestCase
from tests.tunnel.world import reactor
from wireleap_relay.daemon.notify import Notifier
from wireleap_relay.daemon.resources import activated_sockets, raise_open_files
from wireleap_relay.tunnel.probe import probe
from wireleap_relay.wire.address import Address


class NotifyTests(DaemonTestCase):
    def listen(self, address: str | bytes) -> socket.socket:
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(listening.close)
        listening.bind(address)
        listening.settimeout(20)
        return listening

    def hear(self, listening: socket.socket, until: str) -> list[str]:
        """Receive fields until one of them comes, and give all."""
        said: list[str] = []
        while until not in said:
            said += listening.recv(4096).decode().splitlines()
        return said

    def run_relay(self, notify: str, **environment: str) -> subprocess.Popen[bytes]:
        log = (self.home.path / "log").open("wb")
        self.addCleanup(log.close)
        process = subprocess.Popen(
            [sys.executable, "-m", "wireleap_relay", "--home", str(self.home.path), "start", "--fg"],
            env={**os.environ, "NOTIFY_SOCKET": notify, **environment},
            stdout=log,
            stderr=log,
        )
        self.addCleanup(lambda: (process.kill(), process.wait()))
        return process

    def test_a_life(self) -> None:
        folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, folder)
        listening = self.listen(f"{folder}/notify")
        self.write_config(workers=1, drain_timeout="2s")
        process = self.run_relay(f"{folder}/notify", WATCHDOG_USEC="400000")
        said = self.hear(listening, "READY=1")
        self.assertEqual(said[0], "X_WIRELEAP_LISTENING=1")
        self.assertIn("WATCHDOG=1", said)
        self.assertTrue([field for field in said if field.startswith("STATUS=Backing off: ")], said)
        self.hear(listening, "WATCHDOG=1")
        self.hear(listening, "WATCHDOG=1")
        before = time.monotonic_ns() // 1000
        process.send_signal(signal.SIGUSR1)
        said = self.hear(listening, "READY=1")
        [at] = [int(field.partition("=")[2]) for field in said if field.startswith("MONOTONIC_USEC=")]
        self.assertEqual(said[said.index("RELOADING=1") + 1], f"MONOTONIC_USEC={at}")
        self.assertTrue(before <= at <= time.monotonic_ns() // 1000)
        process.send_signal(signal.SIGTERM)
        said = self.hear(listening, "STOPPING=1")
        self.assertEqual(said[-2:], ["STATUS=Stopping: open tunnels may finish", "EXTEND_TIMEOUT_USEC=17000000"])
        self.assertEqual(process.wait(20), 0)
        listening.settimeout(0)
        with self.assertRaises(BlockingIOError):
            while True:  # nothing but the watchdog's food may come any more
                self.assertEqual(listening.recv(4096), b"WATCHDOG=1\n")

    def test_a_reactor_that_hangs_does_not_feed_the_watchdog(self) -> None:
        listening = self.listen(b"\0wireleap-relay-test-%d" % os.getpid())
        self.write_config()
        process = self.run_relay(f"@wireleap-relay-test-{os.getpid()}", WATCHDOG_USEC="200000")
        self.hear(listening, "READY=1")
        process.send_signal(signal.SIGSTOP)
        time.sleep(0.1)
        listening.settimeout(0)
        with self.assertRaises(BlockingIOError):
            while True:
                listening.recv(4096)
        listening.settimeout(0.5)
        with self.assertRaises(TimeoutError):
            listening.recv(4096)

    def test_nobody_listens(self) -> None:
        for address in (None, "", "/no/such", "@nobody"):
            notifier = Notifier(address)
            self.assertEqual(notifier.is_heard, bool(address))
            notifier.tell(READY=1)

    def test_processes_that_are_started_later_do_not_talk(self) -> None:
        environment = {"NOTIFY_SOCKET": "/no/such", "OTHER": "1"}
        Notifier.from_environment(environment)
        self.assertEqual(environment, {"OTHER": "1"})


#: Runs the words that follow as systemd would: with a socket as file descriptor 3.
_ACTIVATE = (
    "import os, sys; os.dup2(int(sys.argv[1]), 3); os.environ['LISTEN_PID'] = str(os.getpid());"
    "os.execv(sys.executable, [sys.executable, *sys.argv[2:]])"
)


def _activated(handed: socket.socket, *words: str) -> list[str]:
    return [sys.executable, "-c", _ACTIVATE, str(handed.fileno()), *words]


class ActivationTests(test_relay.RelayTestCase):
    async def serve(self, workers: int) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            port = listening.getsockname()[1]
            # The config's own address is not for it to bind: somebody else's port.
            self.write_config(
                self.contract_config(address=f"wireleap://127.0.0.1:{port}"), workers=workers, address="127.0.0.1:1"
            )
            relay = subprocess.Popen(  # noqa: ASYNC220 - it is given no time to do anything
                _activated(listening, "-m", "wireleap_relay", "--home", str(self.home.path), "start", "--fg"),
                pass_fds=[listening.fileno()],
                env={**os.environ, "PYTHONPATH": str(ROOT), "LISTEN_FDS": "1", "LISTEN_FDNAMES": "x"},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
        self.addCleanup(lambda: (relay.kill(), relay.wait(), relay.stdout and relay.stdout.close()))
        address = Address.from_text(f"wireleap://127.0.0.1:{port}")
        for _ in range(3):  # the first waits in the queue until the relay is there
            await probe(reactor, address, self.identity.key.public_key, 20)
        relay.terminate()
        said, _ = await deferToThread(relay.communicate)
        self.assertIn(f"Clients come in at 127.0.0.1:{port}, by a socket that was handed over", said.decode())
        self.assertNotIn("Traceback", said.decode())

    async def test_in_the_daemon(self) -> None:
        await self.serve(0)

    async def test_in_workers(self) -> None:
        await self.serve(2)


class ResourceTests(SynchronousTestCase):
    def test_sockets_of_others_are_left_alone(self) -> None:
        for pid in ("", "1"):
            self.assertEqual(activated_sockets({"LISTEN_PID": pid, "LISTEN_FDS": "1"}), [])

    def test_what_does_not_listen(self) -> None:
        program = (
            "import os; from wireleap_relay.daemon.resources import activated_sockets;"
            "activated_sockets({'LISTEN_PID': str(os.getpid()), 'LISTEN_FDS': '1'})"
        )
        ours, theirs = socket.socketpair()
        with ours, theirs:
            command = _activated(theirs, "-c", program)
            environment = {**os.environ, "PYTHONPATH": str(ROOT)}
            said = subprocess.run(command, pass_fds=[theirs.fileno()], env=environment, capture_output=True, text=True)
        self.assertIn("file descriptor 3 does not listen for connections", said.stderr)

    def test_open_files(self) -> None:
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, before)
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
        self.assertEqual(raise_open_files(), before[1])
        self.assertEqual(resource.getrlimit(resource.RLIMIT_NOFILE), (before[1], before[1]))


class FewFilesTests(DaemonTestCase):
    def test_few_files_are_warned_about(self) -> None:
        self.write_config()
        self.launch(["sh", "-c", 'ulimit -n 300; exec "$@"', "sh", sys.executable, "-m", "wireleap_relay"])
        self.assertIn("warn  No more than 300 files may be open", self.home.log.read_text())


class UnitTests(SynchronousTestCase):
    units = ROOT / "contrib" / "systemd"

    def analyze(self, *words: str, **environment: Any) -> subprocess.CompletedProcess[str]:
        program = shutil.which("systemd-analyze")
        if program is None:
            raise SkipTest("systemd-analyze is not there: it comes with Debian's systemd")
        return subprocess.run([program, *words], capture_output=True, text=True, timeout=60)

    def test_they_are_right(self) -> None:
        said = self.analyze("verify", *map(str, self.units.iterdir())).stderr.splitlines()
        # That one is to be installed.
        self.assertEqual([line for line in said if "/usr/local/bin/wireleap-relay is not executable" not in line], [])

    def test_they_leave_little_to_an_attacker(self) -> None:
        said = self.analyze("security", "--offline=true", "--threshold=20", str(self.units / "wireleap-relay.service"))
        self.assertEqual(said.returncode, 0, said.stdout + said.stderr)
