"""Sharetokens: what a client pays a relay with (PROTOCOL: *Sharetoken*)."""

from __future__ import annotations

import re
import secrets
from functools import lru_cache
from typing import Any, NewType

import attrs

from wireleap_relay.wire.encoding import write_json
from wireleap_relay.wire.errors import WireError
from wireleap_relay.wire.keys import PublicKey, Signature, SigningKey
from wireleap_relay.wire.structure import converter, read, whole_number

_NONCE = re.compile(r"[0-9a-fA-F]{32}", re.ASCII)
Nonce = NewType("Nonce", str)
#: Contracts' statements remembered: one for each client's period.
_STATEMENTS = 2000


def _structure_nonce(value: Any, _: Any) -> Nonce:
    if type(value) is not str or not _NONCE.fullmatch(value):
        raise WireError("expected 32 hex digits")
    return Nonce(value)


converter.register_structure_hook(Nonce, _structure_nonce)


@attrs.frozen
class ContractStatement:
    """A contract's signed word about one servicekey's period.

    :ivar settlement_open: Unix seconds from which tokens may be submitted.
    :ivar settlement_close: Unix seconds after which they are worth nothing.
    :ivar public_key: the contract's.
    """

    settlement_open: int
    settlement_close: int
    public_key: PublicKey
    signature: Signature

    @classmethod
    def sign(cls, contract: SigningKey, settlement_open: int, settlement_close: int) -> ContractStatement:
        """Make a statement as the contract would."""
        text = f"{contract.public_key}:{settlement_open}:{settlement_close}"
        return cls(settlement_open, settlement_close, contract.public_key, contract.sign(text.encode()))

    @classmethod
    def from_fields(cls, fields: dict[str, Any]) -> ContractStatement:
        """Make a statement of JSON data; a client sends the same one with each of its tokens.

        :raises KeyError: where a field is missing.
        :raises TypeError: where one is mistyped.
        :raises WireError: where one is not what it should be.
        """
        return _known_statement(
            whole_number(fields["settlement_open"]),
            whole_number(fields["settlement_close"]),
            fields["public_key"],
            fields["signature"],
        )

    @property
    def digest(self) -> str:
        """The text that the contract's signature covers."""
        return f"{self.public_key}:{self.settlement_open}:{self.settlement_close}"

    def verify(self) -> bool:
        """Tell whether the contract signed this."""
        return self.public_key.verify(self.signature, self.digest.encode())


@lru_cache(maxsize=_STATEMENTS)
def _known_statement(settlement_open: int, settlement_close: int, public_key: str, signature: str) -> ContractStatement:
    return ContractStatement(
        settlement_open, settlement_close, PublicKey.from_text(public_key), Signature.from_text(signature)
    )


@attrs.frozen
class Sharetoken:
    """A client's signed promise of a share to one relay, for one tunnel.

    :ivar public_key: the client's servicekey.
    :ivar timestamp: Unix seconds of its making.
    :ivar relay_pubkey: the relay it is for.
    :ivar signature: by the servicekey; it is what makes a token *this* token.
    """

    version: int
    public_key: PublicKey
    timestamp: int
    relay_pubkey: PublicKey
    signature: Signature
    nonce: Nonce
    contract: ContractStatement
    share_key: str = ""

    @classmethod
    def from_json(cls, text: str | bytes) -> Sharetoken:
        """Read a token; its signatures are not looked at.

        :raises WireError: naming each field that is missing or mistyped.
        """
        return read(text, cls)

    @classmethod
    def from_fields(cls, fields: dict[str, Any]) -> Sharetoken:
        """Make a token of JSON data, at a third of the cost of :meth:`from_json`, which names what is wrong.

        :raises KeyError: where a field is missing.
        :raises TypeError: where one is mistyped.
        :raises WireError: where one is not what it should be.
        """
        if type(fields) is not dict:
            raise TypeError
        share_key = fields.get("share_key", "")
        if type(share_key) is not str:
            raise TypeError
        return cls(
            whole_number(fields["version"]),
            PublicKey.from_text(fields["public_key"]),
            whole_number(fields["timestamp"]),
            PublicKey.from_text(fields["relay_pubkey"]),
            Signature.from_text(fields["signature"]),
            _structure_nonce(fields["nonce"], Nonce),
            ContractStatement.from_fields(fields["contract"]),
            share_key,
        )

    @classmethod
    def sign(
        cls, servicekey: SigningKey, contract: ContractStatement, relay_pubkey: PublicKey, timestamp: int
    ) -> Sharetoken:
        """Make a token as a client would, with a fresh nonce."""
        nobody = Signature(bytes(64))
        token = cls(0, servicekey.public_key, timestamp, relay_pubkey, nobody, Nonce(secrets.token_hex(16)), contract)
        return attrs.evolve(token, signature=servicekey.sign(token.digest.encode()))

    @property
    def digest(self) -> str:
        """The text that the client's signature covers."""
        contract = self.contract
        return (
            f"{self.version}:{self.public_key}:{self.timestamp}:{self.relay_pubkey}:{self.share_key}:{self.nonce}"
            f":{contract.public_key}:{contract.signature}:{contract.settlement_open}:{contract.settlement_close}"
        )

    def verify(self) -> bool:
        """Tell whether the servicekey signed this token; the contract's statement is verified by itself."""
        return self.public_key.verify(self.signature, self.digest.encode())

    def to_fields(self) -> dict[str, Any]:
        """The token as JSON data, its fields in the order the network writes them."""
        contract = self.contract
        return {
            "version": self.version,
            "public_key": str(self.public_key),
            "timestamp": self.timestamp,
            "relay_pubkey": str(self.relay_pubkey),
            "share_key": self.share_key,
            "signature": str(self.signature),
            "nonce": self.nonce,
            "contract": {
                "settlement_open": contract.settlement_open,
                "settlement_close": contract.settlement_close,
                "public_key": str(contract.public_key),
                "signature": str(contract.signature),
            },
        }

    def to_json(self) -> str:
        """The token as it travels: one line of JSON."""
        return write_json(self.to_fields())


converter.register_unstructure_hook(Sharetoken, Sharetoken.to_fields)
