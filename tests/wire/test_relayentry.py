"""What a relay tells a directory of itself."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from twisted.trial.unittest import SynchronousTestCase

from tests.vectordata import SHARETOKENS
from tests.wire import strategies
from wireleap_relay.wire.address import Address
from wireleap_relay.wire.encoding import write_json
from wireleap_relay.wire.errors import WireError
from wireleap_relay.wire.keys import PublicKey
from wireleap_relay.wire.relayentry import RelayEntry
from wireleap_relay.wire.structure import converter, read, structure
from wireleap_relay.wire.versions import Version

KEY = SHARETOKENS[0]["json"]["relay_pubkey"]
PLAIN = {
    "role": "fronting",
    "address": "wireleap://relay.example.com:443/wireleap",
    "pubkey": KEY,
    "versions": {
        "software": "0.7.0",
        "client-relay": "0.2.0",
        "relay-relay": "0.2.0",
        "relay-dir": "0.2.0",
        "relay-contract": "0.1.0",
    },
}
FULL = {**PLAIN, "key": "user:secret", "network_usage_limit": "100TB"}


def entry(key: str | None = None, limit: int | None = None) -> RelayEntry:
    return RelayEntry.of_this_software(
        role="fronting",
        address=Address.from_text("wireleap://relay.example.com/wireleap"),
        pubkey=PublicKey.from_text(KEY),
        software="0.7.0",
        key=key,
        limit=limit,
    )


class RelayEntryTests(SynchronousTestCase):
    def test_written(self) -> None:
        """In the order the network writes it, without what isn't set."""
        self.assertEqual(write_json(entry().to_fields()), write_json(PLAIN))
        self.assertEqual(write_json(entry("user:secret", 100 * 1024**4).to_fields()), write_json(FULL))
        self.assertEqual(converter.unstructure(entry("user:secret", 100 * 1024**4)), FULL)

    def test_read(self) -> None:
        self.assertEqual(structure(PLAIN, RelayEntry), entry())
        self.assertEqual(structure(FULL, RelayEntry), entry("user:secret", 100 * 1024**4))
        self.assertEqual(structure({**FULL, "key": None, "network_usage_limit": None}, RelayEntry), entry())
        self.assertEqual(structure({**PLAIN, "versions": {"a": "1.2.3"}}, RelayEntry).versions, {"a": Version(1, 2, 3)})

    def test_nothing_is_a_limit(self) -> None:
        self.assertEqual(entry(limit=0).to_fields()["network_usage_limit"], "0B")
        self.assertEqual(structure(entry(limit=0).to_fields(), RelayEntry).network_usage_limit, 0)

    def test_repr(self) -> None:
        """The enrollment key is nobody's business."""
        self.assertNotIn("secret", repr(entry("user:secret")))
        self.assertNotIn("secret", str(entry("user:secret")))

    @given(strategies.entries)
    def test_round_trip(self, value: RelayEntry) -> None:
        self.assertEqual(read(write_json(value.to_fields()), RelayEntry), value)


class RefusalTests(SynchronousTestCase):
    def assertRefused(self, value: Any, problem: str) -> None:
        with self.assertRaises(WireError, msg=repr(value)) as caught:
            structure(value, RelayEntry)
        self.assertEqual(str(caught.exception), problem)

    def test_no_object(self) -> None:
        for value in (None, 5, "key", [], ["role"]):
            self.assertRefused(value, "expected a JSON object")

    def test_missing(self) -> None:
        for name in PLAIN:
            self.assertRefused({k: v for k, v in FULL.items() if k != name}, f"{name}: missing")

    def test_limits(self) -> None:
        """What is falsy to Python is no size yet."""
        for value in (0, 5, False, 0.0, [], {}):
            self.assertRefused({**FULL, "network_usage_limit": value}, "network_usage_limit: expected text")
        for text in ("", "1.5GB", "-1GB"):
            self.assertRefused(
                {**FULL, "network_usage_limit": text},
                'network_usage_limit: expected a data size such as "512MB" or "10TB"',
            )

    def test_fields(self) -> None:
        for name, value, problem in (
            ("role", "exit", "role: expected one of fronting, entropic, backing"),
            ("role", None, "role: expected one of fronting, entropic, backing"),
            ("address", "relay:443", "address: expected a URL such as target://host:port or wireleap://host:port/path"),
            ("address", None, "address: expected text"),
            ("pubkey", "", "pubkey: expected 32 bytes as base64url without padding"),
            ("versions", [], "versions: expected a JSON object"),
            ("versions", {"relay-dir": 2}, "versions[relay-dir]: expected text"),
            ("versions", {"relay-dir": "2"}, 'versions[relay-dir]: expected a version such as "0.2.0"'),
            ("key", 5, "key: expected text"),
        ):
            self.assertRefused({**FULL, name: value}, problem)

    def test_bad_software(self) -> None:
        with self.assertRaises(WireError):
            RelayEntry.of_this_software(
                role="backing",
                address=Address("wireleap", "a", 1),
                pubkey=PublicKey.from_text(KEY),
                software="unknown",
                key=None,
                limit=None,
            )
