"""The REST API of whole relays, over real sockets."""

from __future__ import annotations

import http.client
import json
import socket
import stat
import tempfile
from importlib.resources import files
from pathlib import Path
from typing import Any

from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import validate
from twisted.internet.threads import deferToThread
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from tests.admin.world import RestTestCase, ask
from tests.tunnel.world import Target
from wireleap_relay.admin.listening import is_loopback
from wireleap_relay.sandbox.relays import free_port

DESCRIPTION = json.loads(files("wireleap_relay.admin").joinpath("openapi.json").read_text())
PATHS = [path for path in DESCRIPTION["paths"] if path != "/metrics"]


class Description(SynchronousTestCase):
    def test_it_is_openapi(self) -> None:
        validate(DESCRIPTION)


class Checks(RestTestCase):
    def check(self, path: str, code: int, data: Any) -> None:
        """Hold an answer against the description."""
        responses = DESCRIPTION["paths"][path]["get"]["responses"]
        schema = responses[str(code)]["content"]["application/json"]["schema"]
        OAS31Validator({**schema, "components": DESCRIPTION["components"]}).validate(data)

    async def check_all(self) -> None:
        for path in PATHS:
            got = await ask(self.rest, path)
            self.check(path, got.code, got.json)


class Answers(Checks):
    async def test_they_are_as_described(self) -> None:
        dead = {"address": "wireleap://127.0.0.1:1", "role": "entropic", "upgrade_channel": "default"}
        limited = self.contract_config(network_usage_limit="1GB")
        usage = {"timeframe": "2s", "archive_dir": "usage", "global_limit": "1TB"}
        relay = self.make({**limited, f"http://127.0.0.1:{free_port()}": dead}, network_usage=usage)
        self.start(relay)
        await self.check_all()
        circuit = await self.circuit_through(relay)
        reader = await self.tunnel(circuit, self.target(Target))
        reader.tunnel.write(b"hello")
        await reader.at_least(5)
        await self.failing_tunnel(circuit, f"127.0.0.1:{free_port()}")
        await self.eventually(self.a_window_is_archived)
        await self.eventually(self.balance_is_known)
        await self.check_all()

    async def a_window_is_archived(self) -> bool:
        archive = (await self.get("/api/usage"))["archive"]
        contracts = {metric["contract"] for record in archive for metric in record["metrics"]}
        return str(self.network.contract.id) in contracts

    async def balance_is_known(self) -> bool:
        contracts = (await self.get("/api/contracts"))["contracts"]
        return contracts[0]["balance"] is not None

    async def test_they_are_as_described_where_nothing_is_measured(self) -> None:
        await self.running(network_usage={})
        await self.check_all()
        self.assertEqual((await self.get("/api/status"))["network_usage"], None)

    async def test_the_status_is_what_the_networks_tools_know(self) -> None:
        relay = await self.running(contracts=self.contract_config(network_usage_limit="1GB"))
        got = await ask(self.rest, "/api/status")
        usage = relay.parts.usage
        assert usage is not None
        reading = usage.status().reading
        wanted = (
            f'{{"controller_started":true,"network_usage":{{"timeframe_since":{reading.start},'
            f'"timeframe_until":{reading.end},"cap":0,"usage":0}},"relay_status":[{{"id":"{self.network.contract.id}",'
            f'"address":"wireleap://127.0.0.1:{self.port}","role":"backing","status":{{"enrolled":true,'
            f'"network_cap_reached":false}},"network_cap":1073741824,"network_usage":0}}]}}\n'
        )
        self.assertEqual(got.body.decode(), wanted)

    async def test_behind_a_web_server(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            relay = await self.running(address=f"unix:{folder}/clients")
            await self.eventually(self.is_healthy)
            self.assertEqual((await self.get("/api/workers"))["address"], f"unix:{folder}/clients")
            await relay.stopService()

    async def test_health(self) -> None:
        dead = {"address": "wireleap://127.0.0.1:1", "role": "backing"}
        contract = f"http://127.0.0.1:{free_port()}"
        relay = self.make({contract: dead})
        self.start(relay)
        got = await ask(self.rest, "/api/health")
        self.assertEqual((got.code, got.json["healthy"]), (503, False))
        self.check("/api/health", got.code, got.json)
        self.assertEqual(got.json["reasons"][-1], f"{contract}: enrolling")
        await relay.stopService()
        await self.running()
        await self.eventually(self.is_healthy)

    async def is_healthy(self) -> bool:
        got = await ask(self.rest, "/api/health")
        self.assertEqual(got.json["healthy"], got.code == 200)
        self.assertEqual(got.json["reasons"] == [], got.code == 200)
        return got.code == 200


class AnswersWithWorkers(Checks):
    workers = 2

    async def test_workers(self) -> None:
        relay = await self.running()
        circuit = await self.circuit_through(relay)
        await self.tunnel(circuit, self.target(Target))
        found: dict[str, Any] = {}

        async def told() -> bool:
            found.update(await self.get("/api/workers"))
            states = [worker["state"] for worker in found["workers"]]
            return bool(found["tunnels"]["open"]) and states == ["running", "running"]

        await self.eventually(told)
        self.assertEqual(sum(worker["tunnels"] for worker in found["workers"]), 1)
        self.assertEqual(found["tunnels"]["handshakes"], {"done": 1})
        await self.check_all()


class Refusals(RestTestCase):
    async def test_nothing_can_be_changed(self) -> None:
        await self.running()
        for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS", "BREW"):
            got = await ask(self.rest, "/api/status", method, body=b"{}")
            self.assertEqual((got.code, got.headers["allow"]), (405, "GET, HEAD"), method)
            self.assertEqual(got.body, b'{"code":405,"description":"HTTP method not allowed"}\n')

    async def test_what_is_not_there(self) -> None:
        await self.running()
        for path in ("/api", "/api/", "/api/status/", "/api/nothing", "//api/status", "/%2e%2e/config.json", "/x?y=z"):
            got = await ask(self.rest, path)
            self.assertEqual((got.code, got.headers["content-type"]), (404, "application/json"), path)
            self.assertEqual(got.json, {"code": 404, "description": "not found"})

    async def test_head(self) -> None:
        await self.running()
        got, head = await ask(self.rest, "/api/contracts"), await ask(self.rest, "/api/contracts", "HEAD")
        self.assertEqual((head.code, head.body), (200, b""))
        self.assertEqual(set(head.headers), set(got.headers))
        self.assertGreater(int(head.headers["content-length"]), 100)

    async def test_a_query_is_no_matter(self) -> None:
        await self.running()
        self.assertEqual((await ask(self.rest, "/api/status?pretty=1")).code, 200)

    async def test_names_of_others_that_lead_here(self) -> None:
        await self.running()
        for host in ("evil.example", f"evil.example:{self.rest}"):
            got = await ask(self.rest, "/api/status", host=host)
            self.assertEqual((got.code, got.json["code"]), (403, 403))
        for host in ("localhost", "127.0.0.1", f"[::1]:{self.rest}", ""):
            self.assertEqual((await ask(self.rest, "/api/status", host=host)).code, 200)

    async def test_browsers_are_told_to_be_careful(self) -> None:
        await self.running()
        got = await ask(self.rest, "/api/status")
        self.assertEqual(got.headers["x-content-type-options"], "nosniff")
        self.assertEqual(got.headers["cache-control"], "no-store")
        self.assertIn("default-src 'none'", got.headers["content-security-policy"])
        self.assertNotIn("access-control-allow-origin", got.headers)


class Places(RestTestCase):
    def setUp(self) -> None:
        super().setUp()
        folder = tempfile.TemporaryDirectory()  # trial's own folders have names too long for sockets
        self.addCleanup(folder.cleanup)
        self.socket_path = Path(folder.name) / "rest.sock"

    async def answers(self, where: int | str) -> bool:
        """Tell whether a healthy relay is there."""
        try:
            return (await ask(where, "/api/health")).code == 200
        except OSError:
            return False

    async def test_a_unix_socket_with_its_mode(self) -> None:
        for mode in ("600", "660"):
            api = {"address": f"file://{self.socket_path}", "socket_umask": mode}
            relay = await self.running(rest_api=api)
            self.assertEqual(stat.S_IMODE(self.socket_path.stat().st_mode), int(mode, 8))
            self.assertEqual((await ask(str(self.socket_path), "/api/health")).code, 200)
            await relay.stopService()
            self.assertFalse(self.socket_path.exists())

    async def test_without_a_host(self) -> None:
        await self.running(rest_api={"address": f"file://{self.socket_path}"})

        def work() -> bytes:
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(self.socket_path))
                client.sendall(b"GET /api/status HTTP/1.0\r\n\r\n")
                return client.recv(65536)

        self.assertTrue((await deferToThread(work)).startswith(b"HTTP/1.0 200 OK\r\n"))

    async def test_a_socket_that_was_left_behind(self) -> None:
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(self.socket_path))
        await self.running(rest_api={"address": f"file://{self.socket_path}"})
        self.assertEqual((await ask(str(self.socket_path), "/api/health")).code, 200)

    async def test_a_socket_of_somebody_else(self) -> None:
        with socket.socket(socket.AF_UNIX) as alive:
            alive.bind(str(self.socket_path))
            alive.listen()
            await self.running(rest_api={"address": f"file://{self.socket_path}"})
            self.assertTrue(self.socket_path.exists())
        await self.eventually(lambda: self.answers(str(self.socket_path)))

    async def test_an_address_that_is_taken_does_not_stop_the_relay(self) -> None:
        relay = self.make()
        with socket.create_server(("127.0.0.1", self.rest)):
            self.start(relay)
            await self.enrolled(relay)
        await self.eventually(lambda: self.answers(self.rest))

    def test_what_is_loopback(self) -> None:
        self.assertEqual(
            [
                host
                for host in (
                    "127.0.0.1",
                    "127.9.9.9",
                    "::1",
                    "localhost",
                    "0.0.0.0",
                    "::",
                    "",
                    "host.example",
                    "192.0.2.1",
                )
                if is_loopback(host)
            ],
            ["127.0.0.1", "127.9.9.9", "::1", "localhost"],
        )

    async def test_an_address_for_everybody_is_warned_of(self) -> None:
        lines: list[str] = []
        observer = lambda event: lines.append(str(event.get("log_format")))  # noqa: E731
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        relay = self.make()
        await self.running(rest_api={"address": f"http://0.0.0.0:{self.rest}"})
        self.assertIn("rest_api.address: {address} can be reached from outside: anybody may look at this relay", lines)
        del relay


class Restart(RestTestCase):
    async def test_it_can_be_left_to_another_daemon_and_taken_up_again(self) -> None:
        relay = await self.running()
        kept = http.client.HTTPConnection("127.0.0.1", self.rest, timeout=10)
        self.addCleanup(kept.close)

        def ask_again() -> int:
            kept.request("GET", "/api/status")
            answer = kept.getresponse()
            answer.read()
            return answer.status

        self.assertEqual(await deferToThread(ask_again), 200)
        await relay.keep(False)
        with self.assertRaises(OSError):
            await ask(self.rest, "/api/status")
        self.assertEqual(await deferToThread(lambda: kept.sock.recv(1)), b"")
        await relay.keep(True)
        self.assertEqual((await ask(self.rest, "/api/health")).code, 200)
        self.assertIn("is open", (await self.get("/api/events"))["events"][0]["text"])


class Reload(RestTestCase):
    async def test_it_needs_a_restart_and_says_so(self) -> None:
        relay = await self.running()
        lines: list[str] = []
        observer = lambda event: lines.append(str(event.get("path")))  # noqa: E731
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        self.write_config(rest_api={"address": "http://127.0.0.1:1"})
        self.assertTrue(relay.reload())
        self.assertIn("rest_api", lines)
        self.assertEqual((await ask(self.rest, "/api/health")).code, 200)
