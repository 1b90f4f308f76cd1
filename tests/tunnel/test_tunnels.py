"""Tunnels over real sockets: a client's circuit, the relay's listener, and targets."""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import DatagramProtocol
from twisted.internet.task import deferLater
from zope.interface import implementer

from tests.tunnel.world import Reader, Target, WorldTestCase, reactor
from wireleap_relay.tunnel import splice as splicing
from wireleap_relay.tunnel.splice import READ_SIZE
from wireleap_relay.tunnel.stream import HIGH_WATER
from wireleap_relay.tunnel.windows import STREAM_WINDOW
from wireleap_relay.wire.status import Status


@implementer(IHalfCloseableProtocol)
class Polite(Target):
    """Answers once the other side has ended, and only then ends its own."""

    answer = b"the answer"

    def __init__(self) -> None:
        super().__init__(echo=False)

    def readConnectionLost(self) -> None:
        self.ended.callback(None)
        self.transport.write(self.answer)  # type: ignore[union-attr]
        self.transport.loseConnection()  # type: ignore[union-attr]

    def writeConnectionLost(self) -> None:
        pass


class TcpTunnelTests(WorldTestCase):
    async def test_echo_and_metering(self) -> None:
        world = self.world()
        reader = await self.tunnel(self.circuit(world), self.target(Target))
        reader.tunnel.write(b"hello")
        await reader.at_least(5)
        self.assertEqual(bytes(reader.data), b"hello")
        self.assertEqual((world.meter_.from_clients, world.meter_.from_targets), (5, 5))
        self.assertEqual(len(world.store.tokens), 1)
        self.assertEqual(world.service.status().tunnels.open, 1)
        reader.tunnel.abort()
        await self.until(lambda: world.service.status().tunnels.open == 0)

    async def test_headers_come_before_any_byte(self) -> None:
        await self.tunnel(self.circuit(self.world()), self.target(lambda: Target(echo=False)))

    async def test_three_hops(self) -> None:
        worlds = [self.world() for _ in range(3)]
        reader = await self.tunnel(self.circuit(*worlds), self.target(Target))
        reader.tunnel.write(b"far away")
        await reader.at_least(8)
        self.assertEqual(bytes(reader.data), b"far away")
        self.assertEqual([len(world.store.tokens) for world in worlds], [1, 1, 1])

    async def test_client_half_closes_and_reads_the_answer(self) -> None:
        world = self.world()
        target = Polite()
        reader = await self.tunnel(self.circuit(world), self.target(lambda: target))
        reader.tunnel.write(b"the question")
        reader.tunnel.end()
        await reader.ended
        self.assertEqual(bytes(target.data), b"the question")
        self.assertEqual(bytes(reader.data), b"the answer")
        self.assertIsNone(reader.error)
        await self.until(lambda: world.service.status().tunnels.open == 0)

    async def test_target_half_closes_and_reads_on(self) -> None:
        target = Target(echo=False)
        reader = await self.tunnel(self.circuit(self.world()), self.target(lambda: target))
        await target.connected_
        target.transport.write(b"all I have to say")  # type: ignore[union-attr]
        target.transport.loseWriteConnection()  # type: ignore[union-attr]
        await reader.ended
        self.assertEqual(bytes(reader.data), b"all I have to say")
        reader.tunnel.write(b"I have more")
        reader.tunnel.end()
        await target.lost
        self.assertEqual(bytes(target.data), b"I have more")

    async def test_a_target_that_closes_loses_nothing(self) -> None:
        size = 4_000_000

        class Burst(Target):
            def connectionMade(self) -> None:
                self.transport.write(bytes(size))  # type: ignore[union-attr]
                self.transport.loseConnection()  # type: ignore[union-attr]

        world = self.world()
        reader = await self.tunnel(self.circuit(world), self.target(Burst))
        await reader.ended
        self.assertEqual(reader.received, size)
        self.assertIsNone(reader.error)
        self.assertEqual(world.meter_.from_targets, size)

    async def test_a_slow_reader_still_gets_all_of_a_closed_target(self) -> None:
        size = 3_000_000

        class Burst(Target):
            def connectionMade(self) -> None:
                self.transport.write(bytes(size))  # type: ignore[union-attr]
                self.transport.loseConnection()  # type: ignore[union-attr]

        reader = await self.tunnel(self.circuit(self.world()), self.target(Burst), credit=False)
        given = 0
        while not reader.ended.called:
            await deferLater(reactor, 0.005)
            reader.tunnel.credit(reader.received - given)
            given = reader.received
        self.assertEqual(reader.received, size)
        self.assertIsNone(reader.error)

    async def test_a_targets_reset_is_told_as_410(self) -> None:
        target = Target(echo=False)
        reader = await self.tunnel(self.circuit(self.world()), self.target(lambda: target))
        await target.connected_
        target.transport.abortConnection()  # type: ignore[union-attr]
        await reader.ended
        assert reader.error is not None
        self.assertEqual((reader.error.status.code, reader.error.status.origin), (410, "target"))

    async def test_a_clients_reset_reaches_the_target(self) -> None:
        target = Target(echo=False)
        reader = await self.tunnel(self.circuit(self.world()), self.target(lambda: target))
        await target.connected_
        reader.tunnel.abort()
        reason = await target.lost
        self.assertIsInstance(reason, ConnectionLost)

    async def test_what_an_ended_client_sent_arrives_though_it_resets_then(self) -> None:
        target = Target(echo=False)
        reader = await self.tunnel(self.circuit(self.world()), self.target(lambda: target))
        await target.connected_
        reader.tunnel.write(bytes(STREAM_WINDOW))
        reader.tunnel.end()
        reader.tunnel.abort()
        await target.lost
        self.assertEqual(target.received, STREAM_WINDOW)

    async def test_a_lost_client_takes_its_tunnels_along(self) -> None:
        world = self.world()
        circuit = self.circuit(world)
        targets = [Target(echo=False) for _ in range(5)]
        waiting = list(targets)
        address = self.target(lambda: waiting.pop())
        for _ in targets:
            await self.tunnel(circuit, address)
        circuit.close()
        await gatherResults([target.lost for target in targets])
        await self.until(lambda: world.service.status().connections == 0)
        self.assertEqual(world.service.status().tunnels.open, 0)

    async def test_early_data_waits_for_the_dial_and_the_deposit(self) -> None:
        world = self.world()
        world.store.hold = Deferred()
        circuit = self.circuit(world)
        reader = Reader()
        reader.tunnel = await circuit.open("tcp", self.target(Target), reader)
        reader.tunnel.write(b"in a hurry")
        await deferLater(reactor, 0.1)
        self.assertFalse(reader.opened.called)
        self.assertEqual(reader.received, 0)
        world.store.hold.callback(None)
        await reader.at_least(10)
        self.assertEqual(bytes(reader.data), b"in a hurry")

    async def test_a_client_that_leaves_while_its_tunnel_opens(self) -> None:
        world = self.world()
        world.store.hold = Deferred()
        target = Target()
        reader = Reader()
        reader.tunnel = await self.circuit(world).open("tcp", self.target(lambda: target), reader)
        await target.connected_
        reader.tunnel.abort()
        await target.lost
        world.store.hold.callback(None)
        self.assertEqual(world.service.status().tunnels.opened, 0)

    async def test_a_client_that_leaves_while_its_target_is_dialled(self) -> None:
        world = self.world()
        reader = Reader()
        reader.tunnel = await self.circuit(world).open("tcp", self.silent_target(), reader)
        await self.until(lambda: world.store.tokens)
        await deferLater(reactor, 0.05)
        reader.tunnel.abort()
        await deferLater(reactor, 0.05)
        self.assertEqual(world.service.status().tunnels.opened, 0)

    async def test_a_token_used_twice_while_the_target_is_reached(self) -> None:
        world = self.world()
        target = Target()
        address = self.target(lambda: target)
        token = world.token(world.key.public_key)
        self.patch(world, "token", lambda relay: token)
        world.store.hold = Deferred()
        circuit = self.circuit(world)
        world.store.deposit(world.token(world.key.public_key))
        reader = Reader()
        reader.tunnel = await circuit.open("tcp", address, reader)
        await target.connected_
        world.store.hold.callback(None)
        await reader.ended
        assert reader.error is not None
        self.assertEqual(reader.error.status.code, 400)
        await target.lost

    async def test_two_hundred_tunnels_on_one_connection(self) -> None:
        world = self.world()
        circuit = self.circuit(world)
        address = self.target(Target)
        readers = [await self.tunnel(circuit, address) for _ in range(200)]
        for index, reader in enumerate(readers):
            reader.tunnel.write(str(index).encode() * 1000)
        await gatherResults([reader.at_least(len(str(index)) * 1000) for index, reader in enumerate(readers)])
        self.assertEqual(world.service.status().connections, 1)
        for index, reader in enumerate(readers):
            self.assertEqual(bytes(reader.data), str(index).encode() * 1000)

    async def test_ipv6(self) -> None:
        try:
            port = reactor.listenTCP(0, _factory(Target), interface="::1")
        except Exception as e:  # noqa: BLE001
            self.skipTest(f"no IPv6 on this machine: {e}")
        self.addCleanup(port.stopListening)
        for protocol in ("tcp", "tcp6"):
            reader = await self.tunnel(self.circuit(self.world()), f"[::1]:{port.getHost().port}", protocol)
            reader.tunnel.write(b"six")
            await reader.at_least(3)


def _factory(build: Any) -> Any:
    from twisted.internet.protocol import Factory

    factory = Factory.forProtocol(build)
    factory.noisy = False
    return factory


class BackPressureTests(WorldTestCase):
    """The bound that the documentation states, with a gigabyte on offer."""

    timeout = 120
    offered = 1_000_000_000

    async def test_a_reader_that_never_reads(self) -> None:
        offered = self.offered

        class Source:
            """Writes a gigabyte, as far as the other side lets it."""

            written = 0

            def resumeProducing(self) -> None:
                self.stopped = False
                while not self.stopped and self.written < offered:
                    self.written += 65_536
                    self.transport.write(bytes(65_536))

            def pauseProducing(self) -> None:
                self.stopped = True

            def stopProducing(self) -> None:
                self.stopped = True

        source = Source()

        class Fountain(Target):
            def connectionMade(self) -> None:
                source.transport = self.transport  # type: ignore[attr-defined]
                self.transport.registerProducer(source, True)  # type: ignore[union-attr]
                source.resumeProducing()

        world = self.world()
        circuit = self.circuit(world)
        reader = await self.tunnel(circuit, self.target(Fountain), credit=False)
        await self._until_still(lambda: (source.written, world.meter_.from_targets))
        held = world.meter_.from_targets - reader.received
        self.assertLess(reader.received, 1_000_000)
        self.assertLessEqual(held, HIGH_WATER + READ_SIZE)
        self.assertLess(source.written, 20_000_000)  # the rest are the kernel's buffers
        # Its neighbour on the same connection notices nothing.
        neighbour = await self.tunnel(circuit, self.target(Target))
        for _ in range(20):
            neighbour.tunnel.write(bytes(50_000))
        await neighbour.at_least(1_000_000)

    async def test_more_is_read_at_once_for_a_client_that_keeps_up(self) -> None:
        class Fountain(Target):
            def connectionMade(self) -> None:
                self.transport.write(bytes(5_000_000))  # type: ignore[union-attr]

        world = self.world()
        circuit = self.circuit(world)
        await self.tunnel(circuit, self.target(Fountain), credit=False)
        await self._until_still(lambda: world.meter_.from_targets)
        unread = world.splices[0].transport
        self.assertLess(unread.bufferSize, READ_SIZE)
        reader = await self.tunnel(circuit, self.target(Fountain))
        await reader.at_least(5_000_000)
        self.assertLess(unread.bufferSize, READ_SIZE)
        self.assertEqual(max(splice.transport.bufferSize for splice in world.splices), READ_SIZE)

    async def test_a_target_that_never_reads(self) -> None:
        world = self.world()
        circuit = self.circuit(world)
        reader, _ = await self.tunnel_to_socket(circuit)
        offered = 0
        last = -1
        while last != (last := world.meter_.from_clients) and offered < self.offered:
            for _ in range(100):
                if not reader.paused:
                    reader.tunnel.write(bytes(65_536))
                    offered += 65_536
                await deferLater(reactor, 0.003)
        # In the relay: its socket's buffer, and a window's worth; in the kernel: what it has room for.
        splice = world.splices[0]
        waiting = splice.transport.dataBuffer  # type: ignore[attr-defined]
        held = len(waiting) - splice.transport.offset + splice.transport._tempDataLen  # type: ignore[attr-defined]
        self.assertLessEqual(held, splice.stream.receiving.size + READ_SIZE + 64 * 1024)
        self.assertLess(offered, 2_000_000)
        neighbour = await self.tunnel(circuit, self.target(Target))
        for _ in range(20):
            neighbour.tunnel.write(bytes(50_000))
        await neighbour.at_least(1_000_000)

    async def _until_still(self, measure: Any) -> None:
        last = None
        while last != (last := measure()):
            await deferLater(reactor, 0.3)


class UdpTests(WorldTestCase):
    async def _target(self) -> tuple[Any, str]:
        class Echo(DatagramProtocol):
            def __init__(self) -> None:
                self.seen: list[bytes] = []

            def datagramReceived(self, datagram: bytes, addr: Any) -> None:
                self.seen.append(datagram)
                self.transport.write(datagram.upper(), addr)  # type: ignore[union-attr]

        echo = Echo()
        port = reactor.listenUDP(0, echo, "127.0.0.1", 65_535)
        self.addCleanup(port.stopListening)
        return echo, f"127.0.0.1:{port.getHost().port}"

    async def test_each_frame_is_a_datagram_both_ways(self) -> None:
        echo, address = await self._target()
        world = self.world()
        reader = await self.tunnel(self.circuit(world), address, "udp")
        for size in (1, 100, 4096, 9000):
            reader.tunnel.write(b"d" * size)
            await self.until(lambda size=size: echo.seen and len(echo.seen[-1]) == size)
        await reader.at_least(1 + 100 + 4096 + 9000)
        self.assertEqual([len(datagram) for datagram in echo.seen], [1, 100, 4096, 9000])
        self.assertEqual([len(piece) for piece in reader.pieces], [1, 100, 4096, 9000])
        self.assertEqual(world.meter_.total, 2 * (1 + 100 + 4096 + 9000))
        reader.tunnel.abort()
        await self.until(lambda: world.service.status().tunnels.open == 0)

    async def test_an_answer_to_a_client_that_has_ended(self) -> None:
        self.patch(splicing, "UDP_LINGER", 0.3)
        _, address = await self._target()
        world = self.world()
        reader = await self.tunnel(self.circuit(world), address, "udp4")
        reader.tunnel.write(b"query")
        reader.tunnel.end()
        await reader.ended
        self.assertEqual(bytes(reader.data), b"QUERY")
        self.assertIsNone(reader.error)
        await self.until(lambda: world.service.status().tunnels.open == 0)

    async def test_through_three_hops(self) -> None:
        _, address = await self._target()
        worlds = [self.world() for _ in range(3)]
        reader = await self.tunnel(self.circuit(*worlds), address, "udp")
        reader.tunnel.write(b"query")
        await reader.at_least(5)
        self.assertEqual(bytes(reader.data), b"QUERY")

    async def test_nobody_there(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as unused:
            unused.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{unused.getsockname()[1]}"
        reader = await self.tunnel(self.circuit(self.world()), address, "udp")
        reader.tunnel.write(b"anybody?")
        await reader.ended
        assert reader.error is not None
        self.assertEqual(reader.error.status.code, 410)

    async def test_ipv6(self) -> None:
        error = await self.failing_tunnel(self.circuit(self.world()), "127.0.0.1:53", "udp6")
        self.assertEqual(error.status.code, 502)


class EndingTests(WorldTestCase):
    async def test_maxtime(self) -> None:
        world = self.world(maxtime=0.3)
        reader = await self.tunnel(self.circuit(world), self.target(Target))
        reader.tunnel.write(b"short life")
        await reader.ended
        assert reader.error is not None
        self.assertEqual((reader.error.status.code, reader.error.status.origin), (408, str(world.key.public_key)))
        await self.until(lambda: world.service.status().tunnels.open == 0)

    async def test_a_contracts_tunnels_can_be_closed(self) -> None:
        world = self.world()
        target = Target()
        reader = await self.tunnel(self.circuit(world), self.target(lambda: target))
        world.registry.close(world.contract.public_key, Status(400, "the limit is reached", "me"))
        await reader.ended
        assert reader.error is not None
        self.assertEqual(reader.error.status, Status(400, "the limit is reached", "me"))
        await target.lost

    async def test_stopping_lets_tunnels_finish(self) -> None:
        world = self.world(drain_timeout=5.0)
        reader = await self.tunnel(self.circuit(world), self.target(Target))
        stopping = world.service.stopService()
        await deferLater(reactor, 0.1)
        reader.tunnel.write(b"still served")
        await reader.at_least(12)
        self.assertFalse(stopping.called)
        reader.tunnel.end()
        await stopping
        self.assertEqual(world.service.status().connections, 0)

    async def test_stopping_does_not_wait_for_ever(self) -> None:
        world = self.world(drain_timeout=0.2)
        target = Target()
        await self.tunnel(self.circuit(world), self.target(lambda: target))
        await world.service.stopService()
        await target.lost
