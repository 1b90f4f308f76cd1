"""A site of releases on loopback, over TLS, that behaves or doesn't."""

from __future__ import annotations

import ssl
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from cryptography.hazmat.primitives import serialization

from tests.upgrade.keys import Signer
from tests.upstream.test_tls import self_signed
from wireleap_relay.upgrade.release import ReleaseSite, file_name, sum_of_file, write_listing
from wireleap_relay.wire.versions import Version


class ReleaseServer:
    """Serves what is in a folder.

    :ivar ca: a file with the certificate that has to be trusted.
    :ivar misbehaves: instead of what is in the folder, by path: a body, an HTTP status, or what it is to do.
    :ivar asked: paths, in their order.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.signer = Signer()
        self.asked: list[str] = []
        self.misbehaves: dict[str, bytes | int | str] = {}
        self.ca, secret = folder.parent / "ca.pem", folder.parent / "server.pem"
        key, certificate = self_signed("localhost")
        pem = certificate.public_bytes(serialization.Encoding.PEM)
        form = serialization.PrivateFormat.PKCS8
        self.ca.write_bytes(pem)
        secret.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()) + pem)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(secret)
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: object) -> None:
                """Clients hang up on a server that misbehaves."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"https://localhost:{self._server.server_address[1]}"

    @property
    def site(self) -> ReleaseSite:
        return ReleaseSite(
            f"{self.url}/{{version}}/{{name}}",
            f"{self.url}/changelogs/{{version}}.md",
            f"{self.url}/keys/{{fingerprint}}.asc",
        )

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def publish(self, version: str, program: bytes, changelog: str = "# New\n\n- It is better.\n") -> Path:
        """Serve a version; give its file."""
        file = self.folder / version / file_name()
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(program)
        self.sign(version)
        (self.folder / "changelogs").mkdir(exist_ok=True)
        (self.folder / "changelogs" / f"{version}.md").write_text(changelog)
        return file

    def sign(self, version: str, signer: Signer | None = None, said: str | None = None) -> None:
        file = self.folder / version / file_name()
        listing = write_listing(Version.from_text(said or version), {file.name: sum_of_file(file)})
        file.with_name(f"{file.name}.hash").write_bytes((signer or self.signer).sign(listing))

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        self.asked.append(request.path)
        how = self.misbehaves.get(request.path)
        if isinstance(how, int):
            return request.send_error(how)
        if how == "hangs":
            time.sleep(60)
            return None
        if how == "never ends":
            return self._pour(request)
        file = self.folder / request.path.lstrip("/")
        if how is None and not file.is_file():
            return request.send_error(404)
        body = how if isinstance(how, bytes) else file.read_bytes()
        request.send_response(200)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        if how == "breaks off":
            request.wfile.write(body[: len(body) // 2])
            request.wfile.flush()
            request.connection.close()
        elif how == "is slow":
            for place in range(0, len(body), 1 + len(body) // 50):
                request.wfile.write(body[place : place + 1 + len(body) // 50])
                request.wfile.flush()
                time.sleep(0.05)
        elif how == "is huge":
            self._pour(request)
        else:
            request.wfile.write(body)
        return None

    def _pour(self, request: BaseHTTPRequestHandler) -> None:
        """Send ten gigabytes, if anybody takes them."""
        request.send_response(200)
        request.end_headers()
        for _ in range(10_000):
            request.wfile.write(bytes(1_000_000))
