"""How fast two HTTP/2 sessions pass payload to each other, without sockets or TLS.

    python benchmarks/session.py [--megabytes N]

Prints, for each size of write, megabytes per CPU-second of both sides together.
"""

from __future__ import annotations

import argparse
import time

from wireleap_relay.tunnel.session import Session
from wireleap_relay.tunnel.stream import Headers, Stream

REQUEST: Headers = [
    (b":method", b"PUT"),
    (b":scheme", b"https"),
    (b":authority", b"relay"),
    (b":path", b"/"),
    (b"wl-payload", b"{}"),
]


class Sink:
    """Gives credit for all that it is handed."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.received = 0

    def responded(self, headers: Headers) -> None:
        """Nothing to do."""

    def data_received(self, data: bytes, frame_done: bool) -> None:
        """Count."""
        self.received += len(data)
        self.stream.credit(len(data))

    def ended(self, trailers: Headers) -> None:
        """Nothing to do."""

    def was_reset(self, code: int) -> None:
        """Nothing to do."""

    def pause(self) -> None:
        """Never happens: everything is read at once."""

    def resume(self) -> None:
        """Never happens either."""


def measure(size: int, total: int) -> float:
    """Pass ``total`` bytes in writes of ``size``; give megabytes per CPU-second."""
    sinks: list[Sink] = []

    def opened(stream: Stream, _: Headers) -> None:
        stream.handler = sink = Sink(stream)
        sinks.append(sink)

    server = Session(wake=lambda: None, opened=opened)
    client = Session(wake=lambda: None)

    def flow() -> None:
        while True:
            sent, answered = client.take(), server.take()
            if not sent and not answered:
                return
            server.receive(sent)
            client.receive(answered)

    flow()
    stream = client.open(REQUEST)
    stream.handler = Sink(stream)
    flow()
    payload = bytes(size)
    start = time.process_time()
    for _ in range(total // size):
        stream.send(payload)
        flow()
    spent = time.process_time() - start
    if sinks[0].received != total // size * size:
        raise SystemExit("bytes were lost")
    return total / 1e6 / spent


def main() -> None:
    """Measure a few sizes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=200, help="to pass for each size [%(default)s]")
    total = parser.parse_args().megabytes * 1_000_000
    for size in (64, 1024, 4096, 16_384, 65_536):
        print(f"{size:>6} bytes a write: {measure(size, min(total, size * 200_000)):8.0f} MB per CPU-second")


if __name__ == "__main__":
    main()
