"""Sharetokens and contract statements."""

from __future__ import annotations

from typing import Any

import attrs
from hypothesis import given
from twisted.trial.unittest import SynchronousTestCase

from tests.vectordata import SHARETOKENS
from tests.wire import strategies
from wireleap_relay.wire.encoding import write_json
from wireleap_relay.wire.errors import WireError
from wireleap_relay.wire.keys import PublicKey, SigningKey
from wireleap_relay.wire.sharetoken import ContractStatement, Sharetoken
from wireleap_relay.wire.structure import converter, structure


def read(vector: dict[str, Any]) -> Sharetoken:
    return Sharetoken.from_json(write_json(vector["json"]))


def key(vector: dict[str, Any], name: str) -> SigningKey:
    return SigningKey.from_text(vector[f"{name}_seed"])


class VectorTests(SynchronousTestCase):
    """Tokens that the reference implementation made."""

    def test_byte_for_byte(self) -> None:
        for vector in SHARETOKENS:
            text = write_json(vector["json"])
            self.assertEqual(Sharetoken.from_json(text).to_json(), text)
            self.assertEqual(Sharetoken.from_json(text.encode()).to_json(), text)

    def test_digests(self) -> None:
        for vector in SHARETOKENS:
            token = read(vector)
            self.assertEqual(token.digest, vector["digest"])
            self.assertEqual(token.contract.digest, vector["contract_digest"])

    def test_validity(self) -> None:
        """Each bad one fails in the place it says."""
        failures = {
            None: (True, True),
            "nonce changed after signing": (False, True),
            "contract data changed after the contract signed it": (True, False),
            "signature bit flipped": (False, True),
        }
        self.assertEqual({vector.get("why") for vector in SHARETOKENS}, set(failures))
        for vector in SHARETOKENS:
            token = read(vector)
            self.assertEqual(token.verify() and token.contract.verify(), vector["valid"], vector)
            self.assertEqual((token.verify(), token.contract.verify()), failures[vector.get("why")], vector)

    def test_signing_again(self) -> None:
        """Ed25519 has one signature for a text (RFC 8032): ours is the reference's."""
        for vector in SHARETOKENS:
            token = read(vector)
            statement = ContractStatement.sign(
                key(vector, "contract"), token.contract.settlement_open, token.contract.settlement_close
            )
            self.assertEqual(statement == token.contract, token.contract.verify(), vector)
            again = key(vector, "servicekey").sign(token.digest.encode())
            self.assertEqual(again == token.signature, token.verify(), vector)
            self.assertEqual(key(vector, "relay").public_key, token.relay_pubkey)


class SharetokenTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.servicekey, self.contract = SigningKey(bytes([1]) * 32), SigningKey(bytes([2]) * 32)
        self.relay = SigningKey(bytes([3]) * 32).public_key
        self.statement = ContractStatement.sign(self.contract, 1000, 2000)
        self.token = Sharetoken.sign(self.servicekey, self.statement, self.relay, 900)

    def test_signed(self) -> None:
        token = self.token
        self.assertTrue(token.verify())
        self.assertTrue(token.contract.verify())
        self.assertEqual((token.version, token.timestamp, token.share_key), (0, 900, ""))
        self.assertEqual((token.public_key, token.relay_pubkey), (self.servicekey.public_key, self.relay))
        self.assertEqual((token.contract, token.contract.public_key), (self.statement, self.contract.public_key))
        self.assertEqual((self.statement.settlement_open, self.statement.settlement_close), (1000, 2000))
        self.assertEqual(Sharetoken.from_json(token.to_json()), token)

    def test_fresh_nonces(self) -> None:
        """Two tokens for the same second and relay are two tokens."""
        other = Sharetoken.sign(self.servicekey, self.statement, self.relay, 900)
        self.assertNotEqual(other.nonce, self.token.nonce)
        self.assertNotEqual(other.signature, self.token.signature)

    def test_every_field_is_signed(self) -> None:
        other = SigningKey(bytes([4]) * 32)
        for name, value in {
            "version": 1,
            "public_key": other.public_key,
            "timestamp": 901,
            "relay_pubkey": other.public_key,
            "share_key": "k",
            "nonce": "0" * 32,
            "contract": ContractStatement.sign(self.contract, 1001, 2000),
        }.items():
            self.assertFalse(attrs.evolve(self.token, **{name: value}).verify(), name)
        for name, value in {
            "settlement_open": 1001,
            "settlement_close": 2001,
            "public_key": other.public_key,
            "signature": other.sign(self.statement.digest.encode()),
        }.items():
            self.assertFalse(attrs.evolve(self.statement, **{name: value}).verify(), name)

    def test_unstructured(self) -> None:
        """As a part of other values it is written as it travels."""
        self.assertEqual(write_json(converter.unstructure(self.token)), self.token.to_json())
        fields = converter.unstructure(self.statement)
        self.assertEqual(write_json(fields), write_json(self.token.to_fields()["contract"]))
        self.assertEqual(structure(fields, ContractStatement), self.statement)

    def test_share_key_may_be_absent(self) -> None:
        fields = self.token.to_fields()
        del fields["share_key"]
        self.assertEqual(structure(fields, Sharetoken), self.token)

    @given(strategies.tokens)
    def test_round_trip(self, token: Sharetoken) -> None:
        self.assertEqual(Sharetoken.from_json(token.to_json()), token)

    @given(strategies.signing_keys, strategies.statements, strategies.public_keys, strategies.int64s)
    def test_anything_signed_verifies(
        self, servicekey: SigningKey, statement: ContractStatement, relay: PublicKey, timestamp: int
    ) -> None:
        token = Sharetoken.sign(servicekey, statement, relay, timestamp)
        self.assertTrue(token.verify())
        self.assertEqual(Sharetoken.from_json(token.to_json()), token)


class RefusalTests(SynchronousTestCase):
    def assertRefused(self, fields: Any, problem: str) -> None:
        with self.assertRaises(WireError, msg=repr(fields)) as caught:
            Sharetoken.from_json(write_json(fields))
        self.assertEqual(str(caught.exception), problem)

    def test_nothing_there(self) -> None:
        for value in (None, [], "token", 5):
            self.assertRefused(value, "expected a JSON object")
        self.assertRefused(
            {},
            "version: missing; public_key: missing; timestamp: missing; relay_pubkey: missing; "
            "signature: missing; nonce: missing; contract: missing",
        )

    def test_no_contract(self) -> None:
        good = SHARETOKENS[0]["json"]
        for value in (None, [], "", 5):
            self.assertRefused({**good, "contract": value}, "contract: expected a JSON object")
        self.assertRefused(
            {**good, "contract": {}},
            "contract.settlement_open: missing; contract.settlement_close: missing; "
            "contract.public_key: missing; contract.signature: missing",
        )

    def test_nonces(self) -> None:
        good = SHARETOKENS[0]["json"]
        for nonce in ("", "0" * 31, "0" * 33, "0" * 31 + "g", "0" * 32 + "\n", "٠" * 32, 10**31, None):
            self.assertRefused({**good, "nonce": nonce}, "nonce: expected 32 hex digits")
        self.assertEqual(Sharetoken.from_json(write_json({**good, "nonce": "aF" * 16})).nonce, "aF" * 16)
