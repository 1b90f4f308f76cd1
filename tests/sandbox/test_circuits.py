"""The SOCKS5 door and circuits, through three relays in this process."""

from __future__ import annotations

import socket
import struct
from typing import Any

from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import DatagramProtocol
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from tests.tunnel.world import Target, WorldTestCase, reactor
from wireleap_relay.sandbox.circuit import Circuit
from wireleap_relay.sandbox.socks import SocksFactory, read_address, write_address
from wireleap_relay.wire.errors import WireError


@implementer(IHalfCloseableProtocol)
class Summing(Target):
    """Takes everything, then says how much it was."""

    def __init__(self) -> None:
        super().__init__(echo=False)
        self.keep = False

    def readConnectionLost(self) -> None:
        self.transport.write(str(self.received).encode())  # type: ignore[union-attr]
        self.transport.loseConnection()  # type: ignore[union-attr]

    def writeConnectionLost(self) -> None:
        pass


class AddressTests(SynchronousTestCase):
    def test_round_trip(self) -> None:
        for host, port in [("127.0.0.1", 80), ("2001:db8::1", 65535), ("a.example", 1)]:
            data = write_address(host, port)
            self.assertEqual(read_address(data, 0), (host, port, len(data)))
            for size in range(len(data)):
                self.assertIsNone(read_address(data[:size], 0))

    def test_unknown_kind(self) -> None:
        with self.assertRaises(WireError):
            read_address(b"\x02abcdef", 0)


class SocksTests(WorldTestCase):
    def door(self, circuit: Circuit) -> int:
        port = reactor.listenTCP(0, SocksFactory(circuit, reactor), interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        number: int = port.getHost().port
        return number

    def three_hops(self) -> Circuit:
        return self.circuit(self.world(), self.world(), self.world())

    @staticmethod
    def connect(door: int, host: str, port: int, command: int = 1) -> tuple[socket.socket, bytes]:
        """Speak SOCKS5 as a program would; give the connection and the reply."""
        user = socket.create_connection(("127.0.0.1", door), 10)
        user.sendall(b"\x05\x02\x00\x02")
        assert user.recv(2) == b"\x05\x00"
        user.sendall(bytes([5, command, 0]) + write_address(host, port))
        return user, user.recv(10)

    async def test_upload_and_half_close(self) -> None:
        port = int(self.target(Summing).rpartition(":")[2])
        door = self.door(self.three_hops())
        size = 20_000_000

        def use() -> bytes:
            user, reply = self.connect(door, "localhost", port)
            with user:
                assert reply[1] == 0, reply
                user.sendall(bytes(size))
                user.shutdown(socket.SHUT_WR)
                return b"".join(iter(lambda: user.recv(1000), b""))

        self.assertEqual(await deferToThread(use), str(size).encode())

    async def test_download(self) -> None:
        size = 20_000_000

        class Burst(Target):
            def connectionMade(self) -> None:
                self.transport.write(bytes(size))  # type: ignore[union-attr]
                self.transport.loseConnection()  # type: ignore[union-attr]

        port = int(self.target(Burst).rpartition(":")[2])
        door = self.door(self.three_hops())

        def use() -> int:
            user, reply = self.connect(door, "127.0.0.1", port)
            with user:
                assert reply[1] == 0, reply
                return sum(map(len, iter(lambda: user.recv(100_000), b"")))

        self.assertEqual(await deferToThread(use), size)

    async def test_many_users_at_once(self) -> None:
        port = int(self.target(Target).rpartition(":")[2])
        door = self.door(self.three_hops())

        def use() -> int:
            users = [self.connect(door, "127.0.0.1", port) for _ in range(30)]
            answers = 0
            for number, (user, _) in enumerate(users):
                user.sendall(b"%03d" % number)
            for number, (user, _) in enumerate(users):
                answers += user.recv(10) == b"%03d" % number
                user.close()
            return answers

        self.assertEqual(await deferToThread(use), 30)

    async def test_refusals(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as unused:
            port = unused.getsockname()[1]
        door = self.door(self.circuit(self.world(allow_loopback=True)))

        def use() -> list[int]:
            replies = []
            for host, number, command in (("127.0.0.1", port, 1), ("169.254.169.254", 80, 1), ("127.0.0.1", 1, 2)):
                user, reply = self.connect(door, host, number, command)
                replies.append(reply[1])
                assert user.recv(1) == b""
                user.close()
            return replies

        self.assertEqual(await deferToThread(use), [5, 1, 7])

    async def test_other_greetings(self) -> None:
        door = self.door(self.circuit(self.world()))

        def use(greeting: bytes) -> bytes:
            with socket.create_connection(("127.0.0.1", door), 10) as user:
                user.sendall(greeting)
                return b"".join(iter(lambda: user.recv(100), b""))

        for greeting in (b"\x04\x01\x00", b"\x05\x01\x02"):
            self.assertEqual(await deferToThread(use, greeting), b"\x05\xff")

    async def test_datagrams(self) -> None:
        class Resolver(DatagramProtocol):
            """Answers a query as a DNS server would: with the query's id."""

            def datagramReceived(self, datagram: bytes, addr: Any) -> None:
                query_id, flags = struct.unpack_from(">HH", datagram)
                self.transport.write(struct.pack(">HH", query_id, flags | 0x8000) + datagram[4:], addr)  # type: ignore[union-attr]

        port = reactor.listenUDP(0, Resolver(), "127.0.0.1")
        self.addCleanup(port.stopListening)
        number = port.getHost().port
        door = self.door(self.three_hops())

        def use() -> list[bytes]:
            user, reply = self.connect(door, "0.0.0.0", 0, 3)
            relay = read_address(reply, 3)
            assert relay is not None
            with user, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                sender.settimeout(10)
                answers = []
                for query_id in (1, 2):
                    query = struct.pack(">HH", query_id, 0x0100) + b"\0\1\0\0\0\0\0\0\7example\0\0\1\0\1"
                    sender.sendto(b"\0\0\0" + write_address("127.0.0.1", number) + query, relay[:2])
                    answers.append(sender.recv(1000))
                return answers

        answers = await deferToThread(use)
        header = b"\0\0\0" + write_address("127.0.0.1", number)
        self.assertEqual([answer[: len(header)] for answer in answers], [header, header])
        self.assertEqual(
            [struct.unpack_from(">HH", answer, len(header)) for answer in answers], [(1, 0x8100), (2, 0x8100)]
        )
