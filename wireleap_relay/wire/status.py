"""The status object of the network's APIs, and of a tunnel's ``wl-status`` trailer."""

from __future__ import annotations

import attrs

from wireleap_relay.wire.encoding import write_json
from wireleap_relay.wire.structure import read


@attrs.frozen
class Status:
    """How a request or a tunnel ended.

    :ivar code: a number in the manner of HTTP's.
    :ivar description: a sentence for people.
    :ivar origin: who says so: a relay's public key, or ``target``; empty is left out.
    :ivar cause: detail; empty is left out.
    """

    code: int
    description: str = ""
    origin: str = ""
    cause: str = ""

    @classmethod
    def from_json(cls, text: str | bytes) -> Status:
        """Read a status.

        :raises WireError: where it isn't one.
        """
        return read(text, cls)

    def to_json(self) -> str:
        """Write one line of ASCII without a newline, fit for a header's value.

        The Go relay ends it with a newline, which HTTP/2 forbids in a value
        (RFC 9113, section 8.2.1): its own server then drops the trailer.
        """
        fields: dict[str, object] = {"code": self.code, "description": self.description}
        if self.origin:
            fields["origin"] = self.origin
        if self.cause:
            fields["cause"] = self.cause
        return write_json(fields)
