"""Who may be dialled: pure, and asked about the very address that is dialled then."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import Enum
from ipaddress import IPv4Address, ip_address, ip_network

import attrs

from wireleap_relay.boundaries import Refused
from wireleap_relay.config import Config
from wireleap_relay.exitpolicy import PRESETS, ExitPolicy, IPAddress
from wireleap_relay.wire.address import join_host_port
from wireleap_relay.wire.relayentry import Role


class _Leave(Enum):
    """What it takes to dial an address that is not public."""

    NONE = "is never dialled"
    LOOPBACK = "takes danger_zone.allow_loopback"
    PRIVATE = "takes danger_zone.allow_private"


#: Networks that are not public, the narrower before the wider, and what clients are told of them
#: (the IANA registries of special-purpose addresses, RFC 6890).
_SPECIAL: tuple[tuple[str, str, _Leave], ...] = (
    ("0.0.0.0/8", "an unspecified", _Leave.NONE),
    ("127.0.0.0/8", "a loopback", _Leave.LOOPBACK),
    ("169.254.0.0/16", "a link-local", _Leave.NONE),
    ("100.100.100.200/32", "a cloud metadata", _Leave.NONE),  # Alibaba
    ("168.63.129.16/32", "a cloud metadata", _Leave.NONE),  # Azure
    ("192.0.0.192/32", "a cloud metadata", _Leave.NONE),  # Oracle
    ("224.0.0.0/4", "a multicast", _Leave.NONE),
    ("255.255.255.255/32", "a multicast", _Leave.NONE),
    ("10.0.0.0/8", "a private", _Leave.PRIVATE),
    ("172.16.0.0/12", "a private", _Leave.PRIVATE),
    ("192.168.0.0/16", "a private", _Leave.PRIVATE),
    ("100.64.0.0/10", "a private", _Leave.PRIVATE),  # carriers' NAT, RFC 6598
    ("192.0.0.0/24", "a reserved", _Leave.PRIVATE),
    ("192.0.2.0/24", "a reserved", _Leave.PRIVATE),
    ("192.88.99.0/24", "a reserved", _Leave.PRIVATE),
    ("198.18.0.0/15", "a reserved", _Leave.PRIVATE),
    ("198.51.100.0/24", "a reserved", _Leave.PRIVATE),
    ("203.0.113.0/24", "a reserved", _Leave.PRIVATE),
    ("240.0.0.0/4", "a reserved", _Leave.PRIVATE),
    ("::/128", "an unspecified", _Leave.NONE),
    ("::1/128", "a loopback", _Leave.LOOPBACK),
    ("fe80::/10", "a link-local", _Leave.NONE),
    ("fd00:ec2::/32", "a cloud metadata", _Leave.NONE),  # Amazon
    ("fd20:ce::/32", "a cloud metadata", _Leave.NONE),  # Google
    ("ff00::/8", "a multicast", _Leave.NONE),
    ("fc00::/7", "a private", _Leave.PRIVATE),
    ("fec0::/10", "a private", _Leave.PRIVATE),
    ("::/96", "a hidden IPv4", _Leave.PRIVATE),  # IPv4-compatible
    ("::ffff:0:0/96", "a hidden IPv4", _Leave.PRIVATE),  # IPv4-mapped
    ("::ffff:0:0:0/96", "a hidden IPv4", _Leave.PRIVATE),  # IPv4-translated, RFC 2765
    ("64:ff9b::/96", "a hidden IPv4", _Leave.PRIVATE),  # NAT64, RFC 6052
    ("64:ff9b:1::/48", "a hidden IPv4", _Leave.PRIVATE),  # NAT64 of one's own, RFC 8215
    ("2002::/16", "a hidden IPv4", _Leave.PRIVATE),  # 6to4
    ("2001::/32", "a hidden IPv4", _Leave.PRIVATE),  # Teredo
    ("2001::/23", "a reserved", _Leave.PRIVATE),
    ("2001:db8::/32", "a reserved", _Leave.PRIVATE),
    ("3fff::/20", "a reserved", _Leave.PRIVATE),
    ("::/3", "a reserved", _Leave.PRIVATE),  # only 2000::/3 is given out
    ("4000::/2", "a reserved", _Leave.PRIVATE),
    ("8000::/1", "a reserved", _Leave.PRIVATE),
)


def _ranges(version: int) -> tuple[tuple[int, int, str, _Leave], ...]:
    return tuple(
        (int(network[0]), int(network[-1]), kind, leave)
        for network, kind, leave in ((ip_network(text), kind, leave) for text, kind, leave in _SPECIAL)
        if network.version == version
    )


_RANGES = {4: _ranges(4), 6: _ranges(6)}


def hidden_ipv4(address: IPAddress) -> Iterator[IPv4Address]:
    """Give the IPv4 addresses that a packet to an IPv6 address may reach (RFC 4291, 3056, 4380, 6052)."""
    number = int(address)
    if isinstance(address, IPv4Address) or number <= 1:
        return
    top = number >> 32
    if top in (0, 0xFFFF, 0xFFFF << 16, 0x64FF9B << 64) or number >> 80 == 0x64FF9B0001:
        yield IPv4Address(number & 0xFFFFFFFF)
    elif number >> 112 == 0x2002:
        yield IPv4Address(number >> 80 & 0xFFFFFFFF)
    elif number >> 96 == 0x20010000:
        yield IPv4Address(number >> 64 & 0xFFFFFFFF)
        yield IPv4Address(~number & 0xFFFFFFFF)


@attrs.frozen
class Decision:
    """Whether an address is dialled.

    :ivar refusal: what a client is told; None where it is dialled.
    :ivar why: what the operator is told: the rule or the setting that decided.
    """

    refusal: str | None
    why: str

    @property
    def dials(self) -> bool:
        """Whether it is dialled."""
        return self.refusal is None


@attrs.frozen
class ListensAt:
    """An address that the relay itself listens at.

    :ivar host: None for all of this machine's addresses.
    """

    host: IPAddress | None
    port: int

    @classmethod
    def of(cls, host: str, port: int) -> ListensAt:
        """Understand an address to listen at; a name may be any of this machine's."""
        try:
            address = ip_address(host)
        except ValueError:
            return cls(None, port)
        return cls(None if address.is_unspecified else address, port)


def _not_here(_: IPAddress) -> bool:
    return False


@attrs.frozen
class DialPolicy:
    """Which addresses a relay dials, and from where.

    The text of a target proves nothing, for a name may resolve to anything:
    every address is looked at after resolving.

    :ivar allow_loopback: ``danger_zone.allow_loopback``.
    :ivar allow_private: ``danger_zone.allow_private``.
    :ivar allow_targets: ``danger_zone.allow_targets``: every role dials targets.
    :ivar exits: ``exit_policy``.
    :ivar listens: where the relay itself listens.
    :ivar is_here: tells whether an address is one of this machine's.
    :ivar sources: ``bind_address``; where there are any, only their families are dialled.
    """

    allow_loopback: bool = False
    allow_private: bool = False
    allow_targets: bool = False
    exits: ExitPolicy = PRESETS["default"]
    listens: tuple[ListensAt, ...] = ()
    is_here: Callable[[IPAddress], bool] = attrs.field(default=_not_here, eq=False)
    sources: tuple[IPAddress, ...] = ()

    @classmethod
    def from_config(cls, config: Config, is_here: Callable[[IPAddress], bool]) -> DialPolicy:
        """Make the policy that a config asks for."""
        listens = [] if config.address.path else [config.address]
        inside = (config.rest_api.address, config.manhole.address)
        listens += [address.tcp for address in inside if address is not None and address.tcp is not None]
        return cls(
            allow_loopback=config.danger_zone.allow_loopback,
            allow_private=config.danger_zone.allow_private,
            allow_targets=config.danger_zone.allow_targets,
            exits=config.exit_policy,
            listens=tuple(ListensAt.of(address.host, address.port) for address in listens),
            is_here=is_here,
            sources=config.bind_address,
        )

    def check_role(self, role: Role, is_target: bool) -> None:
        """Look at what a relay of a role is asked to dial.

        :raises Refused: where it isn't for this role.
        """
        if is_target and role != "backing" and not self.allow_targets:
            raise Refused(400, f"{'an' if role == 'entropic' else 'a'} {role} relay dials relays only", "policy")

    def check(self, host: str, port: int, is_target: bool) -> None:
        """Look at one address.

        :param host: an IPv4 or IPv6 address.
        :raises Refused: where it is not to be dialled; the text does not repeat it.
        """
        decision = self.decide(host, port, is_target)
        if decision.refusal is not None:
            raise Refused(400, decision.refusal, "policy")

    def source(self, host: str) -> str | None:
        """Give the address to dial another one from; None for the system's choice."""
        if not self.sources:
            return None
        version = ip_address(host).version
        return next((str(source) for source in self.sources if source.version == version), None)

    def decide(self, host: str, port: int, is_target: bool) -> Decision:
        """Decide over one address, for a client and for the operator.

        :param host: an IPv4 or IPv6 address.
        :param is_target: it is a clearnet target, not a relay.
        """
        address = ip_address(host.partition("%")[0])
        forms = (*hidden_ipv4(address), address)
        for form in forms:
            if self._is_own(form, port):
                return Decision(
                    "refusing to dial the relay itself", f"{join_host_port(host, port)} is the relay itself"
                )
        for form in forms:
            kind, leave = _kind(form)
            if leave is not None and not self._has(leave):
                return Decision(f"refusing to dial {kind} address", f"{form} is {kind} address: that {leave.value}")
        if self.sources and all(source.version != address.version for source in self.sources):
            return Decision(
                f"refusing to dial an IPv{address.version} address", f"bind_address has no IPv{address.version} address"
            )
        asked = [self._ask_exits(form, port, is_target) for form in forms]
        return next((decision for decision in asked if not decision.dials), asked[0])

    def _has(self, leave: _Leave) -> bool:
        return {_Leave.NONE: False, _Leave.LOOPBACK: self.allow_loopback, _Leave.PRIVATE: self.allow_private}[leave]

    def _is_own(self, address: IPAddress, port: int) -> bool:
        for own in self.listens:
            if own.port == port and (own.host == address or (own.host is None and self.is_here(address))):
                return True
        return False

    def _ask_exits(self, address: IPAddress, port: int, is_target: bool) -> Decision:
        rule = self.exits.decide(address, port)
        if not is_target and (rule is None or rule.about_everything):
            # Relays listen at any port, so "nothing else" is not about them.
            return Decision(None, "no rule of exit_policy is about this relay")
        if rule is not None and rule.accepts:
            return Decision(None, f"exit_policy: {rule}")
        why = f"exit_policy: {rule}" if rule is not None else "no rule of exit_policy matches"
        return Decision("refusing to dial: this relay's exit policy rejects it", why)


def _kind(address: IPAddress) -> tuple[str, _Leave | None]:
    number = int(address)
    for first, last, kind, leave in _RANGES[address.version]:
        if first <= number <= last:
            return kind, leave
    return "a public", None
