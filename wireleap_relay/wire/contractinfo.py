"""What a contract says of itself (PROTOCOL: *API requests*, ``GET /info`` of a contract)."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import attrs

from wireleap_relay.wire.apifields import Seconds, write_without_defaults
from wireleap_relay.wire.endpoint import Endpoint
from wireleap_relay.wire.keys import PublicKey
from wireleap_relay.wire.structure import read
from wireleap_relay.wire.versions import Version


@attrs.frozen
class Funding:
    """A kind of proof of funding that a contract takes.

    :ivar pubkey: of whoever issues it.
    """

    type: str
    pubkey: PublicKey
    endpoint: str | None = None


@attrs.frozen
class ServicekeyTerms:
    """What a servicekey is.

    :ivar value: of one servicekey, in ``currency``.
    :ivar duration: seconds for which a servicekey pays.
    """

    currency: str = ""
    value: Fraction | None = None
    duration: Seconds | None = None


@attrs.frozen
class SettlementTerms:
    """How a servicekey's value reaches the relays.

    :ivar fee_percent: what the contract keeps.
    :ivar submission_window: seconds for which relays may submit sharetokens.
    """

    fee_percent: Fraction | None = None
    submission_window: Seconds | None = None


@attrs.frozen
class PayoutTerms:
    """How relays get their money.

    :ivar type: of payout; goes into every withdrawal. Empty where the contract has none.
    :ivar check_period: seconds between the contract's looks at a withdrawal under way.
    """

    endpoint: str | None = None
    type: str = ""
    check_period: Seconds | None = None
    min_withdrawal: int | None = None
    max_withdrawal: int | None = None
    info: str | None = None


@attrs.frozen
class DirectoryPointer:
    """A contract's word about its directory."""

    endpoint: Endpoint
    public_key: PublicKey


@attrs.frozen
class ContractInfo:
    """A contract's ``/info``; only what a relay can't do without has to be there.

    :ivar pubkey: what the contract is known by.
    :ivar metadata: texts for people: operator, name, terms.
    """

    pubkey: PublicKey
    directory: DirectoryPointer
    version: Version | None = None
    endpoint: Endpoint | None = None
    proof_of_funding: tuple[Funding, ...] = ()
    servicekey: ServicekeyTerms = ServicekeyTerms()
    settlement: SettlementTerms = SettlementTerms()
    payout: PayoutTerms = PayoutTerms()
    metadata: dict[str, Any] = attrs.field(factory=dict)

    @classmethod
    def from_json(cls, text: str | bytes) -> ContractInfo:
        """Read an answer.

        :raises WireError: naming each field that is missing or mistyped.
        """
        return read(text, cls)


write_without_defaults(Funding, ServicekeyTerms, SettlementTerms, PayoutTerms, ContractInfo)
