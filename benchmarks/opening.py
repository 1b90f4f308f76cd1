"""What opening a tunnel costs, piece by piece, in microseconds of processor time.

python benchmarks/opening.py [--count N]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from hpack import Decoder, Encoder

from wireleap_relay.tokens.store import TokenDatabase
from wireleap_relay.tunnel import huffman
from wireleap_relay.tunnel.fields import FieldReader
from wireleap_relay.tunnel.requests import is_request
from wireleap_relay.wire.address import Address
from wireleap_relay.wire.keys import SigningKey
from wireleap_relay.wire.payload import Connect, parse_payload
from wireleap_relay.wire.sharetoken import ContractStatement, Sharetoken
from wireleap_relay.wire.versions import CLIENT_RELAY

_LIST = 16 * 1024


class Makers:
    """Makes what is measured: requests with a fresh sharetoken each, as clients make them."""

    def __init__(self) -> None:
        self._contract = SigningKey.generate()
        self._client = SigningKey.generate()
        self._relay = SigningKey.generate().public_key
        now = int(time.time())
        self._statement = ContractStatement.sign(self._contract, now + 3600, now + 7200)

    def token(self) -> Sharetoken:
        """Make a sharetoken."""
        return Sharetoken.sign(self._client, self._statement, self._relay, int(time.time()))

    def payload(self) -> bytes:
        """Make a ``wl-payload``."""
        remote = Address.from_text("wireleap://relay.example.com:443/wireleap")
        return Connect("tcp", remote, self.token(), CLIENT_RELAY).to_json().encode()

    def fields(self) -> list[tuple[bytes, bytes]]:
        """Make a request's header fields."""
        return [
            (b":method", b"PUT"),
            (b":scheme", b"https"),
            (b":authority", b"relay.example.com:13490"),
            (b":path", b"/"),
            (b"wl-payload", self.payload()),
            (b"user-agent", b"Go-http-client/2.0"),
        ]


def each(work: Callable[[int], object], count: int) -> float:
    """Measure: microseconds of processor time for each call."""
    start = time.process_time()
    for number in range(count):
        work(number)
    return (time.process_time() - start) / count * 1e6


def tell(what: str, cost: float, beside: float = 0.0, of_what: str = "") -> None:
    """Print a figure, and another beside it."""
    print(f"{what:<58} {cost:7.1f} us" + (f"   {of_what} {beside:.1f} us" if beside else ""))


def main() -> None:
    """Measure each piece."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=3000, help="of each [%(default)s]")
    count = parser.parse_args().count
    makers = Makers()
    encoder = Encoder()
    blocks = [encoder.encode(makers.fields()) for _ in range(count)]
    ours, theirs = FieldReader(_LIST), Decoder()
    beside = each(lambda i: theirs.decode(blocks[i], raw=True), count)
    tell("HEADERS: HPACK with Huffman code", each(lambda i: ours.read(blocks[i]), count), beside, "hpack:")
    coded = [Encoder().huffman_coder.encode(makers.payload()) for _ in range(100)]
    tell("  of that, the payload's Huffman code", each(lambda i: huffman.decode(coded[i % 100]), count))
    fields = [makers.fields() for _ in range(100)]
    tell("the request's rules", each(lambda i: is_request(fields[i % 100]), count))
    payloads = [makers.payload() for _ in range(count)]
    tell("the payload: JSON to values", each(lambda i: parse_payload(payloads[i]), count))
    tokens = [makers.token() for _ in range(count)]
    tell("the sharetoken's signature", each(lambda i: tokens[i].verify(), count))
    statement = tokens[0].contract
    tell("the contract's signature (once for each client's period)", each(lambda _: statement.verify(), count))
    for together in (1, 10, 100):
        with tempfile.TemporaryDirectory() as folder:
            database = TokenDatabase(Path(folder) / "sharetokens.db")
            batches = [tokens[start : start + together] for start in range(0, count, together)]
            cost = each(lambda i, b=batches, d=database: _deposit(d, b[i]), len(batches)) / together  # type: ignore[misc]
            database.close()
        tell(f"the deposit on disk, {together} in one commit", cost)


def _deposit(database: TokenDatabase, tokens: list[Sharetoken]) -> None:
    now = time.time()
    database.together([lambda d, t=token: d.deposit(t, "0" * 32, now) for token in tokens])


if __name__ == "__main__":
    main()
