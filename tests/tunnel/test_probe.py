"""What an operator is told of the way to a relay; through web servers it is tried in tests/fronting."""

from __future__ import annotations

import socket
from typing import Any

from tests.tunnel.world import Target, WorldTestCase, reactor
from wireleap_relay.configvalues import ListenAddress
from wireleap_relay.tunnel.probe import NotReached, probe
from wireleap_relay.wire.address import Address
from wireleap_relay.wire.keys import SigningKey


class ProbeTests(WorldTestCase):
    async def why(self, port: int, patience: float = 5.0, relay: Any = None) -> str:
        address = Address.from_text(f"wireleap://127.0.0.1:{port}/wireleap")
        with self.assertRaises(NotReached) as caught:
            await probe(reactor, address, relay or SigningKey.generate().public_key, patience)
        return str(caught.exception)

    async def test_a_relay_answers(self) -> None:
        world = self.world()
        way = await probe(reactor, world.hop.address, world.key.public_key)
        self.assertTrue(way.tells_errors)
        self.assertLess(way.seconds, 5)
        self.assertEqual(world.store.tokens, [])
        await self.until(lambda: not world.service.status().connections)

    async def test_another_relay(self) -> None:
        world = self.world()
        self.assertIn("/wireleap leads to another relay", await self.why(world.port))

    async def test_nobody_listens(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as unused:
            port = unused.getsockname()[1]
        self.assertIn("can't be connected to: Connection was refused", await self.why(port))

    async def test_no_tls(self) -> None:
        world = self.world(listen_at=ListenAddress("127.0.0.1", 0, plain=True))
        self.assertRegex(await self.why(world.port), "does not speak TLS 1.3|hung up before TLS")

    async def test_silence(self) -> None:
        port = int(self.target(lambda: Target(echo=False)).rpartition(":")[2])
        self.assertIn("has not answered within 0.3 s", await self.why(port, 0.3))
