"""``exit_policy``: which ports of which addresses targets may have; the first rule that matches decides.

A rule is ``accept`` or ``reject``, then ``ADDR[/BITS]`` or ``*`` for every
address, a colon, and ``PORT[-PORT]`` or ``*`` for every port. IPv6 stands in
brackets: ``reject [2001:db8::]/32:*``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import Any

import attrs

from wireleap_relay.wire.errors import WireError
from wireleap_relay.wire.structure import Mistake, Mistaken

IPAddress = IPv4Address | IPv6Address

_RULE = re.compile(
    r"(?P<verb>accept|reject)\s+"
    r"(?P<where>\*|(?P<v4>[\d.]+)(?P<bits4>/\d+)?|\[(?P<v6>[0-9A-Fa-f.]*:[0-9A-Fa-f:.]*)\](?P<bits6>/\d+)?)"
    r":(?P<ports>\*|(?P<first>\d{1,5})(?:-(?P<last>\d{1,5}))?)",
    re.ASCII,
)
_EXPECTED = 'expected a rule such as "accept *:443", "reject 203.0.113.0/24:*" or "reject [2001:db8::]/32:1-1024"'
_LAST_PORT = 65_535


@attrs.frozen
class ExitRule:
    """One rule.

    :ivar network: whose addresses it is about; None for every address.
    :ivar first: the lowest port it is about.
    :ivar last: the highest.
    """

    accepts: bool
    network: IPv4Network | IPv6Network | None = None
    first: int = 1
    last: int = _LAST_PORT

    def matches(self, address: IPAddress, port: int) -> bool:
        """Tell whether it is about an address and a port."""
        return self.first <= port <= self.last and (self.network is None or address in self.network)

    @property
    def about_everything(self) -> bool:
        """Whether no rule behind it is ever asked."""
        return self.network is None and (self.first, self.last) == (1, _LAST_PORT)

    def __str__(self) -> str:
        if self.network is None:
            where = "*"
        elif isinstance(self.network, IPv6Network):
            where = f"[{self.network.network_address}]/{self.network.prefixlen}"
        else:
            where = str(self.network)
        if self.first == self.last:
            ports = str(self.first)
        else:
            ports = "*" if (self.first, self.last) == (1, _LAST_PORT) else f"{self.first}-{self.last}"
        return f"{'accept' if self.accepts else 'reject'} {where}:{ports}"


@attrs.frozen
class ExitPolicy:
    """Rules in the order in which they are asked; what none of them matches is rejected."""

    rules: tuple[ExitRule, ...]

    def decide(self, address: IPAddress, port: int) -> ExitRule | None:
        """Give the rule that decides; None where none matches."""
        return next((rule for rule in self.rules if rule.matches(address, port)), None)

    @property
    def decides_everything(self) -> bool:
        """Whether there is no target that no rule matches."""
        return any(rule.about_everything for rule in self.rules)


def parse_rule(text: str) -> ExitRule:
    """Read one rule.

    :raises WireError: where it isn't one.
    """
    match = _RULE.fullmatch(text.strip())
    if match is None:
        raise WireError(_EXPECTED)
    network = None
    if match["where"] != "*":
        bits = match["bits4"] or match["bits6"] or ""
        try:
            network = ip_network((match["v4"] or match["v6"]) + bits)
        except ValueError as e:
            raise WireError(f"{_EXPECTED}; {e}") from None
    first, last = 1, _LAST_PORT
    if match["ports"] != "*":
        first = int(match["first"])
        last = int(match["last"] or first)
        if not 1 <= first <= last <= _LAST_PORT:
            raise WireError(f"{_EXPECTED}, with ports from 1 to {_LAST_PORT}, the lower one first")
    return ExitRule(match["verb"] == "accept", network, first, last)


def _rules(texts: Sequence[str]) -> tuple[ExitRule, ...]:
    return tuple(map(parse_rule, texts))


#: Ports of what people use a network for: the web, mail as its readers use it, chat, names, files, code, VPNs.
_REDUCED = (
    *("21-23", "43", "53", "80-81", "88", "110", "119", "123", "143", "194", "389", "443", "465", "500", "554", "563"),
    *("587", "636", "853", "873", "989-995", "1194", "1293", "1723", "1935", "3128", "3389", "3478-3481", "3690"),
    *("4500", "5060-5061", "5190", "5222-5223", "5228-5230", "5349", "5900", "6660-6669", "6697", "8000", "8008"),
    *("8080", "8332-8333", "8443", "8888", "9418", "11371", "19302-19309", "50002", "51820", "64738"),
)

#: ``default`` keeps a relay from sending spam; ``reduced`` keeps it to well-known services besides.
PRESETS: dict[str, ExitPolicy] = {
    "default": ExitPolicy(_rules(["reject *:25", "accept *:*"])),
    "reduced": ExitPolicy(_rules([*(f"accept *:{ports}" for ports in _REDUCED), "reject *:*"])),
}


def exit_policy(value: Any) -> ExitPolicy:
    """Read ``exit_policy``: the name of a preset, or a list of rules that may name presets too.

    :raises wireleap_relay.wire.structure.Mistaken: with every rule that isn't one.
    """
    names = " or ".join(f'"{name}"' for name in PRESETS)
    if type(value) is str:
        if value not in PRESETS:
            raise WireError(f"expected {names}, or a list of rules")
        return PRESETS[value]
    if type(value) is not list or not value:
        raise WireError(f"expected {names}, or a list of at least one rule")
    rules: list[ExitRule] = []
    wrong: list[Mistake] = []
    for position, text in enumerate(value):
        try:
            if type(text) is not str:
                raise WireError(_EXPECTED)
            rules += PRESETS[text].rules if text in PRESETS else [parse_rule(text)]
        except WireError as e:
            wrong.append(Mistake(f"exit_policy[{position}]", str(e)))
    if wrong:
        raise Mistaken(wrong)
    return ExitPolicy(tuple(rules))
