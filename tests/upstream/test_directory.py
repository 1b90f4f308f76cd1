"""The client's side of a directory, where the directory is not the sandbox's."""

from __future__ import annotations

import threading
from typing import Any

import bcrypt
from treq.testing import RequestTraversalAgent
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.upstream.badworld import Scripted, reactor
from tests.upstream.worlds import SocketWorld, at_once, entry_of
from wireleap_relay.boundaries import BadAnswer, Listed
from wireleap_relay.upstream.challenge import Challenge
from wireleap_relay.upstream.client import SignedClient
from wireleap_relay.upstream.directory import HttpDirectory
from wireleap_relay.upstream.service import UpstreamService
from wireleap_relay.wire.contractinfo import DirectoryPointer
from wireleap_relay.wire.encoding import write_json
from wireleap_relay.wire.endpoint import Endpoint
from wireleap_relay.wire.keys import SigningKey
from wireleap_relay.wire.versions import Version

Answer = tuple[int, bytes, dict[str, str]]

OK: Answer = (200, b'{"code":200,"description":"OK"}', {})
TEXT = "4~" + "c" * 100


def challenge(text: str | None) -> Answer:
    """Answer with a challenge."""
    body = b'{"code":202,"description":"repeat request with response to challenge in headers"}\n'
    return (202, body, {} if text is None else {"Wireleap-Directory-Challenge": text})


def upgrade(version: str) -> Answer:
    """Answer as the reference does to an old relay."""
    description = "please upgrade your relay to the given version as soon as possible"
    return (202, write_json({"code": 202, "description": description, "cause": version}).encode(), {})


class DirectoryTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.key = SigningKey.generate()
        self.directory_key = SigningKey.generate()
        self.clock = Clock()
        self.entry = entry_of(self.key)

    def serve(self, *answers: Answer, run: Any = at_once) -> HttpDirectory:
        self.server = Scripted(*answers)
        client = SignedClient(RequestTraversalAgent(self.server), self.clock, self.key)
        pointer = DirectoryPointer(Endpoint("http://dir.test/d"), self.directory_key.public_key)
        return HttpDirectory(client, self.clock, pointer, run)

    def result(self, asking: Any) -> Any:
        return self.successResultOf(Deferred.fromCoroutine(asking))

    def refusal(self, asking: Any) -> str:
        return str(self.failureResultOf(Deferred.fromCoroutine(asking), BadAnswer).value)


class Enrolling(DirectoryTestCase):
    def test_the_challenge_is_answered_as_the_reference_does(self) -> None:
        directory = self.serve(challenge(TEXT), OK)
        self.assertEqual(self.result(directory.enroll(self.entry)), Listed())
        first, second = self.server.seen
        for seen in (first, second):
            self.assertEqual((seen.method, seen.path), ("POST", "/d/relays"))
            self.assertEqual(seen.body, write_json(self.entry.to_fields()).encode())
            self.assertEqual(seen.headers["Wireleap-Relay-Version"], "0.7.0")
            self.assertEqual(seen.headers["Wireleap-Relay-Dir-Version"], "0.2.0")
        self.assertNotIn("Wireleap-Directory-Response", first.headers)
        self.assertNotEqual(first.headers["Idempotency-Key"], second.headers["Idempotency-Key"])
        self.assertEqual(second.headers["Wireleap-Directory-Challenge"], TEXT)
        response = second.headers["Wireleap-Directory-Response"]
        self.assertTrue(response.startswith("$2a$04$"))
        self.assertTrue(bcrypt.checkpw(TEXT.encode()[:72], response.encode()))

    def test_a_heartbeat_and_a_farewell_leave_the_version_out(self) -> None:
        directory = self.serve(challenge(TEXT), OK)
        self.result(directory.heartbeat(self.entry))
        self.result(directory.disenroll(self.entry))
        self.assertEqual([seen.method for seen in self.server.seen], ["POST", "POST", "DELETE"])
        for seen in self.server.seen:
            self.assertNotIn("Wireleap-Relay-Dir-Version", seen.headers)
            self.assertEqual(seen.headers["Wireleap-Relay-Contract-Version"], "0.1.0")
            self.assertEqual(seen.headers["Wireleap-Relay-Version"], "0.7.0")
            self.assertEqual(seen.body, write_json(self.entry.to_fields()).encode())

    def test_challenges_that_are_refused(self) -> None:
        for text, why in (
            ("19~abc", "cost 19: more than 18"),
            ("999~abc", "cost 999: more than 18"),
            ("3~abc", "cost 3: bcrypt has none below 4"),
            ("-4~abc", "can't be read"),
            ("4", "can't be read"),
            ("~abc", "can't be read"),
            ("4.5~abc", "can't be read"),
            (None, "can't be read"),
        ):
            directory = self.serve(challenge(text))
            self.assertIn(why, self.refusal(directory.enroll(self.entry)))
            self.assertEqual(len(self.server.seen), 1)

    def test_a_directory_that_keeps_challenging(self) -> None:
        directory = self.serve(challenge(TEXT))
        self.assertIn("asks for it again", self.refusal(directory.enroll(self.entry)))
        self.assertEqual(len(self.server.seen), 2)

    def test_slow_work_is_waited_for_and_earns_patience(self) -> None:
        work: Deferred[str] = Deferred()
        directory = self.serve(challenge(TEXT), OK, run=lambda solve: work)
        enrolling = Deferred.fromCoroutine(directory.enroll(self.entry))
        asked: list[float] = []
        call = directory._client.call

        async def watched(request: Any) -> Any:
            asked.append(request.patience)
            return await call(request)

        self.patch(directory._client, "call", watched)
        self.clock.advance(60)
        self.assertNoResult(enrolling)
        work.callback("$2a$")
        self.assertEqual(self.successResultOf(enrolling), Listed())
        self.assertEqual(asked, [120.0])

    def test_upgrades(self) -> None:
        self.assertEqual(self.result(self.serve(upgrade("0.8.1")).heartbeat(self.entry)), Listed(Version(0, 8, 1)))
        enrolled = self.serve(challenge(TEXT), upgrade("0.8.1")).enroll(self.entry)
        self.assertEqual(self.result(enrolled), Listed(Version(0, 8, 1)))
        self.assertIn("can't be read", self.refusal(self.serve(upgrade("newest")).heartbeat(self.entry)))

    def test_any_other_good_answer_is_an_enrollment(self) -> None:
        for answer in (OK, (201, b'{"code":201}', {}), (202, b'{"code":202,"description":"soon"}', {})):
            self.assertEqual(self.result(self.serve(answer).enroll(self.entry)), Listed())

    def test_an_answer_that_is_none(self) -> None:
        for body in (b"", b"<html>", b"null", b'{"description":"OK"}'):
            self.assertIn("can't be read", self.refusal(self.serve((200, body, {})).enroll(self.entry)))


class Lists(DirectoryTestCase):
    def signed(self, body: bytes, **changes: str) -> Answer:
        headers = {
            "Wireleap-Directory-Pubkey": str(self.directory_key.public_key),
            "Wireleap-Directory-Signature": str(self.directory_key.sign(body)),
        }
        headers.update({name.replace("_", "-"): value for name, value in changes.items()})
        return (200, body, {name: value for name, value in headers.items() if value})

    def body(self, count: int = 1) -> bytes:
        entries = {f"wireleap://10.0.0.1:{port}": self.entry.to_fields() for port in range(1, count + 1)}
        return write_json(entries).encode()

    def test_a_signed_list(self) -> None:
        relays = self.result(self.serve(self.signed(self.body())).relays())
        self.assertEqual(relays, {"wireleap://10.0.0.1:1": self.entry})

    def test_a_long_list(self) -> None:
        body = self.body(6000)
        self.assertGreater(len(body), 1024 * 1024)
        self.assertEqual(len(self.result(self.serve(self.signed(body)).relays())), 6000)

    def test_a_list_that_is_too_long(self) -> None:
        body = b'{"":' + b" " * 16 * 1024 * 1024 + b"}"
        self.assertIn("longer than", self.refusal(self.serve(self.signed(body)).relays()))

    def test_lists_that_are_not_signed_right(self) -> None:
        body = self.body()
        other = SigningKey.generate()
        for answer, why in (
            (self.signed(body, Wireleap_Directory_Pubkey=""), "not signed"),
            (self.signed(body, Wireleap_Directory_Signature=""), "not signed"),
            (self.signed(body, Wireleap_Directory_Signature="AA"), "not signed"),
            (self.signed(body, Wireleap_Directory_Signature=str(other.sign(body))), "does not verify"),
            (
                self.signed(
                    body,
                    Wireleap_Directory_Pubkey=str(other.public_key),
                    Wireleap_Directory_Signature=str(other.sign(body)),
                ),
                "its contract doesn't name",
            ),
        ):
            self.assertIn(why, self.refusal(self.serve(answer).relays()))

    def test_an_entry_that_cannot_be_read_is_left_out(self) -> None:
        good = self.entry.to_fields()
        body = write_json({"a": good, "b": {**good, "role": "spare"}, "c": None, "d": {}}).encode()
        self.assertEqual(self.result(self.serve(self.signed(body)).relays()), {"a": self.entry})

    def test_a_list_that_is_none(self) -> None:
        for body in (b"", b"[]", b"null", b"{"):
            self.assertIn("can't be read", self.refusal(self.serve(self.signed(body)).relays()))


class Work(SynchronousTestCase):
    def test_only_72_bytes_count(self) -> None:
        solved = Challenge.from_text(TEXT).solve()
        self.assertEqual(len(solved), 60)
        self.assertTrue(bcrypt.checkpw((TEXT[:72]).encode(), solved.encode()))
        self.assertFalse(bcrypt.checkpw(TEXT[:71].encode(), solved.encode()))

    def test_the_highest_cost_is_read(self) -> None:
        self.assertEqual(Challenge.from_text("18~x"), Challenge("18~x", 18))


class InThread(TestCase):
    async def test_the_reactor_is_not_held_up(self) -> None:
        threads: list[threading.Thread] = []
        solve = Challenge.solve

        def watched(self: Challenge) -> str:
            threads.append(threading.current_thread())
            return solve(self)

        self.patch(Challenge, "solve", watched)
        world = SocketWorld()
        key = SigningKey.generate()
        try:
            await world.upstream(key).directory(world.directory.pointer).enroll(entry_of(key))
        finally:
            await world.stop()
        self.assertEqual(len(threads), 1)
        self.assertIsNot(threads[0], threading.main_thread())


class Services(TestCase):
    async def test_a_service_that_was_never_used_stops(self) -> None:
        service = UpstreamService(reactor, SigningKey.generate())
        service.startService()
        await service.stopService()
        self.assertEqual(service.name, "upstream")
