"""exit_policy: how rules are written, and which one decides."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.test_config import config
from wireleap_relay.config import ConfigError, parse_config
from wireleap_relay.exitpolicy import PRESETS, exit_policy, parse_rule
from wireleap_relay.wire.errors import WireError


class RuleTests(SynchronousTestCase):
    def test_every_form(self) -> None:
        for text in (
            "accept *:*",
            "reject *:25",
            "reject *:1-1024",
            "accept 203.0.113.7/32:443",
            "reject 203.0.113.0/24:*",
            "accept [2001:db8::]/32:80-81",
            "reject [::1]/128:65535",
        ):
            self.assertEqual(str(parse_rule(text)), text)
            self.assertEqual(parse_rule(str(parse_rule(text))), parse_rule(text))
        self.assertEqual(str(parse_rule(" reject   10.0.0.1:7-7 ")), "reject 10.0.0.1/32:7")

    def test_what_is_no_rule(self) -> None:
        for text in (
            *("", "accept", "accept *", "deny *:1", "accept *:0", "accept *:65536", "accept *:9-8", "accept *:-1"),
            *(
                "accept 1.2.3:1",
                "accept 1.2.3.4/33:1",
                "accept 1.2.3.4/24:1",
                "accept 2001:db8::1:80",
                "accept [::1:80",
            ),
            *("accept [1.2.3.4]:80", "accept [::]/129:1", "accept example.com:80", "accept *:80 *:81", "ACCEPT *:80"),
            *("accept *:٣", "accept **:1", "accept */8:1"),
        ):
            with self.assertRaises(WireError) as caught:
                parse_rule(text)
            self.assertIn("expected a rule such as", str(caught.exception))

    @given(st.text(), st.from_regex(r"(accept|reject) [\[\]0-9a-f:.*/-]{1,30}"))
    def test_any_text_is_a_rule_or_is_told(self, junk: str, near: str) -> None:
        for text in (junk, near):
            try:
                rule = parse_rule(text)
            except WireError:
                continue
            self.assertEqual(parse_rule(str(rule)), rule)


class PolicyTests(SynchronousTestCase):
    def test_the_first_match_decides(self) -> None:
        policy = exit_policy(["accept 8.8.8.8:25", "default"])
        rule = policy.decide(ip_address("8.8.8.8"), 25)
        assert rule is not None
        self.assertTrue(rule.accepts)
        rule = policy.decide(ip_address("8.8.4.4"), 25)
        assert rule is not None
        self.assertFalse(rule.accepts)

    def test_presets_decide_everything(self) -> None:
        for preset in PRESETS.values():
            self.assertTrue(preset.decides_everything)


class ConfigTests(SynchronousTestCase):
    def read(self, **changes: Any) -> Any:
        parsed, warnings = parse_config(config(**changes))
        self.assertEqual(warnings, [])
        return parsed

    def mistakes(self, **changes: Any) -> list[str]:
        with self.assertRaises(ConfigError) as caught:
            parse_config(config(**changes))
        return [str(mistake) for mistake in caught.exception.mistakes]

    def test_default(self) -> None:
        self.assertEqual(self.read().exit_policy, PRESETS["default"])

    def test_presets_and_lists(self) -> None:
        self.assertEqual(self.read(exit_policy="reduced").exit_policy, PRESETS["reduced"])
        listed = self.read(exit_policy=["reject 192.0.2.0/24:*", "reduced"]).exit_policy
        self.assertEqual(listed.rules[1:], PRESETS["reduced"].rules)

    def test_what_no_rule_matches(self) -> None:
        _, [warning] = parse_config(config(exit_policy=["accept *:443"]))
        self.assertTrue(warning.startswith("exit_policy: what no rule matches is rejected"), warning)

    def test_mistakes(self) -> None:
        found = self.mistakes(exit_policy=["accept *:80", "accept *", 5, "strict"])
        self.assertEqual([each.partition(":")[0] for each in found], [f"exit_policy[{n}]" for n in (1, 2, 3)])
        for wrong in ("strict", [], {}, 5, None):
            [problem] = self.mistakes(exit_policy=wrong)
            self.assertTrue(problem.startswith('exit_policy: expected "default" or "reduced", or a list'), problem)

    def test_bind_address(self) -> None:
        self.assertEqual(self.read().bind_address, ())
        self.assertEqual(self.read(bind_address="192.0.2.1").bind_address, (ip_address("192.0.2.1"),))
        both = self.read(bind_address=["2001:db8::1", "192.0.2.1"]).bind_address
        self.assertEqual(both, (ip_address("2001:db8::1"), ip_address("192.0.2.1")))
        for wrong in ("", "x", "192.0.2.1:80", "fe80::1%eth0", [], ["192.0.2.1", "192.0.2.2"], 5, [5], None):
            [problem] = self.mistakes(bind_address=wrong)
            self.assertTrue(problem.startswith("bind_address: expected an IP address such as"), problem)

    def test_danger_zone(self) -> None:
        zone = self.read(danger_zone={"allow_private": True, "allow_targets": True}).danger_zone
        self.assertEqual((zone.allow_loopback, zone.allow_private, zone.allow_targets), (False, True, True))
