"""Relays as processes of their own, each with its own home."""

from __future__ import annotations

import contextlib
import datetime
import os
import secrets
import socket
import sys
from pathlib import Path
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from wireleap_relay.home import Home, command, write_json_durably
from wireleap_relay.sandbox.circuit import Hop
from wireleap_relay.wire.address import Address
from wireleap_relay.wire.endpoint import Endpoint
from wireleap_relay.wire.relayentry import Role

_PATIENCE = 10.0
#: Below what Linux takes for outgoing connections.
_LOWEST_PORT, _PORTS = 14_000, 18_000


def free_port() -> int:
    """Find a TCP port on loopback that nobody listens on.

    It is none of those that the system gives to connections by itself: such a
    one might be gone before it is used.
    """
    while True:
        port = _LOWEST_PORT + secrets.randbelow(_PORTS)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


class _Process(ProcessProtocol):
    def __init__(self, log: Path) -> None:
        self._log = log.open("ab")
        self.ended: Deferred[None] = Deferred()

    def outReceived(self, data: bytes) -> None:
        self._log.write(data)

    def errReceived(self, data: bytes) -> None:
        self._log.write(data)

    def processEnded(self, reason: Failure) -> None:
        self._log.close()
        self.ended.callback(None)


class RelayProcess(Service):
    """One relay, run as an operator would run it.

    :ivar log: what it prints.
    """

    def __init__(self, reactor: Any, folder: Path, role: Role, contract: Endpoint, submit_every: float) -> None:
        """Make a home in a folder; the relay starts with the service."""
        self.setName(role)
        self.role = role
        self._reactor = reactor
        self._home = Home(folder)
        self._port = free_port()
        self._process: Any = None
        self._protocol: _Process | None = None
        self.log = folder / "wireleap-relay.log"
        key = self._home.create_identity(datetime.datetime.now(datetime.UTC)).key.public_key
        address = f"wireleap://127.0.0.1:{self._port}"
        self.hop = Hop(Address.from_text(address), key)
        config = {
            "address": f"127.0.0.1:{self._port}",
            "auto_submit_interval": f"{submit_every}s",
            "archive_dir": "archive",
            "drain_timeout": "2s",
            "contracts": {contract: {"address": address, "role": role}},
            "danger_zone": {"allow_loopback": True},
            "workers": 0,  # several relays share this machine
        }
        write_json_durably(self._home.config, config)

    @property
    def pid(self) -> int | None:
        """The process's id, while it runs."""
        return self._process.pid if self._process is not None else None

    @property
    def died(self) -> bool:
        """Whether it ended though nobody told it to."""
        return self._protocol is not None and self._protocol.ended.called and bool(self.running)

    def startService(self) -> None:
        """Start the process."""
        super().startService()
        self._protocol = _Process(self.log)
        words = [*command(Path(sys.argv[0])), "--home", str(self._home.path), "start", "--fg"]
        self._process = self._reactor.spawnProcess(
            self._protocol, sys.executable, words, env=dict(os.environ), path=str(self._home.path)
        )

    def stopService(self) -> Deferred[None]:
        """Tell it to stop, and after ten seconds make it."""
        super().stopService()
        assert self._protocol is not None  # noqa: S101 - it was started
        self._signal("TERM")
        timer: IDelayedCall = self._reactor.callLater(_PATIENCE, self._signal, "KILL")

        def ended(_: None) -> None:
            if timer.active():
                timer.cancel()

        return self._protocol.ended.addCallback(ended)

    def _signal(self, name: str) -> None:
        try:
            self._process.signalProcess(name)
        except ProcessExitedAlready:
            return
