"""Ed25519 keys and signatures."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.vectordata import PROOF_OF_FUNDING, SHARETOKENS
from tests.wire import strategies
from wireleap_relay.wire.encoding import to_base64url
from wireleap_relay.wire.errors import WireError
from wireleap_relay.wire.keys import PublicKey, Signature, SigningKey

#: RFC 8032, section 7.1, test 2.
RFC_SEED = bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb")
RFC_PUBLIC_KEY = bytes.fromhex("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c")
RFC_MESSAGE = bytes.fromhex("72")
RFC_SIGNATURE = bytes.fromhex(
    "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
    "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
)


class SigningKeyTests(SynchronousTestCase):
    def test_rfc_8032(self) -> None:
        key = SigningKey(RFC_SEED)
        self.assertEqual(key.public_key, PublicKey(RFC_PUBLIC_KEY))
        self.assertEqual(key.sign(RFC_MESSAGE), Signature(RFC_SIGNATURE))

    def test_vectors(self) -> None:
        for vector in SHARETOKENS:
            token = vector["json"]
            for seed, public_key in (
                (vector["relay_seed"], token["relay_pubkey"]),
                (vector["servicekey_seed"], token["public_key"]),
                (vector["contract_seed"], token["contract"]["public_key"]),
            ):
                key = SigningKey.from_text(seed)
                self.assertEqual(str(key.public_key), public_key)
                self.assertEqual(key.seed_text, seed)

    def test_proof_of_funding(self) -> None:
        """A signature that no other vector's value covers."""
        key = SigningKey.from_text(PROOF_OF_FUNDING["seed"])
        fields, digest = PROOF_OF_FUNDING["json"], PROOF_OF_FUNDING["digest"]
        self.assertEqual(digest, "{type}:{expiration}:{nonce}".format_map(fields))
        self.assertEqual(str(key.sign(digest.encode())), fields["signature"])
        self.assertTrue(key.public_key.verify(Signature.from_text(fields["signature"]), digest.encode()))

    def test_repr(self) -> None:
        """No text made of a key tells anything of its seed."""
        key = SigningKey(RFC_SEED)
        for text in (repr(key), str(key), f"{key}", repr([key])):
            self.assertEqual(text.strip("[]"), f"SigningKey(public_key={key.public_key!r})")
            for secret in (RFC_SEED.hex(), repr(RFC_SEED), repr(RFC_SEED)[2:20], to_base64url(RFC_SEED), "seed"):
                self.assertNotIn(secret, text)

    def test_generated(self) -> None:
        key, other = SigningKey.generate(), SigningKey.generate()
        self.assertNotEqual(key, other)
        self.assertEqual(len(key.seed), 32)
        self.assertTrue(key.public_key.verify(key.sign(b"message"), b"message"))

    def test_private(self) -> None:
        self.assertEqual(SigningKey(RFC_SEED).private.private_bytes_raw(), RFC_SEED)

    def test_refusals(self) -> None:
        for text in ("", "A" * 42, "A" * 44, "A" * 43 + "=", "A" * 86):
            with self.assertRaises(WireError, msg=text) as caught:
                SigningKey.from_text(text)
            self.assertEqual(str(caught.exception), "expected 32 bytes as base64url without padding")

    @given(strategies.signing_keys)
    def test_round_trip(self, key: SigningKey) -> None:
        again = SigningKey.from_text(key.seed_text)
        self.assertEqual(again, key)
        self.assertEqual(again.public_key, key.public_key)


class PublicKeyTests(SynchronousTestCase):
    @given(strategies.public_keys)
    def test_round_trip(self, key: PublicKey) -> None:
        self.assertEqual(PublicKey.from_text(str(key)), key)

    def test_refusals(self) -> None:
        for text in ("", "A" * 42, "A" * 44, "A" * 42 + "B", "A" * 86):
            with self.assertRaises(WireError, msg=text) as caught:
                PublicKey.from_text(text)
            self.assertEqual(str(caught.exception), "expected 32 bytes as base64url without padding")

    def test_verify(self) -> None:
        key = PublicKey(RFC_PUBLIC_KEY)
        self.assertTrue(key.verify(Signature(RFC_SIGNATURE), RFC_MESSAGE))
        self.assertFalse(key.verify(Signature(RFC_SIGNATURE), RFC_MESSAGE + b"\0"))
        self.assertFalse(SigningKey(bytes(32)).public_key.verify(Signature(RFC_SIGNATURE), RFC_MESSAGE))

    def test_verify_nonsense(self) -> None:
        """Bytes that are no key, no point, or no signature verify nothing."""
        for raw in (b"", b"\xff" * 32, b"\2" + bytes(31), RFC_PUBLIC_KEY[:31]):
            self.assertFalse(PublicKey(raw).verify(Signature(RFC_SIGNATURE), RFC_MESSAGE))
        for raw in (b"", b"\xff" * 64, RFC_SIGNATURE[:63], RFC_SIGNATURE + b"\0"):
            self.assertFalse(PublicKey(RFC_PUBLIC_KEY).verify(Signature(raw), RFC_MESSAGE))

    @given(strategies.public_keys, strategies.signatures, st.binary(max_size=10))
    def test_verify_anything(self, key: PublicKey, signature: Signature, message: bytes) -> None:
        """Never raises. (It may be true: keys of small order exist, and the network's peers take them.)"""
        self.assertIsInstance(key.verify(signature, message), bool)


class SignatureTests(SynchronousTestCase):
    @given(strategies.signatures)
    def test_round_trip(self, signature: Signature) -> None:
        self.assertEqual(Signature.from_text(str(signature)), signature)

    def test_refusals(self) -> None:
        for text in ("", "A" * 43, "A" * 85, "A" * 88, "A" * 85 + "B"):
            with self.assertRaises(WireError, msg=text) as caught:
                Signature.from_text(text)
            self.assertEqual(str(caught.exception), "expected 64 bytes as base64url without padding")
