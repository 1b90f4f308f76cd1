"""What a relay does not do: each bad request has its answer, and its neighbours live on."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
from typing import Any

import attrs
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, ResponseReceived, StreamEnded, StreamReset, TrailersReceived
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from tests.tunnel.world import Target, World, WorldTestCase, reactor
from wireleap_relay.configvalues import DecoyChoice, ListenAddress
from wireleap_relay.sandbox.tunnel import TunnelError
from wireleap_relay.tunnel import abuse, dial
from wireleap_relay.tunnel.connection import Patience
from wireleap_relay.tunnel.session import Session
from wireleap_relay.wire.address import Address
from wireleap_relay.wire.encoding import write_json
from wireleap_relay.wire.keys import SigningKey
from wireleap_relay.wire.payload import Connect
from wireleap_relay.wire.sharetoken import ContractStatement, Sharetoken
from wireleap_relay.wire.versions import CLIENT_RELAY


class PlainClient:
    """A blocking HTTP/2 client of another make: the standard library's TLS, and all of h2."""

    def __init__(
        self,
        port: int,
        alpn: list[str] | None = None,
        version: Any = ssl.TLSVersion.TLSv1_3,
        connection: socket.socket | None = None,
    ) -> None:
        """Connect, unless there is a connection already that needs no TLS."""
        self.h2 = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
        if connection is not None:
            self.socket = connection
            return
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.maximum_version = version
        if alpn is None:
            alpn = ["h2"]
        if alpn:
            context.set_alpn_protocols(alpn)
        self.socket: socket.socket = context.wrap_socket(socket.create_connection(("127.0.0.1", port), 5))

    def begin(self) -> None:
        self.h2.initiate_connection()
        self.flush()

    def flush(self) -> None:
        self.socket.sendall(self.h2.data_to_send())

    def request(
        self, payload: str | None, method: str = "PUT", end: bool = False, host: str = "relay", path: str = "/wireleap"
    ) -> int:
        stream_id = self.h2.get_next_available_stream_id()
        headers = [(":method", method), (":scheme", "https"), (":authority", host), (":path", path)]
        if payload is not None:
            headers.append(("wl-payload", payload))
        self.h2.send_headers(stream_id, headers, end_stream=end)
        self.flush()
        return stream_id

    def answer(self, stream_id: int) -> dict[str, Any]:
        """Read until the stream is over."""
        found: dict[str, Any] = {"body": b"", "trailers": {}, "reset": None, "ended": False}
        while not found["ended"] or (self.h2.streams and found["reset"] is None and found.get("wait_reset")):
            data = self.socket.recv(65_536)
            if not data:
                raise EOFError("the relay hung up")
            for event in self.h2.receive_data(data):
                if getattr(event, "stream_id", None) != stream_id:
                    continue
                if isinstance(event, ResponseReceived):
                    found["headers"] = dict(event.headers)
                elif isinstance(event, DataReceived):
                    found["body"] += event.data
                elif isinstance(event, TrailersReceived):
                    found["trailers"] = dict(event.headers)
                elif isinstance(event, StreamReset):
                    found["reset"] = int(event.error_code)
                    found["ended"] = True
                elif isinstance(event, StreamEnded):
                    found["ended"] = True
            self.flush()
        return found

    def close(self) -> None:
        self.socket.close()


class RefusalTests(WorldTestCase):
    """Each payload over a real connection, read by a client that isn't ours."""

    def payload(self, world: World, **changes: Any) -> str:
        connect = Connect(
            "tcp", Address.from_text("target://127.0.0.1:9"), world.token(world.key.public_key), CLIENT_RELAY
        )
        fields = json.loads(connect.to_json())
        for path, value in changes.items():
            *parents, name = path.split("__")
            inner = fields
            for parent in parents:
                inner = inner[parent]
            if value is None:
                del inner[name]
            else:
                inner[name] = value
        return write_json(fields)

    async def ask(
        self, world: World, *payloads: str | None, method: str = "PUT", end: bool = False
    ) -> list[dict[str, Any]]:
        def work() -> list[dict[str, Any]]:
            client = PlainClient(world.port)
            try:
                client.begin()
                return [client.answer(client.request(payload, method, end)) for payload in payloads]
            finally:
                client.close()

        return await deferToThread(work)

    def assert_status(self, world: World, answer: dict[str, Any], code: int, text: str) -> None:
        self.assertEqual(answer["headers"][":status"], "200")
        self.assertEqual(answer["headers"]["trailer"], "wl-status")
        status = json.loads(answer["trailers"]["wl-status"])
        self.assertEqual(status["code"], code)
        self.assertIn(text, status["description"])
        self.assertEqual(status["origin"], str(world.key.public_key))

    async def test_malformed_payloads(self) -> None:
        world = self.world()
        cases = [
            ("not json", "wl-payload: not JSON"),
            ("null", "expected a JSON object"),
            ("[]", "expected a JSON object"),
            ("{}", "command: missing"),
            (self.payload(world, command="DANCE"), "command: expected"),
            (self.payload(world, protocol="sctp"), "protocol: expected one of"),
            (self.payload(world, protocol=None), "protocol: missing"),
            (self.payload(world, remote=None), "remote: missing"),
            (self.payload(world, remote=7), "remote: expected text"),
            (self.payload(world, remote="gopher://x:1"), "remote: expected a URL"),
            (self.payload(world, remote="target://x"), "remote: expected target://host:port"),
            (self.payload(world, remote="target://x:0"), "remote: expected a port"),
            (self.payload(world, version="0.3.0"), "not compatible"),
            (self.payload(world, version="new"), "version: expected a version"),
            (self.payload(world, version=None), "version: missing"),
            (self.payload(world, token=None), "token: missing"),
            (self.payload(world, token="x"), "token: expected a JSON object"),
            (self.payload(world, token__contract=None), "token.contract: missing"),
            (self.payload(world, token__public_key="AAAA"), "token.public_key: expected 32 bytes"),
            (self.payload(world, token__signature="AAAA"), "token.signature: expected 64 bytes"),
            (self.payload(world, token__timestamp="soon"), "token.timestamp: expected a whole number"),
        ]
        answers = await self.ask(world, *[payload for payload, _ in cases])
        for (payload, text), answer in zip(cases, answers, strict=True):
            with self.subTest(payload=payload[:60]):
                self.assert_status(world, answer, 400, text)
        self.assertEqual(sum(world.service.status().tunnels.refused.values()), len(cases))
        self.assertEqual(world.store.tokens, [])

    async def test_no_payload(self) -> None:
        world = self.world()
        [answer] = await self.ask(world, None)
        self.assert_status(world, answer, 400, "wl-payload: missing")

    async def test_tokens_that_are_not_owed(self) -> None:
        world = self.world()
        stranger = SigningKey.generate()
        now = world.statement.settlement_open
        expired = ContractStatement.sign(world.contract, now - 2000, now + 1000)
        elsewhere = ContractStatement.sign(stranger, now, now + 1000)
        forged = attrs.evolve(world.statement, settlement_close=now + 9999)

        def token(statement: ContractStatement, relay: SigningKey = world.key) -> dict[str, Any]:
            return Sharetoken.sign(world.servicekey, statement, relay.public_key, 1).to_fields()

        tampered = token(world.statement) | {"timestamp": 2}
        cases = [
            (token(world.statement, stranger), "for another relay"),
            (token(elsewhere), "unknown contract"),
            (token(expired), "expired"),
            (token(forged), "contract signature"),
            (tampered, "signature does not verify"),
        ]
        answers = await self.ask(world, *[self.payload(world, token=fields) for fields, _ in cases])
        for (_, text), answer in zip(cases, answers, strict=True):
            self.assert_status(world, answer, 400, text)
        self.assertEqual(world.store.tokens, [])

    async def test_a_token_is_good_once(self) -> None:
        world = self.world()
        payload = self.payload(world, remote=f"target://{self.target(lambda: Target(echo=False))}")

        def work() -> dict[str, Any]:
            client = PlainClient(world.port)
            client.begin()
            client.request(payload)
            again = client.answer(client.request(payload))
            client.close()
            return again

        self.assert_status(world, await deferToThread(work), 400, "used before")
        await self.until(lambda: world.service.status().tunnels.open == 0)

    async def test_a_disk_that_keeps_nothing(self) -> None:
        world = self.world()
        world.store.failing = True
        [answer] = await self.ask(world, self.payload(world))
        self.assert_status(world, answer, 500, "can't keep sharetokens")

    async def test_a_contract_that_does_not_accept(self) -> None:
        world = self.world()
        world.accepts = False
        [answer] = await self.ask(world, self.payload(world))
        self.assert_status(world, answer, 400, "not accepting")

    async def test_only_backing_relays_dial_targets(self) -> None:
        for role in ("fronting", "entropic"):
            world = self.world(role=role)
            [answer] = await self.ask(world, self.payload(world))
            self.assert_status(world, answer, 400, f"{role} relay dials relays only")

    async def test_no_new_line_in_a_status_and_no_error_behind_it(self) -> None:
        world = self.world()
        [answer] = await self.ask(world, "null")
        self.assertNotIn("\n", answer["trailers"]["wl-status"])
        [ended] = await self.ask(world, "null", end=True)
        self.assert_status(world, ended, 400, "expected a JSON object")

    async def test_ping(self) -> None:
        world = self.world()
        [answer] = await self.ask(world, '{"command":"PING"}')
        self.assertEqual(answer["headers"][":status"], "200")
        expected = {"code": 200, "description": "PONG", "origin": str(world.key.public_key)}
        self.assertEqual(answer["body"], write_json(expected).encode() + b"\n")
        self.assertEqual(answer["trailers"], {})

    async def test_other_methods(self) -> None:
        world = self.world()
        for method in ("GET", "POST", "DELETE", "HEAD"):
            [answer] = await self.ask(world, None, method=method, end=method in ("GET", "HEAD"))
            headers = answer["headers"]
            self.assertRegex(headers.pop("date"), r"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT")
            self.assertEqual(headers, {":status": "405", "content-type": "application/json", "content-length": "53"})
            body = b"" if method == "HEAD" else b'{"code":405,"description":"HTTP method not allowed"}\n'
            self.assertEqual(answer["body"], body)
        [answer] = await self.ask(world, None, method="HEAD", end=False)
        self.assertEqual(answer["body"], b"")


class DialTests(WorldTestCase):
    def closed_port(self) -> str:
        with socket.create_server(("127.0.0.1", 0)) as unused:
            return f"127.0.0.1:{unused.getsockname()[1]}"

    def assert_error(self, error: TunnelError, code: int, origin: str, text: str) -> None:
        self.assertEqual((error.status.code, error.status.origin), (code, origin))
        self.assertIn(text, error.status.description)

    async def test_refused(self) -> None:
        world = self.world()
        error = await self.failing_tunnel(self.circuit(world), self.closed_port())
        self.assert_error(error, 502, "target", "refused")
        self.assertEqual(len(world.store.tokens), 1)

    async def test_a_relay_that_can_not_be_reached_is_this_relays_fault(self) -> None:
        first, second = self.world(), self.world()
        circuit = self.circuit(first, second)
        await second.service.stopService()
        with self.assertRaises(TunnelError) as caught:
            await circuit.open("tcp", "127.0.0.1:9", None)  # type: ignore[arg-type]
        self.assert_error(caught.exception, 502, str(first.key.public_key), "refused")

    async def test_timeout(self) -> None:
        world = self.world(timeout=0.3)
        error = await self.failing_tunnel(self.circuit(world), self.silent_target())
        self.assert_error(error, 408, "target", "timed out")

    async def test_unknown_name(self) -> None:
        error = await self.failing_tunnel(self.circuit(self.world()), "no-such-host.invalid:80")
        self.assert_error(error, 502, "target", "name not found")

    async def test_a_name_that_resolves(self) -> None:
        port = self.target(Target).rpartition(":")[2]
        reader = await self.tunnel(self.circuit(self.world()), f"localhost:{port}", "tcp4")
        reader.tunnel.write(b"by name")
        await reader.at_least(7)

    async def test_loopback_is_refused_by_whatever_name(self) -> None:
        world = self.world(allow_loopback=False)
        circuit = self.circuit(world)
        for host in ("127.0.0.1", "localhost", "127.9.9.9", "[::1]", "[::ffff:127.0.0.1]"):
            for protocol in ("tcp", "udp"):
                error = await self.failing_tunnel(circuit, f"{host}:80", protocol)
                self.assert_error(error, 400, str(world.key.public_key), "refusing to dial a loopback address")
        self.assertNotIn("127.", error.status.description)

    async def test_other_addresses_that_are_never_dialled(self) -> None:
        circuit = self.circuit(self.world())
        for host, kind in [
            ("0.0.0.0", "unspecified"),
            ("0.1.2.3", "unspecified"),
            ("[::]", "unspecified"),
            ("169.254.169.254", "link-local"),
            ("[fe80::1]", "link-local"),
            ("224.0.0.1", "multicast"),
            ("255.255.255.255", "multicast"),
            ("[ff02::1]", "multicast"),
            ("[::ffff:169.254.169.254]", "link-local"),
        ]:
            error = await self.failing_tunnel(circuit, f"{host}:80")
            self.assertEqual(error.status.code, 400)
            self.assertIn(kind, error.status.description)

    async def test_the_family_that_was_asked_for(self) -> None:
        error = await self.failing_tunnel(self.circuit(self.world()), "127.0.0.1:80", "tcp6")
        self.assertEqual(error.status.code, 502)

    async def test_addresses_without_a_route(self) -> None:
        for protocol in ("tcp", "udp6"):
            reader = await self.tunnel(
                self.circuit(self.world(timeout=0.5, policy={"allow_private": True})), "[2001:db8::1]:80", protocol
            )
            if protocol == "udp6":
                reader.tunnel.abort()  # where there is a route, a datagram is as good as lost
            else:
                await reader.ended
                assert reader.error is not None
                self.assertIn(reader.error.status.code, (408, 502))

    async def test_no_socket_for_datagrams(self) -> None:
        world = self.world()

        def too_poor(port: Any) -> None:
            raise OSError(24, "Too many open files")

        self.patch(dial.UdpPort, "startListening", too_poor)
        error = await self.failing_tunnel(self.circuit(world), "127.0.0.1:53", "udp")
        self.assert_error(error, 502, "target", "dialling failed")

    async def test_a_mistake_of_our_own_is_told_and_logged(self) -> None:
        world = self.world()
        self.patch(world, "accepting", lambda contract: 1 / 0)
        error = await self.failing_tunnel(self.circuit(world), "127.0.0.1:9")
        self.assert_error(error, 500, str(world.key.public_key), "internal error")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class HandshakeTests(WorldTestCase):
    """Strangers that don't speak TLS 1.3."""

    async def refused(self, world: World, **options: Any) -> None:
        def work() -> bytes:
            client = PlainClient(world.port, **options)
            try:
                client.socket.settimeout(5)
                client.begin()
                return client.socket.recv(100)
            finally:
                client.close()

        with contextlib.suppress(OSError):
            self.assertEqual(await deferToThread(work), b"")
        await self.until(lambda: world.service.status().connections == 0)

    async def test_old_tls(self) -> None:
        await self.refused(self.world(), version=ssl.TLSVersion.TLSv1_2)

    async def test_no_tls(self) -> None:
        world = self.world()

        def work() -> bytes:
            with socket.create_connection(("127.0.0.1", world.port), 5) as plain:
                plain.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")
                answer = b""
                while data := plain.recv(1000):
                    answer += data
                return answer

        self.assertLess(len(await deferToThread(work)), 10)
        self.assertEqual(world.registry.counts().offences, {abuse.TLS: 1})

    async def test_h2_among_others(self) -> None:
        world = self.world()

        def work() -> bytes:
            client = PlainClient(world.port, alpn=["http/1.1", "h2"])
            try:
                client.begin()
                return client.answer(client.request('{"command":"PING"}'))["body"]
            finally:
                client.close()

        self.assertIn(b"PONG", await deferToThread(work))


class PatienceTests(WorldTestCase):
    """A client that keeps the relay waiting is let go; the watch looks once a second."""

    async def hangs_up(self, offence: str, world: World, say: Any) -> None:
        done: Deferred[Any] = deferToThread(self._wait_for_end, world.port, say)
        await done.addTimeout(6.0, reactor)
        self.assertEqual(world.registry.counts().offences, {offence: 1})

    def _wait_for_end(self, port: int, say: Any) -> None:
        with (
            socket.create_connection(("127.0.0.1", port), 10) if say is None else PlainClient(port).socket as connected
        ):
            connected.settimeout(10)
            if say is not None:
                connected.sendall(say)
            try:
                while connected.recv(1000):
                    pass
            except OSError:
                pass

    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])

    async def test_handshake(self) -> None:
        await self.hangs_up(abuse.SLOW_HANDSHAKE, self.world(patience=Patience(handshake=1)), None)

    async def test_preface(self) -> None:
        await self.hangs_up(abuse.SLOW_HEADERS, self.world(patience=Patience(headers=1)), b"PRI *")

    async def test_half_a_header(self) -> None:
        await self.hangs_up(
            abuse.SLOW_HEADERS, self.world(patience=Patience(headers=1)), self.preface + b"\0\0\x20\1\4\0"
        )

    async def test_headers_without_end(self) -> None:
        block = bytes([0, 0, 1, 1, 0, 0, 0, 0, 1, 0x82])
        await self.hangs_up(abuse.SLOW_HEADERS, self.world(patience=Patience(headers=1)), self.preface + block)

    async def test_idle(self) -> None:
        await self.hangs_up(abuse.IDLE, self.world(patience=Patience(idle=1)), self.preface)

    async def test_a_stream_that_was_answered_is_idle(self) -> None:
        session = Session(wake=lambda: None)
        headers = [(b":method", b"POST"), (b":scheme", b"https"), (b":authority", b"x"), (b":path", b"/")]
        session.open(headers)
        await self.hangs_up(abuse.IDLE, self.world(patience=Patience(idle=1)), session.take())

    async def test_a_request_that_another_web_server_waits_for_is_idle(self) -> None:
        factory = Factory.forProtocol(Protocol)
        factory.noisy = False
        port = reactor.listenTCP(0, factory, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        decoy = DecoyChoice(server=ListenAddress("127.0.0.1", port.getHost().port))
        session = Session(wake=lambda: None)
        headers = [(b":method", b"POST"), (b":scheme", b"https"), (b":authority", b"x"), (b":path", b"/")]
        session.open(headers).send(b"and so on")
        await self.hangs_up(abuse.IDLE, self.world(patience=Patience(idle=1), decoy=decoy), session.take())

    async def test_an_open_tunnel_is_not_idle(self) -> None:
        world = self.world(patience=Patience(handshake=1, headers=1, idle=1, closing=1))
        reader = await self.tunnel(self.circuit(world), self.target(Target))
        await deferLater(reactor, 3.5)
        reader.tunnel.write(b"awake")
        await reader.at_least(5)
