"""A contract and a directory of the sandbox, and the production client that speaks with them: in memory and over sockets."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from treq.testing import RequestTraversalAgent
from twisted.internet import reactor
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectError
from twisted.internet.task import Clock, deferLater
from twisted.trial.unittest import TestCase

from wireleap_relay.boundaries import DirectoryApi, Upstream
from wireleap_relay.sandbox.contract import SandboxContract
from wireleap_relay.sandbox.directory import Rules, SandboxDirectory
from wireleap_relay.sandbox.ledger import Terms
from wireleap_relay.sandbox.network import SandboxNetwork
from wireleap_relay.sandbox.web import Nothing
from wireleap_relay.upstream.client import SignedClient
from wireleap_relay.upstream.contract import HttpContract
from wireleap_relay.upstream.directory import HttpDirectory
from wireleap_relay.upstream.service import UpstreamService
from wireleap_relay.wire.address import Address
from wireleap_relay.wire.contractinfo import DirectoryPointer
from wireleap_relay.wire.endpoint import Endpoint
from wireleap_relay.wire.keys import SigningKey
from wireleap_relay.wire.relayentry import RelayEntry, Role

T = TypeVar("T")

#: Unix seconds at which a clock in memory begins.
EPOCH = 1_800_000_000.0


def at_once(work: Callable[[], T]) -> Deferred[T]:
    """Run slow work here and now."""
    return succeed(work())


def entry_of(key: SigningKey, role: Role = "backing", port: int = 13495, secret: str | None = None) -> RelayEntry:
    """Make a relay's entry."""
    return RelayEntry.of_this_software(
        role=role,
        address=Address("wireleap", "127.0.0.1", port),
        pubkey=key.public_key,
        software="0.7.0",
        key=secret,
        limit=None,
    )


class MemoryAgent(RequestTraversalAgent):  # type: ignore[misc]
    """Reaches what is there in memory.

    :ivar down: beginnings of URLs that refuse connections.
    :ivar silent: beginnings of URLs that never answer.
    """

    def __init__(self, root: Nothing) -> None:
        super().__init__(root)
        self.down: set[str] = set()
        self.silent: set[str] = set()
        self.requests: list[tuple[str, str]] = []

    def request(self, method: bytes, uri: bytes, headers: Any = None, bodyProducer: Any = None) -> Deferred[Any]:
        """Make a request."""
        url = uri.decode()
        self.requests.append((method.decode(), url))
        if url.startswith(tuple(self.down)):
            return fail(ConnectError(string="refused"))
        if url.startswith(tuple(self.silent)):
            return Deferred()
        asked: Deferred[Any] = super().request(method, uri, headers, bodyProducer)
        return asked


class MemoryUpstream:
    """The production client over an agent that needs no sockets."""

    def __init__(self, agent: Any, clock: Clock, key: SigningKey) -> None:
        """Speak in the name of a relay."""
        self.client = SignedClient(agent, clock, key)
        self._clock = clock

    def contract(self, endpoint: Endpoint) -> HttpContract:
        """Give the contract at a URL."""
        return HttpContract(self.client, endpoint)

    def directory(self, pointer: DirectoryPointer) -> HttpDirectory:
        """Give the directory that a contract points at."""
        return HttpDirectory(self.client, self._clock, pointer, at_once)


class MemoryWorld:
    """Everything in memory; nothing in it takes time."""

    def __init__(self, terms: Terms | None = None, rules: Rules | None = None) -> None:
        self.clock = Clock()
        self.root = Nothing()
        base = "http://sandbox.test"
        self.directory = SandboxDirectory(
            SigningKey.generate(), Endpoint(f"{base}/directory"), self.now, at_once, rules
        )
        self.contract = SandboxContract(
            SigningKey.generate(), Endpoint(f"{base}/contract"), self.directory.pointer, self.now, terms
        )
        self.root.putChild(b"contract", self.contract.resource)
        self.root.putChild(b"directory", self.directory.resource)
        self.agent = MemoryAgent(self.root)

    def now(self) -> float:
        """Tell Unix seconds."""
        return EPOCH + self.clock.seconds()

    def upstream(self, key: SigningKey) -> MemoryUpstream:
        """Give a relay's way to them."""
        return MemoryUpstream(self.agent, self.clock, key)

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.clock.advance(seconds)

    async def stop(self) -> None:
        """Nothing to close."""


class SocketWorld:
    """The same over loopback."""

    def __init__(self, terms: Terms | None = None, rules: Rules | None = None) -> None:
        self._ahead = 0.0
        self._upstreams: list[UpstreamService] = []
        self._network = SandboxNetwork(reactor, self.now, terms=terms, rules=rules)
        self._network.startService()
        self.contract = self._network.contract
        self.directory = self._network.directory

    def now(self) -> float:
        """Tell Unix seconds."""
        return time.time() + self._ahead

    def upstream(self, key: SigningKey) -> UpstreamService:
        """Give a relay's way to them."""
        service = UpstreamService(reactor, key)
        service.startService()
        self._upstreams.append(service)
        return service

    def advance(self, seconds: float) -> None:
        """Set the contract's clock ahead."""
        self._ahead += seconds

    async def stop(self) -> None:
        """Close every connection."""
        for service in self._upstreams:
            await service.stopService()
        await self._network.stopService()
        await turns()


async def turns() -> None:
    """Let the reactor notice what has been closed."""
    for _ in range(5):
        await deferLater(reactor, 0.001)  # type: ignore[arg-type]


World = MemoryWorld | SocketWorld


class WorldTestCase(TestCase):
    """A test that has a relay in a world."""

    make_world: Callable[..., World] = MemoryWorld
    terms: Terms | None = None
    rules: Rules | None = None

    def setUp(self) -> None:
        self.world = self.make_world(self.terms, self.rules)
        self.addCleanup(lambda: Deferred.fromCoroutine(self.world.stop()))
        self.key = SigningKey.generate()
        self.upstream: Upstream = self.world.upstream(self.key)
        self.contract = self.upstream.contract(self.world.contract.endpoint)
        self.directory: DirectoryApi = self.upstream.directory(self.world.directory.pointer)

    async def failure_of(self, asking: Awaitable[object], kind: type[T]) -> T:
        """Await something that has to fail, and give its exception."""
        try:
            got = await asking
        except kind as e:  # type: ignore[misc]
            return e
        self.fail(f"expected {kind.__name__}, got {got!r}")
        raise AssertionError
