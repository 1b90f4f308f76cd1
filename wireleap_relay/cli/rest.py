"""Asks a relay's REST API, without a reactor."""

from __future__ import annotations

import http.client
import json
import socket
from typing import Any

from wireleap_relay.admin.words import printable
from wireleap_relay.cli.command import CommandError
from wireleap_relay.configvalues import RestAddress

_TIMEOUT = 5.0
#: Where a server that listens everywhere is found.
_HERE = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104


class _OverSocket(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=_TIMEOUT)
        self._path = path

    def connect(self) -> None:
        """Connect."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def ask(address: RestAddress, paths: tuple[str, ...]) -> dict[str, Any]:
    """Get the JSON data of paths below ``/api/``, over one connection.

    :raises CommandError: where the relay does not answer.
    """
    connection = _connection(address)
    try:
        return {path: _get(connection, path) for path in paths}
    except (OSError, http.client.HTTPException, ValueError) as e:
        why = str(e) or type(e).__name__
        raise CommandError(f"the relay does not answer at {address}: {why}") from None
    finally:
        connection.close()


def _connection(address: RestAddress) -> http.client.HTTPConnection:
    if address.tcp is None:
        return _OverSocket(address.path or "")
    return http.client.HTTPConnection(_HERE.get(address.tcp.host, address.tcp.host), address.tcp.port, timeout=_TIMEOUT)


def _get(connection: http.client.HTTPConnection, path: str) -> Any:
    connection.request("GET", f"/api/{path}")
    answer = connection.getresponse()
    body = answer.read()
    if answer.status not in (200, 503):
        raise ValueError(f"HTTP {answer.status} for /api/{path}")
    return _printable(json.loads(body))


def _printable(data: Any) -> Any:
    """Take out what texts of contracts and directories might do to a terminal."""
    match data:
        case str():
            return printable(data)
        case list():
            return [_printable(each) for each in data]
        case dict():
            return {name: _printable(value) for name, value in data.items()}
        case _:
            return data
