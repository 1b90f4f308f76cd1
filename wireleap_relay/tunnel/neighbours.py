"""How many clients come from one network, and how often: in memory only, and without their addresses."""

from __future__ import annotations

import os
from hashlib import blake2b
from ipaddress import IPv6Address, ip_address

import attrs

from wireleap_relay.clientlimits import ClientLimits
from wireleap_relay.tunnel import abuse

#: A network may bring this many seconds' worth of connections at once.
_BURST = 10
#: What an offence costs a network, in connections that it may not make.
_PENALTY = 100
_PENALTIES = {abuse.IDLE: 0, abuse.TLS: 10, abuse.SLOW_HANDSHAKE: 10, abuse.SLOW_HEADERS: 10, abuse.STALLED: 10}


@attrs.define(eq=False)
class _Network:
    """One network.

    :ivar open: connections right now.
    :ivar spent: of what it may do; never below 0.
    """

    open: int = 0
    spent: float = 0.0


class Neighbours:
    """Counts by network: a salted hash of an address's first 24 bits, or 48 of IPv6.

    Many clients may stand behind one address: a relay's clients do. So none
    is barred for good: who offends is let in less often for a while.
    """

    def __init__(self, limits: ClientLimits) -> None:
        """Know nobody."""
        self._salt = os.urandom(16)
        self._limits = limits
        self._networks: dict[bytes, _Network] = {}

    def apply(self, limits: ClientLimits) -> None:
        """Go by other limits from here on."""
        self._limits = limits

    def key(self, host: str) -> bytes:
        """Give what stands for an address's network; empty where that is trusted."""
        address = ip_address(host.partition("%")[0])
        if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        if any(address in network for network in self._limits.trusted):
            return b""
        prefix = address.packed[: 3 if address.version == 4 else 6]
        return blake2b(prefix, key=self._salt, digest_size=8).digest()

    def came(self, key: bytes) -> str:
        """Account for a new connection.

        :returns: the offence that it is; empty for none. Who is refused needs not go.
        """
        if not key:
            return ""
        network = self._networks.setdefault(key, _Network())
        if network.spent >= self._limits.connection_rate * _BURST:
            return abuse.CONNECTION_RATE
        if network.open >= self._limits.connections_per_network:
            return abuse.CONNECTIONS
        network.open += 1
        network.spent += 1
        return ""

    def went(self, key: bytes) -> None:
        """A connection that was let in is gone."""
        network = self._networks.get(key)
        if network is not None and network.open:
            network.open -= 1

    def offended(self, key: bytes, offence: str) -> None:
        """Let a network in less often."""
        network = self._networks.get(key)
        if network is not None:
            # Twice a burst at the most: a few seconds later it may come again.
            most = 2 * _BURST * self._limits.connection_rate
            network.spent = min(network.spent + _PENALTIES.get(offence, _PENALTY), most)

    def second_passed(self) -> None:
        """Let all come as often again as they may in a second, and forget who has done nothing."""
        rate = self._limits.connection_rate
        for key, network in list(self._networks.items()):
            network.spent = max(network.spent - rate, 0)
            if not network.spent and not network.open:
                del self._networks[key]
