"""config.json: all of its mistakes at once, each with its path."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from wireleap_relay.config import (
    Config,
    ConfigError,
    ListenAddress,
    NetworkUsage,
    example_config,
    parse_config,
    parse_listen_address,
)
from wireleap_relay.wire.errors import WireError

CONTRACT = {"address": "wireleap://relay.example.com", "role": "backing"}
SMALL: dict[str, Any] = {"address": "0.0.0.0:13490", "contracts": {"https://c.example": CONTRACT}}


def config(**changes: Any) -> str:
    return json.dumps({**SMALL, **changes})


class ParseTests(SynchronousTestCase):
    def parse(self, text: str) -> Config:
        parsed, warnings = parse_config(text)
        self.assertEqual(warnings, [])
        return parsed

    def mistakes(self, text: str) -> list[str]:
        with self.assertRaises(ConfigError) as caught:
            parse_config(text)
        return [str(mistake) for mistake in caught.exception.mistakes]

    def test_defaults(self) -> None:
        parsed = self.parse(config())
        self.assertEqual(parsed.address, ListenAddress("0.0.0.0", 13490))
        [contract] = parsed.contracts.values()
        self.assertEqual(str(contract.address), "wireleap://relay.example.com:443")
        self.assertEqual(contract.upgrade_channel, "default")
        self.assertEqual((parsed.auto_submit_interval, parsed.timeout, parsed.maxtime), (300.0, 5.0, 0.0))
        self.assertEqual((parsed.drain_timeout, parsed.bufsize, parsed.archive_dir), (30.0, 4096, None))
        self.assertEqual(parsed.network_usage, NetworkUsage(None, None, 60.0, None))  # type: ignore[arg-type]
        self.assertIsNone(parsed.rest_api.address)
        self.assertEqual(parsed.rest_api.socket_umask, 0o600)
        self.assertTrue(parsed.auto_upgrade)
        self.assertFalse(parsed.danger_zone.allow_loopback)

    def test_everything_set(self) -> None:
        contract = {**CONTRACT, "key": "user:pass", "network_usage_limit": "2TB", "upgrade_channel": "edge"}
        parsed = self.parse(
            config(
                contracts={"http://127.0.0.1:1/c": contract},
                network_usage={"timeframe": "30d", "global_limit": "3TB", "write_interval": "5m", "archive_dir": "u"},
                rest_api={"address": "file:///run/relay%20one.sock", "socket_umask": "660"},
                auto_submit_interval="0s",
                danger_zone={"allow_loopback": True},
            )
        )
        [(url, read)] = parsed.contracts.items()
        self.assertEqual(url, "http://127.0.0.1:1/c")
        self.assertEqual((read.key, read.network_usage_limit, read.upgrade_channel), ("user:pass", 2 << 40, "edge"))
        self.assertEqual(parsed.network_usage.timeframe, 2_592_000.0)
        self.assertEqual(parsed.network_usage.global_limit, 3 << 40)
        assert parsed.rest_api.address is not None
        self.assertEqual(parsed.rest_api.address.path, "/run/relay one.sock")
        self.assertEqual(parsed.rest_api.socket_umask, 0o660)
        self.assertNotIn("pass", repr(parsed))

    def test_the_example_is_right(self) -> None:
        parsed, warnings = parse_config(example_config())
        self.assertEqual(warnings, [])
        assert parsed.rest_api.address is not None
        self.assertEqual(str(parsed.rest_api.address.tcp), "127.0.0.1:13491")

    def test_all_mistakes_at_once(self) -> None:
        found = self.mistakes(
            config(
                address="everywhere",
                timeout=5,
                bufsize="4096",
                auto_upgrade="yes",
                network_usage={"timeframe": "-3d", "global_limit": "10 parsecs"},
                rest_api={"address": "ftp://x", "socket_umask": "0600"},
                contracts={
                    "ftp://c": CONTRACT,
                    "http://d": {"address": "target://x:1", "role": "king"},
                    "http://e": {**CONTRACT, "network_usage_limit": 3},
                    "http://f": 7,
                },
            )
        )
        self.assertEqual(
            {line.partition(": ")[0] for line in found},
            {
                "address",
                "timeout",
                "bufsize",
                "auto_upgrade",
                "network_usage.timeframe",
                "network_usage.global_limit",
                "rest_api.address",
                "rest_api.socket_umask",
                'contracts["ftp://c"]',
                'contracts["http://d"].address',
                'contracts["http://d"].role',
                'contracts["http://e"].network_usage_limit',
                'contracts["http://f"]',
            },
        )
        self.assertIn('contracts["http://d"].role: expected one of fronting, entropic, backing', found)

    def test_missing(self) -> None:
        self.assertEqual(self.mistakes("{}"), ["address: missing", "contracts: missing"])
        self.assertEqual(
            self.mistakes(config(contracts={})),
            ["contracts: expected a JSON object with at least one contract, by its URL"],
        )
        missing = self.mistakes(config(contracts={"http://c": {}}))
        self.assertEqual(missing, ['contracts["http://c"].address: missing', 'contracts["http://c"].role: missing'])

    def test_no_json(self) -> None:
        for text, problem in [
            ("", "not JSON"),
            ("[]", "expected a JSON object"),
            ("{", "line 1"),
            ('{"address": 1, "address": 2}', "a key is there twice"),
            ("{}x", "not JSON"),
        ]:
            self.assertIn(problem, self.mistakes(text)[0])

    def test_values_out_of_bounds(self) -> None:
        for changes, path in [
            ({"timeout": "0s"}, "timeout"),
            ({"timeout": "100000d"}, "timeout"),
            ({"bufsize": 0}, "bufsize"),
            ({"bufsize": 2**40}, "bufsize"),
            ({"network_usage": {"timeframe": "10ms"}}, "network_usage.timeframe"),
            ({"network_usage": {"write_interval": "0s"}}, "network_usage.write_interval"),
            ({"network_usage": {"global_limit": "0"}}, "network_usage.global_limit"),
            ({"network_usage": []}, "network_usage"),
            ({"rest_api": {"address": "http://127.0.0.1"}}, "rest_api.address"),
            ({"contracts": {"http://c": {**CONTRACT, "key": "nocolon"}}}, 'contracts["http://c"].key'),
            (
                {"contracts": {"http://c": {**CONTRACT, "network_usage_limit": "0"}}},
                'contracts["http://c"].network_usage_limit',
            ),
        ]:
            self.assertEqual([line.partition(": ")[0] for line in self.mistakes(config(**changes))], [path])

    def test_upgrade_channels(self) -> None:
        with_channel = {**CONTRACT, "upgrade_channel": "default"}
        for contracts in (
            {"http://c": CONTRACT, "http://d": CONTRACT},
            {"http://c": with_channel, "http://d": with_channel},
        ):
            [mistake] = self.mistakes(config(contracts=contracts))
            self.assertIn("exactly one contract with an upgrade_channel", mistake)
        parsed = self.parse(config(contracts={"http://c": with_channel, "http://d": CONTRACT}))
        self.assertEqual([c.upgrade_channel for c in parsed.contracts.values()], ["default", None])

    def test_an_old_name(self) -> None:
        parsed, [warning] = parse_config(config(contracts={"http://c": {**CONTRACT, "update_channel": "beta"}}))
        self.assertIn('contracts["http://c"].update_channel: the name is out of date', warning)
        [contract] = parsed.contracts.values()
        self.assertEqual((contract.upgrade_channel, contract.update_channel), ("beta", None))

    def test_unknown_keys_are_warnings(self) -> None:
        _, warnings = parse_config(
            config(
                timeot="1s",
                network_usage={"globl_limit": "1TB"},
                contracts={"http://c": {**CONTRACT, "rol": "x"}},
                zzz=1,
            )
        )
        self.assertEqual(
            sorted(warnings),
            [
                'contracts["http://c"].rol: unknown key; did you mean role?',
                "network_usage.globl_limit: unknown key; did you mean global_limit?",
                "timeot: unknown key; did you mean timeout?",
                "zzz: unknown key",
            ],
        )

    def test_listening_addresses(self) -> None:
        for text, host, port in [(":1", "", 1), ("[::]:443", "::", 443), ("relay.example:80", "relay.example", 80)]:
            self.assertEqual(parse_listen_address(text), ListenAddress(host, port))
        for text in ("", "13490", "x:", "x:0", "x:65536", "::1:80", "[::1:80", "999.1.1.1:80", "a b:80", "x:१"):
            with self.assertRaises(WireError):
                parse_listen_address(text)

    @settings(deadline=None, max_examples=150)
    @given(
        st.dictionaries(
            st.sampled_from(["address", "contracts", "timeout", "bufsize", "network_usage", "rest_api", "x"]),
            st.recursive(
                st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
                lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
                max_leaves=10,
            ),
        )
    )
    def test_no_json_raises_anything_else(self, data: dict[str, Any]) -> None:
        try:
            parse_config(json.dumps({**SMALL, **data}))
        except ConfigError as e:
            self.assertTrue(e.mistakes)

    @settings(deadline=None, max_examples=100)
    @given(st.text() | st.binary())
    def test_no_text_raises_anything_else(self, text: str | bytes) -> None:
        with self.assertRaises(ConfigError):
            parse_config(text)
