"""What strangers see: the same answer, whatever they speak."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import ssl
from email.utils import formatdate
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site

from tests.fuzz import tape
from tests.fuzz.rig import Rig
from tests.tunnel.test_refusals import PlainClient
from tests.tunnel.world import Target, World, WorldTestCase, reactor
from wireleap_relay.configvalues import DecoyChoice, ListenAddress
from wireleap_relay.tunnel import abuse, site
from wireleap_relay.tunnel.abuse import GENEROUS, Rates
from wireleap_relay.tunnel.session import Session
from wireleap_relay.tunnel.site import Folder, FolderTooLarge, NotAllowed, read_folder
from wireleap_relay.tunnel.visitor import NOT_TLS, Visitor

NOON = 1_700_000_000.0
REFUSED = b'{"code":405,"description":"HTTP method not allowed"}\n'


def make_folder(path: str) -> Path:
    folder = Path(path).absolute()
    (folder / "sub").mkdir(parents=True)
    (folder / "index.html").write_text("<h1>Gardening</h1>")
    (folder / "sub" / "roses.txt").write_text("red")
    (folder / "big.bin").write_bytes(os.urandom(1_000_000))
    (folder / ".hidden").write_text("secret")
    (folder / ".git").mkdir()
    (folder / ".git" / "config").write_text("secret")
    (folder / "link").symlink_to("/etc/passwd")
    return folder


class FolderTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.path = make_folder(self.mktemp())
        self.folder = read_folder(self.path)

    def code(self, path: bytes, method: bytes = b"GET", known: bytes | None = None) -> int:
        return self.folder.answer(method, path, known).code

    def test_pages(self) -> None:
        for path in (b"/", b"/index.html", b"/?q=1", b"/%69ndex.html"):
            answer = self.folder.answer(b"GET", path, None)
            self.assertEqual((answer.code, answer.body), (200, b"<h1>Gardening</h1>"))
            self.assertIn((b"content-type", b"text/html; charset=utf-8"), answer.fields)
        self.assertEqual(self.folder.answer(b"GET", b"/sub/roses.txt", None).body, b"red")

    def test_what_is_not_shown(self) -> None:
        for path in (
            b"/sub/",
            b"/.hidden",
            b"/.git/config",
            b"/link",
            b"/../../etc/passwd",
            b"//index.html",
            b"*",
            b"/%00",
        ):
            with self.subTest(path=path):
                self.assertEqual(self.code(path), 404)

    def test_what_is_known_already(self) -> None:
        [etag] = [value for name, value in self.folder.answer(b"GET", b"/", None).fields if name == b"etag"]
        answer = self.folder.answer(b"GET", b"/", etag)
        self.assertEqual((answer.code, answer.body), (304, b""))
        self.assertEqual(self.code(b"/", known=b'"other"'), 200)

    def test_other_methods(self) -> None:
        self.assertEqual(self.code(b"/", b"POST"), 405)
        self.assertEqual(self.code(b"/", b"HEAD"), 200)

    def test_a_page_for_what_is_missing(self) -> None:
        (self.path / "404.html").write_text("not in this garden")
        answer = read_folder(self.path).answer(b"GET", b"/x", None)
        self.assertEqual((answer.code, answer.body), (404, b"not in this garden"))

    def test_too_much(self) -> None:
        self.patch(site, "MOST_FILES", 2)
        self.assertIn("more than 2 files", str(self.assertRaises(FolderTooLarge, read_folder, self.path)))
        self.patch(site, "LARGEST_FOLDER", 2**20 // 2)
        self.assertRaises(FolderTooLarge, read_folder, self.path)

    def test_none(self) -> None:
        self.assertRaises(OSError, read_folder, self.path / "none")


class VisitorTests(SynchronousTestCase):
    def visitor(self, shown: Any = None, rates: Rates = GENEROUS) -> Visitor:
        return Visitor(shown or NotAllowed(), lambda: NOON, rates)

    def said(self, *data: bytes, visitor: Visitor | None = None) -> bytes:
        visitor = visitor or self.visitor()
        out = b""
        for each in data:
            visitor.receive(each)
            while piece := visitor.take():
                out += piece
        return out

    def test_the_answer(self) -> None:
        date = formatdate(NOON, usegmt=True).encode()
        head = b"HTTP/1.1 405 Method Not Allowed\r\nContent-Type: application/json\r\nDate: " + date
        head += b"\r\nContent-Length: 53\r\n\r\n"
        self.assertEqual(self.said(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"), head + REFUSED)
        self.assertEqual(self.said(b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n"), head)

    def test_it_arrives_in_pieces(self) -> None:
        request = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
        visitor = self.visitor()
        self.assertFalse(visitor.half_finished)
        out = self.said(*(request[i : i + 1] for i in range(len(request) - 1)), visitor=visitor)
        self.assertEqual(out, b"")
        self.assertTrue(visitor.half_finished)
        self.assertIn(b" 405 ", self.said(request[-1:], visitor=visitor))
        self.assertFalse(visitor.half_finished)

    def test_several_at_once(self) -> None:
        visitor = self.visitor()
        out = self.said(b"GET / HTTP/1.1\r\n\r\n" * 5 + b"GET / HT", visitor=visitor)
        self.assertEqual(out.count(b"HTTP/1.1 405"), 5)
        self.assertFalse(visitor.closed)
        self.assertTrue(visitor.half_finished)

    def test_the_last_one(self) -> None:
        for request in (
            b"GET / HTTP/1.0\r\n\r\n",
            b"GET / HTTP/1.1\r\nConnection: Close\r\n\r\n",
            b"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello",
            b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
        ):
            visitor = self.visitor()
            self.assertIn(b"Connection: close\r\n", self.said(request, visitor=visitor))
            self.assertTrue(visitor.closed)

    def test_what_is_no_request(self) -> None:
        for data in (
            b"\x16\x03\x01\x02",
            b"\x00\x01\x02\r\n\r\n",
            b"GET /\r\n\r\n",
            b"GET / HTTP/2.0\r\n\r\n",
            b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost : x\r\n\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        ):
            visitor = self.visitor()
            self.assertTrue(self.said(data, visitor=visitor).startswith(b"HTTP/1.1 400 "), data)
            self.assertTrue(visitor.closed)

    def test_a_head_without_end(self) -> None:
        visitor = self.visitor()
        out = self.said(b"GET / HTTP/1.1\r\n", *[b"X: " + b"y" * 1000 + b"\r\n"] * 20, visitor=visitor)
        self.assertTrue(out.startswith(b"HTTP/1.1 431 "))
        self.assertTrue(visitor.closed)

    def test_nothing_but_empty_lines(self) -> None:
        visitor = self.visitor()
        self.assertIn(b" 405 ", self.said(b"\r\n" * 1000, b"\r\nGET / HTTP/1.1\r\n\r\n", visitor=visitor))
        self.assertTrue(self.said(*[b"\r\n" * 1000] * 20, visitor=visitor).startswith(b"HTTP/1.1 431 "))
        self.assertTrue(visitor.closed)

    def test_a_value_of_spaces_takes_no_time(self) -> None:
        for spaces in (b" " * 15_000, b" \t" * 7_500):
            visitor = self.visitor()
            out = self.said(b"GET / HTTP/1.1\r\nX:" + spaces + b"\n\r\n\r\n", visitor=visitor)
            self.assertTrue(out.startswith(b"HTTP/1.1 400 "))
        head = b"GET / HTTP/1.1\r\nConnection:" + b" " * 5000 + b"close" + b" " * 5000 + b"\r\n\r\n"
        self.assertIn(b"Connection: close\r\n", self.said(head))

    def test_who_asks_and_does_not_read(self) -> None:
        visitor = self.visitor(Folder({b"/": site.Answer(200, (), bytes(1_000_000))}))
        for _ in range(1000):
            visitor.receive(b"GET / HTTP/1.1\r\n\r\n")
        self.assertEqual(visitor.offence, abuse.UNREAD)
        self.assertTrue(visitor.closed)
        self.assertEqual(visitor.take(), b"")

    def test_too_many_requests(self) -> None:
        visitor = self.visitor(rates=Rates(requests=2))
        out = self.said(*[b"GET / HTTP/1.1\r\n\r\n"] * 100, visitor=visitor)
        self.assertEqual(out.count(b"HTTP/1.1 405"), 2 * abuse.BURST)
        self.assertEqual(visitor.offence, abuse.REQUESTS)

    @settings(deadline=None, max_examples=300)
    @given(
        st.lists(st.one_of(st.binary(max_size=40), st.sampled_from([b"GET / HTTP/1.1", b"\r\n", b"\r\n\r\n", b":"])))
    )
    def test_anything(self, data: list[bytes]) -> None:
        out = self.said(*data)
        self.assertTrue(not out or out.startswith(b"HTTP/1.1 4"))


class WorthTests(SynchronousTestCase):
    def test_a_connection_of_a_stranger_is_missed_by_nobody(self) -> None:
        rig, client = Rig(shown="server"), Session(wake=lambda: None)
        self.addCleanup(rig.finish)
        client.open([(b":method", b"POST"), (b":scheme", b"https"), (b":authority", b"x"), (b":path", b"/")])
        rig.say(client.take())
        assert rig.client.session is not None
        self.assertEqual(len(rig.client.session.streams), 1)
        self.assertFalse(rig.client.has_tunnels)
        client.open(tape.request(0))
        rig.say(client.take())
        self.assertTrue(rig.client.has_tunnels)


class Garden(Resource):
    """Another web server's only page."""

    isLeaf = True

    def render(self, request: Any) -> Any:
        request.setHeader(b"server", b"garden/1.0")
        request.setHeader(b"x-asked", request.method + b" " + request.uri)
        request.setHeader(b"x-host", request.getHeader(b"host") or b"")
        if request.uri == b"/big":
            request.write(bytes(3_000_000))
            request.finish()
            return NOT_DONE_YET
        return b"roses " + request.content.read()


class DecoyTests(WorldTestCase):
    """Over sockets."""

    def speak(self, port: int, request: bytes, alpn: list[str] | None = None, tls: bool = True) -> bytes:
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        if alpn:
            context.set_alpn_protocols(alpn)
        connection = socket.create_connection(("127.0.0.1", port), 5)
        if tls:
            connection = context.wrap_socket(connection)
        with connection, contextlib.suppress(ConnectionResetError):
            connection.sendall(request)
            answer = b""
            while data := connection.recv(100_000):
                answer += data
        return answer

    def over_h2(self, port: int, method: str, payload: str | None = None, body: bytes = b"") -> dict[str, Any]:
        client = PlainClient(port)
        try:
            client.begin()
            stream_id = client.request(payload, method=method, end=not body)
            if body:
                client.h2.send_data(stream_id, body, end_stream=True)
                client.flush()
            client.h2.increment_flow_control_window(10_000_000)
            client.h2.increment_flow_control_window(10_000_000, stream_id)
            client.flush()
            return client.answer(stream_id)
        finally:
            client.close()

    def parse(self, answer: bytes) -> tuple[int, dict[str, str], bytes]:
        head, _, body = answer.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        fields = dict(line.lower().split(": ", 1) for line in lines)
        return int(first.split()[1]), fields, body

    async def look(self, world: World, method: str = "GET", **options: Any) -> list[tuple[int, dict[str, str], bytes]]:
        """Ask for the same in each way there is."""
        request = f"{method} /wireleap HTTP/1.1\r\nHost: relay\r\nConnection: close\r\n\r\n".encode()
        found = [
            self.parse(await deferToThread(self.speak, world.port, request, alpn))
            for alpn in (None, ["http/1.1"], ["spdy/3"])
        ]
        answer = await deferToThread(self.over_h2, world.port, method)
        status = int(answer["headers"].pop(":status"))
        found.append((status, {name: value.lower() for name, value in answer["headers"].items()}, answer["body"]))
        for _, fields, _ in found:
            fields.pop("connection", None)
            self.assertTrue(fields.pop("date"))
        return found

    async def test_405_whatever_they_speak(self) -> None:
        world = self.world()
        for method, body in (("GET", REFUSED), ("HEAD", b""), ("DELETE", REFUSED)):
            found = await self.look(world, method)
            self.assertEqual(found[0], (405, {"content-type": "application/json", "content-length": "53"}, body))
            self.assertEqual(found, [found[0]] * 4)
        # Who sends PUT and nothing with it is told so, as the network's clients expect it.
        answer = await deferToThread(self.over_h2, world.port, "PUT")
        self.assertIn('"code":400', answer["trailers"]["wl-status"])
        answer = await deferToThread(self.speak, world.port, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", None, tls=False)
        self.assertEqual(answer, NOT_TLS)

    async def test_a_folder(self) -> None:
        folder = make_folder(self.mktemp())
        world = self.world(decoy=DecoyChoice(folder=str(folder)))
        for method in ("GET", "HEAD", "PUT", "POST"):
            found = await self.look(world, method)
            self.assertEqual(found[0][0], 404 if method in ("GET", "HEAD") else 405)
            self.assertEqual(found, [found[0]] * 4)
        big = (folder / "big.bin").read_bytes()
        request = b"GET /big.bin HTTP/1.1\r\nConnection: close\r\n\r\n"
        self.assertEqual(self.parse(await deferToThread(self.speak, world.port, request))[2], big)
        # Tunnels are opened all the same.
        reader = await self.tunnel(self.circuit(world), self.target(Target))
        reader.tunnel.write(b"hello")
        await reader.at_least(5)

    async def test_no_such_folder(self) -> None:
        world = self.world(decoy=DecoyChoice(folder="/nonexistent"))
        self.assertEqual({code for code, _, _ in await self.look(world)}, {405})

    def garden(self) -> DecoyChoice:
        factory = Site(Garden())
        factory.noisy = False
        factory.log = lambda request: None  # type: ignore[method-assign]
        port = reactor.listenTCP(0, factory, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        return DecoyChoice(server=ListenAddress("127.0.0.1", port.getHost().port))

    async def test_another_web_server(self) -> None:
        world = self.world(decoy=self.garden())
        for method, body in (("GET", b"roses "), ("HEAD", b""), ("PUT", b"roses ")):
            found = await self.look(world, method)
            code, fields, said = found[0]
            self.assertEqual((code, said), (200, body))
            self.assertEqual(fields["server"], "garden/1.0")
            self.assertEqual(fields["x-asked"], f"{method.lower()} /wireleap")
            self.assertEqual(fields["x-host"], "relay")
            if method == "HEAD":
                for _, each, _ in found:
                    each.pop("content-length", None)
            self.assertEqual(found, [found[0]] * 4)
        answer = await deferToThread(self.over_h2, world.port, "POST", body=b"and thorns" * 1000)
        self.assertEqual(answer["body"], b"roses " + b"and thorns" * 1000)
        reader = await self.tunnel(self.circuit(world), self.target(Target))
        reader.tunnel.write(b"hello")
        await reader.at_least(5)
        await self.until(
            lambda: not [c for c in reactor.getReaders() if re.search("HTTP11ClientProtocol|Pipe", repr(c))]
        )

    async def test_another_web_server_says_much(self) -> None:
        world = self.world(decoy=self.garden())
        request = b"GET /big HTTP/1.0\r\n\r\n"
        self.assertEqual(len(self.parse(await deferToThread(self.speak, world.port, request))[2]), 3_000_000)

        def work() -> bytes:
            client = PlainClient(world.port)
            try:
                client.begin()
                client.h2.increment_flow_control_window(10_000_000)
                stream_id = client.h2.get_next_available_stream_id()
                headers = [(":method", "GET"), (":scheme", "https"), (":authority", "relay"), (":path", "/big")]
                client.h2.send_headers(stream_id, headers, end_stream=True)
                client.h2.increment_flow_control_window(10_000_000, stream_id)
                client.flush()
                body: bytes = client.answer(stream_id)["body"]
                return body
            finally:
                client.close()

        self.assertEqual(len(await deferToThread(work)), 3_000_000)

    async def test_another_web_server_that_is_gone(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as unused:
            port = unused.getsockname()[1]
        world = self.world(decoy=DecoyChoice(server=ListenAddress("127.0.0.1", port)))
        answer = await deferToThread(self.speak, world.port, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        self.assertTrue(answer.startswith(b"HTTP/1.1 502 "))
        found = await deferToThread(self.over_h2, world.port, "GET")
        self.assertEqual(found["headers"][":status"], "502")

    def socket_path(self) -> str:
        path = os.path.relpath(self.mktemp())
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        return path

    async def test_in_plain(self) -> None:
        for path in ("", self.socket_path()):
            world = self.world(listen_at=ListenAddress("" if path else "127.0.0.1", 0, path or None, plain=True))
            family = socket.AF_UNIX if path else socket.AF_INET

            def work(family: Any = family, where: Any = path or ("127.0.0.1", world.port)) -> bytes:
                with socket.socket(family) as connection:
                    connection.connect(where)
                    for byte in b"GET / HTTP/1.0\r\n\r\n":
                        connection.sendall(bytes([byte]))
                    answer = b""
                    while data := connection.recv(1000):
                        answer += data
                    return answer

            code, fields, body = self.parse(await deferToThread(work))
            self.assertEqual((code, fields["content-length"], body), (405, "53", REFUSED))
