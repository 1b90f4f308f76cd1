"""Floods over real connections, while an honest tunnel goes on beside them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread

from tests.tunnel.test_abuse import FLOODS, headers
from tests.tunnel.test_refusals import PlainClient
from tests.tunnel.test_session import frame
from tests.tunnel.world import Reader, Target, World, WorldTestCase
from wireleap_relay.tunnel import abuse, frames
from wireleap_relay.tunnel.abuse import Rates
from wireleap_relay.tunnel.fields import write_fields
from wireleap_relay.tunnel.settings import SessionLimits

# The honest client sends PINGs, too: a hundred in a second at most.
_RATES = Rates(resets=20, requests=20, frames=200, window_updates=200)
_GET = write_fields([(b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"x"), (b":path", b"/")])
_MORE: dict[str, Callable[[int], bytes]] = {
    abuse.REQUESTS: lambda turn: headers(2 * turn + 3, _GET),
    abuse.CONTINUATIONS: lambda turn: frame(frames.CONTINUATION if turn else frames.HEADERS, 0, 3, b"\x82"),
    abuse.HEADER_LIST: lambda turn: headers(2 * turn + 3, b"\x00\x01a\x00" * 1000),
    abuse.COMPRESSION: lambda turn: headers(2 * turn + 3, b"\xfe"),
    abuse.STREAM_IDS: lambda turn: headers(201 if turn == 0 else 3),
    abuse.FLOW_CONTROL: lambda turn: frame(frames.WINDOW_UPDATE, 0, 0, b"\x7f\xff\xff\xff"),
    abuse.PROTOCOL: lambda turn: frame(frames.PING, 0, 1, bytes(8)),
}


class AttackTests(WorldTestCase):
    def attack(self, world: World, make: Callable[[int], bytes]) -> None:
        """Send until the relay has had enough of it."""
        client = PlainClient(world.port)
        try:
            client.socket.sendall(frames.PREFACE + frames.settings({}) + headers(1, _GET))
            for turn in range(10_000):
                client.socket.sendall(make(turn))
            while client.socket.recv(65_536):
                pass
        except OSError:
            return
        finally:
            client.close()

    async def echo(self, reader: Reader, until: Deferred[Any]) -> int:
        """Have bytes come back as long as an attack takes, and once more."""
        rounds = 0
        while True:
            was_over = until.called
            reader.tunnel.write(bytes(10_000))
            await reader.at_least(10_000 * (rounds + 1))
            rounds += 1
            if was_over:
                return rounds

    async def test_an_honest_tunnel_goes_on(self) -> None:
        world = self.world(limits=SessionLimits(rates=_RATES))
        reader = await self.tunnel(self.circuit(world), self.target(Target))
        reader.keep = False
        made = 0
        for offence, attacks in {**FLOODS, **{name: [make] for name, make in _MORE.items()}}.items():
            for number, make in enumerate(attacks):
                with self.subTest(offence=offence, number=number):
                    before = sum(world.registry.counts().offences.values())
                    attack = deferToThread(self.attack, world, make)
                    reader.received = 0
                    await self.echo(reader, attack)
                    await attack
                    # A request that is reset may be one too many before its reset is.
                    self.assertEqual(sum(world.registry.counts().offences.values()), before + 1)
                    made += 1
        self.assertGreater(made, 20)
        await self.until(lambda: world.service.status().connections == 1)
        self.assertEqual(world.registry.counts().open, 1)
        self.assertLessEqual(set(_MORE), set(world.registry.counts().offences))
