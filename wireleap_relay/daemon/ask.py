"""Asks a home's daemon how it gets on; it may be hanging, so nobody waits for ever."""

from __future__ import annotations

import json
import socket
from http.client import HTTPConnection, HTTPException
from typing import Any

from wireleap_relay.daemon.path import SocketPath
from wireleap_relay.home import Home

PATIENCE = 3.0


class Silent(Exception):
    """The daemon gave no answer; the text says why."""


class _Connection(HTTPConnection):
    def __init__(self, home: Home, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._home = home

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        with SocketPath(self._home.control) as path:
            self.sock.connect(path.text)


def ask(home: Home, *paths: str, timeout: float = PATIENCE) -> list[Any]:
    """Ask a home's daemon.

    :param paths: of what is wanted, such as ``/api/status``.
    :param timeout: seconds for each.
    :returns: the JSON data of each.
    :raises Silent: where it has no answer.
    """
    connection = _Connection(home, timeout)
    try:
        return [_fetch(connection, path) for path in paths]
    except TimeoutError:
        raise Silent(f"it gives no answer within {timeout:g} s") from None
    except FileNotFoundError:
        raise Silent(f"{home.control} is not there") from None
    except (OSError, HTTPException) as e:
        raise Silent(f"{home.control}: {getattr(e, 'strerror', None) or e}") from None
    except ValueError:
        raise Silent(f"{home.control}: what came is no JSON") from None
    finally:
        connection.close()


def _fetch(connection: HTTPConnection, path: str) -> Any:
    connection.request("GET", path)
    return json.loads(connection.getresponse().read())
