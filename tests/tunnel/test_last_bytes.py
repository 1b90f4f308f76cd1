"""How long a target has for what it has not taken when nobody is left to wait for it."""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet.task import deferLater

from tests.tunnel.world import WorldTestCase, reactor
from wireleap_relay.tunnel import splice as splicing


class LastBytesTests(WorldTestCase):
    """Client and target have both ended their sides, and the target has not taken all that the client sent."""

    async def tunnel_that_waits(self, linger: float, pace: float) -> tuple[Any, socket.socket, int]:
        self.patch(splicing, "LINGER", linger)
        self.patch(splicing, "LINGER_PACE", pace)
        world = self.world()
        circuit = self.circuit(world)
        reader, accepted = await self.tunnel_to_socket(circuit)
        accepted.shutdown(socket.SHUT_WR)
        await reader.ended
        [splice] = world.splices
        sent = 0
        while not splice._outlet.waiting:
            reader.tunnel.write(bytes(16_384))
            sent += 16_384
            await deferLater(reactor, 0)
        reader.tunnel.end()
        await self.until(lambda: splice.stream.closed)
        circuit.close()
        return world, accepted, sent

    async def test_a_target_that_never_takes_the_rest_is_let_go(self) -> None:
        world, _, _ = await self.tunnel_that_waits(0.2, 2.0**30)
        await self.until(lambda: world.service.status().tunnels.open == 0)

    async def test_a_slow_target_has_all_of_it(self) -> None:
        world, accepted, sent = await self.tunnel_that_waits(0.0, 1000.0)
        await deferLater(reactor, 0.3)
        accepted.setblocking(False)
        received = 0
        while True:
            try:
                data = accepted.recv(65_536)
            except BlockingIOError:
                await deferLater(reactor, 0)
                continue
            if not data:
                break
            received += len(data)
        self.assertEqual(received, sent)
        await self.until(lambda: world.service.status().tunnels.open == 0)
