"""One tunnel, as a client of the network uses it."""

from __future__ import annotations

from typing import Protocol

from h2.errors import ErrorCodes

from wireleap_relay.tunnel.answers import STATUS
from wireleap_relay.tunnel.stream import Headers, Stream, header_value
from wireleap_relay.wire.errors import WireError
from wireleap_relay.wire.status import Status


class TunnelError(Exception):
    """A relay, or the target, has ended a tunnel with a status."""

    def __init__(self, status: Status) -> None:
        super().__init__(f"{status.code} {status.description}")
        self.status = status


class TunnelReader(Protocol):
    """Reads what comes out of a tunnel."""

    def tunnel_opened(self) -> None:
        """The relay has reached the target."""

    def data_received(self, data: bytes, frame_done: bool) -> None:
        """Bytes from the target; :meth:`Tunnel.credit` is owed for them."""

    def tunnel_ended(self, error: TunnelError | None) -> None:
        """The target ended its side, or the tunnel failed; nothing comes after this."""

    def pause(self) -> None:
        """Write no more for now."""

    def resume(self) -> None:
        """Write again."""


class Tunnel:
    """One stream to a relay, and through it to a target."""

    def __init__(self, stream: Stream, reader: TunnelReader) -> None:
        """Read what comes out of a stream."""
        self._stream = stream
        self._reader = reader
        self._over = False
        stream.handler = self

    # Verbs

    def write(self, data: bytes) -> None:
        """Send bytes to the target."""
        self._stream.send(data)

    def end(self) -> None:
        """Send no more; the target may go on."""
        self._stream.finish()

    def abort(self) -> None:
        """Give the tunnel up."""
        self._over = True
        self._stream.reset()

    def credit(self, amount: int) -> None:
        """Let the relay send this much more."""
        self._stream.credit(amount)

    # What the stream hears

    def responded(self, headers: Headers) -> None:
        """The relay answered."""
        status = header_value(headers, b":status")
        if status == b"200":
            # Errors have the same headers: they show in the trailers.
            self._reader.tunnel_opened()
        else:
            self._fail(
                Status(502, f"the relay answered with HTTP status {(status or b'none').decode('ascii', 'replace')}")
            )
            self._stream.reset()

    def data_received(self, data: bytes, frame_done: bool) -> None:
        """Bytes from the target."""
        if not self._over:
            self._reader.data_received(data, frame_done)

    def ended(self, trailers: Headers) -> None:
        """The relay ended the stream."""
        text = header_value(trailers, STATUS)
        if text is None:
            return self._finish(None)
        try:
            status = Status.from_json(text)
        except WireError:
            status = Status(502, "the relay ended the tunnel with a status that can't be read")
        return self._finish(None if status.code == 200 else TunnelError(status))

    def was_reset(self, code: int) -> None:
        """The stream is gone."""
        if code == ErrorCodes.NO_ERROR and self._over:
            return
        self._fail(Status(410, f"the tunnel was reset with HTTP/2 error {code}"))

    def pause(self) -> None:
        """Too much waits."""
        self._reader.pause()

    def resume(self) -> None:
        """It is through."""
        self._reader.resume()

    def _fail(self, status: Status) -> None:
        self._finish(TunnelError(status))

    def _finish(self, error: TunnelError | None) -> None:
        if not self._over:
            self._over = True
            self._reader.tunnel_ended(error)
