"""What clients may ask of a relay: ``limits`` in ``config.json``, with defaults that no honest client comes near."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Annotated, Any

import attrs

from wireleap_relay.configvalues import DAY, HOUR, limit, seconds, whole
from wireleap_relay.wire.errors import WireError

Network = IPv4Network | IPv6Network

_MOST = 10**9
_LOOPBACK: tuple[Network, ...] = (ip_network("127.0.0.0/8"), ip_network("::1/128"))


def networks(value: Any) -> tuple[Network, ...]:
    """Read a list of networks."""
    such_as = WireError('expected a list of addresses and networks such as ["192.0.2.7", "2001:db8::/32"]')
    if type(value) is not list or any(type(text) is not str for text in value):
        raise such_as
    try:
        return tuple(map(ip_network, value))
    except ValueError:
        raise such_as from None


@attrs.frozen
class ClientLimits:
    """Bounds, each in every process that serves clients.

    :ivar tunnels_per_connection: open at once.
    :ivar connections_per_network: open at once; a network is a /24 of IPv4 or a /48 of IPv6.
    :ivar connection_rate: of a network, new ones in a second on average.
    :ivar reset_rate: streams of a connection in a second that are reset before they are tunnels.
    :ivar request_rate: requests of a connection in a second that open no tunnel.
    :ivar frame_rate: frames of a connection in a second, of each kind that carries nothing.
    :ivar handshake_timeout: seconds for TLS and the first SETTINGS.
    :ivar headers_timeout: seconds for the rest of a frame or of a block of headers.
    :ivar idle_timeout: seconds that a connection without tunnels is kept.
    :ivar stall_timeout: seconds that a client may leave all that waits for it unread.
    :ivar memory: resident, in bytes, of a process that takes no more on and sheds; None for what the machine suggests.
    :ivar trusted: networks whose connections are not counted: web servers in front of the relay.
    """

    tunnels_per_connection: Annotated[int, whole(1, 100_000)] = 1000
    connections_per_network: Annotated[int, whole(1, _MOST)] = 10_000
    connection_rate: Annotated[int, whole(1, _MOST)] = 200
    reset_rate: Annotated[int, whole(1, _MOST)] = 100
    request_rate: Annotated[int, whole(1, _MOST)] = 200
    frame_rate: Annotated[int, whole(200, _MOST)] = 1000
    handshake_timeout: Annotated[float, seconds(1, HOUR)] = 10.0
    headers_timeout: Annotated[float, seconds(1, HOUR)] = 10.0
    idle_timeout: Annotated[float, seconds(1, DAY)] = 600.0
    stall_timeout: Annotated[float, seconds(1, DAY)] = 600.0
    memory: Annotated[int, limit] | None = None
    trusted: Annotated[tuple[Network, ...], networks] = _LOOPBACK


GENEROUS = ClientLimits()
