"""Admission: its cache; what it refuses is tested over real tunnels."""

from __future__ import annotations

from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase

from tests.tokens.test_store import Mint
from wireleap_relay.boundaries import Contract, Meter, Refused
from wireleap_relay.tokens import admission
from wireleap_relay.tokens.admission import SharetokenAdmission
from wireleap_relay.wire.address import Address
from wireleap_relay.wire.keys import PublicKey
from wireleap_relay.wire.payload import Connect
from wireleap_relay.wire.sharetoken import ContractStatement, Sharetoken
from wireleap_relay.wire.versions import CLIENT_RELAY


class AdmissionTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.mint = Mint()
        self.one_meter = Meter()
        self.admission = SharetokenAdmission(self.mint.relay.public_key, self, self, self, lambda: 900.0)
        self.verified = 0
        original = ContractStatement.verify

        def counting(statement: ContractStatement) -> bool:
            self.verified += 1
            return original(statement)

        self.patch(ContractStatement, "verify", counting)

    def accepting(self, contract: PublicKey) -> Contract:
        return Contract("http://c", contract, "backing", Address.from_text("wireleap://r"))

    def meter(self, contract: PublicKey) -> Meter:
        return self.one_meter

    def deposit(self, token: Sharetoken) -> Deferred[bool]:
        return succeed(True)

    def connect(self, mint: Mint) -> Connect:
        return Connect("tcp", Address.from_text("target://x:1"), mint.token(), CLIENT_RELAY)

    def test_a_statement_is_verified_once(self) -> None:
        for _ in range(3):
            grant = self.admission.check(self.connect(self.mint))
        self.assertIs(grant.meter, self.one_meter)
        self.assertEqual(grant.contract, self.mint.contract.public_key)
        self.assertEqual(self.verified, 1)

    def test_a_forged_statement_is_never_remembered(self) -> None:
        other = Mint()
        forged = ContractStatement(1000, 2000, self.mint.contract.public_key, other.statement.signature)
        self.mint.statement = forged
        for _ in range(2):
            with self.assertRaises(Refused):
                self.admission.check(self.connect(self.mint))
        self.assertEqual(self.verified, 2)

    def test_memory_is_bounded(self) -> None:
        self.patch(admission, "_STATEMENTS", 3)
        first = self.mint.statement
        for opens in range(1001, 1005):
            self.mint.statement = ContractStatement.sign(self.mint.contract, opens, 2000)
            self.admission.check(self.connect(self.mint))
        self.mint.statement = first
        self.admission.check(self.connect(self.mint))
        self.assertEqual(self.verified, 5)
        self.assertEqual(len(self.admission._verified), 3)

    def test_a_token_in_its_settlement_window_is_too_late(self) -> None:
        self.mint.statement = ContractStatement.sign(self.mint.contract, 900, 2000)
        with self.assertRaises(Refused) as caught:
            self.admission.check(self.connect(self.mint))
        self.assertEqual(caught.exception.code, 400)
        self.assertEqual(self.verified, 0)
