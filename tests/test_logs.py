"""What is written into the log, and what is not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from twisted.logger import Logger, LogLevel, LogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from wireleap_relay.config import ConfigError, LogSettings, parse_config
from wireleap_relay.logs import RelayLog, as_of_this_process, of_this_process


class LogTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.file = Path(self.mktemp())
        self.now = 1_700_000_000.0

    def log(self, format_: Any = "text", level: Any = "info") -> RelayLog:
        log = RelayLog(self.file, LogSettings(format_, level))
        self.addCleanup(log.close)
        return log

    def tell(self, log: RelayLog, format_: str, level: LogLevel = LogLevel.info, **fields: Any) -> None:
        publisher = LogPublisher(log, lambda event: None)
        publisher({"log_time": self.now, "log_level": level, "log_format": format_, "log_namespace": "a.b", **fields})

    def lines(self) -> list[str]:
        return self.file.read_text().splitlines()


class FormTests(LogTestCase):
    def test_for_people(self) -> None:
        log = self.log()
        self.tell(log, "Enrolled with {url}", url="http://c")
        self.tell(log, "It went\x1b[31m wrong", LogLevel.error)
        self.tell(log, "{line}", LogLevel.warn, line="a tunnel was long", worker=3)
        self.assertEqual(
            self.lines(),
            [
                "2023-11-14 22:13:20Z info  Enrolled with http://c",
                "2023-11-14 22:13:20Z error It went?[31m wrong",
                "2023-11-14 22:13:20Z warn  worker 3: a tunnel was long",
            ],
        )

    def test_for_programs(self) -> None:
        log = self.log("json")
        self.tell(log, "{count} tunnels of {url} were ended", count=3, url=Path("/x"), private="never")
        self.tell(log, "{line}", line="hé\nllo", worker=0)
        self.assertEqual(
            list(map(json.loads, self.lines())),
            [
                {
                    "time": "2023-11-14T22:13:20.000Z",
                    "level": "info",
                    "message": "3 tunnels of /x were ended",
                    "logger": "a.b",
                    "fields": {"count": 3, "url": "/x"},
                },
                {
                    "time": "2023-11-14T22:13:20.000Z",
                    "level": "info",
                    "message": "hé\nllo",
                    "logger": "a.b",
                    "worker": 0,
                },
            ],
        )

    def test_failures_have_their_traceback(self) -> None:
        try:
            raise ValueError("oh")
        except ValueError:
            failure = Failure()
        self.tell(self.log(), "It went wrong", LogLevel.critical, log_failure=failure)
        first, *rest = self.lines()
        self.assertTrue(first.endswith("critical It went wrong"))
        self.assertIn("    builtins.ValueError: oh", rest)
        self.tell(self.log("json"), "It went wrong", LogLevel.critical, log_failure=failure)
        self.assertIn("ValueError: oh", json.loads(self.lines()[-1])["traceback"])

    def test_what_twisted_says_is_for_programmers(self) -> None:
        quiet, loud = self.log(), self.log(level="debug")
        for log in (quiet, loud):
            self.tell(log, "reactor class", log_namespace="twisted.scripts")
            self.tell(log, "starting", log_namespace="log_legacy")
            self.tell(log, "it failed", log_namespace="log_legacy", isError=1)
        self.assertEqual(
            [line[21:] for line in self.lines()],
            ["error it failed", "debug reactor class", "debug starting", "error it failed"],
        )

    def test_levels(self) -> None:
        log = self.log(level="warn")
        for level in (LogLevel.debug, LogLevel.info, LogLevel.warn, LogLevel.critical):
            self.tell(log, level.name, level)
        log.apply(LogSettings(level="info"))
        self.tell(log, "later")
        self.assertEqual([line.split()[-1] for line in self.lines()], ["warn", "critical", "later"])

    def test_settings(self) -> None:
        with self.assertRaises(ConfigError) as wrong:
            parse_config('{"address": ":1", "contracts": {}, "log": {"format": "xml", "levle": 1}}')
        self.assertIn("log.format: expected one of text, json", str(wrong.exception))
        self.assertEqual(wrong.exception.warnings, ["log.levle: unknown key; did you mean level?"])

    def test_the_journal_gets_priorities(self) -> None:
        tell = (
            "import os, sys; from pathlib import Path; from twisted.logger import Logger;"
            "from wireleap_relay.config import LogSettings; from wireleap_relay.logs import RelayLog;"
            "found = os.fstat(1); log = RelayLog(None, LogSettings(),"
            " {'JOURNAL_STREAM': f'{found.st_dev}:{found.st_ino}'} if sys.argv[1:] else {});"
            "Logger(observer=log).warn('hello')"
        )
        for words, wanted in [(["journal"], r"<4>warn  hello\n"), ([], r"20\d\d-.*Z warn  hello\n")]:
            said = subprocess.run([sys.executable, "-c", tell, *words], stdout=subprocess.PIPE, env=_environment())
            self.assertRegex(said.stdout.decode(), f"^{wanted}$")


class RepetitionTests(LogTestCase):
    def test_the_same_line_is_told_once_a_minute(self) -> None:
        log = self.log()
        for _ in range(50):
            self.tell(log, "Out of {what}", LogLevel.error, what="disk")
            self.now += 1
        self.assertEqual(len(self.lines()), 1)
        self.now += 20
        self.tell(log, "Out of {what}", LogLevel.error, what="disk")
        self.assertEqual(
            [line[27:] for line in self.lines()],
            ["Out of disk", "Out of disk [49 more the same within 60 s]", "Out of disk"],
        )

    def test_lines_of_one_kind_are_counted_from_the_twentieth_on(self) -> None:
        log = self.log()
        for number in range(100):
            self.tell(log, "Tunnel {number} is odd", number=number)
        self.tell(log, "Something else")
        self.assertEqual(len(self.lines()), 21)
        self.now += 61
        self.tell(log, "A minute later")
        self.assertEqual(
            [line[27:] for line in self.lines()[20:]],
            ["Something else", "Tunnel 99 is odd [80 more such as this one within 60 s]", "A minute later"],
        )

    def test_a_clock_that_is_set_back_silences_nothing(self) -> None:
        log = self.log()
        self.tell(log, "Once")
        self.now -= 10_000
        self.tell(log, "Once")
        self.assertEqual(len(self.lines()), 2)


class FileTests(LogTestCase):
    def test_a_log_that_was_moved_away(self) -> None:
        log = self.log()
        self.tell(log, "before")
        moved = self.file.rename(self.file.with_suffix(".1"))
        self.tell(log, "meanwhile")
        log.reopen()
        self.tell(log, "after")
        self.assertEqual([line.split()[-1] for line in moved.read_text().splitlines()], ["before", "meanwhile"])
        self.assertEqual([line.split()[-1] for line in self.lines()], ["after"])
        self.assertEqual(self.file.stat().st_mode & 0o777, 0o640 & ~_umask())

    def test_a_disk_that_is_full(self) -> None:
        log = RelayLog(Path("/dev/full"), LogSettings())
        self.addCleanup(log.close)
        self.tell(log, "lost")
        self.tell(log, "lost, too")
        self.patch(log, "_path", self.file)
        log.reopen()
        self.tell(log, "kept")
        self.assertEqual([line[27:] for line in self.lines()], ["2 lines could not be written here", "kept"])

    def test_twistd_finds_it_by_its_name(self) -> None:
        log = self.log()
        self.assertEqual(as_of_this_process(log), "wireleap_relay.logs.of_this_process")
        self.assertIs(of_this_process(), log)
        Logger(observer=log).info("hello")
        self.assertIn("hello", self.file.read_text())


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}


def _umask() -> int:
    found = os.umask(0)
    os.umask(found)
    return found
