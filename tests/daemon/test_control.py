"""Starting, finding and stopping daemons, with real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from tests.daemon.homes import RELAY, DaemonTestCase
from wireleap_relay.daemon import control
from wireleap_relay.daemon.control import DaemonError, Launched, LaunchFailed, NotRunning, launch, send, stop
from wireleap_relay.daemon.lock import HomeLock, HomeTaken
from wireleap_relay.daemon.state import look
from wireleap_relay.home import HomeError

_LISTENS = (
    "import os, socket, time;"
    "s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); s.connect(os.environ['NOTIFY_SOCKET']);"
    "s.send(b'X_WIRELEAP_LISTENING=1\\nSTATUS=half way');"
)


class LifeTests(DaemonTestCase):
    def test_from_start_to_stop(self) -> None:
        self.write_config()
        heard: list[dict[str, str]] = []
        self.assertEqual(self.state(), "stopped")
        launched = self.launch(heard=heard.append)
        self.assertTrue(launched.ready)
        self.assertRegex(launched.said, "Backing off: .*404.*; 0 tunnels")
        self.assertIn({"X_WIRELEAP_LISTENING": "1"}, heard)
        state = look(self.home)
        self.assertEqual((state.kind, state.pid, state.ours, state.why), ("running", launched.pid, True, ""))
        self.assertEqual(self.home.pid.read_text(), str(launched.pid))
        with self.assertRaises(HomeTaken) as taken:
            self.launch()
        self.assertEqual(taken.exception.pid, launched.pid)
        self.assertEqual(send(self.home, signal.SIGUSR1), launched.pid)
        self.until(lambda: "The config has been read again" in self.home.log.read_text())
        moved = self.home.log.rename(self.home.path / "old.log")
        send(self.home, signal.SIGHUP)
        self.until(lambda: self.home.log.exists() and "goes on in this file" in self.home.log.read_text())
        stopped = stop(self.home, patience=20)
        self.assertEqual((stopped.pid, stopped.how), (launched.pid, "ended"))
        self.assertTrue(self.home.log.read_text().endswith("info  The relay has stopped\n"))
        self.assertNotIn("The relay has stopped", moved.read_text())
        self.assertEqual(launched.process.wait(5), 0)
        self.assertEqual(self.state(), "stopped")
        self.assertFalse(self.home.pid.exists())
        for ask in (lambda: stop(self.home, patience=1), lambda: send(self.home, signal.SIGUSR1)):
            with self.assertRaisesRegex(NotRunning, "not running"):
                ask()

    def test_its_descriptors_are_its_own(self) -> None:
        """No worker keeps the lock of a daemon that was killed."""
        self.write_config(workers=1)
        launched = self.launch()
        self.assertTrue(Path(f"/proc/{launched.pid}/task/{launched.pid}/children").read_text().split())
        self.end(launched)
        self.assertEqual(self.state(), "stopped")
        self.assertIn("no process", look(self.home).why)
        self.launch()

    def test_two_starts_at_once(self) -> None:
        self.write_config()
        outcomes: list[object] = []

        def start() -> None:
            try:
                outcomes.append(launch(self.home, RELAY, patience=20.0))
            except (LaunchFailed, HomeTaken) as e:
                outcomes.append(e)

        threads = [threading.Thread(target=start) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for outcome in outcomes:
            if isinstance(outcome, Launched):
                self.addCleanup(self.end, outcome)
        failed = [outcome for outcome in outcomes if isinstance(outcome, Exception)]
        self.assertEqual(len(failed), 2, outcomes)
        for failure in failed:
            said = str(failure) + "\n".join(getattr(failure, "log", []))
            self.assertRegex(said, "a relay (is just being started|runs as process [0-9]+) already, out of")

    def test_a_successor_starts_beside_the_relay_and_takes_its_place(self) -> None:
        self.write_config()
        first = self.launch()
        self.write_config()  # at another port
        with self.assertRaises(HomeTaken):
            self.launch(succeeding=first.pid + 1)
        second = self.launch(patience=20.0, succeeding=first.pid)
        self.assertEqual((look(self.home).pid, self.home.pid.read_text()), (first.pid, str(first.pid)))
        self.assertEqual(stop(self.home, patience=20).pid, first.pid)
        self.until(lambda: look(self.home).pid == second.pid)
        self.assertEqual(self.home.pid.read_text(), str(second.pid))
        self.assertIsNone(second.process.poll())


class FailedLaunchTests(DaemonTestCase):
    def test_the_log_tells_why(self) -> None:
        self.home.log.write_text("of another day\n")
        with self.assertRaisesRegex(LaunchFailed, "exit code 1") as failed:
            self.launch()
        self.assertEqual(
            failed.exception.log[0].split(": ", 1)[1],
            f"{self.home.config} is missing: make it out of config.example.json",
        )
        self.assertTrue(self.home.log.read_text().startswith("of another day\n"))

    def test_one_that_is_killed_while_it_starts(self) -> None:
        with self.assertRaisesRegex(LaunchFailed, "ended by SIGKILL"):
            self.launch(self.script("import os; os.kill(os.getpid(), 9)"))

    def test_one_that_hangs(self) -> None:
        with self.assertRaisesRegex(LaunchFailed, "did not begin to listen within 0.5 s, and was killed"):
            self.launch(self.script("import time; time.sleep(60)"), patience=0.5)

    def test_one_that_dies_after_it_began_to_listen(self) -> None:
        with self.assertRaisesRegex(LaunchFailed, "exit code 7"):
            self.launch(self.script(_LISTENS + "print('oh'); exit(7)"))

    def test_one_that_listens_and_takes_its_time(self) -> None:
        launched = self.launch(self.script(_LISTENS + "time.sleep(60)"), patience=0.5)
        self.assertEqual((launched.ready, launched.said), (False, "half way"))

    def test_no_such_program(self) -> None:
        with self.assertRaisesRegex(DaemonError, "/no/such can't be run: No such file"):
            self.launch(["/no/such"])

    def test_a_log_that_can_not_be_written(self) -> None:
        self.home.log.mkdir()
        with self.assertRaisesRegex(DaemonError, "wireleap-relay.log can't be written: Is a directory"):
            self.launch()


class StopTests(DaemonTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.patch(control, "_ENDING", 0.5)

    def hold(self, then: str) -> int:
        """Run a daemon that holds the home, and behaves otherwise as it likes."""
        program = (
            "import os, signal, sys, time; from pathlib import Path;"
            "from wireleap_relay.daemon.lock import HomeLock; from wireleap_relay.home import Home;"
            f"lock = HomeLock.take(Home(Path({str(self.home.path)!r})), {{}}); {then}"
        )
        process = subprocess.Popen([sys.executable, "-c", program], env=os.environ)
        self.addCleanup(lambda: (process.kill(), process.wait()))
        threading.Thread(target=process.wait, daemon=True).start()
        self.until(lambda: look(self.home).pid == process.pid)
        return process.pid

    def test_one_that_does_not_listen_to_reason_is_killed(self) -> None:
        pid = self.hold("signal.signal(signal.SIGTERM, signal.SIG_IGN); lock.sign(); time.sleep(60)")
        began = time.monotonic()
        stopped = stop(self.home, patience=0.3)
        self.assertEqual((stopped.pid, stopped.how), (pid, "killed"))
        self.assertLess(time.monotonic() - began, 9)

    def test_one_that_hangs_is_hurried_as_soon_as_that_is_known(self) -> None:
        pid = self.hold(
            "signal.signal(signal.SIGTERM, lambda *_: signal.signal(signal.SIGTERM, signal.SIG_DFL)); lock.sign()\nwhile 1: time.sleep(60)"
        )
        stopped = stop(self.home, patience=60, goes_on=lambda: time.sleep(0.3))
        self.assertEqual((stopped.pid, stopped.how), (pid, "hurried"))

    def test_another_programs_process_is_left_alone(self) -> None:
        self.home.pid.write_text(str(os.getpid()))
        state = look(self.home)
        self.assertEqual(state.kind, "stopped")
        self.assertRegex(state.why, f"left over: process {os.getpid()} is .* now")
        with self.assertRaises(NotRunning):
            stop(self.home, patience=1)

    def test_another_makes_relay_is_asked_and_never_killed(self) -> None:
        program = "trap '' TERM; touch up; while :; do sleep 0.1; done"
        words = ["./wireleap-relay", "-c", program]
        process = subprocess.Popen(words, executable="/bin/sh", cwd=self.home.path)
        self.addCleanup(lambda: (process.kill(), process.wait()))
        self.home.pid.write_text(str(process.pid))
        self.until(lambda: (self.home.path / "up").exists())
        self.assertEqual(self.state(), "running")
        self.assertFalse(look(self.home).ours)
        with self.assertRaises(HomeTaken):
            self.launch()
        with self.assertRaisesRegex(DaemonError, "was not killed"):
            stop(self.home, patience=0.2)
        self.assertIsNone(process.poll())


class LookTests(DaemonTestCase):
    def test_pid_files_that_are_left_over(self) -> None:
        for text, why in [("", "holds no process id"), ("x", "holds no process id"), ("4194305", "no process 4194305")]:
            self.home.pid.write_text(text)
            state = look(self.home)
            self.assertEqual(state.kind, "stopped")
            self.assertIn(why, state.why)

    def test_what_can_not_be_told(self) -> None:
        self.home.pid.mkdir()
        state = look(self.home)
        self.assertEqual(state.kind, "unknown")
        self.assertIn("Is a directory", state.why)
        with self.assertRaisesRegex(DaemonError, "can't be told whether the relay is running"):
            send(self.home, signal.SIGUSR1)

    def test_one_that_has_not_said_its_name(self) -> None:
        lock = HomeLock.take(self.home, {})
        self.assertEqual((self.state(), look(self.home).pid), ("running", None))
        with self.assertRaisesRegex(DaemonError, "just being started"):
            send(self.home, signal.SIGUSR1)
        with self.assertRaisesRegex(HomeTaken, "just being started"):
            HomeLock.take(self.home, {})
        lock.release()
        self.assertEqual(self.state(), "stopped")

    def test_a_home_that_can_not_be_written(self) -> None:
        self.home.lock.mkdir()
        with self.assertRaisesRegex(HomeError, "wireleap-relay.lock can't be written: Is a directory"):
            HomeLock.take(self.home, {})
