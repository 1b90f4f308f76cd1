"""The sandbox's directory, asked by the production client."""

from __future__ import annotations

from typing import Any

import attrs
import bcrypt
from twisted.trial.unittest import TestCase

from tests.upstream.worlds import MemoryWorld, SocketWorld, WorldTestCase, entry_of
from wireleap_relay.boundaries import ApiError, BadAnswer, Listed
from wireleap_relay.sandbox.directory import Rules
from wireleap_relay.upstream.client import Request
from wireleap_relay.wire.directoryinfo import RoleInfo
from wireleap_relay.wire.endpoint import join
from wireleap_relay.wire.keys import SigningKey
from wireleap_relay.wire.versions import Version

CHALLENGE = "Wireleap-Directory-Challenge"
RESPONSE = "Wireleap-Directory-Response"


class DirectorySuite:
    """Runs in memory and over sockets."""

    world: Any
    directory: Any
    key: SigningKey

    async def post(self: Any, **changes: Any) -> Any:
        """Enroll by hand, one request at a time."""
        changes = {"data": entry_of(self.key).to_fields(), **changes}
        request = Request("POST", join(self.world.directory.pointer.endpoint, "/relays"), **changes)
        return await self.directory._client.call(request)

    async def test_info_reads_back(self: Any) -> None:
        self.assertEqual(await self.directory.info(), self.world.directory.info())

    async def test_a_relay_enrolls_stays_and_leaves(self: Any) -> None:
        entry = entry_of(self.key)
        self.assertEqual(await self.directory.relays(), {})
        self.assertEqual(await self.directory.enroll(entry), Listed())
        self.assertEqual(await self.directory.relays(), {"wireleap://127.0.0.1:13495": entry})
        self.assertEqual((await self.directory.info()).enrollment["backing"], RoleInfo(1))
        self.assertEqual(await self.directory.heartbeat(entry), Listed())
        self.assertEqual(self.world.directory.status()[self.key.public_key].heartbeats, 1)
        await self.directory.disenroll(entry)
        self.assertEqual(await self.directory.relays(), {})
        await self.directory.disenroll(entry)

    async def test_a_relay_that_falls_silent_is_forgotten(self: Any) -> None:
        entry = entry_of(self.key)
        await self.directory.enroll(entry)
        self.world.advance(600)
        await self.directory.heartbeat(entry)
        self.world.advance(600)
        self.assertEqual(len(await self.directory.relays()), 1)
        self.world.advance(301)
        self.assertEqual(await self.directory.relays(), {})

    async def test_a_heartbeat_to_a_directory_that_forgot_enrolls_again(self: Any) -> None:
        entry = entry_of(self.key)
        await self.directory.enroll(entry)
        self.world.directory.forget()
        self.assertEqual(await self.directory.relays(), {})
        await self.directory.heartbeat(entry)
        self.assertEqual(len(await self.directory.relays()), 1)

    async def test_a_heartbeat_moves_a_relay(self: Any) -> None:
        await self.directory.enroll(entry_of(self.key))
        moved = attrs.evolve(entry_of(self.key, port=99), network_usage_limit=2**40)
        await self.directory.heartbeat(moved)
        self.assertEqual(await self.directory.relays(), {"wireleap://127.0.0.1:99": moved})

    async def test_an_address_belongs_to_one_relay(self: Any) -> None:
        other = SigningKey.generate()
        await self.world.upstream(other).directory(self.world.directory.pointer).enroll(entry_of(other))
        error = await self.failure_of(self.directory.enroll(entry_of(self.key)), ApiError)
        self.assertEqual((error.code, error.status.cause), (409, "this address belongs to another relay"))

    async def test_an_entry_comes_from_the_relay_itself(self: Any) -> None:
        other = entry_of(SigningKey.generate())
        for asking in (self.directory.enroll(other), self.directory.disenroll(other)):
            error = await self.failure_of(asking, ApiError)
            self.assertEqual((error.code, error.status.cause), (403, "this entry is of another relay"))

    async def test_bad_entries_are_refused(self: Any) -> None:
        good = entry_of(self.key).to_fields()
        for bad in (
            None,
            [],
            {},
            {**good, "role": "exit"},
            {**good, "address": "target://127.0.0.1:1"},
            {**good, "address": "127.0.0.1:1"},
            {**good, "versions": None},
            {**good, "versions": {"software": "new"}},
        ):
            error = await self.failure_of(self.post(data=bad), ApiError)
            self.assertEqual(error.code, 400, str(bad))
        self.assertEqual(self.world.directory.status(), {})

    async def test_wrong_answers_to_a_challenge_are_refused_and_spend_it(self: Any) -> None:
        def hashed(text: str, cost: int = 4) -> str:
            return bcrypt.hashpw(text.encode(), bcrypt.gensalt(cost)).decode()

        for answer, cause in (
            (lambda given: (given, hashed("another text")), "challenge response is wrong"),
            (lambda given: (given, hashed(given, cost=5)), "challenge response is not a bcrypt hash of this cost"),
            (lambda given: (given, "junk"), "challenge response is not a bcrypt hash of this cost"),
            (lambda _: ("4~mine", hashed("4~mine")), "this challenge was not given"),
            (lambda _: ("", hashed("")), "this challenge was not given"),
        ):
            given = (await self.post()).header(CHALLENGE)
            challenge, response = answer(given)
            error = await self.failure_of(self.post(headers={CHALLENGE: challenge, RESPONSE: response}), ApiError)
            self.assertEqual((error.code, error.status.cause), (403, cause))
            late = self.post(headers={CHALLENGE: given, RESPONSE: hashed(given)})
            error = await self.failure_of(late, ApiError)
            self.assertEqual(error.status.cause, "this challenge was not given")
        self.assertEqual(self.world.directory.status(), {})

    async def test_a_repeated_idempotency_key_gets_the_challenge_again(self: Any) -> None:
        first = await self.post(idempotency_key="a" * 32)
        again = await self.post(idempotency_key="a" * 32)
        self.assertEqual(first.header(CHALLENGE), again.header(CHALLENGE))

    async def test_calls_have_to_be_signed(self: Any) -> None:
        url = join(self.world.directory.pointer.endpoint, "/relays")
        for method in ("POST", "DELETE"):
            request = Request(
                method, url, entry_of(self.key).to_fields(), without=frozenset({"Wireleap-Relay-Signature"})
            )
            error = await self.failure_of(self.directory._client.call(request), ApiError)
            self.assertEqual(error.code, 403)

    async def test_another_version_is_refused(self: Any) -> None:
        error = await self.failure_of(self.post(headers={"Wireleap-Relay-Dir-Version": "0.1.0"}), ApiError)
        self.assertEqual(error.code, 400)
        self.assertIn("expecting 0.2.0, got 0.1.0", error.status.cause)


class InMemory(DirectorySuite, WorldTestCase):
    make_world = MemoryWorld


class OverSockets(DirectorySuite, WorldTestCase):
    make_world = SocketWorld


class RulesSuite:
    """What a directory may ask for."""

    world: Any
    directory: Any
    key: SigningKey
    rules = Rules(
        cost=5,
        challenge_size=200,
        keys={"fronting": frozenset({"user:secret"})},
        relay_version=Version(0, 7, 1),
    )

    async def test_a_role_can_be_restricted(self: Any) -> None:
        self.assertEqual((await self.directory.info()).enrollment["fronting"], RoleInfo(0, restricted=True))
        for secret in (None, "user:wrong"):
            error = await self.failure_of(
                self.directory.enroll(entry_of(self.key, "fronting", secret=secret)), ApiError
            )
            self.assertEqual((error.code, error.status.cause), (400, "enrollment key is incorrect"))
        await self.directory.enroll(entry_of(self.key, "fronting", secret="user:secret"))
        (listed,) = (await self.directory.relays()).values()
        self.assertIsNone(listed.key, "keys are not for the public")

    async def test_a_challenge_of_any_length_is_answered(self: Any) -> None:
        await self.directory.enroll(entry_of(self.key))
        self.assertEqual(len(self.world.directory.status()), 1)

    async def test_an_upgrade_is_asked_for(self: Any) -> None:
        self.assertEqual(await self.directory.enroll(entry_of(self.key)), Listed(Version(0, 7, 1)))
        self.assertEqual(await self.directory.heartbeat(entry_of(self.key)), Listed(Version(0, 7, 1)))
        newer = attrs.evolve(entry_of(self.key), versions={"software": Version(0, 7, 1)})
        self.assertEqual(await self.directory.heartbeat(newer), Listed())
        self.assertEqual((await self.directory.info()).upgrade_channels.relay, {"default": Version(0, 7, 1)})


class RulesInMemory(RulesSuite, WorldTestCase):
    make_world = MemoryWorld


class RulesOverSockets(RulesSuite, WorldTestCase):
    make_world = SocketWorld


class NoChallenge(WorldTestCase):
    rules = Rules(cost=None)

    async def test_enrolling_takes_one_request(self) -> None:
        self.assertEqual(await self.directory.enroll(entry_of(self.key)), Listed())


class Signatures(WorldTestCase):
    async def test_a_list_under_another_key_is_refused(self) -> None:
        pointer = attrs.evolve(self.world.directory.pointer, public_key=SigningKey.generate().public_key)
        error = await self.failure_of(self.upstream.directory(pointer).relays(), BadAnswer)
        self.assertIn("its contract doesn't name", str(error))


class Crash(TestCase):
    async def test_an_error_of_its_own_gets_500(self) -> None:
        world = SocketWorld()
        try:
            key = SigningKey.generate()
            directory = world.upstream(key).directory(world.directory.pointer)
            directory._client._policy = attrs.evolve(directory._client._policy, tries=1)
            self.patch(world.directory, "_clock", lambda: None)
            with self.assertRaises(ApiError) as caught:
                await directory.relays()
            self.assertEqual(caught.exception.code, 500)
            self.assertEqual(len(self.flushLoggedErrors(TypeError)), 1)
        finally:
            await world.stop()
