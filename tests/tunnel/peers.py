"""The two ends that tunnel tests put together."""

from __future__ import annotations

from collections.abc import Callable

from wireleap_relay.tunnel.session import Session
from wireleap_relay.tunnel.settings import SessionLimits
from wireleap_relay.tunnel.stream import Headers, Stream

REQUEST: Headers = [
    (b":method", b"PUT"),
    (b":scheme", b"https"),
    (b":authority", b"relay.example"),
    (b":path", b"/"),
    (b"wl-payload", b"{}"),
]
RESPONSE: Headers = [(b":status", b"200"), (b"trailer", b"wl-status")]


class Recorder:
    """A stream's handler that writes down what it hears, and gives credit if it is told to."""

    def __init__(self, credit: bool = True) -> None:
        self.stream: Stream
        self.credit = credit
        self.headers: Headers | None = None
        self.data = b""
        self.pieces: list[tuple[int, bool]] = []
        self.trailers: Headers | None = None
        self.reset: int | None = None
        self.paused = 0
        self.resumed = 0

    def responded(self, headers: Headers) -> None:
        self.headers = headers

    def data_received(self, data: bytes, frame_done: bool) -> None:
        self.data += data
        self.pieces.append((len(data), frame_done))
        if self.credit:
            self.stream.credit(len(data))

    def ended(self, trailers: Headers) -> None:
        assert self.trailers is None, "ended twice"
        self.trailers = trailers

    def was_reset(self, code: int) -> None:
        assert self.reset is None, "reset twice"
        self.reset = code

    def pause(self) -> None:
        self.paused += 1

    def resume(self) -> None:
        self.resumed += 1


class Pair:
    """A client's session and a server's, joined by memory.

    :ivar seen: what the server's streams heard, in the order they were opened.
    """

    def __init__(
        self,
        limits: SessionLimits | None = None,
        client_limits: SessionLimits | None = None,
        on_request: Callable[[Stream], None] | None = None,
        credit: bool = True,
    ) -> None:
        self.seen: list[Recorder] = []
        self.requests: list[Headers] = []
        self._credit = credit
        self._on_request = on_request
        self.server = Session(wake=lambda: None, opened=self._opened, limits=limits)
        self.client = Session(wake=lambda: None, limits=client_limits)
        self.flush()

    def _opened(self, stream: Stream, headers: Headers) -> None:
        handler = Recorder(self._credit)
        handler.stream = stream
        stream.handler = handler
        self.seen.append(handler)
        self.requests.append(headers)
        if self._on_request is not None:
            self._on_request(stream)

    def open(self, headers: Headers = REQUEST, credit: bool = True) -> tuple[Recorder, Recorder]:
        """Open a stream; give what both ends of it hear."""
        handler = Recorder(credit)
        handler.stream = self.client.open(headers)
        handler.stream.handler = handler
        self.flush()
        return handler, self.seen[-1]

    def flush(self, chunk: int | None = None) -> None:
        """Let bytes flow both ways until nothing moves; in pieces of ``chunk`` if given."""
        while True:
            moved = False
            for source, sink in ((self.client, self.server), (self.server, self.client)):
                data = source.take() if source.writable else b""
                size = chunk or max(len(data), 1)
                for start in range(0, len(data), size):
                    moved = True
                    if not sink.closed:
                        sink.receive(data[start : start + size])
            if not moved:
                return
