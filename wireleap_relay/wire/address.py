"""Addresses of relays and targets, as URLs (PROTOCOL: *The tunnel*)."""

from __future__ import annotations

import re
from ipaddress import AddressValueError, IPv6Address
from typing import Any, Literal, cast

import attrs

from wireleap_relay.wire.errors import WireError
from wireleap_relay.wire.structure import converter

Scheme = Literal["target", "wireleap", "https"]

_URL = re.compile(
    r"(?P<scheme>target|wireleap|https)://"
    r"(?:\[(?P<v6>[0-9A-Fa-f:.]{2,45})\]|(?P<host>[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,253}[A-Za-z0-9_.])?))"
    r"(?::(?P<port>\d{1,5}))?"
    r"(?P<path>/[!-~]{0,1024})?",
    re.ASCII,
)
_LABEL = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?", re.ASCII)
_IPV4 = re.compile(r"(?:(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)(?:\.(?!$)|$)){4}", re.ASCII)
_NUMBER = re.compile(r"\d+|0x[0-9a-f]*", re.ASCII | re.IGNORECASE)
_DEFAULT_PORT = 443


def is_host(host: str) -> bool:
    """Tell whether a text is a name or an IP address that may be dialled (RFC 1123, section 2.1)."""
    if ":" in host:
        try:
            IPv6Address(host)
        except AddressValueError:
            return False
        return True
    labels = host.removesuffix(".").split(".")
    if _NUMBER.fullmatch(labels[-1]):
        # A name can't end in a number (RFC 1123): then it has to be a whole IPv4 address,
        # and never one of the short, octal or hexadecimal forms that resolvers turn into another.
        return _IPV4.fullmatch(host) is not None
    return len(host) <= 253 and all(map(_LABEL.fullmatch, labels))


def join_host_port(host: str, port: int) -> str:
    """Write ``host:port``, with brackets around IPv6."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@attrs.frozen
class Address:
    """Where a tunnel leads, or where a relay is published.

    :ivar scheme: ``target`` for the clearnet, ``wireleap`` (old: ``https``) for a relay.
    :ivar host: a name, an IPv4 or a bare IPv6 address.
    :ivar path: of the web server in front of a relay; empty or beginning with ``/``.
    """

    scheme: Scheme
    host: str
    port: int
    path: str = ""

    @classmethod
    def from_text(cls, text: str) -> Address:
        """Read a URL; relays have port 443 where none is given.

        :raises WireError: where it isn't such a URL.
        """
        match = _URL.fullmatch(text)
        if match is None:
            raise WireError("expected a URL such as target://host:port or wireleap://host:port/path")
        scheme = cast("Scheme", match["scheme"])
        host = match["v6"] or match["host"]
        if not is_host(host) or (match["v6"] is None) == (":" in host):
            raise WireError("expected a host name, an IPv4 address or an IPv6 address in brackets")
        path = match["path"] or ""
        if scheme == "target" and (match["port"] is None or path):
            raise WireError("expected target://host:port")
        port = int(match["port"] or _DEFAULT_PORT)
        if not 0 < port < 65536:
            raise WireError("expected a port from 1 to 65535")
        return cls(scheme, host, port, path)

    @property
    def is_target(self) -> bool:
        """Whether it lies outside the network."""
        return self.scheme == "target"

    @property
    def host_port(self) -> str:
        """``host:port``, with brackets around IPv6."""
        return join_host_port(self.host, self.port)

    def __str__(self) -> str:
        return f"{self.scheme}://{self.host_port}{self.path}"


def _structure(value: Any, _: Any) -> Address:
    if type(value) is not str:
        raise WireError("expected text")
    return Address.from_text(value)


converter.register_structure_hook(Address, _structure)
converter.register_unstructure_hook(Address, str)
