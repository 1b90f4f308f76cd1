"""Where a relay listens: TCP and unix sockets, with TLS and without."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

from twisted.internet.error import CannotListenError
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase

from tests.tunnel.test_refusals import PlainClient
from tests.tunnel.world import Target, World, WorldTestCase, reactor
from wireleap_relay.configvalues import ListenAddress
from wireleap_relay.tunnel.sockets import Listening
from wireleap_relay.wire.address import Address
from wireleap_relay.wire.payload import Connect
from wireleap_relay.wire.versions import CLIENT_RELAY


class ThroughUnix:
    """A reactor that connects to one unix socket, wherever it is asked to."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __getattr__(self, name: str) -> Any:
        return getattr(reactor, name)

    def connectTCP(self, host: str, port: int, factory: Any, timeout: float = 30.0) -> Any:
        return reactor.connectUNIX(self._path, factory, timeout)


class Once(Target):
    """Answers once, and goes."""

    def dataReceived(self, data: bytes) -> None:
        super().dataReceived(data)
        self.transport.loseConnection()  # type: ignore[union-attr]


class SocketTests(SynchronousTestCase):
    def setUp(self) -> None:
        # Paths of unix sockets are short: trial's folders are not.
        self.path = os.path.relpath(self.mktemp())
        Path(self.path).parent.mkdir(parents=True, exist_ok=True)
        self.address = ListenAddress("", 0, self.path)

    def listening(self, count: int = 1) -> Listening:
        made = Listening(self.address, count)
        self.addCleanup(made.close)
        return made

    def refused(self) -> str:
        with self.assertRaises(CannotListenError) as caught:
            Listening(self.address)
        return str(caught.exception)

    def test_processes_share_a_unix_socket(self) -> None:
        listening = self.listening(3)
        self.assertEqual(len({each.fileno() for each in listening.sockets}), 1)
        self.assertEqual(os.stat(self.path).st_mode & 0o777, 0o666)
        listening.close()
        self.assertFalse(os.path.exists(self.path))

    def test_who_listens_already_is_left_alone(self) -> None:
        listening = self.listening()
        self.assertIn(f"unix:{self.path}: another process listens there", self.refused())
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(self.path)
        accepted, _ = listening.sockets[0].accept()
        accepted.close()

    def test_what_is_left_of_a_process_that_is_gone(self) -> None:
        with socket.socket(socket.AF_UNIX) as gone:
            gone.bind(self.path)
        self.listening()

    def test_other_files_are_left_alone(self) -> None:
        Path(self.path).write_text("mine")
        self.assertIn("is no socket", self.refused())
        self.assertEqual(Path(self.path).read_text(), "mine")

    def test_a_successor_keeps_its_file(self) -> None:
        listening = self.listening()
        os.unlink(self.path)
        successor = self.listening()
        listening.close()
        self.assertTrue(os.path.exists(self.path))
        successor.close()

    def test_sockets_that_are_handed_on(self) -> None:
        first = Listening(ListenAddress("127.0.0.1", 0), 3)
        self.addCleanup(first.close)
        second = Listening(ListenAddress("127.0.0.1", 0), 2, [each.dup() for each in first.sockets])
        self.addCleanup(second.close)
        self.assertEqual(second.address, first.address)
        waiting = [socket.create_connection(("127.0.0.1", first.address.port)) for _ in range(30)]
        first.close()
        accepted = 0
        for each in second.sockets:
            each.setblocking(False)
            while accepted < len(waiting):
                try:
                    each.accept()[0].close()
                except BlockingIOError:
                    break
                accepted += 1
        self.assertEqual(accepted, len(waiting), "none of those that wait are lost with who leaves")
        for client in waiting:
            client.close()

    def test_every_socket_has_a_process_and_every_process_a_socket(self) -> None:
        for sockets, processes in ((1, 1), (2, 2), (3, 1), (1, 3), (5, 2), (2, 5)):
            listening = Listening(ListenAddress("127.0.0.1", 0), sockets)
            shares = [listening.share(number, processes) for number in range(processes)]
            self.assertTrue(all(shares))
            self.assertEqual({id(each) for share in shares for each in share}, set(map(id, listening.sockets)))
            listening.close()

    def test_whoever_claims_a_file_removes_it(self) -> None:
        first = self.listening()
        second = Listening(self.address, 1, [first.sockets[0].dup()])
        first.hand_on()
        first.close()
        self.assertTrue(os.path.exists(self.path))
        second.claim()
        second.close()
        self.assertFalse(os.path.exists(self.path))

    def test_no_such_folder(self) -> None:
        self.address = ListenAddress("", 0, "/nonexistent/relay.sock")
        self.assertIn("No such file", self.refused())


class ListeningTests(WorldTestCase):
    def path(self) -> str:
        path = os.path.relpath(self.mktemp())
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        return path

    async def test_tls_over_a_unix_socket(self) -> None:
        path = self.path()
        world = self.world(listen_at=ListenAddress("", 0, path))
        circuit = self.circuit(world)
        circuit._reactor = ThroughUnix(path)
        reader = await self.tunnel(circuit, self.target(Target))
        reader.tunnel.write(bytes(1_000_000))
        await reader.at_least(1_000_000)
        self.assertEqual((world.service.status().port, world.service.status().connections), (0, 1))
        await world.service.stopService()
        self.assertNotIn(Path(path).name, os.listdir(Path(path).parent))

    def speak_in_plain(self, world: World, connection: socket.socket, target: str) -> tuple[Any, Any]:
        connect = Connect(
            "tcp", Address.from_text(f"target://{target}"), world.token(world.key.public_key), CLIENT_RELAY
        )
        with connection:
            client = PlainClient(0, connection=connection)
            client.begin()
            pong = client.answer(client.request('{"command": "PING"}'))
            stream_id = client.request(connect.to_json())
            client.h2.send_data(stream_id, b"hello")
            client.flush()
            return pong, client.answer(stream_id)

    async def test_in_plain(self) -> None:
        path = self.path()
        target = self.target(Once)
        for address in (ListenAddress("127.0.0.1", 0, plain=True), ListenAddress("", 0, path, plain=True)):
            world = self.world(listen_at=address)
            if address.path:
                connection = socket.socket(socket.AF_UNIX)
                connection.connect(path)
            else:
                connection = socket.create_connection(("127.0.0.1", world.port), 5)
            pong, echo = await deferToThread(self.speak_in_plain, world, connection, target)
            self.assertIn(b"PONG", pong["body"])
            self.assertEqual((echo["body"], echo["trailers"]), (b"hello", {}))
            await self.until(lambda world=world: not world.service.status().connections)
