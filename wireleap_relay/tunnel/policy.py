"""Who may be dialled: pure, and asked about the very address that is dialled then."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, ip_address

import attrs

from wireleap_relay.boundaries import Refused

#: RFC 1122, section 3.2.1.3: "this network", which Linux takes for itself.
_THIS_NETWORK = IPv4Network("0.0.0.0/8")
_BROADCAST = IPv4Address("255.255.255.255")


@attrs.frozen
class DialPolicy:
    """Which IP addresses a relay dials.

    The text of a target proves nothing, for a name may resolve to anything:
    every address is looked at after resolving.

    :ivar allow_loopback: ``danger_zone.allow_loopback``.
    """

    allow_loopback: bool = False

    def check(self, host: str) -> None:
        """Look at one address.

        :param host: an IPv4 or IPv6 address.
        :raises Refused: where it is not to be dialled; the text does not repeat it.
        """
        reason = self._reason(ip_address(host.partition("%")[0]))
        if reason:
            raise Refused(400, f"refusing to dial {reason} address")

    def _reason(self, address: IPv4Address | IPv6Address) -> str | None:
        if isinstance(address, IPv6Address) and address.ipv4_mapped:
            address = address.ipv4_mapped
        if address.is_loopback:
            return None if self.allow_loopback else "a loopback"
        if address.is_unspecified or address in _THIS_NETWORK:
            return "an unspecified"
        if address.is_link_local:
            return "a link-local"
        if address.is_multicast or address == _BROADCAST:
            return "a multicast"
        return None
