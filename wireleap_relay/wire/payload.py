"""What a client asks of a relay: the ``wl-payload`` header (PROTOCOL: *The tunnel*)."""

from __future__ import annotations

from typing import Any, Literal, get_args

import attrs

from wireleap_relay.wire.address import Address
from wireleap_relay.wire.encoding import read_json, write_json
from wireleap_relay.wire.errors import WireError
from wireleap_relay.wire.sharetoken import Sharetoken
from wireleap_relay.wire.structure import structure
from wireleap_relay.wire.versions import CLIENT_RELAY, Version

Protocol = Literal["tcp", "tcp4", "tcp6", "udp", "udp4", "udp6"]
_PROTOCOLS: frozenset[Any] = frozenset(get_args(Protocol))


@attrs.frozen
class Ping:
    """A client asks whether the relay is there."""


@attrs.frozen
class Connect:
    """A client asks for a tunnel.

    :ivar remote: where to.
    :ivar token: what it pays with.
    :ivar version: of the client-relay interface it speaks.
    """

    protocol: Protocol
    remote: Address
    token: Sharetoken
    version: Version

    @property
    def is_udp(self) -> bool:
        """Whether it carries datagrams."""
        return self.protocol.startswith("udp")

    def to_json(self) -> str:
        """The header's value, as a client writes it."""
        return write_json(
            {
                "command": "CONNECT",
                "protocol": self.protocol,
                "remote": str(self.remote),
                "token": self.token.to_fields(),
                "version": str(self.version),
            }
        )


def parse_payload(text: str | bytes) -> Ping | Connect:
    """Read a ``wl-payload``.

    :raises WireError: where it isn't JSON, where a field is missing, mistyped
        or unknown, and where the client's interface version isn't compatible.
    """
    fields = read_json(text)
    if not isinstance(fields, dict):
        raise WireError("expected a JSON object")
    match fields.get("command"):
        case "PING":
            return Ping()
        case "CONNECT":
            connect = _plain_connect(fields) or structure(fields, Connect)
        case None:
            raise WireError("command: missing")
        case _:
            raise WireError("command: expected CONNECT or PING")
    if not CLIENT_RELAY.compatible_with(connect.version):
        raise WireError(f"version: {connect.version} is not compatible with {CLIENT_RELAY}")
    return connect


def _plain_connect(fields: dict[str, Any]) -> Connect | None:
    """Make a request of fields that are as they should be; None where one isn't.

    cattrs finds all mistakes and names them, for three times the price: it is
    asked only where there is one. It would make the same of these fields.
    """
    try:
        if fields["protocol"] not in _PROTOCOLS:
            return None
        return Connect(
            fields["protocol"],
            Address.from_text(fields["remote"]),
            Sharetoken.from_fields(fields["token"]),
            Version.from_text(fields["version"]),
        )
    except (KeyError, TypeError, WireError):
        return None
