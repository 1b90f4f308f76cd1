"""The machine by itself, and the waits between its attempts."""

from __future__ import annotations

from itertools import pairwise

from automat import NoTransition
from twisted.trial.unittest import SynchronousTestCase

from wireleap_relay.contracts.machine import backoff, enrollment


class Notebook:
    """A desk that only notes what is asked of it."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def __getattr__(self, verb: str) -> object:
        return lambda: self.notes.append(verb)


class Machine(SynchronousTestCase):
    def run_through(self, *inputs: str) -> list[str]:
        """Give what the desk was asked for."""
        desk = Notebook()
        machine = enrollment(desk)  # type: ignore[arg-type]
        for name in inputs:
            getattr(machine, name)()
        return desk.notes

    def test_a_life(self) -> None:
        notes = self.run_through("start", "accepted", "stop", "left")
        self.assertEqual(notes, ["enroll", "open", "close", "leave", "finish"])

    def test_failures_are_waited_out(self) -> None:
        notes = self.run_through("start", "failed", "waited", "failed", "waited", "accepted")
        self.assertEqual(notes, ["enroll", "wait", "enroll", "wait", "enroll", "open"])

    def test_a_relay_that_is_dropped_enrolls_again(self) -> None:
        notes = self.run_through("start", "accepted", "dropped", "waited", "accepted")
        self.assertEqual(notes, ["enroll", "open", "close", "wait", "enroll", "open"])

    def test_stopping_while_enrolling(self) -> None:
        self.assertEqual(self.run_through("start", "stop"), ["enroll", "give_up", "leave"])

    def test_stopping_while_waiting(self) -> None:
        notes = self.run_through("start", "failed", "stop", "left")
        self.assertEqual(notes[2:], ["stop_waiting", "leave", "finish"])

    def test_stopping_before_starting(self) -> None:
        self.assertEqual(self.run_through("stop"), ["finish"])

    def test_starting_again(self) -> None:
        self.assertEqual(self.run_through("start", "accepted", "stop", "left", "start")[-1], "enroll")

    def test_a_farewell_cannot_be_interrupted(self) -> None:
        with self.assertRaises(NoTransition):
            self.run_through("start", "stop", "start")


class Backoff(SynchronousTestCase):
    def test_it_doubles_from_five_seconds_to_five_minutes(self) -> None:
        waits = [backoff(failures, 0.5) for failures in range(1, 12)]
        self.assertEqual(waits[:6], [5, 10, 20, 40, 80, 160])
        self.assertEqual(set(waits[6:]), {300})
        self.assertTrue(all(shorter <= longer for shorter, longer in pairwise(waits)))

    def test_chance_spreads_it_by_a_quarter(self) -> None:
        self.assertEqual((backoff(1, 0.0), backoff(1, 1.0)), (3.75, 6.25))

    def test_any_number_of_failures_will_do(self) -> None:
        self.assertEqual((backoff(0, 0.5), backoff(10**6, 0.5)), (5, 300))
