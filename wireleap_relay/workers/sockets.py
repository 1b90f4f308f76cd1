"""Sockets that listen, and outlive the processes that accept from them."""

from __future__ import annotations

import socket

from twisted.internet.abstract import isIPv6Address
from twisted.internet.error import CannotListenError

_BACKLOG = 1024


def bind(host: str, port: int, count: int) -> list[socket.socket]:
    """Bind sockets to one address, between which the system spreads connections (SO_REUSEPORT).

    :param host: empty for every interface.
    :param port: 0 for any; then all of them have the same.
    :raises CannotListenError: where the address is taken or not ours.
    """
    bound: list[socket.socket] = []
    try:
        # The first one alone finds out whether somebody else listens there: sockets that share
        # an address share it with any other process of the same user, too.
        with _socket(host) as alone:
            alone.bind((host, port))
            port = alone.getsockname()[1]
            alone.listen(1)
        for _ in range(count):
            sharing = _socket(host)
            bound.append(sharing)
            sharing.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            sharing.bind((host, port))
        for each in bound:
            each.listen(_BACKLOG)
    except OSError as e:
        for each in bound:
            each.close()
        raise CannotListenError(host, port, e) from None
    return bound


def _socket(host: str) -> socket.socket:
    made = socket.socket(socket.AF_INET6 if isIPv6Address(host) else socket.AF_INET, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.setblocking(False)
    return made
