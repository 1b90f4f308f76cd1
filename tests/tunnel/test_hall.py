"""How many clients there may be, and who has to go."""

from __future__ import annotations

import os
import resource
import socket
from pathlib import Path
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase

from tests.tunnel.test_refusals import PlainClient
from tests.tunnel.world import Target, World, WorldTestCase, reactor
from wireleap_relay.clientlimits import ClientLimits
from wireleap_relay.tunnel import abuse
from wireleap_relay.tunnel.connection import Patience
from wireleap_relay.tunnel.hall import Hall, share_of_memory
from wireleap_relay.tunnel.neighbours import Neighbours
from wireleap_relay.tunnel.registry import Registry
from wireleap_relay.tunnel.stream import HIGH_WATER
from wireleap_relay.wire.keys import SigningKey


class NeighbourTests(SynchronousTestCase):
    def neighbours(self, **limits: Any) -> Neighbours:
        return Neighbours(ClientLimits(trusted=(), **limits))

    def test_a_network_is_told_by_its_first_bits(self) -> None:
        key = self.neighbours().key
        self.assertEqual(key("192.0.2.1"), key("192.0.2.200"))
        self.assertEqual(key("192.0.2.1"), key("::ffff:192.0.2.1"))
        self.assertNotEqual(key("192.0.2.1"), key("192.0.3.1"))
        self.assertEqual(key("2001:db8:1:2::3"), key("2001:db8:1:ffff::"))
        self.assertNotEqual(key("2001:db8:1::"), key("2001:db8:2::"))

    def test_nothing_tells_of_an_address(self) -> None:
        one, other = self.neighbours(), self.neighbours()
        self.assertNotEqual(one.key("192.0.2.1"), other.key("192.0.2.1"))
        one.came(one.key("192.0.2.1"))
        self.assertNotIn("192", repr(vars(one)["_networks"]))
        self.assertNotIn(bytes([192, 0, 2]), b"".join(vars(one)["_networks"]))

    def test_who_is_trusted_is_not_counted(self) -> None:
        neighbours = Neighbours(ClientLimits(connections_per_network=1))
        self.assertEqual([neighbours.came(neighbours.key("127.0.0.1")) for _ in range(3)], [""] * 3)
        self.assertEqual([neighbours.came(neighbours.key("::ffff:127.0.0.9")) for _ in range(3)], [""] * 3)
        self.assertEqual([neighbours.came(neighbours.key("192.0.2.1")) for _ in range(2)], ["", abuse.CONNECTIONS])

    def test_so_many_at_once(self) -> None:
        neighbours = self.neighbours(connections_per_network=2)
        came = [neighbours.came(neighbours.key(f"192.0.2.{i}")) for i in range(3)]
        self.assertEqual(came, ["", "", abuse.CONNECTIONS])
        self.assertEqual(neighbours.came(neighbours.key("192.0.3.1")), "")
        neighbours.went(neighbours.key("192.0.2.9"))
        self.assertEqual(neighbours.came(neighbours.key("192.0.2.9")), "")

    def test_so_many_in_a_second(self) -> None:
        neighbours = self.neighbours(connection_rate=3)

        def come() -> int:
            came = 0
            while not neighbours.came(neighbours.key("192.0.2.1")):
                neighbours.went(neighbours.key("192.0.2.1"))
                came += 1
            return came

        self.assertEqual(come(), 30)
        self.assertEqual(come(), 0)
        neighbours.second_passed()
        self.assertEqual(come(), 3)
        for _ in range(20):
            neighbours.second_passed()
        self.assertEqual(neighbours._networks, {})
        self.assertEqual(come(), 30)

    def test_who_offends_comes_less_often_for_a_while(self) -> None:
        neighbours = self.neighbours()
        for _ in range(1000):
            neighbours.came(neighbours.key("192.0.2.1"))
            neighbours.offended(neighbours.key("192.0.2.1"), abuse.RESETS)
            neighbours.went(neighbours.key("192.0.2.1"))
        self.assertEqual(neighbours.came(neighbours.key("192.0.2.1")), abuse.CONNECTION_RATE)
        self.assertEqual(neighbours.came(neighbours.key("192.0.9.1")), "")
        for _ in range(11):
            neighbours.second_passed()
        self.assertEqual(neighbours.came(neighbours.key("192.0.2.1")), "")

    def test_idling_is_no_offence(self) -> None:
        neighbours = self.neighbours(connection_rate=1)
        neighbours.came(neighbours.key("192.0.2.1"))
        for _ in range(100):
            neighbours.offended(neighbours.key("192.0.2.1"), abuse.IDLE)
        self.assertEqual(neighbours.came(neighbours.key("192.0.2.1")), "")


@attrs.define(eq=False)
class Client:
    """As much of a connection as a hall sees."""

    number: int
    network: bytes = b"a"
    has_tunnels: bool = False
    waiting: int = 0
    unread: int = 0
    hall: Any = None
    gone: bool = False

    def abort(self) -> None:
        self.gone = True
        self.hall.left(self)


class HallTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.memory = 0
        self.buffers_are_short = False
        self.registry = Registry(reactor, SigningKey.generate().public_key)
        self.hall = Hall(
            self.registry,
            ClientLimits(memory=1000, trusted=()),
            resident=lambda: self.memory,
            buffers_are_short=lambda: self.buffers_are_short,
            descriptors=100,
        )

    def enter(self, count: int, descriptor: int = 10, **options: Any) -> list[Client]:
        clients = [Client(number, hall=self.hall, **options) for number in range(count)]
        for client in clients:
            self.hall.entered(client, descriptor)  # type: ignore[arg-type]
        return clients

    def offences(self) -> dict[str, int]:
        return self.registry.counts().offences

    def test_a_full_house_lets_one_go_for_each_who_comes(self) -> None:
        crowd = self.enter(5, network=b"crowd")
        alone = self.enter(1, network=b"alone")
        busy = self.enter(1, network=b"crowd", has_tunnels=True)
        self.assertEqual(self.enter(1, 89, network=b"new")[0].gone, False)
        for left in range(4, 0, -1):
            self.enter(1, 90, network=b"new", has_tunnels=True)
            self.assertEqual([client.gone for client in crowd], [False] * left + [True] * (5 - left))
        self.assertFalse(alone[0].gone or busy[0].gone)
        self.assertEqual(self.offences(), {abuse.DESCRIPTORS: 4})

    def test_the_newest_goes_where_all_have_tunnels(self) -> None:
        busy = self.enter(3, has_tunnels=True)
        newest = self.enter(1, 95)
        self.assertTrue(newest[0].gone)
        self.assertFalse(any(client.gone for client in busy))

    def test_nobody_is_let_in_while_memory_is_short(self) -> None:
        self.enter(100, has_tunnels=True)
        self.memory = 1001
        self.hall.second_passed()
        self.assertTrue(self.hall.refuses)
        self.assertFalse(self.hall.admits(b"another"))
        self.memory = 999
        self.hall.second_passed()
        self.assertFalse(self.hall.refuses)
        self.assertTrue(self.hall.admits(b"another"))

    def test_a_few_are_let_in_however_short_it_is(self) -> None:
        self.memory = 10_000
        self.enter(5)
        self.hall.second_passed()
        self.assertTrue(self.hall.admits(b"another"))
        self.assertEqual(len(self.hall.connections), 5)

    def test_the_heaviest_goes_first(self) -> None:
        idle = self.enter(100)
        busy = self.enter(10, has_tunnels=True)
        heavy = [
            *self.enter(1, has_tunnels=True, waiting=5_000_000),
            *self.enter(1, has_tunnels=True, waiting=9_000_000),
        ]
        self.memory = 1001
        self.hall.second_passed()
        self.assertTrue(all(client.gone for client in heavy))
        self.assertEqual(sum(client.gone for client in idle), 9)
        self.assertTrue(all(client.gone for client in idle[91:]))
        for _ in range(100):
            self.hall.second_passed()
        self.assertFalse(any(client.gone for client in busy))
        left = len(self.hall.connections)
        self.assertTrue(50 <= left <= 64, left)
        self.assertEqual(self.offences(), {abuse.MEMORY: 112 - left})

    def test_who_does_not_read_goes_where_the_system_is_short_of_buffers(self) -> None:
        busy = self.enter(10, has_tunnels=True, unread=HIGH_WATER - 1)
        unread = [*self.enter(19, has_tunnels=True, unread=HIGH_WATER), *self.enter(1, unread=HIGH_WATER + 1)]
        self.hall.second_passed()
        self.assertFalse(any(client.gone for client in unread))
        self.buffers_are_short = True
        self.hall.second_passed()
        self.assertTrue(unread[-1].gone)
        self.assertEqual(self.offences(), {abuse.STALLED: 2})
        for _ in range(20):
            self.hall.second_passed()
        self.assertTrue(all(client.gone for client in unread))
        self.assertFalse(any(client.gone for client in busy))
        self.assertFalse(self.hall.refuses)


class Floods(Protocol):
    def connectionMade(self) -> None:
        self.transport.write(bytes(10_000_000))  # type: ignore[union-attr]


class SocketTests(WorldTestCase):
    def hall(self, world: World, **limits: Any) -> None:
        world.service.hall.apply(ClientLimits(trusted=(), **limits))

    def connect(self, world: World, count: int) -> list[socket.socket]:
        made = [socket.create_connection(("127.0.0.1", world.port), 5) for _ in range(count)]
        for each in made:
            self.addCleanup(each.close)
        return made

    async def test_one_network_takes_no_more_than_its_share(self) -> None:
        world = self.world()
        self.hall(world, connections_per_network=5)
        self.connect(world, 20)
        await self.until(lambda: world.registry.counts().offences.get(abuse.CONNECTIONS) == 15)
        self.assertEqual(world.service.status().connections, 5)

    async def test_a_reader_that_does_not_read(self) -> None:
        world = self.world(patience=Patience(stall=1))
        circuit = self.circuit(world)
        reader = await self.tunnel(circuit, self.target(Floods), credit=False)
        await reader.ended
        self.assertEqual(world.registry.counts().offences, {abuse.STALLED: 1})

    async def test_a_reader_is_told_from_one_that_does_not_read(self) -> None:
        world = self.world()
        unread, read = self.circuit(world), self.circuit(world)
        stalled = await self.tunnel(unread, self.target(Floods), credit=False)
        target = self.target(Target)
        reader = await self.tunnel(read, target)
        world.service.hall._buffers_are_short = lambda: True
        for _ in range(20):
            reader.tunnel.write(bytes(100_000))
            await reader.at_least(100_000)
            reader.received = 0
            world.service._look_at_watch()
        await stalled.ended
        self.assertEqual(world.registry.counts().offences, {abuse.STALLED: 1})
        self.assertEqual(world.service.status().connections, 1)
        reader.tunnel.write(b"hello")
        await reader.at_least(5)

    async def test_no_descriptors(self) -> None:
        """The system has none left to accept with; afterwards the relay accepts again."""
        world = self.world()
        target = self.target(Target)
        circuit = self.circuit(world)
        await self.tunnel(circuit, target)
        clients = [socket.socket() for _ in range(60)]
        for client in clients:
            self.addCleanup(client.close)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        world.service.hall._descriptors = 10**6
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(client.fileno() for client in clients) + 12, hard))
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        for client in clients:
            client.setblocking(False)
            client.connect_ex(("127.0.0.1", world.port))
        await deferLater(reactor, 0.5)
        self.assertLess(world.service.status().connections, 15)
        for client in clients:
            client.close()
        await self.until(lambda: world.service.status().connections == 1)
        reader = await self.tunnel(self.circuit(world), target)
        reader.tunnel.write(b"hello")
        await reader.at_least(5)

    async def test_overload_is_no_mistake_of_the_client(self) -> None:
        world = self.world()
        world.doorway.is_overloaded = lambda: True
        error = await self.failing_tunnel(self.circuit(world), self.target(Target))
        assert error.status is not None
        self.assertEqual((error.status.code, error.status.origin), (502, str(world.key.public_key)))

    async def test_offenders_are_let_in_less_often(self) -> None:
        world = self.world()
        self.hall(world, connection_rate=2)

        def attack() -> int:
            ended = 0
            for _ in range(30):
                try:
                    client = PlainClient(world.port)
                    client.begin()
                    client.socket.sendall(b"\0\0\x08\6\0\0\0\0\0" + bytes(8) + bytes(9))
                    client.socket.sendall(b"\xff" * 100)
                    while client.socket.recv(1000):
                        pass
                    client.close()
                except OSError:
                    continue
                ended += 1
            return ended

        done: Deferred[int] = deferToThread(attack)
        self.assertLess(await done, 10)
        offences = world.registry.counts().offences
        self.assertGreater(offences[abuse.CONNECTION_RATE], 20)


class ShareTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        self.groups = Path(self.mktemp())
        self.own = self.groups / "cgroup"
        self.groups.mkdir()
        self.own.write_text("4:memory:/elsewhere\n0::/system.slice/relay.service\n")

    def share(self, processes: int = 1) -> int:
        return share_of_memory(processes, self.groups, self.own)

    def limit(self, group: str, size: object) -> None:
        (self.groups / group).mkdir(parents=True, exist_ok=True)
        (self.groups / group / "memory.max").write_text(f"{size}\n")

    def test_processes_share_half_of_the_machines(self) -> None:
        self.assertEqual([self.share(count) for count in (1, 2, 4)], [self.machine // each for each in (2, 4, 8)])

    def test_control_groups_have_limits(self) -> None:
        self.limit("system.slice/relay.service", "max")
        self.assertEqual(self.share(), self.machine // 2)
        self.limit("system.slice", 400_000_000)
        self.assertEqual(self.share(2), 100_000_000)
        self.limit("system.slice/relay.service", 100_000_000)
        self.assertEqual(self.share(2), 25_000_000)
        self.limit("elsewhere", 1000)
        self.assertEqual(self.share(2), 25_000_000)
        # In a container its group is the root of all that it sees.
        self.own.write_text("0::/\n")
        self.limit(".", 60_000_000)
        self.assertEqual(self.share(), 30_000_000)

    def test_without_control_groups(self) -> None:
        self.own.unlink()
        self.assertEqual(self.share(), self.machine // 2)

    def test_a_process_has_limits_of_its_own(self) -> None:
        most = self.machine // 3
        for which in (resource.RLIMIT_AS, resource.RLIMIT_DATA):
            before = resource.getrlimit(which)
            resource.setrlimit(which, (most, before[1]))
            try:
                # Two processes would have half of the machine's each, and four a quarter.
                self.assertEqual([self.share(2), self.share(4)], [most // 2, self.machine // 4 // 2])
            finally:
                resource.setrlimit(which, before)
