"""The values of contracts' and directories' answers."""

from __future__ import annotations

import contextlib
from fractions import Fraction
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from wireleap_relay.wire.apifields import Seconds, parse_rational
from wireleap_relay.wire.contractinfo import (
    ContractInfo,
    DirectoryPointer,
    Funding,
    PayoutTerms,
    ServicekeyTerms,
    SettlementTerms,
)
from wireleap_relay.wire.directoryinfo import DirectoryInfo, RoleInfo, UpgradeChannels
from wireleap_relay.wire.encoding import write_json
from wireleap_relay.wire.endpoint import Endpoint, join, parse_endpoint
from wireleap_relay.wire.errors import WireError
from wireleap_relay.wire.funding import AccessKey
from wireleap_relay.wire.keys import SigningKey
from wireleap_relay.wire.payout import PayoutBalance, Withdrawal
from wireleap_relay.wire.structure import converter, read, structure
from wireleap_relay.wire.versions import Version

KINDS = (ContractInfo, DirectoryInfo, PayoutBalance, Withdrawal, AccessKey)
PUBLIC_KEY = SigningKey(bytes(32)).public_key

#: As a contract of the reference would write it.
INFO = f"""{{"pubkey":"{PUBLIC_KEY}","version":"0.4.1","endpoint":"https://contract.example/v0",
"proof_of_funding":[{{"endpoint":"https://auth.example/pof","type":"stripe","pubkey":"{PUBLIC_KEY}"}}],
"servicekey":{{"currency":"usd","value":"9/2","duration":"720h0m0s"}},
"settlement":{{"fee_percent":"5","submission_window":"168h0m0s"}},
"payout":{{"endpoint":"https://auth.example","type":"stripe","check_period":"1h0m0s","min_withdrawal":20,
"info":"https://www.example/?q=payout#how"}},
"directory":{{"endpoint":"https://dir.example","public_key":"{PUBLIC_KEY}"}},
"metadata":{{"operator":"X","operator_url":"https://x.example"}}}}"""

json_data = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.sampled_from(
    ["pubkey", "directory", "endpoint", "public_key", "payout", "type", "servicekey", "value", "duration", "version",
     "enrollment", "upgrade_channels", "relay", "proof_of_funding", "contract", "pofs", "currency", "id", "state"]
)  # fmt: skip


class ContractInfos(SynchronousTestCase):
    def test_one_of_the_references(self) -> None:
        info = ContractInfo.from_json(INFO)
        self.assertEqual(info.pubkey, PUBLIC_KEY)
        self.assertEqual(info.directory, DirectoryPointer(Endpoint("https://dir.example"), PUBLIC_KEY))
        self.assertEqual(info.version, Version(0, 4, 1))
        self.assertEqual(info.proof_of_funding, (Funding("stripe", PUBLIC_KEY, "https://auth.example/pof"),))
        self.assertEqual(info.servicekey, ServicekeyTerms("usd", Fraction(9, 2), Seconds(30 * 86400.0)))
        self.assertEqual(info.settlement, SettlementTerms(Fraction(5), Seconds(7 * 86400.0)))
        self.assertEqual(
            info.payout,
            PayoutTerms(
                endpoint="https://auth.example",
                type="stripe",
                check_period=Seconds(3600.0),
                min_withdrawal=20,
                info="https://www.example/?q=payout#how",
            ),
        )

    def test_it_is_written_as_it_was_read(self) -> None:
        info = ContractInfo.from_json(INFO)
        self.assertEqual(ContractInfo.from_json(write_json(converter.unstructure(info))), info)

    def test_nulls_are_absences(self) -> None:
        fields = {
            "pubkey": str(PUBLIC_KEY),
            "directory": {"endpoint": "http://127.0.0.1:1/d", "public_key": str(PUBLIC_KEY)},
            "endpoint": None,
            "servicekey": {"value": None, "currency": ""},
            "payout": {"endpoint": None, "type": "", "check_period": "0s"},
        }
        info = structure(fields, ContractInfo)
        self.assertIsNone(info.endpoint)
        self.assertEqual(info.payout.type, "")


class DirectoryInfos(SynchronousTestCase):
    def test_one_of_the_references(self) -> None:
        info = DirectoryInfo.from_json(
            f'{{"public_key":"{PUBLIC_KEY}","version":"0.6.0-rc1 built by hand","endpoint":"https://dir.example",'
            '"enrollment":{"fronting":{"count":3,"restricted":true},"entropic":{"count":0,"restricted":false}},'
            '"update_channels":{"default":"0.6.1"},'
            '"upgrade_channels":{"relay":{"default":"0.6.1","beta":"0.7.0"},"client":{}}}'
        )
        self.assertEqual(info.enrollment["fronting"], RoleInfo(3, restricted=True))
        self.assertEqual(
            info.upgrade_channels, UpgradeChannels({"default": Version(0, 6, 1), "beta": Version(0, 7, 0)})
        )
        self.assertEqual(DirectoryInfo.from_json(write_json(converter.unstructure(info))), info)

    def test_the_least(self) -> None:
        info = DirectoryInfo.from_json(f'{{"public_key":"{PUBLIC_KEY}"}}')
        self.assertEqual(info, DirectoryInfo(PUBLIC_KEY))

    def test_a_role_that_nobody_knows(self) -> None:
        with self.assertRaises(WireError):
            DirectoryInfo.from_json(f'{{"public_key":"{PUBLIC_KEY}","enrollment":{{"spare":{{}}}}}}')


class Endpoints(SynchronousTestCase):
    def test_good_ones(self) -> None:
        for text in (
            "http://127.0.0.1:8080/contract",
            "https://contract.example.com",
            "https://contract.example.com:8443/a/b/",
            "http://[::1]:80/x",
            "HTTPS://host/",
        ):
            self.assertEqual(parse_endpoint(text), text)

    def test_bad_ones(self) -> None:
        for text in (
            "",
            "http://",
            "https:///path",
            "contract.example.com",
            "ftp://host/",
            "wireleap://host",
            "http://host:0/",
            "http://host:65536/",
            "http://host:x/",
            "http://user:password@host/",
            "http://host/?query",
            "http://host/#part",
            "http://host/?",
            "http://host/a b",
            "http://host/é",
            "http://host\r\nX: y/",
            "http://[::1/",
            "http://256.1.1.1/",
            "http://host/" + "a" * 3000,
        ):
            with self.assertRaises(WireError, msg=text):
                parse_endpoint(text)

    def test_joining(self) -> None:
        for base in ("http://host/a", "http://host/a/"):
            self.assertEqual(join(Endpoint(base), "/info"), "http://host/a/info")
        self.assertEqual(join(Endpoint("http://host"), "/info"), "http://host/info")

    @given(st.text())
    def test_nothing_else_is_raised(self, text: str) -> None:
        for candidate in (text, f"http://{text}", f"https://host:{text}/", f"http://[{text}]/"):
            with contextlib.suppress(WireError):
                parse_endpoint(candidate)


class Rationals(SynchronousTestCase):
    def test_good_ones(self) -> None:
        for text, value in (("100", 100), ("1/3", Fraction(1, 3)), ("2.5", Fraction(5, 2)), ("-7", -7), ("0", 0)):
            self.assertEqual(parse_rational(text), value)

    def test_bad_ones(self) -> None:
        for text in ("", "1/0", "1e999999999", "1_0", " 1", "1/", "/2", ".5", "1.", "٣", "NaN", "9" * 41):
            with self.assertRaises(WireError, msg=text):
                parse_rational(text)

    @given(st.fractions(max_denominator=10**12))
    def test_what_is_written_is_read(self, value: Fraction) -> None:
        if abs(value) < 10**40:
            self.assertEqual(parse_rational(str(value)), value)


class Hostile(SynchronousTestCase):
    @given(json_data | st.dictionaries(FIELDS, json_data | st.dictionaries(FIELDS, json_data)))
    def test_any_json_is_a_value_or_a_wire_error(self, data: Any) -> None:
        for kind in KINDS:
            with contextlib.suppress(WireError):
                structure(data, kind)

    @given(st.binary())
    def test_any_bytes_are_a_value_or_a_wire_error(self, data: bytes) -> None:
        for kind in KINDS:
            with self.assertRaises(WireError):
                read(data, kind)
