"""A daemon's handover socket, from outside: one JSON text a line, questions and answers in turn.

Whoever may enter the home may ask; nobody else can. Everything here may wait,
but never for ever.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import attrs

from wireleap_relay.daemon.path import SocketPath
from wireleap_relay.home import Home
from wireleap_relay.wire.encoding import read_json
from wireleap_relay.wire.errors import WireError

_PREFIX = ".handover-"
_PATIENCE = 5.0
_LONGEST = 1 << 20
_MOST_SOCKETS = 253  # what Linux passes at once


class PeerFailed(Exception):
    """A daemon did not do what it was asked; the text says why."""


class NoPeer(PeerFailed):
    """There is no such daemon, or it is no more."""


def socket_name(pid: int) -> str:
    """Name a daemon's handover socket in its home."""
    return f"{_PREFIX}{pid}"


def stopped_name(pid: int) -> str:
    """Name what a daemon leaves that was told to stop while another one was about to take its place."""
    return f"{_PREFIX}{pid}-stopped"


class Peer:
    """A connection to one daemon; a context manager."""

    def __init__(self, home: Home, pid: int) -> None:
        """Connect.

        :raises NoPeer: where there is nobody.
        """
        self.pid = pid
        self.inherited: list[socket.socket] = []
        self._buffer = b""
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(_PATIENCE)
        try:
            with SocketPath(home.path / socket_name(pid)) as path:
                self.socket.connect(path.text)
        except OSError as e:
            self.socket.close()
            raise NoPeer(f"process {pid} can't be reached: {e.strerror or e}") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.socket.close()

    def ask(self, what: str, patience: float = _PATIENCE, **fields: object) -> dict[str, Any]:
        """Have the daemon do something.

        :param patience: in seconds.
        :returns: what it answers.
        :raises NoPeer: where it is no more.
        :raises PeerFailed: where it doesn't, or does not answer in time.
        """
        self.socket.settimeout(patience)
        try:
            self.socket.sendall(json.dumps({"do": what, **fields}).encode() + b"\n")
            answer = read_json(self._line())
        except TimeoutError:
            raise PeerFailed(f"process {self.pid} has not answered within {patience:g} s") from None
        except OSError as e:
            raise NoPeer(f"process {self.pid} has gone: {e.strerror}") from None
        except WireError as e:
            raise PeerFailed(f"process {self.pid} talks nonsense: {e}") from None
        if not isinstance(answer, dict) or not answer.get("ok"):
            raise PeerFailed(str(answer.get("why", answer)) if isinstance(answer, dict) else "it talks nonsense")
        return answer

    def _line(self) -> bytes:
        while b"\n" not in self._buffer:
            data, descriptors, _, _ = socket.recv_fds(self.socket, 1 << 16, _MOST_SOCKETS)
            self.inherited.extend(socket.socket(fileno=descriptor) for descriptor in descriptors)
            if not data or len(self._buffer) > _LONGEST:
                raise NoPeer(f"process {self.pid} has gone")
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line


@attrs.frozen
class Succession:
    """What a daemon has got from the one whose place it is about to take.

    :ivar pid: of that one.
    :ivar address: where the sockets listen, as the config has it.
    :ivar account: of usage, as ``stats.json`` has it; None where nothing was measured.
    :ivar supervisor: how systemd, or another such, is told of things.
    :ivar link: over which both count to each other from here on.
    """

    pid: int
    address: str
    sockets: Sequence[socket.socket]
    account: dict[str, Any] | None
    supervisor: dict[str, str]
    link: socket.socket


def succeed(home: Home, pid: int) -> Succession | None:
    """Ask a daemon for what its successor needs.

    :returns: None where it is no more.
    :raises PeerFailed: where it does not answer.
    """
    try:
        peer = Peer(home, pid)
        answer = peer.ask("take")
    except NoPeer:
        return None
    for each in peer.inherited:
        each.setblocking(False)
    peer.socket.setblocking(False)
    return Succession(
        pid, answer["address"], peer.inherited, answer["account"], answer.get("supervisor") or {}, peer.socket
    )
