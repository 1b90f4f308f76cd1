"""What a relay says on a stream (PROTOCOL: *The tunnel*)."""

from __future__ import annotations

from wireleap_relay.tunnel.stream import Headers, Stream
from wireleap_relay.wire.keys import PublicKey
from wireleap_relay.wire.status import Status

PAYLOAD = b"wl-payload"
STATUS = b"wl-status"
TARGET = "target"

_TUNNEL: Headers = [(b":status", b"200"), (b"trailer", STATUS)]
_JSON: Headers = [(b":status", b"200"), (b"content-type", b"application/json")]


def tunnel_is_open(stream: Stream) -> None:
    """Send the headers of a tunnel; the target's bytes follow."""
    stream.respond(_TUNNEL)


def ending(status: Status) -> Headers:
    """Write the trailers that tell a client why its tunnel ended.

    A tunnel that ended well has none: the network's clients read on for ever
    after a status of 200.
    """
    return [(STATUS, status.to_json().encode())]


def refuse(stream: Stream, status: Status) -> None:
    """Answer a request that opens no tunnel, and let the client send no more."""
    tunnel_is_open(stream)
    stream.finish_now(ending(status))
    stream.stop_peer()


def pong(stream: Stream, relay: PublicKey) -> None:
    """Answer a PING."""
    stream.respond(_JSON)
    stream.send(Status(200, "PONG", str(relay)).to_json().encode() + b"\n")
    stream.finish()
    stream.stop_peer()
