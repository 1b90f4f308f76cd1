"""Staying enrolled, against the sandbox's contract and directory in memory."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import TestCase

from tests.contracts.offices import (
    ADDRESS,
    CONTRACT,
    DIRECTORY,
    SECOND,
    Notices,
    OpenTunnels,
    ServiceTestCase,
    Settings,
)
from tests.upstream.badworld import Scripted, reactor
from tests.upstream.worlds import SocketWorld
from wireleap_relay.boundaries import Contract
from wireleap_relay.contracts.office import Office
from wireleap_relay.contracts.service import ContractsService, ContractStatus
from wireleap_relay.sandbox.contract import SandboxContract
from wireleap_relay.sandbox.directory import Rules
from wireleap_relay.wire.contractinfo import DirectoryPointer
from wireleap_relay.wire.endpoint import Endpoint
from wireleap_relay.wire.keys import SigningKey
from wireleap_relay.wire.status import Status
from wireleap_relay.wire.versions import Version


class Enrolling(ServiceTestCase):
    def test_before_it_starts(self) -> None:
        self.assertEqual(
            self.status(),
            ContractStatus(CONTRACT, None, ADDRESS, "backing", "waiting", "", None),
        )
        self.assertFalse(self.accepts())

    def test_a_relay_enrolls_and_takes_tunnels(self) -> None:
        attempted = self.service.when_attempted()
        self.service.startService()
        self.successResultOf(attempted)
        status = self.status()
        self.assertEqual((status.state, status.enrolled, status.trouble), ("enrolled", True, ""))
        self.assertEqual(status.id, self.world.contract.id)
        self.assertEqual(
            self.service.book.accepting(self.world.contract.id),
            Contract(CONTRACT, self.world.contract.id, "backing", ADDRESS),
        )
        (listed,) = self.world.directory.status().values()
        self.assertEqual((listed.entry.pubkey, listed.entry.address), (self.key.public_key, ADDRESS))
        self.assertEqual(str(listed.entry.versions["software"]), "0.7.0")

    def test_the_operators_settings_are_sent(self) -> None:
        self.service = self.make(CONTRACT, settings=Settings(role="fronting", key="me:mine", network_usage_limit=2**40))
        self.service.startService()
        (listed,) = self.world.directory.status().values()
        self.assertEqual(listed.entry.key, "me:mine")
        self.assertEqual((listed.entry.role, listed.entry.network_usage_limit), ("fronting", 2**40))

    def test_children_are_named(self) -> None:
        self.assertEqual(self.service.name, "contracts")
        self.assertIsNotNone(self.service.getServiceNamed(CONTRACT))

    def test_an_unknown_contract_is_refused(self) -> None:
        self.service.startService()
        self.assertFalse(self.accepts(SigningKey.generate().public_key))

    def test_heartbeats(self) -> None:
        self.service.startService()
        posts = self.posts()
        self.pass_time(299)
        self.assertEqual(self.posts(), posts)
        self.pass_time(1)
        self.assertEqual(self.posts(), posts + 1)
        self.pass_time(3600)
        self.assertEqual(self.world.directory.status()[self.key.public_key].heartbeats, 13)

    def test_a_directory_that_forgets_is_reminded(self) -> None:
        self.service.startService()
        self.world.directory.forget()
        self.pass_time(300)
        self.assertEqual(len(self.world.directory.status()), 1)
        self.assertTrue(self.status().enrolled)


class Trouble(ServiceTestCase):
    def test_a_contract_out_of_reach_is_tried_again_with_growing_waits(self) -> None:
        self.agent.down.add(CONTRACT)
        attempted = self.service.when_attempted()
        self.service.startService()
        self.assertEqual(self.status().state, "enrolling")
        self.pass_time(10)
        self.successResultOf(attempted)
        self.assertEqual((len(self.agent.requests), self.status().state), (3, "backing off"))
        self.assertIn("refused", self.status().trouble)
        self.pass_time(5 + 10)
        self.assertEqual(len(self.agent.requests), 6)
        self.pass_time(10 + 10)
        self.assertEqual(len(self.agent.requests), 9)
        self.agent.down.clear()
        self.pass_time(20)
        self.assertEqual((self.status().state, self.status().trouble), ("enrolled", ""))
        self.assertTrue(self.accepts())

    def test_one_contract_out_of_reach_does_not_keep_the_others(self) -> None:
        second = self.second_contract()
        self.service = self.make(CONTRACT, SECOND)
        self.agent.down.add(CONTRACT)
        self.service.startService()
        self.pass_time(60)
        self.assertEqual([status.state for status in self.service.status()], ["backing off", "enrolled"])
        self.assertTrue(self.accepts(second.id))
        self.assertFalse(self.accepts())
        self.successResultOf(self.stop())

    def test_a_directory_with_another_key_is_not_enrolled_with(self) -> None:
        pointer = DirectoryPointer(Endpoint(DIRECTORY), SigningKey.generate().public_key)
        liar = SandboxContract(SigningKey.generate(), Endpoint(SECOND), pointer, self.world.now)
        self.world.root.putChild(b"second", liar.resource)
        self.service = self.make(SECOND)
        self.service.startService()
        self.assertIn("another public key", self.status().trouble)
        self.assertEqual((self.posts(), self.status().state), (0, "backing off"))

    def test_a_contract_that_changes_its_key_is_not_believed(self) -> None:
        self.second_contract()
        self.service = self.make(SECOND)
        self.service.startService()
        self.successResultOf(self.stop())
        self.second_contract()
        self.service.startService()
        self.assertIn("public key was", self.status().trouble)
        self.assertEqual(self.status().state, "backing off")

    def test_two_urls_of_one_contract(self) -> None:
        self.second_contract(self.world.contract._key)
        self.service = self.make(CONTRACT, SECOND)
        self.service.startService()
        self.assertEqual([status.state for status in self.service.status()], ["enrolled", "backing off"])
        self.assertIn(f"has the public key of {CONTRACT}", self.status(1).trouble)
        self.assertEqual(self.service.book.accepting(self.world.contract.id).url, CONTRACT)

    def test_a_directory_that_answers_rubbish(self) -> None:
        self.world.root.putChild(b"directory", Scripted((200, b"<html>", {})))
        self.service.startService()
        self.assertEqual(self.status().state, "backing off")
        self.assertIn("can't be read", self.status().trouble)

    def test_heartbeats_that_do_not_arrive(self) -> None:
        self.service.startService()
        self.agent.down.add(DIRECTORY)
        self.pass_time(300 + 10)
        self.assertTrue(self.status().enrolled)
        self.assertIn("refused", self.status().trouble)
        self.assertTrue(self.accepts())
        self.agent.down.clear()
        self.pass_time(290)
        self.assertEqual(self.status().trouble, "")
        self.assertEqual(self.world.directory.status()[self.key.public_key].heartbeats, 1)

    def test_a_heartbeat_that_is_refused_ends_the_enrollment(self) -> None:
        self.service.startService()
        body = Status(400, "bad request", cause="enrollment key is incorrect").to_json().encode()
        self.world.root.putChild(b"directory", Scripted((400, body, {})))
        self.pass_time(300)
        self.assertEqual((self.status().state, self.accepts()), ("backing off", False))
        self.assertIn("enrollment key is incorrect", self.status().trouble)
        self.world.root.putChild(b"directory", self.world.directory.resource)
        self.pass_time(5)
        self.assertEqual((self.status().state, self.accepts()), ("enrolled", True))
        self.pass_time(600)
        self.assertEqual(self.world.directory.status()[self.key.public_key].heartbeats, 3)

    def test_a_directory_in_trouble_of_its_own_ends_nothing(self) -> None:
        self.service.startService()
        for code in (408, 429, 500, 503):
            self.world.root.putChild(b"directory", Scripted((code, Status(code, "no").to_json().encode(), {})))
            self.pass_time(300 + 10)
            self.assertTrue(self.status().enrolled)
            self.assertIn(str(code), self.status().trouble)

    def test_an_error_of_its_own_is_logged_and_waited_out(self) -> None:
        upstream: Any = self.world.upstream(self.key)
        upstream.directory = lambda pointer: None
        self.service = self.make(CONTRACT, upstream=upstream)
        self.service.startService()
        self.assertEqual(len(self.flushLoggedErrors(AttributeError)), 1)
        self.assertEqual(self.status().state, "backing off")


class Stopping(ServiceTestCase):
    def test_it_disenrolls(self) -> None:
        self.service.startService()
        self.successResultOf(self.stop())
        self.assertEqual(self.world.directory.status(), {})
        self.assertEqual((self.status().state, self.accepts()), ("withdrawn", False))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_silent_directory_is_given_five_seconds(self) -> None:
        self.service.startService()
        self.agent.silent.add(DIRECTORY)
        stopping = self.stop()
        self.assertFalse(self.accepts())
        self.pass_time(4)
        self.assertNoResult(stopping)
        self.assertEqual(self.status().state, "draining")
        self.pass_time(1)
        self.successResultOf(stopping)
        self.assertEqual((self.status().state, self.clock.getDelayedCalls()), ("withdrawn", []))
        self.assertEqual(self.status().trouble, "no answer within 5 s")

    def test_a_directory_out_of_reach_is_given_five_seconds(self) -> None:
        self.service.startService()
        self.agent.down.add(DIRECTORY)
        stopping = self.stop()
        self.pass_time(5)
        self.successResultOf(stopping)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stopping_while_the_contract_is_asked(self) -> None:
        self.agent.silent.add(CONTRACT)
        self.service.startService()
        self.successResultOf(self.stop())
        self.assertEqual((self.status().state, self.deletes()), ("withdrawn", 0))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stopping_while_the_directory_may_be_listing_the_relay(self) -> None:
        self.agent.silent.add(f"{DIRECTORY}/relays")
        self.service.startService()
        self.assertEqual((self.status().state, self.posts()), ("enrolling", 1))
        self.agent.silent.clear()
        self.successResultOf(self.stop())
        self.assertEqual(self.deletes(), 1)

    def test_stopping_while_waiting(self) -> None:
        self.agent.down.add(CONTRACT)
        self.service.startService()
        self.pass_time(11)
        self.successResultOf(self.stop())
        self.assertEqual((self.status().state, self.deletes()), ("withdrawn", 0))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stopping_in_the_middle_of_a_heartbeat(self) -> None:
        self.service.startService()
        self.agent.silent.add(DIRECTORY)
        self.pass_time(301)
        self.agent.silent.clear()
        self.successResultOf(self.stop())
        self.assertEqual((self.deletes(), self.world.directory.status()), (1, {}))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_whoever_waits_for_an_attempt_is_told(self) -> None:
        self.agent.silent.add(CONTRACT)
        attempted = self.service.when_attempted()
        self.service.startService()
        self.assertNoResult(attempted)
        self.successResultOf(self.stop())
        self.successResultOf(attempted)

    def test_starting_again(self) -> None:
        for _ in range(2):
            self.service.startService()
            self.assertTrue(self.accepts())
            self.successResultOf(self.stop())
            self.assertFalse(self.accepts())


class Upgrades(ServiceTestCase):
    rules = Rules(relay_version=Version(0, 8, 0))

    def test_a_newer_version_is_told(self) -> None:
        self.service.startService()
        self.assertEqual(self.status().upgrade, Version(0, 8, 0))

    def test_an_older_one_is_not(self) -> None:
        self.patch(self.world.directory, "_rules", Rules(relay_version=Version(0, 7, 0)))
        self.service.startService()
        answer = Status(202, "please upgrade your relay to the given version as soon as possible", cause="0.6.1")
        self.world.root.putChild(b"directory", Scripted((202, answer.to_json().encode(), {})))
        self.pass_time(300)
        self.assertIsNone(self.status().upgrade)
        self.assertTrue(self.status().enrolled)


class OverSockets(TestCase):
    async def test_a_relay_enrolls_and_leaves(self) -> None:
        world = SocketWorld()
        key = SigningKey.generate()
        office = Office(reactor, key.public_key, world.upstream(key), OpenTunnels(), Notices(), lambda: 0.5)
        service = ContractsService(office, {world.contract.endpoint: Settings()}, "0.7.0")
        try:
            attempted = service.when_attempted()
            service.startService()
            await attempted
            self.assertEqual(service.status()[0].trouble, "")
            self.assertTrue(service.status()[0].enrolled)
            self.assertEqual(list(world.directory.status()), [key.public_key])
        finally:
            await service.stopService()
            self.assertEqual(world.directory.status(), {})
            await world.stop()
