"""The machine by itself: every input in every state, and the waits between attempts."""

from __future__ import annotations

from itertools import pairwise, product
from typing import get_args

from automat import NoTransition
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from hypothesis.strategies import sampled_from
from twisted.trial.unittest import SynchronousTestCase

from wireleap_relay.contracts.machine import Enrollment, State, backoff, enrollment

STATES = get_args(State)
INPUTS = [name for name in vars(Enrollment) if not name.startswith("_")]

#: The shortest way into each state.
WAYS: dict[str, list[str]] = {
    "waiting": [],
    "enrolling": ["start"],
    "enrolled": ["start", "accepted"],
    "backing off": ["start", "failed"],
    "soft-limited": ["start", "accepted", "soft_limit_reached"],
    "hard-limited": ["start", "accepted", "hard_limit_reached"],
    "draining": ["start", "accepted", "stop"],
    "withdrawn": ["start", "accepted", "stop", "drained"],
}

#: What the desk is asked for in each state upon each input. What is not here is refused.
EXPECTED: dict[tuple[str, str], tuple[str, str]] = {
    ("waiting", "start"): ("enrolling", "enroll"),
    ("waiting", "soft_limit_reached"): ("waiting", ""),
    ("waiting", "hard_limit_reached"): ("waiting", ""),
    ("waiting", "limit_lifted"): ("waiting", ""),
    ("waiting", "changed"): ("waiting", ""),
    ("waiting", "stop"): ("withdrawn", "finish"),
    ("enrolling", "accepted"): ("enrolled", "announce"),
    ("enrolling", "failed"): ("backing off", "wait"),
    ("enrolling", "soft_limit_reached"): ("soft-limited", "give_up disenroll"),
    ("enrolling", "hard_limit_reached"): ("hard-limited", "give_up close_tunnels disenroll"),
    ("enrolling", "limit_lifted"): ("enrolling", ""),
    ("enrolling", "changed"): ("enrolling", "give_up enroll"),
    ("enrolling", "stop"): ("draining", "give_up drain"),
    ("enrolled", "dropped"): ("backing off", "refuse_tunnels wait"),
    ("enrolled", "soft_limit_reached"): ("soft-limited", "refuse_tunnels disenroll"),
    ("enrolled", "hard_limit_reached"): ("hard-limited", "refuse_tunnels close_tunnels disenroll"),
    ("enrolled", "limit_lifted"): ("enrolled", ""),
    ("enrolled", "changed"): ("enrolled", "beat"),
    ("enrolled", "stop"): ("draining", "refuse_tunnels drain"),
    ("backing off", "waited"): ("enrolling", "enroll"),
    ("backing off", "soft_limit_reached"): ("soft-limited", "stop_waiting disenroll"),
    ("backing off", "hard_limit_reached"): ("hard-limited", "stop_waiting close_tunnels disenroll"),
    ("backing off", "limit_lifted"): ("backing off", ""),
    ("backing off", "changed"): ("enrolling", "stop_waiting enroll"),
    ("backing off", "stop"): ("draining", "stop_waiting drain"),
    ("soft-limited", "soft_limit_reached"): ("soft-limited", ""),
    ("soft-limited", "hard_limit_reached"): ("hard-limited", "close_tunnels"),
    ("soft-limited", "limit_lifted"): ("enrolling", "give_up enroll"),
    ("soft-limited", "changed"): ("soft-limited", ""),
    ("soft-limited", "stop"): ("draining", "give_up drain"),
    ("hard-limited", "soft_limit_reached"): ("soft-limited", ""),
    ("hard-limited", "hard_limit_reached"): ("hard-limited", "close_tunnels"),
    ("hard-limited", "limit_lifted"): ("enrolling", "give_up enroll"),
    ("hard-limited", "changed"): ("hard-limited", ""),
    ("hard-limited", "stop"): ("draining", "give_up drain"),
    ("draining", "start"): ("enrolling", "stop_draining enroll"),
    ("draining", "soft_limit_reached"): ("draining", ""),
    ("draining", "hard_limit_reached"): ("draining", "close_tunnels"),
    ("draining", "limit_lifted"): ("draining", ""),
    ("draining", "changed"): ("draining", ""),
    ("draining", "stop"): ("draining", ""),
    ("draining", "drained"): ("withdrawn", "finish"),
    ("withdrawn", "start"): ("enrolling", "enroll"),
    ("withdrawn", "soft_limit_reached"): ("withdrawn", ""),
    ("withdrawn", "hard_limit_reached"): ("withdrawn", ""),
    ("withdrawn", "limit_lifted"): ("withdrawn", ""),
    ("withdrawn", "changed"): ("withdrawn", ""),
    ("withdrawn", "stop"): ("withdrawn", "finish"),
}


class Notebook:
    """A desk that only notes what is asked of it, and minds what must not be asked twice."""

    def __init__(self) -> None:
        self.state: State = "waiting"
        self.verbs: list[str] = []
        self.accepting = self.waiting = self.draining = False
        self.wrong: list[str] = []

    def stands(self, state: State) -> None:
        self.state = state

    def __getattr__(self, verb: str) -> object:
        def note() -> None:
            self.verbs.append(verb)
            self._mind(verb)

        return note

    def _mind(self, verb: str) -> None:
        for name, begins, ends in (
            ("accepting", "announce", "refuse_tunnels"),
            ("waiting", "wait", "stop_waiting"),
            ("draining", "drain", "stop_draining"),
        ):
            if verb in (begins, ends):
                if getattr(self, name) == (verb == begins):
                    self.wrong.append(verb)
                setattr(self, name, verb == begins)


def at_a_desk(*inputs: str) -> tuple[Enrollment, Notebook]:
    """Make a machine, and let things happen to it."""
    desk = Notebook()
    machine = enrollment(desk)  # type: ignore[arg-type]
    for name in inputs:
        getattr(machine, name)()
    return machine, desk


class Machine(SynchronousTestCase):
    def test_every_state_can_be_reached(self) -> None:
        self.assertEqual(set(WAYS), set(STATES))
        for state, way in WAYS.items():
            self.assertEqual(at_a_desk(*way)[1].state, state)

    def test_every_input_in_every_state(self) -> None:
        for state, happens in product(STATES, INPUTS):
            machine, desk = at_a_desk(*WAYS[state])
            desk.verbs.clear()
            if (state, happens) not in EXPECTED:
                with self.assertRaises(NoTransition):
                    getattr(machine, happens)()
                continue
            getattr(machine, happens)()
            self.assertEqual((desk.state, " ".join(desk.verbs)), EXPECTED[state, happens], (state, happens))

    def test_the_table_names_what_there_is(self) -> None:
        self.assertEqual({state for state, _ in EXPECTED}, set(STATES))
        self.assertEqual({happens for _, happens in EXPECTED}, set(INPUTS))


class AnyLife(RuleBasedStateMachine):
    """Whatever happens, in any order, the desk is asked for things that make sense together."""

    def __init__(self) -> None:
        super().__init__()
        self.machine, self.desk = at_a_desk()

    @rule(name=sampled_from(INPUTS))
    def happens(self, name: str) -> None:
        if (self.desk.state, name) in EXPECTED:
            if name == "waited":
                self.desk.waiting = False
            if name == "drained":
                self.desk.draining = False
            getattr(self.machine, name)()

    @invariant()
    def takes_tunnels_only_while_enrolled(self) -> None:
        assert self.desk.accepting == (self.desk.state == "enrolled")

    @invariant()
    def waits_only_while_backing_off(self) -> None:
        assert self.desk.waiting == (self.desk.state == "backing off")

    @invariant()
    def drains_only_while_draining(self) -> None:
        assert self.desk.draining == (self.desk.state == "draining")

    @invariant()
    def nothing_is_begun_or_ended_twice(self) -> None:
        assert not self.desk.wrong, self.desk.wrong


class AnyLifeTests(AnyLife.TestCase):  # type: ignore[misc]
    settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


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
