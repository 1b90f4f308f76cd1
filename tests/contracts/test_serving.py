"""Limits, changes under way, and what a relay makes of directories in trouble."""

from __future__ import annotations

import attrs
from twisted.logger import globalLogPublisher
from twisted.python.log import textFromEventDict

from tests.contracts.offices import CONTRACT, DIRECTORY, SECOND, ServiceTestCase, Settings
from tests.upstream.badworld import Scripted
from wireleap_relay.boundaries import Refused
from wireleap_relay.contracts.limits import GlobalLimit
from wireleap_relay.sandbox.directory import Rules
from wireleap_relay.wire.address import Address
from wireleap_relay.wire.status import Status
from wireleap_relay.wire.versions import Version

GB = 2**30


class LogTestCase(ServiceTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.lines: list[str] = []

        def note(event: object) -> None:
            self.lines.append(str(textFromEventDict(event)))  # type: ignore[arg-type]

        globalLogPublisher.addObserver(note)
        self.addCleanup(globalLogPublisher.removeObserver, note)

    def told(self, words: str) -> int:
        """Count the lines of the log with these words."""
        return sum(words in line for line in self.lines)


class Hopeless(LogTestCase):
    rules = Rules(keys={"backing": frozenset({"me:mine"})})

    def test_a_wrong_key_is_told_once_and_tried_slowly(self) -> None:
        self.service.startService()
        self.assertEqual(self.status().state, "backing off")
        self.assertEqual(self.status().next_try, 300)
        self.assertEqual(self.posts(), 1)
        self.pass_time(3000)
        self.assertEqual(self.posts(), 11)
        self.assertEqual(self.told("this won't heal by itself"), 1)

    def test_a_key_that_the_operator_mends_is_tried_at_once(self) -> None:
        self.service.startService()
        self.service.apply({CONTRACT: Settings(key="me:mine")}, GlobalLimit(), 30.0)
        self.assertEqual((self.status().state, self.status().next_try), ("enrolled", None))
        self.assertTrue(self.accepts())

    def test_another_version_of_the_interface(self) -> None:
        page = Scripted((200, b"{}", {"Wireleap-Relay-Contract-Version": "0.9.0"}))
        self.world.root.putChild(b"contract", page)
        self.service.startService()
        self.assertEqual((self.status().state, self.status().next_try), ("backing off", 300))
        self.assertIn("0.9.0", self.status().trouble)


class Heartbeats(LogTestCase):
    def test_three_without_an_answer_are_a_degraded_enrollment(self) -> None:
        self.service.startService()
        self.agent.down.add(DIRECTORY)
        self.pass_time(2 * 300 + 10)
        self.assertEqual((self.status().missed_heartbeats, self.status().degraded), (2, False))
        self.pass_time(300)
        self.assertEqual((self.status().missed_heartbeats, self.status().degraded), (3, True))
        self.assertTrue(self.accepts())
        self.pass_time(1200)
        self.assertEqual(self.told("without an answer"), 2)
        self.agent.down.clear()
        self.pass_time(300)
        self.assertEqual((self.status().missed_heartbeats, self.status().degraded), (0, False))
        self.assertEqual(self.told("answers heartbeats again"), 1)

    def test_a_directory_that_challenges_flaps_forgets_and_disappears(self) -> None:
        self.tunnels.open[self.world.contract.id] = 7
        self.service.startService()
        for number in range(12):  # an hour in which it is there and gone in turns
            (self.agent.down.add if number % 2 else self.agent.down.discard)(DIRECTORY)
            self.pass_time(300)
        self.agent.down.clear()
        self.world.directory.forget()
        self.pass_time(300)
        self.assertEqual(list(self.world.directory.status()), [self.key.public_key])
        self.agent.down.add(DIRECTORY)
        self.pass_time(600)
        self.agent.down.clear()
        self.pass_time(300)
        self.assertEqual((self.status().state, self.status().missed_heartbeats), ("enrolled", 0))
        # Nobody's tunnel was touched, and a directory that is gone is asked three times per heartbeat, no more.
        self.assertEqual((self.tunnels.open[self.world.contract.id], self.tunnels.ended), (7, []))
        self.assertLessEqual(len(self.agent.requests), 2 + 2 + 16 * 3)


class Limits(ServiceTestCase):
    def start(self, **limits: int) -> None:
        """Serve two contracts."""
        self.second_contract()
        settings = {url: Settings(network_usage_limit=limits.get(name)) for name, url in self.urls.items()}
        self.service = self.make(CONTRACT, SECOND)
        self.service.apply(settings, GlobalLimit(), 30.0)
        for contract in self.ids:
            self.tunnels.open[contract] = 2
        self.service.startService()

    urls = {"first": CONTRACT, "second": SECOND}  # noqa: RUF012

    @property
    def ids(self) -> tuple[object, ...]:
        assert self.second is not None
        return (self.world.contract.id, self.second.id)

    def states(self) -> list[str]:
        return [status.state for status in self.service.status()]

    def test_the_soft_limit_keeps_tunnels_and_takes_no_more(self) -> None:
        self.start(first=GB)
        self.carried(first=GB * 90 // 100, second=GB)
        self.assertEqual(self.states(), ["enrolled", "enrolled"])
        self.carried(first=GB * 90 // 100 + 1, second=GB)
        self.assertEqual(self.states(), ["soft-limited", "enrolled"])
        with self.assertRaises(Refused) as caught:
            self.service.book.accepting(self.world.contract.id)
        self.assertEqual(caught.exception.code, 400)
        self.assertEqual(caught.exception.description, "the relay has reached its limit of network usage")
        self.assertEqual((self.deletes(), self.tunnels.ended), (1, []))
        self.carried(first=GB * 91 // 100, second=GB)
        self.assertEqual(self.deletes(), 1)
        self.pass_time(1000)
        self.assertEqual(self.states(), ["soft-limited", "enrolled"])

    def test_the_hard_limit_ends_tunnels_and_says_why(self) -> None:
        self.start(first=GB)
        self.carried(first=GB)
        self.assertEqual(self.states(), ["hard-limited", "enrolled"])
        reason = Status(410, "the relay has reached its limit of network usage", str(self.key.public_key))
        self.assertEqual(self.tunnels.ended, [(self.world.contract.id, reason)] * 2)
        self.tunnels.open[self.world.contract.id] = 1  # it was being opened
        self.carried(first=GB)
        self.assertEqual((len(self.tunnels.ended), self.deletes()), (3, 1))

    def test_a_new_window_enrolls_again(self) -> None:
        self.start(first=GB)
        self.carried(first=GB)
        self.carried(first=0)
        self.assertEqual(self.states(), ["enrolled", "enrolled"])
        self.assertTrue(self.accepts())

    def test_a_limit_that_is_raised_enrolls_again(self) -> None:
        self.start(first=GB)
        self.carried(first=GB)
        raised = {CONTRACT: Settings(network_usage_limit=GB * 110 // 100), SECOND: Settings()}
        self.service.apply(raised, GlobalLimit(), 30.0)
        self.assertEqual(self.states(), ["soft-limited", "enrolled"])
        raised[CONTRACT] = Settings(network_usage_limit=2 * GB)
        self.service.apply(raised, GlobalLimit(), 30.0)
        self.assertEqual(self.states(), ["enrolled", "enrolled"])
        (listed,) = self.world.directory.status().values()
        self.assertEqual(listed.entry.network_usage_limit, 2 * GB)

    def test_a_limit_that_is_lowered_below_what_was_carried(self) -> None:
        self.start()
        self.carried(first=GB)
        self.service.apply({CONTRACT: Settings(network_usage_limit=GB), SECOND: Settings()}, GlobalLimit(), 30.0)
        self.assertEqual(self.states(), ["hard-limited", "enrolled"])

    def test_the_global_limit_stops_all(self) -> None:
        self.start()
        self.office.global_limit = GlobalLimit(GB)
        self.carried(first=GB * 46 // 100, second=GB * 46 // 100)
        self.assertEqual(self.states(), ["enrolled", "enrolled"])
        self.carried(first=GB * 47 // 100, second=GB * 47 // 100)
        self.assertEqual(self.states(), ["hard-limited", "hard-limited"])
        self.assertEqual((len(self.tunnels.ended), self.deletes()), (4, 2))

    def test_the_global_soft_stage(self) -> None:
        self.start()
        self.office.global_limit = GlobalLimit(GB, soft=True)
        self.carried(first=GB * 46 // 100, second=GB * 46 // 100)
        self.assertEqual(self.states(), ["soft-limited", "soft-limited"])
        self.assertEqual(self.tunnels.ended, [])

    def test_a_relay_that_starts_beyond_its_limit_does_not_enroll(self) -> None:
        self.service = self.make(CONTRACT, settings=Settings(network_usage_limit=GB))
        self.carried(first=GB)
        attempted = self.service.when_attempted()
        self.service.startService()
        self.successResultOf(attempted)
        self.assertEqual((self.states(), self.posts(), self.deletes()), (["hard-limited"], 0, 0))
        self.assertIsNotNone(self.service.book.known(self.world.contract.id))

    def test_a_limit_that_is_reached_while_the_contract_is_out_of_reach(self) -> None:
        self.start(first=GB)
        self.tunnels.open.clear()
        self.successResultOf(self.stop())
        self.agent.down.add(CONTRACT)
        self.service.startService()
        self.pass_time(60)
        self.assertEqual(self.states(), ["backing off", "enrolled"])
        self.carried(first=GB)
        self.assertEqual(self.states(), ["hard-limited", "enrolled"])
        self.pass_time(600)
        self.assertEqual(self.states(), ["hard-limited", "enrolled"])

    def test_status_looks_ahead(self) -> None:
        self.start(first=GB)
        self.carried(first=GB // 2, pace=1000.0)
        usage = self.status().usage
        assert usage is not None
        self.assertEqual((usage.carried, usage.limit, usage.forecast), (GB // 2, GB, GB // 2 + 86_400_000))
        together = self.service.usage()
        assert together is not None
        self.assertEqual((together.carried, together.limit), (GB // 2, None))


class Changes(ServiceTestCase):
    def apply(self, **settings: Settings) -> None:
        """Have the contracts that are named, and no others."""
        urls = {"first": CONTRACT, "second": SECOND}
        self.service.apply({urls[name]: value for name, value in settings.items()}, GlobalLimit(), 30.0)

    def test_a_contract_is_added(self) -> None:
        second = self.second_contract()
        self.service.startService()
        self.apply(first=Settings(), second=Settings())
        self.assertTrue(self.accepts(second.id))
        self.assertEqual([status.url for status in self.service.status()], [CONTRACT, SECOND])

    def test_a_contract_is_removed_when_its_tunnels_have_finished(self) -> None:
        second = self.second_contract()
        self.service = self.make(CONTRACT, SECOND)
        self.service.startService()
        self.tunnels.open[second.id] = 3
        self.apply(first=Settings())
        self.assertFalse(self.accepts(second.id))
        self.assertTrue(self.accepts())
        self.assertEqual(self.deletes(), 1)
        self.assertEqual(
            [(s.url, s.state) for s in self.service.status()], [(CONTRACT, "enrolled"), (SECOND, "draining")]
        )
        self.pass_time(20)
        self.tunnels.finish(second.id)
        self.assertEqual([status.url for status in self.service.status()], [CONTRACT])
        self.assertEqual(self.tunnels.ended, [])

    def test_tunnels_that_do_not_finish_are_ended(self) -> None:
        self.service.startService()
        self.second_contract()
        self.tunnels.open[self.world.contract.id] = 3
        self.apply(second=Settings())
        self.pass_time(29)
        self.assertEqual(self.tunnels.ended, [])
        self.pass_time(1)
        self.assertEqual({status.description for _, status in self.tunnels.ended}, {_LEAVING})
        self.assertEqual(len(self.tunnels.ended), 3)
        self.assertEqual([status.url for status in self.service.status()], [SECOND])

    def test_a_contract_that_comes_back_while_it_drains_keeps_its_tunnels(self) -> None:
        self.service.startService()
        self.second_contract()
        self.tunnels.open[self.world.contract.id] = 3
        self.apply(second=Settings())
        self.pass_time(10)
        self.apply(second=Settings(), first=Settings())
        self.assertEqual([s.state for s in self.service.status()], ["enrolled", "enrolled"])
        self.assertTrue(self.accepts())
        self.pass_time(100)
        self.assertEqual((self.tunnels.open[self.world.contract.id], self.tunnels.ended), (3, []))
        self.tunnels.finish(self.world.contract.id)
        self.assertEqual(len(self.service.status()), 2)
        self.successResultOf(self.stop())

    def test_one_that_comes_back_while_only_its_directory_is_waited_for(self) -> None:
        self.service.startService()
        self.second_contract()
        self.agent.silent.add(DIRECTORY)
        self.apply(second=Settings())
        self.agent.silent.clear()
        self.apply(second=Settings(), first=Settings())
        self.pass_time(30)
        self.assertEqual([s.state for s in self.service.status()], ["enrolled", "enrolled"])
        self.assertEqual(self.flushLoggedErrors(), [])
        self.successResultOf(self.stop())

    def test_what_is_published_is_told_at_once(self) -> None:
        self.service.startService()
        address = Address("wireleap", "203.0.113.6", 443)
        posts = self.posts()
        self.apply(first=Settings(address=address, network_usage_limit=GB))
        self.assertEqual(self.posts(), posts + 1)
        (listed,) = self.world.directory.status().values()
        self.assertEqual((listed.entry.address, listed.entry.network_usage_limit), (address, GB))
        self.assertEqual(self.service.book.accepting(self.world.contract.id).address, address)
        self.pass_time(300)
        self.assertEqual(self.posts(), posts + 2)

    def test_nothing_changed_says_nothing(self) -> None:
        self.service.startService()
        before = len(self.agent.requests)
        self.apply(first=Settings())
        self.assertEqual(len(self.agent.requests), before)

    def test_a_relay_in_a_hurry_waits_for_nobody(self) -> None:
        self.service.startService()
        self.tunnels.open[self.world.contract.id] = 1
        self.agent.silent.add(DIRECTORY)
        stopping = self.stop()
        self.assertNoResult(stopping)
        self.service.hurry()
        self.successResultOf(stopping)
        self.assertEqual((len(self.tunnels.ended), self.clock.getDelayedCalls()), (1, []))

    def test_stopping_waits_for_contracts_that_were_removed(self) -> None:
        self.service.startService()
        self.second_contract()
        self.tunnels.open[self.world.contract.id] = 1
        self.apply(second=Settings())
        stopping = self.stop()
        self.assertNoResult(stopping)
        self.tunnels.finish(self.world.contract.id)
        self.successResultOf(stopping)


_LEAVING = "the relay does not serve this contract any longer"


class UpgradeNotices(ServiceTestCase):
    rules = Rules(relay_version=Version(0, 8, 0))

    def test_the_watched_contracts_directory_is_heeded_once(self) -> None:
        self.service.startService()
        self.pass_time(900)
        self.assertEqual(self.notices.versions, ["0.8.0"])
        rules = attrs.evolve(self.rules or Rules(), relay_version=Version(0, 8, 1))
        self.patch(self.world.directory, "_rules", rules)
        self.pass_time(300)
        self.assertEqual(self.notices.versions, ["0.8.0", "0.8.1"])

    def test_another_contracts_is_not(self) -> None:
        self.service = self.make(CONTRACT, settings=Settings(upgrade_channel=None))
        self.service.startService()
        self.pass_time(300)
        self.assertEqual((self.notices.versions, self.status().upgrade), ([], Version(0, 8, 0)))


class BadContracts(ServiceTestCase):
    def serve_beside(self, *answers: tuple[int, bytes, dict[str, str]]) -> tuple[str, str]:
        """Serve a good contract beside one that answers so, for an hour.

        :returns: the bad one's state, and what it is said to be in trouble with.
        """
        self.world.root.putChild(b"bad", Scripted(*answers))
        self.service = self.make("http://sandbox.test/bad", CONTRACT)
        self.service.startService()
        self.pass_time(3600)
        bad, good = self.service.status()
        self.assertEqual((good.state, good.trouble), ("enrolled", ""))
        self.assertTrue(self.accepts())
        return bad.state, bad.trouble

    def test_each_kind_is_named_and_harms_no_other(self) -> None:
        for answer, words in [
            ((200, b"\x00\xff garbage", {}), "the answer can't be read"),
            ((200, b"<html>hello</html>", {}), "the answer can't be read"),
            ((500, Status(500, "out of order").to_json().encode(), {}), "500 out of order"),
            ((500, b"<html>oops</html>", {}), "answered 500 without a status object"),
            ((200, b"[" * 10_000_000, {}), "longer than 1048576 bytes"),
            ((302, b"", {"Location": CONTRACT}), "redirects are not followed"),
            ((200, b"{}", {}), "pubkey: missing"),
        ]:
            state, trouble = self.serve_beside(answer)
            self.assertEqual(state, "backing off", trouble)
            self.assertIn(words, trouble)

    def test_one_that_never_answers(self) -> None:
        self.agent.silent.add("http://sandbox.test/bad")
        state, trouble = self.serve_beside((200, b"", {}))
        self.assertIn(state, ("backing off", "enrolling"))
        self.assertIn("no answer within", trouble)
