"""The machine by itself: every input in every state."""

from __future__ import annotations

from itertools import product

from automat import NoTransition
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, rule
from hypothesis.strategies import sampled_from
from twisted.trial.unittest import SynchronousTestCase

from wireleap_relay.upgrade.machine import AT_REST, STATES, State, Upgrade, upgrade, upgrade_in
from wireleap_relay.wire.versions import Version

INPUTS = [name for name in vars(Upgrade) if not name.startswith("_")]
ARGUMENTS: dict[str, tuple[object, ...]] = {"noticed": (Version(0, 8, 0),), "failed": ("it broke",)}

_BACK = ("rolling back", "blame undo")

#: What is asked for in each state upon each input. What is not here is refused.
EXPECTED: dict[tuple[State, str], tuple[State, str]] = {
    ("idle", "noticed"): ("noticed", "note consider"),
    ("idle", "interrupted"): ("idle", ""),
    ("noticed", "noticed"): ("noticed", "note consider"),
    ("noticed", "approved"): ("fetching", "fetch"),
    ("noticed", "passed_over"): ("skipped", ""),
    ("noticed", "interrupted"): ("noticed", ""),
    ("fetching", "fetched"): ("verified", "stage"),
    ("fetching", "failed"): ("noticed", "blame discard"),
    ("fetching", "interrupted"): ("noticed", "discard"),
    ("verified", "moved"): ("staged", "supervise"),
    ("verified", "failed"): ("noticed", "blame discard"),
    ("verified", "interrupted"): ("noticed", "discard"),
    ("staged", "begun"): ("migrating", "migrate"),
    ("staged", "failed"): _BACK,
    ("staged", "interrupted"): _BACK,
    ("migrating", "migrated"): ("stopping", "take_over"),
    ("migrating", "failed"): _BACK,
    ("migrating", "interrupted"): _BACK,
    ("stopping", "taken_over"): ("probation", "watch"),
    ("stopping", "failed"): _BACK,
    ("stopping", "interrupted"): _BACK,
    ("probation", "proved"): ("committed", "commit"),
    ("probation", "failed"): _BACK,
    ("probation", "interrupted"): _BACK,
    ("committed", "noticed"): ("noticed", "note consider"),
    ("committed", "interrupted"): ("committed", "commit"),
    ("rolling back", "undone"): ("rolled back", ""),
    ("rolling back", "interrupted"): ("rolling back", "undo"),
    ("rolled back", "noticed"): ("noticed", "note consider"),
    ("rolled back", "interrupted"): ("rolled back", ""),
    ("skipped", "noticed"): ("noticed", "note consider"),
    ("skipped", "interrupted"): ("skipped", ""),
}


class Notebook:
    """Only notes what is asked of it."""

    def __init__(self, state: State = "idle") -> None:
        self.state = state
        self.verbs: list[str] = []

    def stands(self, state: State) -> None:
        self.state = state

    def __getattr__(self, verb: str) -> object:
        return lambda *_, **__: self.verbs.append(verb)


class Machine(SynchronousTestCase):
    def test_every_input_in_every_state(self) -> None:
        for state, happens in product(STATES, INPUTS):
            work = Notebook(state)
            machine = upgrade_in(state, work)  # type: ignore[arg-type]
            act = getattr(machine, happens)
            arguments = ARGUMENTS.get(happens, ())
            if (state, happens) not in EXPECTED:
                with self.assertRaises(NoTransition):
                    act(*arguments)
                continue
            act(*arguments)
            self.assertEqual((work.state, " ".join(work.verbs)), EXPECTED[state, happens], (state, happens))

    def test_it_begins_idle(self) -> None:
        work = Notebook()
        upgrade(work).noticed(Version(0, 8, 0))  # type: ignore[arg-type]
        self.assertEqual(work.state, "noticed")

    def test_a_crash_in_any_state_leads_to_rest(self) -> None:
        for state in STATES:
            work = Notebook(state)
            machine = upgrade_in(state, work)  # type: ignore[arg-type]
            machine.interrupted()
            if work.state == "rolling back":
                machine.undone()
            self.assertIn(work.state, AT_REST, state)


class AnyLife(RuleBasedStateMachine):
    """Whatever happens, and wherever the power goes: nothing runs that was not verified, and nothing is left half done."""

    def __init__(self) -> None:
        super().__init__()
        self.disk: State = "idle"
        self.verified = False
        self.work = Notebook()
        self.machine = upgrade(self.work)  # type: ignore[arg-type]

    @rule(name=sampled_from(INPUTS))
    def happens(self, name: str) -> None:
        if (self.disk, name) not in EXPECTED:
            return
        before, self.work.verbs = self.disk, []
        getattr(self.machine, name)(*ARGUMENTS.get(name, ()))
        self.disk = self.work.state
        self._mind(before)

    @rule()
    def the_power_goes(self) -> None:
        before = self.disk
        self.work = Notebook(self.disk)
        self.machine = upgrade_in(self.disk, self.work)  # type: ignore[arg-type]
        self.machine.interrupted()
        if self.work.state == "rolling back":
            self.machine.undone()
        self.disk = self.work.state
        self._mind(before)
        assert self.disk in AT_REST

    def _mind(self, before: State) -> None:
        verbs = self.work.verbs
        if "fetch" in verbs or "discard" in verbs or "undo" in verbs:
            self.verified = False
        if "stage" in verbs:
            self.verified = True
        if {"supervise", "migrate", "take_over", "watch", "commit"} & set(verbs):
            assert self.verified or before == "committed"
        if "commit" in verbs:
            assert before in ("probation", "committed")
        if before in ("staged", "migrating", "stopping", "probation") and self.disk in AT_REST:
            assert "undo" in verbs or "commit" in verbs


class AnyLifeTests(AnyLife.TestCase):  # type: ignore[misc]
    settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
