"""What a client asks of a relay: the ``wl-payload`` header (PROTOCOL: *The tunnel*)."""

from __future__ import annotations

from typing import Literal

import attrs

from wireleap_relay.wire.address import Address
from wireleap_relay.wire.encoding import read_json, write_json
from wireleap_relay.wire.errors import WireError
from wireleap_relay.wire.sharetoken import Sharetoken
from wireleap_relay.wire.structure import structure
from wireleap_relay.wire.versions import CLIENT_RELAY, Version

Protocol = Literal["tcp", "tcp4", "tcp6", "udp", "udp4", "udp6"]


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
            connect = structure(fields, Connect)
        case None:
            raise WireError("command: missing")
        case _:
            raise WireError("command: expected CONNECT or PING")
    if not CLIENT_RELAY.compatible_with(connect.version):
        raise WireError(f"version: {connect.version} is not compatible with {CLIENT_RELAY}")
    return connect
