"""Relays under load: processes of their own, with what they cost."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import attrs
import psutil

from wireleap_relay.sandbox.relays import free_port

_FOLDER = Path(__file__).resolve().parent.parent
_PATIENCE = 20.0
#: Seconds that a relay has to enroll in.
_ENROLLING = 1.0


class Helper:
    """A process of this folder that prints lines, and ends with its standard input."""

    def __init__(self, module: str, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", f"load.{module}", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=_FOLDER,
        )

    def line(self) -> str:
        """Read a line that it prints.

        :raises SystemExit: where it has ended.
        """
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{self._process.args} has ended with {self._process.wait()}")
        return line.strip()

    def say(self, line: str) -> None:
        """Write a line to it."""
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def close(self) -> None:
        """Let it end."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait(_PATIENCE)
        if self._process.stdout is not None:
            self._process.stdout.close()

    def __enter__(self) -> Helper:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@attrs.frozen
class Cost:
    """What the processes of a relay have used.

    :ivar cpu: seconds of processor time.
    :ivar memory: resident bytes that are theirs alone, and their shares of others.
    """

    cpu: float
    memory: int


class Measured:
    """A relay, or a forwarder, that is running.

    :ivar key: a relay's public key; empty for a forwarder without HTTP/2.
    """

    key = ""

    def __init__(self, name: str, command: Sequence[str | Path], folder: Path, ports: Sequence[int]) -> None:
        """Run a command in a folder; it listens at some ports then."""
        self.name = name
        self._command = command
        self._folder = folder
        self._ports = ports
        self._process: subprocess.Popen[bytes] | None = None
        self._start()

    def port(self, target: str) -> int:
        """Give the port at which a tunnel to this kind of target begins."""
        raise NotImplementedError

    def restart(self) -> None:
        """Run it anew: what it took for earlier work, it keeps for later work."""
        self._stop()
        self._start()

    def _start(self) -> None:
        output = self._folder / "output.log"
        with output.open("wb") as log:
            self._process = subprocess.Popen(
                self._command, stdout=log, stderr=log, cwd=self._folder, start_new_session=True
            )
        for port in self._ports:
            _until_it_listens(port, output)
        time.sleep(_ENROLLING)

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            try:
                process.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def cost(self) -> Cost:
        """Look at its processes now."""
        assert self._process is not None
        top = psutil.Process(self._process.pid)
        cpu, memory = 0.0, 0
        for process in (top, *top.children(recursive=True)):
            times = process.cpu_times()
            cpu += times.user + times.system
            memory += process.memory_full_info().pss
        return Cost(cpu, memory)

    def __enter__(self) -> Measured:
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, trace: TracebackType | None) -> None:
        self._stop()


class Relay(Measured):
    """A relay with the commands and files of the original: ours, or another."""

    def __init__(
        self,
        name: str,
        program: Path | None,
        folder: Path,
        contract: str,
        workers: int | None,
        more: dict[str, object] | None = None,
    ) -> None:
        """Make a home, and start.

        :param more: of the config.
        :param program: None for the relay of this checkout; another one is copied into its home, where it looks for it.
        """
        folder.mkdir()
        if program is None:
            command = [sys.executable, "-m", "wireleap_relay", "--home", str(folder)]
        else:
            command = [shutil.copy(program, folder / program.name)]
        subprocess.run([*command, "init"], cwd=folder, check=True, capture_output=True)
        port = free_port()
        address = f"127.0.0.1:{port}"
        config = {
            "address": address,
            "contracts": {contract: {"address": f"wireleap://{address}", "role": "backing"}},
            "danger_zone": {"allow_loopback": True},
            "auto_submit_interval": "1h",
            "network_usage": {"timeframe": "30d"},
        }
        config.update(more or {})
        if workers is not None:
            config["workers"] = workers
        (folder / "config.json").write_text(json.dumps(config))
        self.key = json.loads((folder / "key.pub").read_text())
        super().__init__(name, [*command, "start", "--fg"], folder, [port])

    def port(self, target: str) -> int:
        return self._ports[0]


class Stunnel(Measured):
    """TLS to TCP in C, without HTTP/2: the limit to approach."""

    def __init__(self, folder: Path, targets: dict[str, int]) -> None:
        """Forward to each of the targets from a port of its own."""
        folder.mkdir()
        command = ["openssl", "req", "-x509", "-newkey", "ed25519", "-nodes", "-subj", "/CN=relay"]
        subprocess.run(
            [*command, "-keyout", folder / "key.pem", "-out", folder / "cert.pem"], check=True, capture_output=True
        )
        self._port_of = {kind: free_port() for kind in targets}
        lines = ["foreground = yes", "pid =", "debug = 3", "socket = l:TCP_NODELAY=1", "socket = r:TCP_NODELAY=1"]
        for kind, port in targets.items():
            lines += [f"[{kind}]", f"accept = 127.0.0.1:{self._port_of[kind]}", f"connect = 127.0.0.1:{port}"]
            lines += ["cert = cert.pem", "key = key.pem"]
        (folder / "stunnel.conf").write_text("\n".join(lines) + "\n")
        super().__init__("stunnel", ["stunnel", "stunnel.conf"], folder, list(self._port_of.values()))

    def port(self, target: str) -> int:
        return self._port_of[target]


def _until_it_listens(port: int, output: Path) -> None:
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            if time.monotonic() > deadline:
                raise SystemExit(f"nothing listens:\n{output.read_text()}") from None
            time.sleep(0.05)
        else:
            return


def processors() -> int:
    """Count the processors that may be used."""
    return len(os.sched_getaffinity(0))
