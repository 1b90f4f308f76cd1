"""What becomes of tunnels when something fails that nobody foresaw: none goes on with a gap in its bytes."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from tests.tunnel.world import Reader, Target, WorldTestCase, reactor
from wireleap_relay.tunnel.outlet import Outlet
from wireleap_relay.tunnel.splice import TcpSplice
from wireleap_relay.tunnel.tls import TLSConnection


class Unforeseen(Exception):
    """No code knows of this."""


class ErrorTests(WorldTestCase):
    def fail_once(self, kind: Any, name: str) -> None:
        """Have the next call of a method fail."""

        def fail(*_: Any) -> None:
            patch.restore()
            raise Unforeseen

        patch = self.patch(kind, name, fail)

    def flush(self) -> None:
        self.assertEqual(len(self.flushLoggedErrors(Unforeseen)), 1)

    async def ends_all(self, kind: Any, name: str) -> None:
        world = self.world()
        circuit = self.circuit(world)
        targets = [Target(echo=False), Target(echo=False)]
        waiting = list(targets)
        address = self.target(lambda: waiting.pop(0))
        one = await self.tunnel(circuit, address)
        other = await self.tunnel(circuit, address)
        self.fail_once(kind, name)
        targets[0].transport.write(b"lost")  # type: ignore[union-attr]
        await one.ended
        targets[1].transport.write(b"too late")  # type: ignore[union-attr]
        await other.ended
        for reader, target in ((one, targets[0]), (other, targets[1])):
            self.assertEqual(reader.received, 0)
            self.assertIsNotNone(reader.error)
            await target.lost
        await self.until(lambda: world.service.status().tunnels.open == 0)
        self.flush()

    async def test_what_is_to_be_encrypted(self) -> None:
        await self.ends_all(TLSConnection, "encrypt")

    async def test_what_is_to_be_sent(self) -> None:
        await self.ends_all(Outlet, "write")

    async def test_what_came_before_the_tunnel_was_open(self) -> None:
        world = self.world()
        world.store.hold = Deferred()
        target, reader = Target(), Reader()
        reader.tunnel = await self.circuit(world).open("tcp", self.target(lambda: target), reader)
        reader.tunnel.write(b"lost")
        await target.connected_
        await deferLater(reactor, 0.05)
        self.fail_once(TcpSplice, "data_received")
        world.store.hold.callback(None)
        await reader.ended
        reader.tunnel.write(b"too late")
        await target.lost
        self.assertEqual((target.received, reader.received), (0, 0))
        assert reader.error is not None
        self.assertEqual((reader.error.status.code, reader.error.status.description), (500, "internal error"))
        await self.until(lambda: world.service.status().tunnels.open == 0)
        self.flush()

    async def test_what_is_read_of_a_client(self) -> None:
        world = self.world()
        target = Target()
        reader = await self.tunnel(self.circuit(world), self.target(lambda: target))
        self.fail_once(TcpSplice, "data_received")
        reader.tunnel.write(b"lost")
        await reader.ended
        await target.lost
        self.assertEqual(target.received, 0)
        self.flush()

    async def test_what_is_read_of_a_target(self) -> None:
        world = self.world()
        target = Target(echo=False)
        reader = await self.tunnel(self.circuit(world), self.target(lambda: target))
        self.fail_once(TcpSplice, "dataReceived")
        target.transport.write(b"lost")  # type: ignore[union-attr]
        await reader.ended
        await target.lost
        self.assertEqual(reader.received, 0)
        assert reader.error is not None
        self.assertEqual(reader.error.status.code, 410)
        self.flush()
