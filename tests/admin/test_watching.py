"""What is remembered of a relay, and how it is judged."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import Logger, LogPublisher
from twisted.trial.unittest import SynchronousTestCase

from tests.admin.views import CONTRACT, ID, make_view
from wireleap_relay.admin.archive import read_archive
from wireleap_relay.admin.earnings import Earnings, EarningsService
from wireleap_relay.admin.events import EventsService
from wireleap_relay.admin.health import health
from wireleap_relay.admin.history import History, Point, Rate
from wireleap_relay.admin.view import View
from wireleap_relay.admin.words import printable
from wireleap_relay.boundaries import Unreachable, UsageReading
from wireleap_relay.contracts.service import ContractStatus
from wireleap_relay.wire.payout import PayoutBalance


class Histories(SynchronousTestCase):
    def reading(self, now: int, total: int, start: int = 0) -> UsageReading:
        return UsageReading(now, start, start + 10**9, {ID: total}, {})

    def test_rates(self) -> None:
        history = History()
        history.look(0.0, 1000, 500, 0)
        self.assertEqual(history.rates, ())
        history.look(10.0, 11_000, 1500, 20)
        self.assertEqual(history.rates, (Rate(11_000, 100, 2),))
        for number in range(200):
            history.look(20.0 + number, 12_000 + number, 1500, 20)
        self.assertEqual(len(history.rates), 90)

    def test_a_window_is_thinned_out(self) -> None:
        history = History()
        for second in range(10, 100_000, 10):
            history.grow(self.reading(second * 1000, second))
        points = history.points
        self.assertTrue(100 <= len(points) <= 240, len(points))
        self.assertEqual(points[0], Point(0, 0))
        self.assertGreater(points[-1].at, 98_000_000)
        gaps = [later.at - sooner.at for sooner, later in pairwise(points)]
        self.assertLess(max(gaps), 3 * min(gaps))

    def test_a_new_window_begins_anew(self) -> None:
        history = History()
        history.grow(self.reading(5, 7))
        history.grow(self.reading(1000, 3, start=900))
        self.assertEqual(history.points, (Point(900, 0), Point(1000, 3)))


class Events(SynchronousTestCase):
    def setUp(self) -> None:
        self.publisher = LogPublisher()
        self.service = EventsService(self.publisher)
        self.service.startService()

    def log(self, level: str, text: str, namespace: str = "wireleap_relay.relay") -> None:
        getattr(Logger(namespace, observer=self.publisher), level)("{text}", text=text)

    def texts(self) -> list[str]:
        return [event.text for event in self.service.status()]

    def test_the_relays_own_from_info_up(self) -> None:
        self.log("info", "one")
        self.log("debug", "a detail")
        self.log("error", "of others", "twisted.web")
        self.log("warn", "two\nTraceback")
        self.assertEqual(self.texts(), ["two", "one"])
        self.assertEqual([event.level for event in self.service.status()], ["warn", "info"])

    def test_bounds(self) -> None:
        for number in range(100):
            self.log("info", f"{number} {'x' * 1000}")
            self.log("info", f"{number} {'x' * 1000}")
        self.assertEqual(len(self.texts()), 50)
        self.assertEqual({len(text) for text in self.texts()}, {300})

    def test_nothing_after_the_end(self) -> None:
        self.service.stopService()
        self.log("info", "one")
        self.assertEqual(self.texts(), [])


class Contract:
    def __init__(self) -> None:
        self.asked: list[Deferred[PayoutBalance]] = []

    def contract(self, endpoint: str) -> Contract:
        return self

    async def balance(self) -> PayoutBalance:
        self.asked.append(Deferred())
        return await self.asked[-1]


class Owed(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.contract = Contract()
        self.contracts: tuple[ContractStatus, ...] = make_view().contracts
        upstream: Any = self.contract
        self.service = EarningsService(self.clock, upstream, lambda: 1.0, lambda: self.contracts)
        self.service.startService()

    def test_it_is_asked_for_now_and_then(self) -> None:
        self.clock.advance(1)
        self.clock.advance(1)
        [asked] = self.contract.asked
        asked.callback(PayoutBalance("USD", 5))
        self.assertEqual(self.service.status(), {CONTRACT: Earnings(PayoutBalance("USD", 5), 1000)})
        self.clock.pump([1] * 890)
        self.assertEqual(len(self.contract.asked), 1)
        self.clock.pump([1] * 20)
        self.contract.asked[1].errback(Unreachable("gone"))
        self.assertEqual(self.service.status(), {CONTRACT: Earnings(PayoutBalance("USD", 5), 1000, "gone")})

    def test_a_contract_that_is_not_known_yet_is_not_asked(self) -> None:
        self.contracts = (attrs.evolve(self.contracts[0], id=None),)
        self.clock.pump([1] * 5)
        self.assertEqual(self.contract.asked, [])

    def test_one_that_is_gone_is_forgotten(self) -> None:
        self.clock.advance(1)
        self.contract.asked[0].callback(PayoutBalance("USD", 5))
        self.contracts = ()
        self.assertEqual(self.service.status(), {})

    def test_a_question_under_way_is_given_up(self) -> None:
        self.clock.advance(1)
        self.successResultOf(self.service.stopService())
        self.assertEqual(self.clock.getDelayedCalls(), [])


class Healths(SynchronousTestCase):
    def contract(self, **changes: Any) -> ContractStatus:
        return attrs.evolve(make_view().contracts[0], **changes)

    def judged(self, **changes: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
        view: View = attrs.evolve(make_view(), **changes)
        found = health(view)
        self.assertEqual(found.healthy, not found.reasons)
        return found.reasons, found.warnings

    def test_all_is_well(self) -> None:
        self.assertEqual(self.judged(), ((), ()))

    def test_nobody_lists_it(self) -> None:
        lost = self.contract(state="backing off", trouble="no answer")
        self.assertEqual(self.judged(contracts=(lost,)), ((f"{CONTRACT}: backing off: no answer",), ()))
        other = self.contract(url="https://other.example")
        self.assertEqual(self.judged(contracts=(lost, other)), ((), (f"{CONTRACT}: backing off: no answer",)))

    def test_a_limit_is_no_illness(self) -> None:
        full = self.contract(state="hard-limited")
        reasons, warnings = self.judged(contracts=(full,))
        self.assertEqual((reasons, len(warnings)), ((), 1))

    def test_what_keeps_it_from_its_work(self) -> None:
        view = make_view()
        gone = tuple(attrs.evolve(worker, state="gone") for worker in view.plane.workers)
        cases: list[tuple[dict[str, Any], str]] = [
            ({"running": False}, "the relay is not running"),
            ({"listens_at": ""}, "it does not listen for clients"),
            ({"plane": attrs.evolve(view.plane, workers=gone)}, "no worker is running"),
            ({"tokens": attrs.evolve(view.tokens, trouble="disk full")}, "sharetokens can't be kept: disk full"),
        ]
        for changes, reason in cases:
            self.assertEqual(self.judged(**changes)[0], (reason,))

    def test_what_to_look_at(self) -> None:
        view = make_view()
        late = attrs.evolve(view.process, lag=2.5)
        crowded = attrs.evolve(view.process, descriptors=1000)
        one_gone = (attrs.evolve(view.plane.workers[0], state="gone"), view.plane.workers[1])
        cases: list[tuple[dict[str, Any], str]] = [
            ({"process": late}, "daemon: the reactor was late by 2.5 s"),
            ({"process": crowded}, "daemon: 1000 of 1024 file descriptors are in use"),
            ({"plane": attrs.evolve(view.plane, workers=one_gone)}, "worker 0 is not running"),
            ({"upgrade": attrs.evolve(view.upgrade, trouble="no space")}, "an upgrade does not go on: no space"),
            ({"usage_trouble": "disk full"}, "network usage can't be written: disk full"),
            ({"tokens": attrs.evolve(view.tokens, alarms=("look here",))}, "look here"),
        ]
        for changes, warning in cases:
            self.assertEqual(self.judged(**changes), ((), (warning,)))


class Archives(SynchronousTestCase):
    def test_the_newest_first_and_nothing_else(self) -> None:
        folder = Path(self.mktemp())
        folder.mkdir()
        for end in (5, 20, 100):
            (folder / f"relay-{end}.json").write_text(f'{{"end_at": {end}}}')
        (folder / "relay-50.json").write_text("{")
        (folder / "relay-60.json").write_text("[]")
        (folder / "other-70.json").write_text("{}")
        (folder / "relay-x.json").write_text("{}")
        self.assertEqual([record["end_at"] for record in read_archive(folder, "relay")], [100, 20, 5])

    def test_there_is_none(self) -> None:
        self.assertEqual(read_archive(Path(self.mktemp()), "relay"), [])


class Texts(SynchronousTestCase):
    def test_nothing_moves_the_cursor(self) -> None:
        self.assertEqual(printable("a\x1b[2Jb\r\nc\x9b\x07é"), "a?[2Jb?\nc??é")
