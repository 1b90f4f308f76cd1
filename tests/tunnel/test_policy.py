"""Who may be dialled, address by address."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from wireleap_relay.boundaries import Refused
from wireleap_relay.exitpolicy import ExitPolicy, exit_policy, parse_rule
from wireleap_relay.tunnel.policy import DialPolicy, ListensAt, hidden_ipv4

PUBLIC = ["8.8.8.8", "1.1.1.1", "198.20.0.1", "100.128.0.1", "172.32.0.1", "2606:4700::1111", "2a00::1"]
NEVER = [
    *("0.0.0.0", "0.255.255.255", "169.254.0.1", "169.254.169.254", "224.0.0.1", "239.255.255.255", "255.255.255.255"),
    *("100.100.100.200", "168.63.129.16", "192.0.0.192", "fd00:ec2::254", "fd20:ce::254"),
    *("::", "fe80::1", "fe80::1%1", "febf::1", "fe80::a9fe:a9fe", "ff02::1"),
    *("::ffff:169.254.169.254", "::ffff:0:169.254.169.254", "64:ff9b::169.254.169.254", "2002:a9fe:a9fe::1"),
    *("64:ff9b:1::169.254.169.254", "2001:0:a9fe:a9fe::", "2001:0:808:808:0:0:5601:5601", "::224.0.0.1"),
]
PRIVATE = [
    *("10.0.0.1", "10.255.255.255", "172.16.0.1", "172.31.255.255", "192.168.1.1", "100.64.0.1", "100.127.255.255"),
    *("192.0.2.1", "198.18.0.1", "198.51.100.1", "203.0.113.1", "240.0.0.1", "192.0.0.1", "192.88.99.1"),
    *("fc00::1", "fd12::1", "fec0::1", "2001:db8::1", "100::1", "3fff::1", "5f00::1", "2001:10::1", "2001:2::1"),
    *("::ffff:8.8.8.8", "::8.8.8.8", "::ffff:0:8.8.8.8", "64:ff9b::808:808", "64:ff9b:1::808:808", "2002:808:808::1"),
    *("2001:0:808:808:0:0:f7f7:f7f7", "::ffff:10.0.0.1"),
]
LOOPBACK = ["127.0.0.1", "127.255.255.255", "::1"]


class AddressTests(SynchronousTestCase):
    def dials(self, policy: DialPolicy, host: str, port: int = 443, is_target: bool = True) -> bool:
        decision = policy.decide(host, port, is_target)
        if decision.refusal is None:
            policy.check(host, port, is_target)
        else:
            with self.assertRaises(Refused) as caught:
                policy.check(host, port, is_target)
            self.assertEqual((caught.exception.code, caught.exception.description), (400, decision.refusal))
            self.assertNotIn(host.partition("%")[0], decision.refusal.split())
        return decision.dials

    def test_by_default(self) -> None:
        for is_target in (True, False):
            for host in PUBLIC:
                self.assertTrue(self.dials(DialPolicy(), host, is_target=is_target), host)
            for host in NEVER + PRIVATE + LOOPBACK:
                self.assertFalse(self.dials(DialPolicy(), host, is_target=is_target), host)

    def test_private(self) -> None:
        policy = DialPolicy(allow_private=True)
        for host in PUBLIC + PRIVATE:
            self.assertTrue(self.dials(policy, host), host)
        for host in [*NEVER, *LOOPBACK, "::ffff:127.0.0.1", "2002:7f00:1::", "::127.0.0.1"]:
            self.assertFalse(self.dials(policy, host), host)

    def test_loopback(self) -> None:
        policy = DialPolicy(allow_loopback=True)
        for host in LOOPBACK:
            self.assertTrue(self.dials(policy, host), host)
        for host in [*NEVER, *PRIVATE, "::ffff:127.0.0.1"]:
            self.assertFalse(self.dials(policy, host), host)

    def test_everything_allowed_is_not_everything(self) -> None:
        policy = DialPolicy(allow_loopback=True, allow_private=True, allow_targets=True)
        for host in NEVER:
            self.assertFalse(self.dials(policy, host), host)
        self.assertTrue(self.dials(policy, "::ffff:127.0.0.1"))

    @given(st.ip_addresses(v=4))
    def test_no_form_of_an_address_is_dialled_where_it_is_not(self, address: IPv4Address) -> None:
        number = int(address)
        forms = [number, 0xFFFF << 32 | number, 0xFFFF << 48 | number, 0x64FF9B << 96 | number]
        forms += [0x64FF9B0001 << 80 | number, 0x2002 << 112 | number << 80]
        forms += [
            0x20010000 << 96 | number << 64 | 0xF7F7F7F7,
            0x20010000 << 96 | 0x08080808 << 64 | number ^ 0xFFFFFFFF,
        ]
        policy = DialPolicy(allow_private=True)
        for form in map(IPv6Address, forms):
            if form not in (IPv6Address("::"), IPv6Address("::1")):
                self.assertIn(address, list(hidden_ipv4(form)))
                self.assertLessEqual(
                    policy.decide(str(form), 443, True).dials, policy.decide(str(address), 443, True).dials
                )
            self.assertFalse(DialPolicy().decide(str(form), 443, True).dials)

    @given(st.ip_addresses(), st.integers(1, 65_535), st.booleans())
    def test_every_address_has_a_decision(self, address: Any, port: int, is_target: bool) -> None:
        for policy in (DialPolicy(), DialPolicy(allow_private=True, allow_loopback=True)):
            decision = policy.decide(str(address), port, is_target)
            self.assertTrue(decision.why)
            if decision.dials and policy == DialPolicy():
                # What Python's own registry has as global is what is dialled, and nothing more.
                self.assertTrue(address.is_global, address)


class OwnTests(SynchronousTestCase):
    def test_listening_addresses(self) -> None:
        policy = DialPolicy(True, True, listens=(ListensAt.of("127.0.0.1", 13490), ListensAt.of("::1", 13491)))
        for host, port in [("127.0.0.1", 13490), ("::1", 13491), ("::ffff:127.0.0.1", 13490)]:
            self.assertEqual(policy.decide(host, port, False).refusal, "refusing to dial the relay itself")
        for host, port in [("127.0.0.1", 13491), ("127.0.0.2", 13490), ("::1", 13490)]:
            self.assertTrue(policy.decide(host, port, False).dials)

    def test_all_of_the_machines_addresses(self) -> None:
        for host in ("", "0.0.0.0", "::", "relay.example"):
            policy = DialPolicy(listens=(ListensAt.of(host, 13490),), is_here=lambda a: a == ip_address("8.8.8.8"))
            self.assertFalse(policy.decide("8.8.8.8", 13490, True).dials)
            self.assertTrue(policy.decide("8.8.8.8", 13491, True).dials)
            self.assertTrue(policy.decide("8.8.4.4", 13490, True).dials)


class ExitTests(SynchronousTestCase):
    def policy(self, *rules: str, **options: Any) -> DialPolicy:
        return DialPolicy(exits=ExitPolicy(tuple(map(parse_rule, rules))), **options)

    def test_targets(self) -> None:
        policy = self.policy("reject 8.8.8.0/24:53", "accept *:53", "accept [2606::]/16:*")
        for host, port, dials in [
            ("8.8.8.8", 53, False),
            ("8.8.4.4", 53, True),
            ("8.8.4.4", 54, False),
            ("2606::1", 54, True),
            ("2607::1", 54, False),
        ]:
            self.assertEqual(policy.decide(host, port, True).dials, dials, host)
        self.assertEqual(policy.decide("8.8.8.8", 53, True).why, "exit_policy: reject 8.8.8.0/24:53")
        self.assertEqual(policy.decide("8.8.4.4", 54, True).why, "no rule of exit_policy matches")
        self.assertNotIn("8.8", policy.decide("8.8.8.8", 53, True).refusal or "8.8")

    def test_relays_are_held_to_what_names_them(self) -> None:
        policy = self.policy("reject *:25", "reject 8.8.8.0/24:*", "accept *:443", "reject *:*")
        self.assertFalse(policy.decide("1.1.1.1", 25, False).dials)
        self.assertFalse(policy.decide("8.8.8.8", 13490, False).dials)
        self.assertTrue(policy.decide("1.1.1.1", 13490, False).dials)
        self.assertFalse(policy.decide("1.1.1.1", 13490, True).dials)

    def test_a_hidden_address_is_held_to_the_rules_of_both(self) -> None:
        policy = self.policy("reject 8.8.8.8:*", "reject [2002:101:101::]/48:*", "accept *:*", allow_private=True)
        self.assertFalse(policy.decide("::ffff:8.8.8.8", 443, True).dials)
        self.assertFalse(policy.decide("2002:101:101::1", 443, True).dials)
        self.assertTrue(policy.decide("::ffff:8.8.4.4", 443, True).dials)

    def test_presets(self) -> None:
        self.assertFalse(DialPolicy().decide("8.8.8.8", 25, True).dials)
        self.assertTrue(DialPolicy().decide("8.8.8.8", 6881, True).dials)
        reduced = DialPolicy(exits=exit_policy("reduced"))
        self.assertFalse(reduced.decide("8.8.8.8", 25, True).dials)
        self.assertFalse(reduced.decide("8.8.8.8", 6881, True).dials)
        self.assertTrue(reduced.decide("8.8.8.8", 443, True).dials)


class RoleTests(SynchronousTestCase):
    def test_who_dials_targets(self) -> None:
        DialPolicy().check_role("backing", True)
        for role in ("fronting", "entropic"):
            DialPolicy().check_role(role, False)  # type: ignore[arg-type]
            DialPolicy(allow_targets=True).check_role(role, True)  # type: ignore[arg-type]
            with self.assertRaises(Refused) as caught:
                DialPolicy().check_role(role, True)  # type: ignore[arg-type]
            self.assertEqual(caught.exception.code, 400)


class SourceTests(SynchronousTestCase):
    def test_only_the_families_that_have_one(self) -> None:
        policy = DialPolicy(sources=(ip_address("192.0.2.7"),))
        self.assertEqual(policy.source("8.8.8.8"), "192.0.2.7")
        self.assertTrue(policy.decide("8.8.8.8", 443, True).dials)
        self.assertFalse(policy.decide("2606::1", 443, True).dials)
        self.assertIsNone(DialPolicy().source("8.8.8.8"))
        both = DialPolicy(sources=(ip_address("192.0.2.7"), ip_address("2001:db8::7")))
        self.assertEqual(both.source("2606::1"), "2001:db8::7")
