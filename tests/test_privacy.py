"""No client address and no target anywhere: canaries are planted on every path, and then looked for everywhere."""

from __future__ import annotations

import http.client
import json
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.protocol import Protocol
from twisted.internet.task import deferLater
from twisted.logger import LogEvent, LogLevel, eventAsText, globalLogPublisher

from tests import test_relay
from tests.tunnel.test_refusals import PlainClient
from tests.tunnel.world import Target, reactor
from wireleap_relay.admin.namespace import make_namespace
from wireleap_relay.admin.pages import make_pages
from wireleap_relay.admin.rest import Answer
from wireleap_relay.relay import Relay
from wireleap_relay.sandbox.circuit import Circuit
from wireleap_relay.sandbox.relays import free_port

#: The client's address, the one that a web server names as such, an address that is dialled, and a name that is
#: looked up.
CLIENT, FORWARDED, ADDRESS, NAME = "127.77.66.55", "203.0.113.233", "127.13.37.99", "canary-5b1f.example.invalid"
CANARIES = [
    canary
    for text in (CLIENT, FORWARDED, ADDRESS)
    for canary in (text, str(IPv4Address(text).packed.hex()), str(int(IPv4Address(text))))
] + [NAME, NAME.partition(".")[0]]


class FromCanary:
    """A reactor whose connections come from the canary's address."""

    def __getattr__(self, name: str) -> Any:
        return getattr(reactor, name)

    def connectTCP(self, host: str, port: int, factory: Any, timeout: float = 30.0) -> Any:
        """Connect."""
        return reactor.connectTCP(host, port, factory, timeout, bindAddress=(CLIENT, 0))


class Resets(Protocol):
    """A target that breaks as soon as it hears something."""

    def dataReceived(self, data: bytes) -> None:
        self.transport.abortConnection()  # type: ignore[union-attr]


class Floods(Protocol):
    """A target that sends without end."""

    def connectionMade(self) -> None:
        self.transport.registerProducer(self, False)  # type: ignore[union-attr]

    def resumeProducing(self) -> None:
        self.transport.write(bytes(65_536))  # type: ignore[union-attr]

    def stopProducing(self) -> None:
        pass


class Canaries(test_relay.RelayTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.log: list[str] = []
        self.news: list[str] = []
        self.told: list[str] = []
        globalLogPublisher.addObserver(self.note)
        self.addCleanup(globalLogPublisher.removeObserver, self.note)

    def note(self, event: LogEvent) -> None:
        """Keep an event at whatever level, with its traceback."""
        self.log.append(eventAsText(event, includeTraceback=True, includeSystem=True))
        if event.get("log_level") is not LogLevel.debug:
            self.news.append(self.log[-1])

    def target_at(self, build: Any) -> str:
        """Start a target at the canary's address."""
        from twisted.internet.protocol import Factory

        port = reactor.listenTCP(0, Factory.forProtocol(build), interface=ADDRESS)
        self.addCleanup(port.stopListening)
        return f"{ADDRESS}:{port.getHost().port}"

    async def circuit(self, relay: Relay) -> Circuit:  # type: ignore[override]
        circuit = await self.circuit_through(relay)
        circuit._reactor = FromCanary()
        return circuit

    async def every_path(self, relay: Relay) -> None:
        """Go through success and every kind of failure, as far as a client can bring it about."""
        circuit = await self.circuit(relay)
        reader = await self.tunnel(circuit, self.target_at(Target))
        reader.tunnel.write(b"hello")
        await reader.at_least(5)
        reader.tunnel.end()
        await reader.ended
        await self.through_a_web_server(relay)
        udp = await self.tunnel(circuit, f"{ADDRESS}:9", "udp")
        udp.tunnel.write(b"datagram")
        for target in (f"{ADDRESS}:1", f"{NAME}:80", "169.254.169.254:80"):
            error = await self.failing_tunnel(await self.circuit(relay), target)
            assert error.status is not None
            self.told.append(error.status.to_json())
        reader = await self.tunnel(circuit, self.target_at(Resets))
        reader.tunnel.write(b"hello")
        await reader.ended
        assert reader.error is not None
        assert reader.error.status is not None
        self.told.append(reader.error.status.to_json())
        flood = await self.tunnel(await self.circuit(relay), self.target_at(Floods))
        flood.tunnel.abort()
        # A client that breaks the protocol, and one that is gone in the middle.
        await self.in_thread(self.rude_clients)
        half = await self.circuit(relay)
        await self.tunnel(half, self.target_at(Target))
        half.close()
        await deferLater(reactor, 0.3)

    async def through_a_web_server(self, relay: Relay) -> None:
        """Have a tunnel, and a refusal, with all that web servers add to tell who asks."""
        circuit = await self.circuit(relay)
        connection = await circuit._to_first()
        connection._request += [
            (b"x-forwarded-for", FORWARDED.encode()),
            (b"x-real-ip", FORWARDED.encode()),
            (b"forwarded", b"for=" + FORWARDED.encode()),
            (b"via", b"2.0 " + FORWARDED.encode()),
        ]
        reader = await self.tunnel(circuit, self.target_at(Target))
        reader.tunnel.write(b"hello")
        await reader.at_least(5)
        self.told.append((await self.failing_tunnel(circuit, f"{ADDRESS}:1")).status.to_json())
        reader.tunnel.abort()

    def rude_clients(self) -> None:
        payload = json.dumps(
            {"command": "CONNECT", "protocol": "tcp", "remote": f"target://{NAME}:80", "token": {}, "version": "0.2.0"}
        )
        client = PlainClient(self.port)
        client.begin()
        client.request(payload)
        client.request(f'{{"command": "{NAME}"}}')
        client.request(None, method=NAME.partition(".")[0])
        client.socket.sendall(b"\x00\x00\x04\xff\xff garbage for " + NAME.encode())
        client.socket.close()
        # One who is only shown the decoy.
        with PlainClient(self.port, alpn=["http/1.1"]).socket as visitor:
            visitor.sendall(f"GET /{NAME} HTTP/1.1\r\nHost: {NAME}\r\nConnection: close\r\n\r\n".encode())
            while visitor.recv(1000):
                pass

    def in_thread(self, work: Any) -> Deferred[Any]:
        from twisted.internet.threads import deferToThread

        return deferToThread(work)

    def ask_the_rest_api(self) -> None:
        """Ask from the canary's address, for it and in its name."""
        for path in ("/", "/metrics", f"/{NAME}", f"/api/status?{ADDRESS}"):
            connection = http.client.HTTPConnection("127.0.0.1", self.rest, timeout=10, source_address=(CLIENT, 0))
            connection.request("GET", path, headers={"Connection": "close", "User-Agent": NAME, "Referer": NAME})
            connection.getresponse().read()
            connection.close()

    async def looked_at(self, relay: Relay) -> str:
        """Give all that an operator can look at."""
        names = make_namespace(relay, relay._admin.view)
        shown = [repr(each) for each in names.values()]
        shown += [repr(names[name]()) for name in ("contracts", "tokens", "usage", "tunnels")]  # type: ignore[operator]
        for page in make_pages(reactor, relay._admin.view, lambda: self.home.path / "usage").values():
            answer: Answer = await maybeDeferred(page)  # type: ignore[arg-type]
            shown.append(answer.body.decode())
        return "\n".join(shown)

    def files(self) -> list[Path]:
        return [file for file in self.home.path.rglob("*") if file.is_file()]

    async def look(self, relay: Relay) -> None:
        """Look everywhere."""
        for place, text in [("the log", line) for line in self.log] + [("an error", text) for text in self.told]:
            for canary in CANARIES:
                self.assertNotIn(canary, text, place)
        shown = [
            await self.looked_at(relay),
            repr(relay.api_status()),
            repr(relay.parts.plane.status()),
            repr(relay.parts.contracts.status()),
        ]
        for text in shown:
            for canary in CANARIES:
                self.assertNotIn(canary, text)
        for file in self.files():
            data = file.read_bytes()
            for canary in CANARIES:
                self.assertNotIn(canary.encode(), data, file.name)
        self.assertTrue(any("Enrolled" in line for line in self.log))
        self.assertGreaterEqual(len(self.told), 4)
        self.assertGreaterEqual(len(self.files()), 5)

    async def test_they_are_nowhere(self) -> None:
        self.rest = free_port()
        relay = self.make(
            network_usage={"timeframe": "1d", "write_interval": "1s", "archive_dir": "usage"},
            rest_api={"address": f"http://127.0.0.1:{self.rest}"},
        )
        self.start(relay)
        await self.every_path(relay)
        await self.in_thread(self.ask_the_rest_api)
        await relay.report()
        await self.look(relay)
        await relay.stopService()
        await self.look(relay)

    async def test_no_line_for_each_tunnel(self) -> None:
        relay = self.make()
        self.start(relay)
        circuit = await self.circuit(relay)
        await self.until(lambda: self.states(relay) == ["enrolled"])
        target = self.target_at(Target)
        await self.tunnel(circuit, target)
        await deferLater(reactor, 0.1)
        before = len(self.news)
        for protocol in ("tcp", "udp"):
            reader = await self.tunnel(circuit, target, protocol)
            reader.tunnel.write(b"hello")
            reader.tunnel.end()
        circuit.close()
        await deferLater(reactor, 0.3)
        self.assertEqual(self.news[before:], [])

    async def test_they_would_be_found(self) -> None:
        self.told.append(f"refused: {NAME}")
        relay = self.make()
        with self.assertRaises(self.failureException):
            await self.look(relay)


class CanariesWithWorkers(Canaries):
    workers = 1
