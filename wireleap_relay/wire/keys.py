"""Ed25519 keys and signatures (RFC 8032; PROTOCOL: *Encodings*).

Signatures are verified by libsodium, in half of the time that OpenSSL takes.
"""

from __future__ import annotations

import secrets
from functools import lru_cache

import attrs
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from nacl.bindings import crypto_sign_open
from nacl.exceptions import BadSignatureError

from wireleap_relay.wire.encoding import from_base64url, to_base64url

SEED_SIZE = 32
PUBLIC_KEY_SIZE = 32
SIGNATURE_SIZE = 64
#: Keys whose text is remembered.
_KEYS = 4000


@attrs.frozen(order=True)
class Signature:
    """An Ed25519 signature: 64 bytes."""

    raw: bytes

    @classmethod
    def from_text(cls, text: str) -> Signature:
        """Read base64url.

        :raises WireError: where it isn't 64 bytes of that.
        """
        return cls(from_base64url(text, SIGNATURE_SIZE))

    def __str__(self) -> str:
        return to_base64url(self.raw)


@attrs.frozen(order=True)
class PublicKey:
    """An Ed25519 public key: 32 bytes. Its text is the name a relay or a contract goes by."""

    raw: bytes

    @classmethod
    def from_text(cls, text: str) -> PublicKey:
        """Read base64url.

        :raises WireError: where it isn't 32 bytes of that.
        """
        return cls(_key_bytes(text))

    def __str__(self) -> str:
        return _key_text(self.raw)

    def verify(self, signature: Signature, message: bytes) -> bool:
        """Tell whether this key made the signature over the message."""
        try:
            crypto_sign_open(signature.raw + message, self.raw)
        except (BadSignatureError, ValueError):
            return False
        return True


# The same few keys come with every token: a client's, a contract's, a relay's.
@lru_cache(maxsize=_KEYS)
def _key_bytes(text: str) -> bytes:
    return from_base64url(text, PUBLIC_KEY_SIZE)


@lru_cache(maxsize=_KEYS)
def _key_text(raw: bytes) -> str:
    return to_base64url(raw)


@attrs.frozen
class SigningKey:
    """An Ed25519 private key, known by its seed of 32 bytes. Its repr tells nothing of it."""

    seed: bytes = attrs.field(repr=False)
    public_key: PublicKey = attrs.field(init=False)
    _private: Ed25519PrivateKey = attrs.field(init=False, repr=False, eq=False)

    def __attrs_post_init__(self) -> None:
        private = Ed25519PrivateKey.from_private_bytes(self.seed)
        object.__setattr__(self, "_private", private)
        object.__setattr__(self, "public_key", PublicKey(private.public_key().public_bytes_raw()))

    @classmethod
    def generate(cls) -> SigningKey:
        """Make a new key from the system's randomness."""
        return cls(secrets.token_bytes(SEED_SIZE))

    @classmethod
    def from_text(cls, text: str) -> SigningKey:
        """Read a seed from base64url.

        :raises WireError: where it isn't 32 bytes of that.
        """
        return cls(from_base64url(text, SEED_SIZE))

    @property
    def seed_text(self) -> str:
        """The seed as base64url, for ``key.seed``."""
        return to_base64url(self.seed)

    @property
    def private(self) -> Ed25519PrivateKey:
        """The key as ``cryptography`` knows it, for making certificates."""
        return self._private

    def sign(self, message: bytes) -> Signature:
        """Sign a message."""
        return Signature(self._private.sign(message))
