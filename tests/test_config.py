"""config.json: all of its mistakes at once, each with its path."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from wireleap_relay.config import Config, ConfigError, NetworkUsage, example_config, parse_config
from wireleap_relay.configvalues import ListenAddress

CONTRACT = {"address": "wireleap://relay.example.com", "role": "backing"}
SMALL: dict[str, Any] = {"address": "0.0.0.0:13490", "contracts": {"https://c.example": CONTRACT}}


def config(**changes: Any) -> str:
    return json.dumps({**SMALL, **changes})


class ParseTests(SynchronousTestCase):
    def parse(self, text: str) -> Config:
        parsed, warnings = parse_config(text)
        self.assertEqual(warnings, [])
        return parsed

    def mistakes(self, text: str | bytes) -> list[str]:
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
        self.assertEqual(parsed.network_usage, NetworkUsage(write_interval=60.0))
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
                bufsize=0,
                auto_upgrade="yes",
                network_usage={"timeframe": "-3d", "global_limit": "10 parsecs"},
                rest_api={"address": "ftp://x", "socket_umask": "0600"},
                contracts={
                    "ftp://c": {**CONTRACT, "role": 1},
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
                "contracts",
                'contracts["ftp://c"]',
                'contracts["ftp://c"].role',
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
            ("{", "(line 1, column 2)"),
            ('{\n "timeout": "5s"\n "bufsize": 1}', "(line 3, column 2)"),
            ("{}x", "not JSON"),
            ('{"bufsize": NaN}', "NaN is not a JSON number"),
            (b'{\n "address": "\xff"}', "not UTF-8 text (line 2, column 14)"),
        ]:
            self.assertIn(problem, self.mistakes(text)[0])

    def test_keys_that_are_there_twice(self) -> None:
        text = """{
    "address": ":1", "address": ":2",
    "contracts": {"http://c": {"role": "backing", "r\\u006fle": "fronting"}}
}"""
        self.assertEqual(
            self.mistakes(text),
            [
                "address: is there more than once (line 2, column 22)",
                'contracts["http://c"].role: is there more than once (line 3, column 51)',
            ],
        )

    def test_null_is_no_value(self) -> None:
        """A key that isn't wanted is left out; Go's null would quietly be the default."""
        everything = json.loads(example_config())
        for name in everything:
            self.assertEqual(len(self.mistakes(json.dumps({**everything, name: None}))), 1, name)
        for name in everything["network_usage"]:
            [mistake] = self.mistakes(config(network_usage={name: None}))
            self.assertTrue(mistake.startswith(f"network_usage.{name}: "), mistake)
        for name in ("key", "network_usage_limit", "upgrade_channel", "update_channel"):
            [mistake] = self.mistakes(config(contracts={"http://c": {**CONTRACT, name: None}}))
            self.assertTrue(mistake.startswith(f'contracts["http://c"].{name}: expected '), mistake)

    def test_a_misspelt_key_explains_a_mistake(self) -> None:
        with self.assertRaises(ConfigError) as caught:
            parse_config(json.dumps({"Adress": ":1", "contracts": SMALL["contracts"]}))
        self.assertEqual([str(mistake) for mistake in caught.exception.mistakes], ["address: missing"])
        self.assertEqual(caught.exception.warnings, ["Adress: unknown key; did you mean address?"])
        misspelt = {"http://c": {**CONTRACT, "upgrade_chanel": "x"}, "http://d": CONTRACT}
        with self.assertRaises(ConfigError) as caught:
            parse_config(config(contracts=misspelt))
        self.assertEqual([mistake.path for mistake in caught.exception.mistakes], ["contracts"])
        self.assertEqual(
            caught.exception.warnings,
            ['contracts["http://c"].upgrade_chanel: unknown key; did you mean upgrade_channel?'],
        )

    def test_a_contract_twice(self) -> None:
        with_channel = {**CONTRACT, "upgrade_channel": "default"}
        self.assertEqual(
            self.mistakes(config(contracts={"http://c/": with_channel, "http://c": CONTRACT})),
            ['contracts["http://c"]: is the same contract as http://c/'],
        )

    def test_values_out_of_bounds(self) -> None:
        for changes, path in [
            ({"timeout": "0s"}, "timeout"),
            ({"timeout": "100000d"}, "timeout"),
            ({"timeout": "1ns"}, "timeout"),
            ({"auto_submit_interval": "1ms"}, "auto_submit_interval"),
            ({"maxtime": "1000d"}, "maxtime"),
            ({"drain_timeout": "25h"}, "drain_timeout"),
            ({"archive_dir": "a\0b"}, "archive_dir"),
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

    def test_off_as_the_go_relay_writes_it(self) -> None:
        parsed = self.parse(config(archive_dir="", network_usage={"timeframe": "0s"}))
        self.assertEqual((parsed.archive_dir, parsed.network_usage.timeframe), ("", 0.0))

    def test_upgrade_channels(self) -> None:
        with_channel = {**CONTRACT, "upgrade_channel": "default"}
        for contracts in (
            {"http://c": CONTRACT, "http://d": CONTRACT},
            {"http://c": with_channel, "http://d": with_channel},
            {"http://c": {**CONTRACT, "upgrade_channel": ""}, "http://d": CONTRACT},
        ):
            [mistake] = self.mistakes(config(contracts=contracts))
            self.assertIn("exactly one contract with an upgrade_channel", mistake)
        parsed = self.parse(config(contracts={"http://c": with_channel, "http://d": CONTRACT}))
        self.assertEqual([c.upgrade_channel for c in parsed.contracts.values()], ["default", None])
        [contract] = self.parse(config(contracts={"http://c": {**CONTRACT, "upgrade_channel": ""}})).contracts.values()
        self.assertEqual(contract.upgrade_channel, "default")

    def test_an_old_name(self) -> None:
        parsed, [warning] = parse_config(config(contracts={"http://c": {**CONTRACT, "update_channel": "beta"}}))
        self.assertIn('contracts["http://c"].update_channel: the name is out of date', warning)
        [contract] = parsed.contracts.values()
        self.assertEqual((contract.upgrade_channel, contract.update_channel), ("beta", None))

    def test_limits_that_cannot_hold_are_told(self) -> None:
        limited = {**CONTRACT, "network_usage_limit": "2TB"}
        text = config(contracts={"http://c": limited}, network_usage={"global_limit": "3TB", "global_soft": True})
        without = "DOES NOT HOLD: nothing is measured without network_usage.timeframe or network_usage.start"
        self.assertEqual(
            parse_config(text)[1],
            [f"network_usage.global_limit: {without}", f'contracts["http://c"].network_usage_limit: {without}'],
        )
        for measured in ({"timeframe": "30d"}, {"start": "daily"}):
            text = config(contracts={"http://c": limited}, network_usage={"global_limit": "3TB", **measured})
            self.assertEqual(parse_config(text)[1], [])

    def test_keys_without_effect_are_told(self) -> None:
        _, warnings = parse_config(config(network_usage={"start": "daily", "timeframe": "1d", "global_soft": True}))
        self.assertEqual(
            warnings,
            [
                "network_usage.timeframe: has no effect beside network_usage.start",
                "network_usage.global_soft: has no effect without network_usage.global_limit",
            ],
        )

    def test_unknown_keys_are_warnings(self) -> None:
        _, warnings = parse_config(
            config(
                timeot="1s",
                network_usage={"globl_limit": "1TB"},
                contracts={"http://c": {**CONTRACT, "rol": "x"}},
                zzz=1,
                ARCHIVE_DIR="x",
            )
        )
        self.assertEqual(
            sorted(warnings),
            [
                "ARCHIVE_DIR: unknown key; did you mean archive_dir?",
                'contracts["http://c"].rol: unknown key; did you mean role?',
                "network_usage.globl_limit: unknown key; did you mean global_limit?",
                "timeot: unknown key; did you mean timeout?",
                "zzz: unknown key",
            ],
        )

    @settings(max_examples=150)
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

    @given(st.text() | st.binary())
    def test_no_text_raises_anything_else(self, text: str | bytes) -> None:
        with self.assertRaises(ConfigError):
            parse_config(text)

    @given(
        st.sampled_from(sorted(json.loads(example_config()))),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(),
            lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(), inner, max_size=2),
            max_leaves=4,
        ),
    )
    def test_mistakes_lie_where_the_change_was_made(self, name: str, value: Any) -> None:
        try:
            parse_config(json.dumps({**json.loads(example_config()), name: value}))
        except ConfigError as e:
            for mistake in e.mistakes:
                self.assertTrue(mistake.path.startswith(name), mistake)
                self.assertTrue(mistake.problem.startswith(("expected ", "missing")), mistake)
