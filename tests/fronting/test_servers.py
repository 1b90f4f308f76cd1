"""Every web server with the configuration that operators are given, before a relay that clients use."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import socket
import ssl
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from zope.interface import implementer

from tests.fronting.servers import IDLE, PAGE, WebServer, missing
from tests.tunnel.test_refusals import PlainClient
from tests.tunnel.world import Reader, Target, World, WorldTestCase, reactor
from wireleap_relay.cli.calls import Calls
from wireleap_relay.config import parse_config
from wireleap_relay.configvalues import ListenAddress
from wireleap_relay.sandbox.circuit import Circuit, Hop
from wireleap_relay.sandbox.tunnel import TunnelError
from wireleap_relay.tunnel.probe import probe

MB = 1_000_000
SIZE = 8 * MB
CANARY = "canary-70d1.example.invalid"


@implementer(IHalfCloseableProtocol)
class Sums(Target):
    """Takes everything, then says what it was."""

    def __init__(self) -> None:
        super().__init__(echo=False)
        self.keep = False
        self.sum = hashlib.sha256()

    def dataReceived(self, data: bytes) -> None:
        super().dataReceived(data)
        self.sum.update(data)

    def readConnectionLost(self) -> None:
        self.transport.write(self.sum.hexdigest().encode())  # type: ignore[union-attr]
        self.transport.loseConnection()  # type: ignore[union-attr]

    def writeConnectionLost(self) -> None:
        """It has had its say."""


class FrontedTestCase(WorldTestCase):
    """Puts a web server before a relay.

    :ivar lacks: what the server can't do; docs/fronting.md tells of it.
    """

    kind: str
    lacks: frozenset[str] = frozenset()

    async def front(self, listen_at: ListenAddress | None = None, **options: Any) -> tuple[World, WebServer]:
        address = listen_at or ListenAddress("127.0.0.1", 0)
        world = self.world(listen_at=address, **options)
        if not address.path:
            address = ListenAddress(address.host, world.port, plain=address.plain)
        return world, await self.serve(address)

    async def serve(self, relay: ListenAddress, **options: Any) -> WebServer:
        server = WebServer(self.kind, relay, **options)
        self.addCleanup(server.stop)
        await deferToThread(server.start)
        return server

    def behind(self, server: WebServer, *worlds: World) -> Circuit:
        """Give a circuit whose first relay is the one behind a server."""
        circuit = self.circuit(*worlds)
        circuit.hops = (Hop(server.published, worlds[0].key.public_key), *circuit.hops[1:])
        return circuit

    def nobody(self) -> str:
        """Give an address at which nobody listens."""
        with socket.create_server(("127.0.0.1", 0)) as unused:
            return f"127.0.0.1:{unused.getsockname()[1]}"

    async def open(self, circuit: Circuit, target: str) -> Reader:
        """Open a tunnel, but don't wait for word of it: some servers give none before the first byte."""
        reader = Reader()
        reader.tunnel = await circuit.open("tcp", target, reader)
        return reader

    async def talk(self, *readers: Reader, within: float = 10.0) -> None:
        """Have the targets echo a word through each tunnel."""
        for reader in readers:
            reader.tunnel.write(b"hello")
        echoes = [reader.at_least(reader.received + 5).addTimeout(within, reactor) for reader in readers]
        await gatherResults(echoes)


class ServerTests:
    """What is expected of each server."""

    async def test_visitors_see_a_site(self: Any) -> None:
        world, server = await self.front()
        host = f"127.0.0.1:{server.published.port}"

        def look() -> list[tuple[Any, bytes]]:
            seen = []
            client = PlainClient(server.published.port)
            client.begin()
            payloads = [None, None, None, f'{{"command": "{CANARY}"}}']
            ways = [("GET", "/"), ("GET", "/wireleap"), ("PUT", "/wireleap"), ("PUT", "/wireleap")]
            for payload, (method, path) in zip(payloads, ways, strict=True):
                answer = client.answer(client.request(payload, method, end=True, host=host, path=path))
                seen.append((answer["headers"][":status"], answer["body"], answer["trailers"]))
            client.close()
            context = ssl._create_unverified_context()
            old = http.client.HTTPSConnection("127.0.0.1", server.published.port, timeout=5, context=context)
            for path in ("/", "/wireleap"):
                old.request("GET", path)
                response = old.getresponse()
                seen.append((str(response.status), response.read(), {}))
            old.close()
            return seen

        page, hidden, put, wrong, old_page, old_hidden = await deferToThread(look)
        for status, body, _ in (page, old_page):
            self.assertEqual((status, body), ("200", PAGE.encode()))
        for status, body, _ in (hidden, put, old_hidden):
            self.assertEqual(status, "404")
            self.assertNotIn(b"wl-", body)
        # Only a payload is the relay's to judge.
        self.assertEqual(world.registry.counts().refused, {"request": 1})
        self.assertEqual(wrong[0], "200")
        if "trailers" not in self.lacks:
            self.assertIn("command", wrong[2]["wl-status"])
        for file in server.folder.rglob("*"):
            if file.is_file():
                self.assertNotIn(CANARY.encode(), file.read_bytes(), file)

    async def test_a_circuit_behind_it(self: Any) -> None:
        front, server = await self.front(role="fronting")
        circuit = self.behind(server, front, self.world(role="entropic"), self.world())
        data = os.urandom(MB)
        up = await self.open(circuit, self.target(Sums))
        expected = hashlib.sha256()
        for _ in range(SIZE // MB):
            up.tunnel.write(data)
            expected.update(data)
        up.tunnel.end()
        await up.ended
        self.assertEqual((bytes(up.data), up.error), (expected.hexdigest().encode(), None))

        class Burst(Target):
            def connectionMade(self) -> None:
                for _ in range(SIZE // MB):
                    self.transport.write(data)  # type: ignore[union-attr]
                self.transport.loseConnection()  # type: ignore[union-attr]

        down = await self.open(circuit, self.target(Burst))
        await down.ended
        self.assertEqual((hashlib.sha256(down.data).hexdigest(), down.error), (expected.hexdigest(), None))
        # The last relay's words reach the client whatever the web server makes of the first one's.
        refused = await self.open(circuit, self.nobody())
        await refused.ended
        self.assertEqual(refused.error.status.origin, "target")

    async def test_many_tunnels_idle_for_long(self: Any) -> None:
        world, server = await self.front()
        circuit = self.behind(server, world)
        target = self.target(Target)
        readers = [await self.open(circuit, target)]
        readers += await gatherResults([Deferred.fromCoroutine(self.open(circuit, target)) for _ in range(99)])
        await self.talk(*readers)
        self.assertEqual(world.registry.counts().open, 100)
        await deferLater(reactor, 2.5 * IDLE)
        await self.talk(*readers)

    async def test_errors_reach_the_client(self: Any) -> None:
        world, server = await self.front()
        way = await probe(reactor, server.published, world.key.public_key)
        self.assertEqual(way.tells_errors, "trailers" not in self.lacks)
        fields = {
            "address": ":1",
            "contracts": {"https://c.example": {"address": str(server.published), "role": "fronting"}},
        }
        calls = Calls(reactor, parse_config(json.dumps(fields))[0], world.key, True)
        found = [finding.level async for finding in calls._way(server.published)]
        self.assertEqual(found, ["ok"] if "trailers" not in self.lacks else ["ok", "warn"])
        circuit = self.behind(server, world)
        for target, code in ((self.nobody(), 502), ("169.254.169.254:80", 400)):
            reader = await self.open(circuit, target)
            await reader.ended
            if "trailers" not in self.lacks:
                self.assertEqual(reader.error.status.code, code)

    async def test_ends(self: Any) -> None:
        world, server = await self.front()
        circuit = self.behind(server, world)
        seen: list[Late] = []

        @implementer(IHalfCloseableProtocol)
        class Late(Target):
            """Ends its side first, and goes on reading."""

            def connectionMade(self) -> None:
                seen.append(self)
                self.echo = False
                self.transport.write(b"bye")  # type: ignore[union-attr]
                self.transport.loseWriteConnection()  # type: ignore[union-attr]

            def readConnectionLost(self) -> None:
                self.transport.loseConnection()  # type: ignore[union-attr]

            def writeConnectionLost(self) -> None:
                """Nothing more is said."""

        reader = await self.open(circuit, self.target(Late))
        await reader.at_least(3)
        if "ends" not in self.lacks:
            await reader.ended
            self.assertIsNone(reader.error)
        if "late uploads" not in self.lacks:
            reader.tunnel.write(b"something else")
            await self.until(lambda: seen[0].received == 14)
        gone: list[Target] = []

        class Watched(Target):
            def connectionMade(self) -> None:
                gone.append(self)

        given_up = await self.open(circuit, self.target(Watched))
        await self.talk(given_up)
        given_up.tunnel.abort()
        await gone[0].lost

    async def test_a_reload_in_mid_tunnel(self: Any) -> None:
        world, server = await self.front()
        circuit = self.behind(server, world)
        target = self.target(Target)
        before = await self.open(circuit, target)
        await self.talk(before)
        await deferToThread(server.reload)
        await deferLater(reactor, 0.5)
        if "reloads" not in self.lacks:
            await self.talk(before)
        again = self.behind(server, world)
        await self.talk(await self.open(again, target))

    async def test_more_than_a_thousand_tunnels_of_one_client(self: Any) -> None:
        world, server = await self.front()
        circuit = self.behind(server, world)
        target = self.target(Target)
        for _ in range(1100):
            reader = await self.open(circuit, target)
            await self.talk(reader)
            reader.tunnel.end()
        if "sharing" not in self.lacks:
            self.assertEqual(len(circuit._connections), 1)

    async def test_other_ways_to_the_relay(self: Any) -> None:
        target = self.target(Target)
        for path, plain in (("relay.sock", False), ("relay.sock", True), ("", True)):
            path = f"/tmp/{os.getpid()}-{path}" if path else ""
            address = ListenAddress("" if path else "127.0.0.1", 0, path, plain)
            world, server = await self.front(listen_at=address)
            await self.talk(await self.open(self.behind(server, world), target))
            await world.service.stopService()


class NginxTests(ServerTests, FrontedTestCase):
    kind = "nginx"
    skip = missing(kind)
    lacks = frozenset({"late uploads"})

    async def test_what_its_defaults_do(self) -> None:
        """Without what its configuration says of time, an idle tunnel is over: so the tests above would see it."""
        world, _ = await self.front()
        relay = ListenAddress("127.0.0.1", world.port)
        ours = ("grpc_read_timeout", "grpc_send_timeout", "client_body_timeout", "send_timeout")

        def defaults(text: str) -> str:
            return "\n".join(line for line in text.splitlines() if not line.strip().startswith(ours))

        server = await self.serve(relay, config=defaults)
        reader = await self.open(self.behind(server, world), self.target(Target))
        await self.talk(reader)
        await reader.ended
        self.assertIsInstance(reader.error, TunnelError)


class ApacheTests(ServerTests, FrontedTestCase):
    kind = "apache"
    skip = missing(kind)
    lacks = frozenset({"trailers", "ends", "sharing"})


class HaproxyTests(ServerTests, FrontedTestCase):
    kind = "haproxy"
    skip = missing(kind)


class CaddyTests(ServerTests, FrontedTestCase):
    kind = "caddy"
    skip = missing(kind)
    lacks = frozenset({"late uploads", "reloads"})
