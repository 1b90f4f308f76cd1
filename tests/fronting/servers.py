"""Real web servers, each with the configuration that operators are given."""

from __future__ import annotations

import datetime
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from wireleap_relay.cli.front import Front, render
from wireleap_relay.configvalues import ListenAddress
from wireleap_relay.sandbox.relays import free_port
from wireleap_relay.wire.address import Address

PAGE = "<title>A site like any other</title>\n"
PROGRAMS = {"nginx": "nginx", "apache": "apache2", "haproxy": "haproxy", "caddy": "caddy"}

#: What waits for tunnels that are idle, shortened: servers' own defaults are from 10 to 300 s, and no test waits
#: for so long. The configurations that operators are given have to undo these as they undo the defaults.
IDLE = 1


def missing(server: str) -> str | None:
    """Tell why a server can't be tried; None where it can."""
    program = PROGRAMS[server]
    if shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin"):
        return None
    return f"{program} is not installed: apt-get install {program}"


def certificate() -> bytes:
    """Make a site's certificate, followed by its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=1))
        .public_key(key.public_key())
        .sign(key, SHA256())
    )
    return made.public_bytes(Encoding.PEM) + key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


class WebServer:
    """One of them, in a folder of its own; everything else about it is as operators have it.

    :ivar published: where its site is, with the relay's path.
    :ivar log: what it printed or logged.
    """

    def __init__(self, kind: str, relay: ListenAddress, config: Callable[[str], str] = lambda text: text) -> None:
        """Stand before a relay.

        :param config: changes the configuration that operators are given.
        """
        self.kind = kind
        self.folder = Path(tempfile.mkdtemp(prefix=f"{kind}-"))
        self.folder.chmod(0o755)
        root = self.folder / "site"
        root.mkdir()
        (root / "index.html").write_text(PAGE)
        pem = self.folder / "site.pem"
        pem.write_bytes(certificate())
        pem.chmod(0o644)
        self.published = Address("wireleap", "127.0.0.1", free_port(), "/wireleap")
        site = config(render(kind, Front(self.published, relay, str(pem), str(pem), str(root))))
        self.log = self.folder / "log"
        self._command = getattr(self, f"_{kind}")(site)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it listens."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment(),
                start_new_session=True,
            )
        deadline = time.monotonic() + 10
        while True:
            try:
                socket.create_connection((self.published.host, self.published.port), 1).close()
            except OSError:
                if time.monotonic() > deadline or self._process.poll() is not None:
                    raise AssertionError(f"{self.kind} does not start: {self.log.read_text()}") from None
                time.sleep(0.02)
            else:
                return

    def reload(self) -> None:
        """Have it read its configuration again, as its systemd unit does; open tunnels go on."""
        assert self._process is not None
        if self.kind == "caddy":
            command = ["caddy", "reload", "--config", str(self.folder / "Caddyfile"), "--force"]
            subprocess.run(command, env=self._environment(), check=True, capture_output=True)
        else:
            signals = {"nginx": signal.SIGHUP, "apache": signal.SIGUSR1, "haproxy": signal.SIGUSR2}
            self._process.send_signal(signals[self.kind])

    def stop(self) -> None:
        """Stop it, and remove its folder."""
        if self._process is not None:
            # Not gently: some wait for their tunnels, and all have processes of their own.
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        shutil.rmtree(self.folder)

    @property
    def pid(self) -> int:
        """The process that the others are children of."""
        assert self._process is not None
        return self._process.pid

    def _environment(self) -> dict[str, str]:
        home = str(self.folder)
        return {
            "PATH": os.environ["PATH"] + ":/usr/sbin",
            "HOME": home,
            "XDG_DATA_HOME": home,
            "XDG_CONFIG_HOME": home,
            "APACHE_LOG_DIR": home,
        }

    def _write(self, name: str, text: str) -> Path:
        file = self.folder / name
        file.write_text(text)
        return file

    def _nginx(self, site: str) -> list[str]:
        self._write("site.conf", site.replace("/var/log/nginx/error.log", str(self.folder / "error.log")))
        main = self._write(
            "nginx.conf",
            f"""
            daemon off;
            {"user root;" if os.getuid() == 0 else ""}
            worker_processes 1;
            worker_rlimit_nofile 8192;
            error_log stderr notice;
            pid {self.folder}/pid;
            events {{ worker_connections 4096; }}
            http {{
                access_log {self.folder}/access.log;
                client_body_temp_path {self.folder}/body;
                proxy_temp_path {self.folder}/proxy;
                fastcgi_temp_path {self.folder}/fastcgi;
                uwsgi_temp_path {self.folder}/uwsgi;
                scgi_temp_path {self.folder}/scgi;
                client_body_timeout {IDLE}s;
                send_timeout {IDLE}s;
                grpc_read_timeout {IDLE}s;
                grpc_send_timeout {IDLE}s;
                keepalive_timeout {IDLE}s;
                include {self.folder}/site.conf;
            }}
            """,
        )
        return ["nginx", "-c", str(main), "-e", "stderr"]

    def _apache(self, site: str) -> list[str]:
        modules = "mpm_event ssl http2 proxy proxy_http2 rewrite authz_core dir mime setenvif socache_shmcb reqtimeout"
        load = "\n".join(f"LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so" for name in modules.split())
        self._write("site.conf", site)
        main = self._write(
            "apache2.conf",
            f"""
            {load}
            ServerRoot "{self.folder}"
            ServerName 127.0.0.1
            PidFile {self.folder}/pid
            User www-data
            Group www-data
            DefaultRuntimeDir {self.folder}
            ErrorLog {self.folder}/error.log
            LogFormat "%h %r %>s" combined
            TypesConfig /etc/mime.types
            Listen 127.0.0.1:{self.published.port}
            StartServers 1
            ServerLimit 4
            ThreadsPerChild 64
            MaxRequestWorkers 256
            Timeout {IDLE}
            ProxyTimeout {IDLE}
            KeepAliveTimeout {IDLE}
            RequestReadTimeout header=5-40,minrate=500 body={IDLE},minrate=500
            Include {self.folder}/site.conf
            """,
        )
        return ["apache2", "-f", str(main), "-D", "FOREGROUND"]

    def _haproxy(self, site: str) -> list[str]:
        if os.getuid() != 0:
            site = site.replace("    user haproxy\n    group haproxy\n", "")
        return ["haproxy", "-W", "-f", str(self._write("haproxy.cfg", site))]

    def _caddy(self, site: str) -> list[str]:
        site = site.replace("{\n", f"{{\n    auto_https off\n    admin unix/{self.folder}/admin.sock\n", 1)
        site = site.replace("    tls {", f"    tls {self.folder}/site.pem {self.folder}/site.pem {{")
        site = site.replace("\n127.0.0.1:", "\nhttps://127.0.0.1:")
        return ["caddy", "run", "--config", str(self._write("Caddyfile", site))]
