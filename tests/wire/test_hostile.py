"""No input makes a reader raise anything but WireError, and what it lets in can be used and written again."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from hypothesis import assume, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.vectordata import PAYLOADS, SHARETOKENS, STATUSES
from tests.wire import strategies
from wireleap_relay.wire.address import Address, is_host, join_host_port
from wireleap_relay.wire.encoding import from_base64url, read_json, to_base64url, write_json
from wireleap_relay.wire.errors import WireError
from wireleap_relay.wire.keys import PublicKey
from wireleap_relay.wire.payload import Connect, parse_payload
from wireleap_relay.wire.relayentry import RelayEntry
from wireleap_relay.wire.sharetoken import Sharetoken
from wireleap_relay.wire.status import Status
from wireleap_relay.wire.structure import read
from wireleap_relay.wire.units import format_duration, format_size, parse_duration, parse_size
from wireleap_relay.wire.versions import Version

ENTRY = {
    "role": "backing",
    "address": "wireleap://relay.example.com:13490/wireleap",
    "pubkey": SHARETOKENS[0]["json"]["relay_pubkey"],
    "versions": {"software": "0.7.0", "client-relay": "0.2.0"},
    "key": "user:password",
    "network_usage_limit": "100TB",
}


def outcome(reader: Callable[[Any], Any], text: str | bytes) -> Any:
    """What a reader makes of a text, or None for a refusal; any other exception fails the test."""
    try:
        return reader(text)
    except WireError:
        return None


class TextTests(SynchronousTestCase):
    """Readers of plain text: what they read, they read again from what they print."""

    def check(self, reader: Callable[[str], Any], text: str, printer: Callable[[Any], str] = str) -> None:
        value = outcome(reader, text)
        if value is not None:
            self.assertEqual(reader(printer(value)), value)

    @given(strategies.wild_texts | strategies.edited(st.sampled_from(["5m0s", "1.5h", "300ms", "10µs", "106751d"])))
    def test_duration(self, text: str) -> None:
        self.check(parse_duration, text, format_duration)

    @given(strategies.wild_texts | strategies.edited(st.sampled_from(["2TB", "15 eb", "1025", "18446744073709551615"])))
    def test_size(self, text: str) -> None:
        self.check(parse_size, text, format_size)

    @given(strategies.wild_texts | strategies.edited(st.binary(min_size=4, max_size=4).map(to_base64url)))
    def test_base64url(self, text: str) -> None:
        raw = outcome(lambda text: from_base64url(text, 4), text)
        if raw is not None:
            self.assertEqual(to_base64url(raw), text)

    @given(strategies.wild_texts | strategies.edited(strategies.public_keys.map(str)))
    def test_public_key(self, text: str) -> None:
        self.check(PublicKey.from_text, text)

    @given(strategies.wild_texts | strategies.edited(strategies.addresses.map(str)))
    def test_address(self, text: str) -> None:
        self.check(Address.from_text, text)

    @given(strategies.wild_texts | strategies.edited(strategies.hosts))
    def test_host(self, text: str) -> None:
        assume("%" not in text)  # a zone is a matter of one machine, and never travels
        in_url = outcome(Address.from_text, f"target://{join_host_port(text, 1)}")
        self.assertEqual(is_host(text), in_url is not None)

    @given(strategies.wild_texts | strategies.edited(strategies.versions.map(str)))
    def test_version(self, text: str) -> None:
        self.check(Version.from_text, text)


class JsonTests(SynchronousTestCase):
    """Readers of JSON."""

    def check_all(self, text: str | bytes) -> None:
        self.check_json(text)
        self.check_payload(text)
        self.check_token(text)
        self.check_status(text)
        self.check_entry(text)

    def check_json(self, text: str | bytes) -> None:
        value = outcome(read_json, text)
        if value is not None:
            self.assertEqual(read_json(write_json(value)), value)

    def check_payload(self, text: str | bytes) -> None:
        value = outcome(parse_payload, text)
        if isinstance(value, Connect):
            self.assertEqual(parse_payload(value.to_json()), value)

    def check_token(self, text: str | bytes) -> None:
        token = outcome(Sharetoken.from_json, text)
        if token is not None:
            self.assertIsInstance(token.verify(), bool)
            self.assertIsInstance(token.contract.verify(), bool)
            self.assertEqual(Sharetoken.from_json(token.to_json()), token)

    def check_status(self, text: str | bytes) -> None:
        status = outcome(Status.from_json, text)
        if status is not None:
            self.assertEqual(Status.from_json(status.to_json()), status)

    def check_entry(self, text: str | bytes) -> None:
        entry = outcome(lambda text: read(text, RelayEntry), text)
        if entry is not None:
            self.assertEqual(read(write_json(entry.to_fields()), RelayEntry), entry)

    @given(strategies.wild_texts | st.binary())
    def test_anything(self, text: str | bytes) -> None:
        self.check_all(text)

    @given(strategies.json_texts)
    def test_any_json(self, text: str) -> None:
        self.check_all(text)

    @given(st.sampled_from(PAYLOADS).map(json.loads).flatmap(strategies.spoiled))
    def test_spoiled_payload(self, text: str) -> None:
        self.check_payload(text)

    @given(strategies.edited(st.sampled_from(PAYLOADS)))
    def test_edited_payload(self, text: str) -> None:
        self.check_payload(text)

    @given(strategies.damaged(st.sampled_from(PAYLOADS)))
    def test_damaged_payload(self, raw: bytes) -> None:
        self.check_payload(raw)

    @given(st.sampled_from(SHARETOKENS).flatmap(lambda vector: strategies.spoiled(vector["json"])))
    def test_spoiled_token(self, text: str) -> None:
        self.check_token(text)

    @given(strategies.damaged(st.sampled_from(SHARETOKENS).map(lambda vector: write_json(vector["json"]))))
    def test_damaged_token(self, raw: bytes) -> None:
        self.check_token(raw)

    @given(st.sampled_from(STATUSES).map(json.loads).flatmap(strategies.spoiled))
    def test_spoiled_status(self, text: str) -> None:
        self.check_status(text)

    @given(strategies.damaged(st.sampled_from(STATUSES)))
    def test_damaged_status(self, raw: bytes) -> None:
        self.check_status(raw)

    @given(strategies.spoiled(ENTRY))
    def test_spoiled_entry(self, text: str) -> None:
        self.check_entry(text)

    @given(strategies.damaged(st.just(write_json(ENTRY))))
    def test_damaged_entry(self, raw: bytes) -> None:
        self.check_entry(raw)
