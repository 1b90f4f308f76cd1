"""The ``wl-payload`` header."""

from __future__ import annotations

import json
from copy import deepcopy
from typing import Any

from hypothesis import given
from twisted.trial.unittest import SynchronousTestCase

from tests.vectordata import PAYLOADS, SHARETOKENS
from tests.wire import strategies
from wireleap_relay.wire.address import Address
from wireleap_relay.wire.encoding import write_json
from wireleap_relay.wire.errors import WireError
from wireleap_relay.wire.payload import Connect, Ping, _plain_connect, parse_payload
from wireleap_relay.wire.sharetoken import Sharetoken
from wireleap_relay.wire.structure import structure
from wireleap_relay.wire.versions import Version

TOKEN = Sharetoken.from_json(write_json(SHARETOKENS[0]["json"]))
GOOD: dict[str, Any] = json.loads(PAYLOADS[0])
OPTIONAL = "token.share_key"


def changed(path: str, *value: Any) -> str:
    """A good payload with one field replaced, or removed where there is no value for it."""
    fields = deepcopy(GOOD)
    *parents, name = path.split(".")
    inner = fields
    for parent in parents:
        inner = inner[parent]
    if value:
        inner[name] = value[0]
    else:
        del inner[name]
    return json.dumps(fields)


class PayloadTests(SynchronousTestCase):
    def test_vectors(self) -> None:
        self.assertEqual(len(PAYLOADS), 3)
        for text in PAYLOADS:
            connect = parse_payload(text)
            assert isinstance(connect, Connect)
            self.assertEqual(connect.to_json(), text)
            self.assertEqual(parse_payload(text.encode()), connect)
            self.assertTrue(connect.token.verify())

    def test_fields(self) -> None:
        remotes = [
            Address("target", "example.com", 443),
            Address("wireleap", "relay2.example.com", 13499, "/wireleap"),
            Address("target", "2001:db8::1", 80),
        ]
        protocols = ["tcp", "tcp", "udp"]
        for text, remote, protocol, vector in zip(PAYLOADS, remotes, protocols, SHARETOKENS, strict=False):
            token = Sharetoken.from_json(write_json(vector["json"]))
            self.assertEqual(parse_payload(text), Connect(protocol, remote, token, Version(0, 2, 0)))

    def test_ping(self) -> None:
        """Nothing else of it is read."""
        for text in (
            '{"command":"PING"}',
            b'{"command":"PING"}',
            changed("command", "PING"),
            '{"command":"PING","token":null}',
        ):
            self.assertEqual(parse_payload(text), Ping())

    def test_udp(self) -> None:
        for protocol, is_udp in {"tcp": 0, "tcp4": 0, "tcp6": 0, "udp": 1, "udp4": 1, "udp6": 1}.items():
            connect = parse_payload(changed("protocol", protocol))
            assert isinstance(connect, Connect)
            self.assertEqual(connect.is_udp, bool(is_udp))
            self.assertEqual(connect.protocol, protocol)

    def test_newer_peers_may_send_more(self) -> None:
        for path in ("new", "token.new", "token.contract.new"):
            self.assertEqual(parse_payload(changed(path, {"a": 1})), parse_payload(PAYLOADS[0]))

    def test_share_key_may_be_absent(self) -> None:
        self.assertEqual(parse_payload(changed(OPTIONAL)), parse_payload(PAYLOADS[0]))

    @given(strategies.connects)
    def test_round_trip(self, connect: Connect) -> None:
        text = connect.to_json()
        self.assertEqual(parse_payload(text), connect)
        self.assertTrue(all(" " <= character <= "~" for character in text), text)


class RefusalTests(SynchronousTestCase):
    def assertRefused(self, text: str | bytes, problem: str) -> None:
        with self.assertRaises(WireError, msg=repr(text[:100])) as caught:
            parse_payload(text)
        self.assertEqual(str(caught.exception), problem)

    def test_no_payload(self) -> None:
        self.assertRefused("", "not JSON: Expecting value (line 1, column 1)")
        self.assertRefused(b"\xff", "not JSON: UnicodeDecodeError")
        self.assertRefused(PAYLOADS[0][:-1], f"not JSON: Expecting ',' delimiter (line 1, column {len(PAYLOADS[0])})")
        self.assertRefused(PAYLOADS[0] + "x", f"not JSON: Extra data (line 1, column {len(PAYLOADS[0]) + 1})")
        for text in ("null", "[]", '"PING"', "5", "true"):
            self.assertRefused(text, "expected a JSON object")

    def test_commands(self) -> None:
        for text in ("{}", '{"command":null}', changed("command")):
            self.assertRefused(text, "command: missing")
        for command in ("", "connect", "CONNECT ", "BIND", 5, True, [], ["PING"], {}):
            self.assertRefused(changed("command", command), "command: expected CONNECT or PING")

    def test_bare_connect(self) -> None:
        self.assertRefused(
            '{"command":"CONNECT"}', "protocol: missing; remote: missing; token: missing; version: missing"
        )

    def test_every_missing_field(self) -> None:
        """Each field at each depth is missed by its path; only one may be left out."""
        paths = [path for _, _, path in strategies.places(GOOD)]
        self.assertEqual(len(paths), 17)
        for path in paths:
            if path != OPTIONAL:
                self.assertRefused(changed(path), f"{path}: missing")

    def test_every_mistyped_field(self) -> None:
        """Each field at each depth refuses each other kind of value, by its path."""
        for container, name, path in strategies.places(GOOD):
            if path == "command":
                continue
            for value in (None, "", "x", 5, 5.0, True, [], {}, [container[name]]):
                if type(value) is not type(container[name]):
                    with self.assertRaises(WireError, msg=f"{path} {value!r}") as caught:
                        parse_payload(changed(path, value))
                    problem = str(caught.exception)
                    self.assertTrue(problem.startswith((f"{path}: expected ", f"{path}.")), problem)

    def test_protocols(self) -> None:
        for protocol in ("", "TCP", "tcp5", "sctp", None, ["tcp"]):
            self.assertRefused(
                changed("protocol", protocol), "protocol: expected one of tcp, tcp4, tcp6, udp, udp4, udp6"
            )

    def test_remotes(self) -> None:
        """The text says nothing of what was sent: it may end in a log."""
        for remote, problem in {
            "": "expected a URL such as target://host:port or wireleap://host:port/path",
            "http://secret.example:80": "expected a URL such as target://host:port or wireleap://host:port/path",
            "target://secret.example": "expected target://host:port",
            "target://secret.example:80/path": "expected target://host:port",
            "target://secret.example:0": "expected a port from 1 to 65535",
            "target://127.1:80": "expected a host name, an IPv4 address or an IPv6 address in brackets",
        }.items():
            self.assertRefused(changed("remote", remote), f"remote: {problem}")
        self.assertRefused(changed("remote", None), "remote: expected text")

    def test_versions(self) -> None:
        for version in ("0.1.0", "0.3.0", "1.2.0", "0.20.0"):
            self.assertRefused(changed("version", version), f"version: {version} is not compatible with 0.2.0")
        for version in ("", "2", "0.2", "abc"):
            self.assertRefused(changed("version", version), 'version: expected a version such as "0.2.0"')
        self.assertRefused(changed("version", 0.2), "version: expected text")
        for version in ("0.2.1", "0.2.0-rc1"):
            self.assertIsInstance(parse_payload(changed("version", version)), Connect)

    def test_tokens(self) -> None:
        keys = "expected 32 bytes as base64url without padding"
        signatures = "expected 64 bytes as base64url without padding"
        for path, value, problem in (
            ("token", None, "expected a JSON object"),
            ("token", [], "expected a JSON object"),
            ("token.contract", None, "expected a JSON object"),
            ("token.contract", "contract", "expected a JSON object"),
            ("token.nonce", "00", "expected 32 hex digits"),
            ("token.nonce", None, "expected 32 hex digits"),
            ("token.public_key", "AAAA", keys),
            ("token.public_key", str(TOKEN.signature), keys),
            ("token.relay_pubkey", str(TOKEN.relay_pubkey) + "=", keys),
            ("token.relay_pubkey", 5, "expected text"),
            ("token.signature", str(TOKEN.public_key), signatures),
            ("token.contract.public_key", "", keys),
            ("token.contract.signature", "", signatures),
            ("token.contract.settlement_open", "5", "expected a whole number"),
            ("token.contract.settlement_close", 5.0, "expected a whole number"),
            ("token.contract.settlement_close", 2**63, "expected a whole number of 64 bits"),
            ("token.timestamp", None, "expected a whole number"),
            ("token.timestamp", -(2**63) - 1, "expected a whole number of 64 bits"),
            ("token.version", True, "expected a whole number"),
            ("token.share_key", None, "expected text"),
        ):
            self.assertRefused(changed(path, value), f"{path}: {problem}")

    def test_all_at_once(self) -> None:
        fields = deepcopy(GOOD)
        fields["protocol"] = "sctp"
        fields["token"]["nonce"] = 5
        del fields["token"]["contract"]["signature"]
        del fields["version"]
        self.assertRefused(
            json.dumps(fields),
            "protocol: expected one of tcp, tcp4, tcp6, udp, udp4, udp6; token.nonce: expected 32 hex digits; "
            "token.contract.signature: missing; version: missing",
        )

    def test_hard_to_swallow(self) -> None:
        for raw, problem in {
            '"\\ud800"': "not JSON: UnicodeEncodeError",
            "NaN": "NaN is not a JSON number",
            "9" * 5000: "not JSON: ValueError",
            "[" * 100_000: "not JSON: RecursionError",
            '{"a":1,"a":1}': "a key is there twice",
            "1e999": "a number is too large",
        }.items():
            self.assertRefused(PAYLOADS[0].replace('"share_key":""', f'"share_key":{raw}'), problem)
        repeated = PAYLOADS[0].replace('"version":"0.2.0"', '"version":"0.2.0","version":"0.2.0"')
        self.assertRefused(repeated, "a key is there twice")
        nul = PAYLOADS[0].replace("example.com", "example.com\\u0000")
        self.assertRefused(nul, "remote: expected a URL such as target://host:port or wireleap://host:port/path")


class PlainTests(SynchronousTestCase):
    """The short way to a request gives what cattrs gives, or leaves it to cattrs."""

    def test_what_is_good(self) -> None:
        for text in PAYLOADS:
            fields = json.loads(text)
            self.assertEqual(_plain_connect(fields), structure(fields, Connect))
        fields = json.loads(changed(OPTIONAL))
        self.assertEqual(_plain_connect(fields), structure(fields, Connect))

    def test_what_is_not(self) -> None:
        good = [2**63 - 1, -(2**63), "x", "tcp6", "udp", "target://10.0.0.1:1", "1.0.0", "f" * 32, "_" * 43, "A" * 43]
        bad = [None, "", 5.0, True, [], {}, 2**63, -(2**63) - 1, "target://010.0.0.1:1", "f" * 31, "A" * 86]
        compared = 0
        for _, _, path in strategies.places(GOOD):
            for value in (*good, *bad):
                fields = json.loads(changed(path, value))
                try:
                    expected = structure(fields, Connect)
                except WireError:
                    expected = None
                self.assertEqual(_plain_connect(fields), expected, f"{path} {value!r}")
                compared += expected is not None
            fields = json.loads(changed(path))
            self.assertIsNone(_plain_connect(fields) if path not in (OPTIONAL, "command") else None)
        self.assertGreater(compared, 30)
