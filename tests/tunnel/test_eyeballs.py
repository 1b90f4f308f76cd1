"""The race of RFC 8305, with a clock of its own."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from wireleap_relay.tunnel.eyeballs import ATTEMPT_DELAY, Race, interleave


class RaceTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.attempts: dict[str, Deferred[str]] = {}
        self.given_up: list[str] = []
        self.race: Race[str, str] = Race(self.clock, self.attempt, order=interleave)

    def attempt(self, address: str) -> Deferred[str]:
        self.attempts[address] = Deferred(lambda _: self.given_up.append(address))
        return self.attempts[address]

    def tearDown(self) -> None:
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_families_take_turns(self) -> None:
        self.assertEqual(interleave(["1", "2", "3", "a:", "b:", "1"]), ["a:", "1", "b:", "2", "3"])

    def test_the_first_that_answers_wins(self) -> None:
        self.race.add(["1", "2", "3"])
        self.assertEqual(list(self.attempts), ["1"])
        self.clock.advance(ATTEMPT_DELAY)
        self.assertEqual(list(self.attempts), ["1", "2"])
        self.attempts["1"].callback("one")
        self.assertEqual(self.successResultOf(self.race.won), "one")
        self.assertEqual(self.given_up, ["2"])
        self.clock.advance(10)
        self.assertEqual(list(self.attempts), ["1", "2"])

    def test_a_failure_lets_the_next_begin_at_once(self) -> None:
        self.race.add(["1", "2", "3"])
        self.attempts["1"].errback(ZeroDivisionError())
        self.assertEqual(list(self.attempts), ["1", "2"])
        self.clock.advance(ATTEMPT_DELAY)
        # The second is still under way, so the third's turn does not come from a failure.
        self.assertEqual(list(self.attempts), ["1", "2", "3"])
        self.attempts["3"].callback("three")
        self.assertEqual(self.successResultOf(self.race.won), "three")
        self.assertEqual(self.given_up, ["2"])

    def test_it_fails_as_the_first_did(self) -> None:
        self.race.add(["1", "2"])
        self.race.no_more(KeyError())
        self.attempts["1"].errback(ZeroDivisionError())
        self.assertNoResult(self.race.won)
        self.attempts["2"].errback(ValueError())
        self.failureResultOf(self.race.won, ZeroDivisionError)

    def test_it_waits_for_more(self) -> None:
        self.race.add(["1"])
        self.attempts["1"].errback(ZeroDivisionError())
        self.assertNoResult(self.race.won)
        self.race.add(["a:"])
        self.attempts["a:"].callback("late")
        self.assertEqual(self.successResultOf(self.race.won), "late")
        self.race.add(["2"])
        self.race.no_more(KeyError())
        self.assertNotIn("2", self.attempts)

    def test_addresses_that_come_later_take_their_turn(self) -> None:
        self.race.add(["1", "2", "3"])
        self.race.add(["a:", "b:"])
        for _ in range(4):
            self.clock.advance(ATTEMPT_DELAY)
        self.assertEqual(list(self.attempts), ["1", "a:", "2", "b:", "3"])
        self.attempts["3"].callback("")
        self.successResultOf(self.race.won)

    def test_none_at_all(self) -> None:
        self.race.add([])
        self.race.no_more(KeyError("why"))
        self.failureResultOf(self.race.won, KeyError)

    def test_it_can_be_given_up(self) -> None:
        self.race.add(["1", "2", "3"])
        self.clock.advance(ATTEMPT_DELAY)
        self.race.won.cancel()
        self.failureResultOf(self.race.won, CancelledError)
        self.assertEqual(self.given_up, ["1", "2"])
        self.race.no_more(KeyError())
