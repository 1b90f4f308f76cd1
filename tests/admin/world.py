"""A relay with a REST API, and a client for that."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from tests import test_relay
from tests.tunnel.world import reactor
from wireleap_relay.relay import Relay
from wireleap_relay.sandbox.relays import free_port


@attrs.frozen
class Got:
    code: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class OverSocket(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=10)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(self.path)


def ask(
    where: int | str, path: str, method: str = "GET", host: str | None = None, body: bytes | None = None
) -> Deferred[Got]:
    """Send one request to a port of loopback or to a unix socket."""

    def work() -> Got:
        connection = (
            OverSocket(where) if isinstance(where, str) else http.client.HTTPConnection("127.0.0.1", where, timeout=10)
        )
        headers = {"Connection": "close", **({"Host": host} if host is not None else {})}
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return Got(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    return deferToThread(work)


class RestTestCase(test_relay.RelayTestCase):
    """A relay with a REST API.

    :ivar rest: its port.
    """

    def make(self, contracts: dict[str, Any] | None = None, **changes: Any) -> Relay:
        self.rest = free_port()
        return super().make(contracts, **{"rest_api": {"address": f"http://127.0.0.1:{self.rest}"}, **changes})

    async def running(self, **changes: Any) -> Relay:
        """Start a relay, and wait until it is enrolled."""
        relay = self.make(**changes)
        self.start(relay)
        await self.enrolled(relay)
        return relay

    async def eventually(self, told: Callable[[], Awaitable[bool]], seconds: float = 10.0) -> None:
        """Ask again and again until the answer is yes."""
        deadline = reactor.seconds() + seconds
        while not await told():
            if reactor.seconds() > deadline:
                self.fail("it did not come")
            await deferLater(reactor, 0.1)

    async def get(self, path: str) -> Any:
        """Get JSON data."""
        got = await ask(self.rest, path)
        self.assertEqual((got.code, got.headers["content-type"]), (200, "application/json"))
        return got.json
