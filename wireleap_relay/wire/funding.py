"""How a client comes to a servicekey: proofs of funding and access keys (PROTOCOL: *API requests*, ``/servicekey/activate``)."""

from __future__ import annotations

import secrets

import attrs

from wireleap_relay.wire.endpoint import Endpoint
from wireleap_relay.wire.keys import PublicKey, Signature, SigningKey
from wireleap_relay.wire.structure import read
from wireleap_relay.wire.versions import Version

#: Of the access key's format.
ACCESS_KEY = Version(0, 1, 0)


@attrs.frozen
class ProofOfFunding:
    """An issuer's word that a servicekey has been paid for.

    :ivar expiration: Unix seconds.
    :ivar nonce: what makes it *this* proof.
    """

    type: str
    expiration: int
    nonce: str
    signature: Signature

    @classmethod
    def sign(cls, issuer: SigningKey, kind: str, expiration: int) -> ProofOfFunding:
        """Make a proof as an issuer would, with a fresh nonce."""
        nonce = secrets.token_hex(9)
        return cls(kind, expiration, nonce, issuer.sign(f"{kind}:{expiration}:{nonce}".encode()))

    @property
    def digest(self) -> str:
        """The text that the issuer's signature covers."""
        return f"{self.type}:{self.expiration}:{self.nonce}"

    def verify(self, issuer: PublicKey) -> bool:
        """Tell whether the issuer signed this."""
        return issuer.verify(self.signature, self.digest.encode())


@attrs.frozen
class Activation:
    """A client asks a contract to vouch for its servicekey.

    :ivar pubkey: the servicekey's.
    """

    pubkey: PublicKey
    pof: ProofOfFunding


@attrs.frozen
class AccessKeyContract:
    """The contract that an access key is for."""

    endpoint: Endpoint
    public_key: PublicKey


@attrs.frozen
class AccessKey:
    """What a user is given: a contract, and proofs of funding to spend there."""

    contract: AccessKeyContract
    pofs: tuple[ProofOfFunding, ...]
    version: Version = ACCESS_KEY

    @classmethod
    def from_json(cls, text: str | bytes) -> AccessKey:
        """Read an access key's file.

        :raises WireError: naming each field that is missing or mistyped.
        """
        return read(text, cls)
