"""A daemon and workers that are not what they were: it believes nothing, and goes on."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import attrs
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from tests import test_relay
from tests.fuzz.boxes import box, count, deposit
from tests.fuzz.rig import CONTRACT
from tests.fuzz.workerrig import BAD, GOOD, Rig
from tests.tunnel.world import Target
from wireleap_relay.logs import Line, text_line
from wireleap_relay.tunnel.registry import TunnelCounts
from wireleap_relay.wire.keys import SigningKey
from wireleap_relay.workers.commands import LONGEST_LINE, Report, ReportText
from wireleap_relay.workers.health import ProcessStatus
from wireleap_relay.workers.link import _LONGEST_BOX, _MOST_LINES, _MOST_WAITING

KEY = str(CONTRACT.public_key)
STRANGE = str(SigningKey(bytes([8]) * 32).public_key)


def report(from_clients: int = 0, from_targets: int = 0, **more: Any) -> Report:
    return Report({KEY: from_clients}, {KEY: from_targets}, **more)


def changed(**fields: Any) -> bytes:
    """Write a report with something in it that no worker has."""
    data = {**json.loads(ReportText().toString(report(10, 20))), **fields}
    return box(_command=b"Count", report=json.dumps(data).encode())


def counts(**fields: Any) -> dict[str, Any]:
    return {**attrs.asdict(TunnelCounts()), **fields}


class RigTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.events: list[dict[str, Any]] = []
        globalLogPublisher.addObserver(self.events.append)
        self.addCleanup(globalLogPublisher.removeObserver, self.events.append)
        self.rig = Rig()
        self.addCleanup(self.rig.finish)

    def lines(self, of: str) -> list[str]:
        written = [text_line(Line.of(event)) for event in self.events]
        return [line for line in written if of in line]

    def carried(self) -> tuple[int, int]:
        meter = self.rig.meters.meter(CONTRACT.public_key)
        return meter.from_clients, meter.from_targets


class HonestTests(RigTestCase):
    def test_what_it_counts_is_counted_once(self) -> None:
        self.rig.say(count(report(100, 200, open={KEY: 3}, connections=2)))
        self.rig.say(count(report(100, 250)) + count(report(101, 250, open={KEY: 1}, connections=1)))
        self.assertEqual(self.carried(), (101, 250))
        status = self.rig.worker.status()
        self.assertEqual((status.connections, status.tunnels), (1, 1))

    def test_sharetokens_are_kept(self) -> None:
        self.rig.say(deposit(*GOOD[:3], ask=b"7"))
        self.assertNotIn(b"_answer", bytes(self.rig.end.sent))
        for outcome in (True, False, None):
            self.rig.keep(outcome)
        self.assertIn(box(_answer=b"7", outcomes=b"nuf"), bytes(self.rig.end.sent))

    def test_its_lines_are_told(self) -> None:
        self.rig.say(box(_command=b"Log", level=b"warn", namespace=b"test", line="so, so\n2026 é".encode()))
        [line] = self.lines("so, so")
        self.assertTrue(line.endswith("warn  worker 0: so, so\n    2026 é\n"), line)

    def test_one_that_could_not_do_something_has_told_why(self) -> None:
        for code in ({}, {"_error_code": b"UNHANDLED"}, {"_error_code": b"UNKNOWN"}):
            self.rig.plane.hurry()
            self.rig.say(box(_error=b"%x" % self.rig.worker._link._counter, _error_description=b"no", **code))
        self.assertEqual(len(self.lines("Worker 0 could not do what it was told")), 3)
        self.assertEqual(self.rig.distrusted, 0)


class NonsenseTests(RigTestCase):
    def assertEnded(self, *said: bytes) -> None:
        """Have something said that ends a worker, and another one take its place."""
        before, carried, kept = len(self.rig.reactor.processes), self.carried(), len(self.rig.kept)
        self.events.clear()
        for each in said:
            self.rig.say(each)
        self.rig.settle()
        self.assertEqual(len(self.lines("is ended for what it says")), 1, said)
        self.assertEqual(len(self.lines("has died; another one takes its place")), 1)
        self.assertEqual(self.lines("Traceback"), [])
        self.assertFalse(self.rig.reactor.processes[before - 1].alive)
        self.assertEqual((self.carried(), len(self.rig.kept)), (carried, kept))
        self.rig.pass_time(31.0)
        self.assertEqual(len(self.rig.reactor.processes), before + 1)

    def test_boxes(self) -> None:
        for said in (
            box(),
            box(x=b"y"),
            box(_command=b"Begin"),
            box(_command=b"Begin", _ask=b"1"),
            box(_command=b"\xff"),
            box(_command=b"Count"),
            box(_command=b"Count", _ask=b"1"),
            box(_command=b"Deposit"),
            box(_command=b"Log", level=b"info", namespace=b""),
            box(_command=b"Log", level=b"info", namespace=b"", line=b"\xff"),
            box(_command=b"Log", level=b"loud", namespace=b"", line=b""),
            box(_answer=b"77"),
            box(_error=b"77", _error_code=b"", _error_description=b""),
            b"\x01\x00",
            b"GET / HTTP/1.1\r\n",
        ):
            self.assertEnded(said)

    def test_a_box_without_end(self) -> None:
        pieces = [b"\0\4%04d\xff\xff" % number + bytes(65_535) for number in range(_LONGEST_BOX // 65_000 + 1)]
        self.assertEnded(*pieces)

    def test_only_the_first_nonsense_is_told_of(self) -> None:
        self.assertEnded(box(x=b"y") * 500 + count(report(5, 5)) + deposit(GOOD[0]))

    def test_reports(self) -> None:
        for fields in (
            {"from_clients": {KEY: -1}},
            {"from_clients": {KEY: 2**63}},
            {"from_clients": {KEY: 1.5}},
            {"from_clients": {KEY: "10"}},
            {"from_clients": {}},
            {"from_clients": {KEY: 10, STRANGE: 1}, "from_targets": {KEY: 20, STRANGE: 1}},
            {"from_clients": {KEY: 10, "x": 1}, "from_targets": {KEY: 20, "x": 1}},
            {"open": {KEY: -1}},
            {"open": {STRANGE: 1}},
            {"connections": -1},
            {"tunnels": counts(open=-1)},
            {"tunnels": counts(dial_times=[0])},
            {"tunnels": counts(dial_times=[-1] * 11)},
            {"tunnels": counts(dial_seconds="nan")},
            {"tunnels": counts(dial_seconds=-1.0)},
            {"tunnels": counts(refused={"token": -1})},
            {"tunnels": counts(refused={'"} 1\nx': 1})},
            {"tunnels": counts(dials={"nobody": 1})},
            {"tunnels": counts(handshakes={"perhaps": 1})},
            {"tunnels": counts(offences={"none": 1})},
            {"process": {**attrs.asdict(ProcessStatus()), "lag": "inf"}},
            {"process": None},
        ):
            self.assertEnded(changed(**fields))

    def test_what_is_not_json(self) -> None:
        for text in (b"", b"[]", b"null", b"[" * 60_000, b"9" * 60_000, b'{"a":1,"a":2}', b"\xff"):
            self.assertEnded(box(_command=b"Count", report=text))

    def test_what_was_counted_can_not_be_taken_back(self) -> None:
        for less in (report(999, 1000), report(1000, 999), Report()):
            self.rig.say(count(report(1000, 1000)))
            self.assertEnded(count(less))

    def test_more_than_any_process_can_carry(self) -> None:
        self.rig.say(count(report(2**34, 0)))  # in its first second
        self.assertEqual(self.carried(), (2**34, 0))
        self.assertEnded(count(report(2**34, 1)))

    def test_sharetokens_that_are_none(self) -> None:
        for token in BAD:
            self.assertEnded(deposit(GOOD[0], token))

    def test_descriptors(self) -> None:
        def passes() -> None:
            descriptor = os.open(os.devnull, os.O_RDONLY)
            self.rig.worker._link.fileDescriptorReceived(descriptor)  # type: ignore[union-attr]
            self.assertRaises(OSError, os.fstat, descriptor)

        self.patch(self.rig, "say", lambda _: passes())
        self.assertEnded(b"")


class LoadTests(RigTestCase):
    def test_one_with_much_to_say(self) -> None:
        for number in range(_MOST_LINES * 2):
            self.rig.say(box(_command=b"Log", level=b"error", namespace=b"%d" % number, line=b"line %d" % number))
        self.assertEqual(len(self.lines("worker 0: line")), _MOST_LINES - 1)
        self.assertEqual(len(self.lines("Worker 0 has more to say")), 1)
        self.rig.pass_time(61.0)
        self.rig.say(box(_command=b"Log", level=b"error", namespace=b"", line=b"line again" * 6000))
        [line] = self.lines("line again")
        self.assertLess(len(line), LONGEST_LINE + 100)

    def test_one_that_deposits_faster_than_the_disk_keeps(self) -> None:
        for _ in range(1000):
            self.rig.end.feed(deposit(*GOOD))
        self.rig.settle()
        self.assertLess(len(self.rig.deposits), _MOST_WAITING + 500)
        self.rig.pass_time(100.0)  # it is not the worker that stands still
        self.assertEqual(len(self.rig.reactor.processes), 1)
        while any(not each.called for each in self.rig.deposits):
            for each in list(self.rig.deposits):
                if not each.called:
                    each.callback(True)
            self.rig.settle()
        self.assertEqual(len(self.rig.kept), 4000)

    def test_one_that_reads_no_answers_is_not_heard(self) -> None:
        self.rig.end.room = 0
        self.rig.end.feed(count(report(), _ask=b"1") * 100_000)
        self.rig.settle()
        self.assertGreater(len(self.rig.end._incoming), 10**7)
        self.rig.end.room = 2**30
        self.rig.settle()
        self.assertEqual(len(self.rig.end._incoming), 0)
        self.assertEqual(self.rig.distrusted, 0)


class LifeTests(RigTestCase):
    def test_one_that_hangs_up_and_lives_on_is_ended(self) -> None:
        self.rig.end.eof = True
        self.rig.settle()
        first, *_ = self.rig.reactor.processes
        self.rig.pass_time(4.0)
        self.assertTrue(first.alive)
        self.rig.pass_time(2.0)
        self.assertFalse(first.alive)
        self.assertEqual(len(self.lines("does not end by itself")), 1)

    def test_one_that_reads_nothing_and_says_nothing_is_ended(self) -> None:
        self.rig.end.room = 0
        self.rig.pass_time(59.0)
        self.assertTrue(self.rig.reactor.processes[0].alive)
        self.rig.pass_time(2.0)
        self.assertFalse(self.rig.reactor.processes[0].alive)
        self.assertEqual(len(self.lines("has not been heard of for 60 s")), 1)

    def test_where_there_is_no_room_for_another_one_it_is_tried_again(self) -> None:
        self.rig.reactor.short = True
        self.rig.reactor.processes[0].end()
        self.rig.settle()
        for _ in range(40):
            self.rig.pass_time(1.0)
        self.assertGreater(len(self.lines("could not be started (Resource temporarily unavailable)")), 2)
        self.assertEqual(self.rig.worker.status().state, "gone")
        self.rig.reactor.short = False
        self.rig.pass_time(31.0)
        self.assertEqual(len(self.rig.reactor.processes), 2)
        self.rig.say(count(report(1, 1, process=ProcessStatus(memory=1))))
        self.assertEqual((self.rig.worker.status().state, self.carried()), ("running", (1, 1)))


class TakenOverTests(test_relay.RelayTestCase):
    """A whole relay, with real processes."""

    workers = 1

    def setUp(self) -> None:
        super().setUp()
        self.program = Path(self.mktemp()).absolute()
        self.program.write_text("#!/bin/sh\nprintf 'nonsense' >&3\nexec sleep 600\n")
        self.program.chmod(0o700)

    async def test_one_that_talks_nonsense_is_replaced(self) -> None:
        relay = self.make()
        taken_over = self.patch(sys, "executable", str(self.program))
        self.start(relay)
        taken_over.restore()
        plane = relay.parts.plane
        first = plane.status().workers[0].pid
        await self.until(lambda: plane.status().workers[0].state == "running", 20)
        self.assertEqual(plane.status().workers[0].restarts, 1)
        self.assertRaises(ProcessLookupError, os.kill, first, 0)
        reader = await self.tunnel(await self.circuit_through(relay), self.target(Target))
        reader.tunnel.write(b"hello")
        await reader.at_least(5)
