"""The signed client, in a world that means well and in one that doesn't."""

from __future__ import annotations

from typing import Any

from treq.testing import RequestTraversalAgent
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase, TestCase
from twisted.web.client import Agent

from tests.upstream.badworld import RawServer, Scripted, reactor
from tests.upstream.worlds import turns
from wireleap_relay.boundaries import ApiError, BadAnswer, Unreachable, UpstreamFailed
from wireleap_relay.upstream.client import Request, SignedClient
from wireleap_relay.upstream.retry import RetryPolicy
from wireleap_relay.webclient import make_pool
from wireleap_relay.wire.keys import PublicKey, Signature, SigningKey
from wireleap_relay.wire.status import Status

OK = (200, b'{"code":200,"description":"OK"}\n', {})
URL = "http://upstream.test/x"


class RetryPolicyTests(SynchronousTestCase):
    def test_what_is_tried_again(self) -> None:
        policy = RetryPolicy()
        refused = Status(0)
        for failure, again in (
            (Unreachable("gone"), True),
            (ApiError(500, refused), True),
            (ApiError(502, refused), True),
            (BadAnswer("html", 502), True),
            (BadAnswer("not HTTP"), False),
            (BadAnswer("html", 503), False),
            (ApiError(400, refused), False),
            (ApiError(503, refused), False),
            (ApiError(202, refused), False),
        ):
            self.assertEqual(policy.delay(1, failure), 5.0 if again else None, repr(failure))
            self.assertEqual(policy.delay(2, failure), 5.0 if again else None)
            self.assertIsNone(policy.delay(3, failure))


class MemoryTestCase(SynchronousTestCase):
    """A client and a scripted server, and a clock that only the test moves."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.key = SigningKey.generate()

    def serve(self, *answers: tuple[int, bytes, dict[str, str]]) -> Scripted:
        server = Scripted(*answers)
        self.client = SignedClient(RequestTraversalAgent(server), self.clock, self.key)
        return server

    def call(self, request: Request) -> Deferred[Any]:
        return Deferred.fromCoroutine(self.client.call(request))


class Requests(MemoryTestCase):
    def test_a_get_is_signed_over_null(self) -> None:
        server = self.serve(OK)
        reply = self.successResultOf(self.call(Request("GET", URL)))
        self.assertEqual((reply.code, reply.body), (OK[0], OK[1]))
        (seen,) = server.seen
        self.assertEqual((seen.method, seen.path, seen.body), ("GET", "/x", b"null"))
        headers = seen.headers
        self.assertEqual(headers["Content-Length"], "4")
        self.assertEqual(headers["Content-Type"], "application/json")
        self.assertEqual(headers["Wireleap-Relay-Dir-Version"], "0.2.0")
        self.assertEqual(headers["Wireleap-Relay-Contract-Version"], "0.1.0")
        self.assertEqual(headers["Wireleap-Relay-Pubkey"], str(self.key.public_key))
        self.assertNotIn("Idempotency-Key", headers)
        self.assertNotIn("Wireleap-Relay-Version", headers)
        self.assertTrue(self.key.public_key.verify(Signature.from_text(headers["Wireleap-Relay-Signature"]), b"null"))

    def test_a_post_is_signed_over_its_exact_bytes(self) -> None:
        server = self.serve(OK)
        data = {"b": [1, "é", None], "a": "x:y"}
        self.successResultOf(self.call(Request("POST", URL, data)))
        (seen,) = server.seen
        self.assertEqual(seen.body, b'{"b":[1,"\\u00e9",null],"a":"x:y"}')
        key = PublicKey.from_text(seen.headers["Wireleap-Relay-Pubkey"])
        self.assertTrue(key.verify(Signature.from_text(seen.headers["Wireleap-Relay-Signature"]), seen.body))
        self.assertRegex(seen.headers["Idempotency-Key"], r"\A[0-9a-f]{32}\Z")

    def test_each_post_has_a_key_of_its_own_and_keeps_it_when_repeated(self) -> None:
        server = self.serve((500, b"{}", {}), (502, b"<html>", {}), OK)
        waiting = self.call(Request("POST", URL))
        self.clock.advance(4.9)
        self.assertEqual(len(server.seen), 1)
        self.clock.advance(0.1)
        self.assertEqual(len(server.seen), 2)
        self.clock.advance(5)
        self.assertEqual(self.successResultOf(waiting).code, 200)
        self.assertEqual(len({seen.headers["Idempotency-Key"] for seen in server.seen}), 1)
        self.assertEqual(len({seen.headers["Wireleap-Relay-Signature"] for seen in server.seen}), 1)
        self.successResultOf(self.call(Request("POST", URL)))
        self.assertEqual(len({seen.headers["Idempotency-Key"] for seen in server.seen}), 2)

    def test_a_given_key_is_used(self) -> None:
        server = self.serve(OK)
        self.successResultOf(self.call(Request("POST", URL, idempotency_key="f" * 32)))
        self.assertEqual(server.seen[0].headers["Idempotency-Key"], "f" * 32)

    def test_headers_can_be_left_out_and_added(self) -> None:
        server = self.serve(OK)
        request = Request("GET", URL, headers={"X-More": "1"}, without=frozenset({"Wireleap-Relay-Dir-Version"}))
        self.successResultOf(self.call(request))
        self.assertEqual(server.seen[0].headers["X-More"], "1")
        self.assertNotIn("Wireleap-Relay-Dir-Version", server.seen[0].headers)

    def test_three_tries_and_no_more(self) -> None:
        body = Status(500, "internal server error", cause="disk full").to_json().encode()
        server = self.serve((500, body, {}))
        waiting = self.call(Request("POST", URL))
        self.clock.pump([5.0] * 10)
        error = self.failureResultOf(waiting, ApiError).value
        self.assertEqual(len(server.seen), 3)
        self.assertEqual((error.code, error.status.cause), (500, "disk full"))
        self.assertEqual(str(error), "500 internal server error (disk full)")

    def test_refusals_are_not_tried_again(self) -> None:
        for code in (400, 401, 403, 404, 405, 409, 429, 503, 504):
            server = self.serve((code, Status(code, "no").to_json().encode(), {}))
            error = self.failureResultOf(self.call(Request("GET", URL)), ApiError).value
            self.assertEqual((error.code, len(server.seen)), (code, 1))

    def test_a_caller_who_gives_up_stops_the_tries(self) -> None:
        server = self.serve((500, b"{}", {}))
        waiting = self.call(Request("GET", URL))
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.clock.pump([5.0] * 10)
        self.assertEqual(len(server.seen), 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class Connecting(SynchronousTestCase):
    """A server that neither takes nor refuses a connection."""

    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()
        self.client = SignedClient(Agent(self.reactor, connectTimeout=60.0), self.reactor, SigningKey.generate())
        self.waiting = Deferred.fromCoroutine(self.client.call(Request("GET", "http://127.0.0.1/")))
        self.reactor.advance(0)
        self.assertEqual(len(self.reactor.tcpClients), 1)

    def test_giving_up(self) -> None:
        self.waiting.cancel()
        self.failureResultOf(self.waiting, CancelledError)

    def test_running_out_of_time(self) -> None:
        self.reactor.pump([5.0] * 11)
        error = self.failureResultOf(self.waiting, Unreachable).value
        self.assertEqual((str(error), len(self.reactor.tcpClients)), ("no answer within 15 s", 3))


class Answers(MemoryTestCase):
    def failure(self, *answer: Any) -> UpstreamFailed:
        self.serve(answer)
        waiting = self.call(Request("GET", URL))
        self.clock.pump([5.0] * 3)
        return self.failureResultOf(waiting, UpstreamFailed).value

    def test_an_error_without_a_status_object(self) -> None:
        for body in (b"", b"<html>Bad gateway</html>", b"null", b"[]", b'{"code":"x"}'):
            error = self.failure(503, body, {})
            self.assertIsInstance(error, BadAnswer)
            self.assertEqual(str(error), "answered 503 without a status object")

    def test_a_redirect_is_not_followed(self) -> None:
        for code in (301, 302, 303, 307, 308):
            error = self.failure(code, b"", {"Location": "http://elsewhere.test/"})
            self.assertEqual(str(error), f"answered {code}: redirects are not followed")

    def test_another_version_is_refused_whatever_the_answer(self) -> None:
        for name, version, good in (
            ("Wireleap-Relay-Dir-Version", "0.3.0", False),
            ("Wireleap-Relay-Contract-Version", "0.2.0", False),
            ("Wireleap-Relay-Contract-Version", "latest", False),
            ("Wireleap-Relay-Contract-Version", "0.1.7", True),
            ("Wireleap-Client-Dir-Version", "9.9.9", True),
        ):
            for code in (200, 400):
                self.serve((code, b'{"code":1}', {name: version}))
                waiting = self.call(Request("GET", URL))
                if good and code == 200:
                    self.successResultOf(waiting)
                else:
                    error = self.failureResultOf(waiting, ApiError if good else BadAnswer).value
                    self.assertEqual(name in str(error), not good)

    def test_a_cookie_is_not_sent_back(self) -> None:
        server = self.serve((200, b"{}", {"Set-Cookie": "id=relay; Path=/"}))
        for _ in range(2):
            self.successResultOf(self.call(Request("GET", URL)))
        self.assertNotIn("Cookie", server.seen[1].headers)


class OverSockets(TestCase):
    """What goes wrong below HTTP."""

    def setUp(self) -> None:
        pool = make_pool(reactor, persistent=True)
        self.addCleanup(turns_coroutine)
        self.addCleanup(pool.closeCachedConnections)
        self.agent = Agent(reactor, pool=pool)
        self.client = self.make_client()

    def make_client(self, timeout: float = 0.3, tries: int = 3) -> SignedClient:
        policy = RetryPolicy(tries, interval=0.01)
        return SignedClient(self.agent, reactor, SigningKey.generate(), timeout=timeout, policy=policy)

    async def failure(self, answer: bytes, *, close: bool = False, limit: int = 1000) -> tuple[RawServer, Exception]:
        server = RawServer(answer, close=close)
        try:
            await self.client.call(Request("POST", server.url, {"x": 1}, answer_limit=limit))
        except UpstreamFailed as e:
            await turns()
            return server, e
        finally:
            left_open = len(server.open)
            await server.stop()
            await turns()
            self.assertLessEqual(left_open, 1)
        raise AssertionError("it was taken for an answer")

    async def test_silence(self) -> None:
        server, error = await self.failure(b"")
        self.assertIsInstance(error, Unreachable)
        self.assertEqual((str(error), server.requests), ("no answer within 0.3 s", 3))

    async def test_nobody_there(self) -> None:
        server = RawServer(b"")
        url = server.url
        await server.stop()
        with self.assertRaisesRegex(Unreachable, "refused"):
            await self.make_client(timeout=5).call(Request("GET", url))

    async def test_no_such_host(self) -> None:
        with self.assertRaises(Unreachable):
            await self.make_client(timeout=5, tries=1).call(Request("GET", "http://no-such-host.invalid/"))

    async def test_hanging_up(self) -> None:
        for answer in (
            b"",
            b"HTTP/1.1 200 O",
            b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{",
        ):
            server, error = await self.failure(answer, close=True)
            self.assertEqual((type(error), server.requests), (Unreachable, 3), answer)
            self.assertIn("lost before the answer was whole", str(error))

    async def test_an_answer_that_stops_half_way(self) -> None:
        server, error = await self.failure(b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{")
        self.assertEqual((type(error), server.requests), (Unreachable, 3))
        self.assertEqual(server.open, [])

    async def test_something_else_than_http(self) -> None:
        for answer in (
            b"SSH-2.0-OpenSSH_9.2p1\r\n",
            b"\x15\x03\x01\x00\x02\x02\x28\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        ):
            server, error = await self.failure(answer)
            self.assertEqual((type(error), str(error)), (BadAnswer, "the answer is not HTTP"), answer)
            self.assertEqual(server.requests, 1)

    async def test_an_answer_without_end(self) -> None:
        head = b"HTTP/1.1 200 OK\r\n"
        for answer in (
            head + b"Content-Length: 10000000\r\n\r\n" + b"x" * 10_000_000,
            head + b"\r\n" + b"x" * 10_000_000,
            head + b"Content-Length: 1001\r\n\r\n" + b"x" * 1001,
        ):
            server, error = await self.failure(answer)
            self.assertEqual((type(error), str(error)), (BadAnswer, "the answer is longer than 1000 bytes"))
            self.assertEqual(server.open, [], "the connection has to be closed")
            self.assertEqual(server.requests, 1)

    async def test_a_head_without_end(self) -> None:
        self.client = self.make_client(timeout=20.0)
        head = b"HTTP/1.1 200 OK\r\n"
        for answer in (head + b"X: y\r\n" * 100_000, b"HTTP/1.1 100 Continue\r\n\r\n" * 100_000):
            server, error = await self.failure(answer)
            self.assertEqual((type(error), str(error)), (BadAnswer, "the answer is not HTTP"))
            self.assertEqual((server.open, server.requests), ([], 1))

    async def test_an_answer_just_within_the_limit(self) -> None:
        server = RawServer(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + b"x" * 1000)
        reply = await self.client.call(Request("GET", server.url, answer_limit=1000))
        self.assertEqual(len(reply.body), 1000)
        await server.stop()
        await turns()

    async def test_an_answer_that_ends_with_the_connection(self) -> None:
        server = RawServer(b"HTTP/1.0 200 OK\r\n\r\n{}", close=True)
        self.assertEqual((await self.client.call(Request("GET", server.url))).body, b"{}")
        await server.stop()
        await turns()

    async def test_giving_up_closes_the_connection(self) -> None:
        for answer in (b"", b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{"):
            server = RawServer(answer)
            waiting = Deferred.fromCoroutine(self.client.call(Request("GET", server.url)))
            while not server.requests:
                await turns()
            waiting.cancel()
            with self.assertRaises(CancelledError):
                await waiting
            await turns()
            self.assertEqual((server.open, server.requests), ([], 1))
            await server.stop()

    async def test_patience_is_added(self) -> None:
        server = RawServer(b"")
        with self.assertRaisesRegex(Unreachable, "within 0.4 s"):
            await self.make_client(tries=1).call(Request("GET", server.url, patience=0.1))
        await server.stop()
        await turns()


def turns_coroutine() -> Deferred[None]:
    """See :func:`tests.upstream.worlds.turns`."""
    return Deferred.fromCoroutine(turns())
