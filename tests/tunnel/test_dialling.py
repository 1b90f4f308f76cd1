"""Names, families, sources and rules, through a relay's door to real sockets."""

from __future__ import annotations

import socket
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.protocol import DatagramProtocol, Factory

from tests.tunnel.nameworld import NameServer, Zone
from tests.tunnel.world import Target, World, WorldTestCase, reactor
from wireleap_relay.exitpolicy import exit_policy
from wireleap_relay.sandbox.tunnel import TunnelError
from wireleap_relay.tunnel.dial import is_here
from wireleap_relay.tunnel.policy import DialPolicy, ListensAt


class DiallingTestCase(WorldTestCase):
    def setUp(self) -> None:
        self.names = NameServer()
        self.addCleanup(self.names.stop)
        self.zones = self.names.zones

    def named(self, **options: Any) -> World:
        return self.world(resolver=self.names.resolver(self.mktemp()), **options)

    def listen(self, host: str, port: int = 0) -> tuple[list[Target], int]:
        """Listen for TCP at an address; give the targets that come to be, and the port."""
        made: list[Target] = []

        def build() -> Target:
            made.append(Target())
            return made[-1]

        factory = Factory.forProtocol(build)
        factory.noisy = False
        listening = reactor.listenTCP(port, factory, interface=host)
        self.addCleanup(listening.stopListening)
        return made, listening.getHost().port

    async def refused(self, world: World, target: str, protocol: str = "tcp") -> tuple[int, str]:
        error = await self.failing_tunnel(self.circuit(world), target, protocol)
        return error.status.code, error.status.description


class NameTests(DiallingTestCase):
    async def test_a_name(self) -> None:
        made, port = self.listen("127.0.0.1")
        self.zones["a.example"] = Zone(["127.0.0.1"])
        reader = await self.tunnel(self.circuit(self.named()), f"a.example:{port}")
        reader.tunnel.write(b"by name")
        await reader.at_least(7)
        self.assertEqual(bytes(made[0].data), b"by name")

    async def test_the_next_address_where_one_refuses(self) -> None:
        _, port = self.listen("127.0.0.3")
        self.zones["a.example"] = Zone(["127.0.0.2", "127.0.0.3"], ["::1"])
        reader = await self.tunnel(self.circuit(self.named()), f"a.example:{port}")
        reader.tunnel.write(b"second")
        await reader.at_least(6)

    async def test_the_next_address_where_one_is_silent(self) -> None:
        silent = self.silent_target()
        _, port = self.listen("127.0.0.2", int(silent.rpartition(":")[2]))
        self.zones["a.example"] = Zone(["127.0.0.1", "127.0.0.2"])
        reader = await self.tunnel(self.circuit(self.named(timeout=30.0)), f"a.example:{port}")
        reader.tunnel.write(b"second")
        await reader.at_least(6)

    async def test_addresses_that_may_not_be_dialled_are_left_out(self) -> None:
        made, port = self.listen("127.0.0.1")
        self.zones["mixed.example"] = Zone(["10.0.0.1", "127.0.0.1", "169.254.169.254"], ["fd00::1"])
        self.zones["inside.example"] = Zone(["10.0.0.1"])
        world = self.named()
        reader = await self.tunnel(self.circuit(world), f"mixed.example:{port}")
        reader.tunnel.write(b"hello")
        await reader.at_least(5)
        self.assertEqual(len(made), 1)
        self.assertEqual(
            await self.refused(world, f"inside.example:{port}"), (400, "refusing to dial a private address")
        )

    async def test_families(self) -> None:
        made4, port = self.listen("127.0.0.1")
        made6, _ = self.listen("::1", port)
        self.zones["both.example"] = Zone(["127.0.0.1"], ["::1"])
        self.zones["four.example"] = Zone(["127.0.0.1"])
        world = self.named()
        circuit = self.circuit(world)
        for protocol in ("tcp4", "tcp6", "tcp"):
            reader = await self.tunnel(circuit, f"both.example:{port}", protocol)
            reader.tunnel.write(b"x")
            await reader.at_least(1)
        self.assertEqual((len(made4), len(made6)), (1, 2))
        self.assertEqual(await self.refused(world, f"four.example:{port}", "tcp6"), (502, "name not found"))

    async def test_addresses_of_one_family_wait_for_no_slow_ones_of_the_other(self) -> None:
        _, port = self.listen("127.0.0.1")
        self.zones["half.example"] = Zone(["127.0.0.1"], ["::1"], delay_six=None)
        reader = await self.tunnel(self.circuit(self.named(timeout=30.0)), f"half.example:{port}")
        reader.tunnel.write(b"x")
        await reader.at_least(1)

    async def test_addresses_that_are_found_late_are_tried_too(self) -> None:
        _, port = self.listen("::1")
        self.zones["late.example"] = Zone(["127.0.0.1"], ["::1"], delay_six=0.3)
        reader = await self.tunnel(self.circuit(self.named()), f"late.example:{port}")
        reader.tunnel.write(b"x")
        await reader.at_least(1)

    async def test_a_slow_name_server_delays_nobody_else(self) -> None:
        _, port = self.listen("127.0.0.1")
        self.zones["fast.example"] = Zone(["127.0.0.1"])
        self.zones["slow.example"] = Zone(delay=None)
        world = self.named(timeout=2.0)
        circuit = self.circuit(world)
        slow = [Deferred.fromCoroutine(self.failing_tunnel(circuit, f"slow.example:{port}")) for _ in range(50)]
        reader = await self.tunnel(circuit, f"fast.example:{port}")
        reader.tunnel.write(b"x")
        await reader.at_least(1)
        self.assertFalse(any(each.called for each in slow))
        errors: list[TunnelError] = [await each for each in slow]
        self.assertEqual(
            {(each.status.code, each.status.description) for each in errors}, {(408, "looking the name up timed out")}
        )

    async def test_a_name_that_nobody_can_tell(self) -> None:
        self.zones["broken.example"] = Zone(code=2)
        world = self.named()
        self.assertEqual(
            await self.refused(world, "broken.example:80"),
            (502, "looking the name up failed: a name server answered with code 2"),
        )
        self.assertEqual(await self.refused(world, "none.example:80"), (502, "name not found"))

    async def test_a_tunnel_given_up_while_its_name_is_looked_up(self) -> None:
        self.zones["slow.example"] = Zone(delay=None)
        world = self.named()
        circuit = self.circuit(world)
        opening = Deferred.fromCoroutine(self.tunnel(circuit, "slow.example:80"))
        await self.until(lambda: self.names.asked)
        circuit.close()
        await self.until(lambda: world.service.status().connections == 0)
        opening.addErrback(lambda _: None)
        opening.cancel()

    async def test_datagrams_go_where_there_is_a_route(self) -> None:
        class Echo(DatagramProtocol):
            noisy = False

            def datagramReceived(self, datagram: bytes, addr: Any) -> None:
                self.transport.write(datagram, addr)

        port = reactor.listenUDP(0, Echo(), "127.0.0.1")
        self.addCleanup(port.stopListening)
        number = port.getHost().port
        self.zones["both.example"] = Zone(["127.0.0.1"], ["2606:4700::1111"])
        self.zones["one.example"] = Zone(["127.0.0.1"])
        world = self.named()
        circuit = self.circuit(world)
        for target, protocol in [(f"both.example:{number}", "udp4"), (f"one.example:{number}", "udp")]:
            reader = await self.tunnel(circuit, target, protocol)
            reader.tunnel.write(b"datagram")
            await reader.at_least(8)
            reader.tunnel.abort()
        if not _has_ipv6():
            reader = await self.tunnel(circuit, f"both.example:{number}", "udp")
            reader.tunnel.write(b"datagram")
            await reader.at_least(8)
            reader.tunnel.abort()


class RuleTests(DiallingTestCase):
    async def test_bind_address(self) -> None:
        peers: list[str] = []

        class Curious(Target):
            def connectionMade(self) -> None:
                peers.append(self.transport.getPeer().host)  # type: ignore[union-attr]
                super().connectionMade()

        target = self.target(Curious)
        world = self.world(policy={"sources": tuple(map(_address, ["127.0.0.7"]))})
        await self.tunnel(self.circuit(world), target)
        await self.until(lambda: peers)
        self.assertEqual(peers, ["127.0.0.7"])
        self.assertEqual(await self.refused(world, "[::1]:80"), (400, "refusing to dial an IPv6 address"))

    async def test_bind_address_of_datagrams(self) -> None:
        peers: list[str] = []

        class Curious(DatagramProtocol):
            noisy = False

            def datagramReceived(self, datagram: bytes, addr: Any) -> None:
                peers.append(addr[0])

        port = reactor.listenUDP(0, Curious(), "127.0.0.1")
        self.addCleanup(port.stopListening)
        world = self.world(policy={"sources": tuple(map(_address, ["127.0.0.7"]))})
        reader = await self.tunnel(self.circuit(world), f"127.0.0.1:{port.getHost().port}", "udp")
        reader.tunnel.write(b"x")
        await self.until(lambda: peers)
        self.assertEqual(peers, ["127.0.0.7"])
        reader.tunnel.abort()

    async def test_a_bind_address_that_is_not_here(self) -> None:
        world = self.world(policy={"sources": tuple(map(_address, ["198.51.100.7"]))})
        for protocol in ("tcp", "udp"):
            self.assertEqual(await self.refused(world, "127.0.0.1:9", protocol), (502, "dialling failed"))

    async def test_the_relay_itself(self) -> None:
        world = self.world()
        listens = (ListensAt.of("0.0.0.0", world.port),)
        world.dialler.apply(attrs.evolve(world.dialler.policy, listens=listens, is_here=is_here))
        for host in ("127.0.0.1", "127.0.0.9", "localhost"):
            self.assertEqual(
                await self.refused(world, f"{host}:{world.port}"), (400, "refusing to dial the relay itself")
            )

    async def test_another_policy_while_tunnels_are_open(self) -> None:
        target = self.target(Target)
        world = self.world()
        circuit = self.circuit(world)
        reader = await self.tunnel(circuit, target)
        world.dialler.apply(DialPolicy(allow_loopback=True, exits=exit_policy(["reject 127.0.0.0/8:*", "accept *:*"])))
        self.assertEqual(
            await self.refused(world, target), (400, "refusing to dial: this relay's exit policy rejects it")
        )
        reader.tunnel.write(b"still open")
        await reader.at_least(10)
        world.dialler.apply(DialPolicy(allow_loopback=True))
        await self.tunnel(circuit, target)

    async def test_other_roles_dial_targets_where_they_may(self) -> None:
        target = self.target(Target)
        world = self.world(role="fronting")
        self.assertEqual(await self.refused(world, target), (400, "a fronting relay dials relays only"))
        self.assertEqual(world.store.tokens, [])
        world.dialler.apply(DialPolicy(allow_loopback=True, allow_targets=True))
        await self.tunnel(self.circuit(world), target)


def _address(text: str) -> Any:
    from ipaddress import ip_address

    return ip_address(text)


def _has_ipv6() -> bool:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
        return probe.connect_ex(("2606:4700::1111", 9)) == 0
