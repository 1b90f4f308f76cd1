"""Three whole relays, a contract and a directory in one process, joined as an operator's config joins them.

These are pytest-twisted's: the reactor runs between them as it does in the
daemon. ``conftest.py`` puts them behind trial's own asynchronous tests, which
start and stop the reactor.
"""

from __future__ import annotations

import datetime
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import get_args

import pytest
import pytest_twisted
from twisted.application.service import MultiService
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater
from twisted.web.resource import Resource
from twisted.web.server import Site

from wireleap_relay.composition import make_relay
from wireleap_relay.config import parse_config
from wireleap_relay.home import Home
from wireleap_relay.sandbox.circuit import Circuit, Hop
from wireleap_relay.sandbox.fetch import fetch
from wireleap_relay.sandbox.ledger import Terms
from wireleap_relay.sandbox.network import SandboxNetwork
from wireleap_relay.sandbox.relays import free_port
from wireleap_relay.sandbox.wallet import BoughtWallet
from wireleap_relay.wire.address import Address
from wireleap_relay.wire.relayentry import Role
from wireleap_relay.workers.plane import Plane


class Page(Resource):
    isLeaf = True
    body = b"a page " * 100_000

    def render_GET(self, request: object) -> bytes:
        return self.body


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[tuple[SandboxNetwork, list[MultiService], Circuit, str]]:
    """A network with a relay of each role, a circuit through them, and a page to fetch."""
    network = SandboxNetwork(reactor, time.time, terms=Terms(duration=30.0, submission_window=30.0))
    network.startService()
    relays: list[MultiService] = []
    hops: list[Hop] = []
    for role in get_args(Role):
        home = Home(folder / role)
        identity = home.create_identity(datetime.datetime.now(datetime.UTC))
        address = f"127.0.0.1:{free_port()}"
        config = {
            "address": address,
            "drain_timeout": "1s",
            "danger_zone": {"allow_loopback": True},
            "workers": 0,
            "contracts": {network.contract.endpoint: {"address": f"wireleap://{address}", "role": role}},
        }
        relays.append(make_relay(reactor, home, parse_config(json.dumps(config))[0], identity))
        relays[-1].startService()
        hops.append(Hop(Address.from_text(f"wireleap://{address}"), identity.key.public_key))
    site = reactor.listenTCP(0, Site(Page(), reactor=reactor), interface="127.0.0.1")  # type: ignore[attr-defined]
    while len(network.directory.status()) < 3:
        await deferLater(reactor, 0.02)
    wallet = BoughtWallet(reactor, time.time, network.contract.endpoint, network.contract.issue)
    await wallet.buy()
    circuit = Circuit(reactor, hops, wallet)
    try:
        yield network, relays, circuit, f"http://127.0.0.1:{site.getHost().port}/"
    finally:
        circuit.close()
        await gatherResults([relay.stopService() for relay in relays])
        await site.stopListening()
        await network.stopService()


@pytest_twisted.ensureDeferred
async def test_a_page_through_fronting_entropic_and_backing(tmp_path: Path) -> None:
    async with running(tmp_path) as (network, relays, circuit, url):
        page = await fetch(reactor, circuit, url)
        assert (page.status, page.body) == (200, Page.body)
        planes = [relay.getServiceNamed("plane") for relay in relays]
        assert [plane.status().tunnels.opened for plane in planes if isinstance(plane, Plane)] == [1] * 3
    assert network.directory.status() == {}


@pytest_twisted.ensureDeferred
async def test_many_pages_at_once(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, relays, circuit, url):
        pages = await gatherResults([Deferred.fromCoroutine(fetch(reactor, circuit, url)) for _ in range(20)])
        assert [page.body for page in pages] == [Page.body] * 20
        first = relays[0].getServiceNamed("plane")
        assert isinstance(first, Plane)
        assert first.status().connections == 1


@pytest_twisted.ensureDeferred
async def test_roles_are_kept(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, _, circuit, url):
        fronting_only = Circuit(reactor, circuit.hops[:1], circuit._wallet)
        with pytest.raises(Exception, match="a fronting relay dials relays only"):
            await fetch(reactor, fronting_only, url)
        fronting_only.close()
