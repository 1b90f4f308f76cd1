"""A contract that sells servicekeys for nothing and settles them in memory (PROTOCOL: *API requests*)."""

from __future__ import annotations

from wireleap_relay.boundaries import WallClock
from wireleap_relay.sandbox.answers import BAD_REQUEST, FORBIDDEN, OK, Problem
from wireleap_relay.sandbox.ledger import Ledger, LedgerStatus, Terms
from wireleap_relay.sandbox.web import Answer, Call, JsonApi, json_answer, status_answer
from wireleap_relay.wire.apifields import Seconds
from wireleap_relay.wire.contractinfo import (
    ContractInfo,
    DirectoryPointer,
    Funding,
    PayoutTerms,
    ServicekeyTerms,
    SettlementTerms,
)
from wireleap_relay.wire.endpoint import Endpoint, join
from wireleap_relay.wire.funding import AccessKey, AccessKeyContract, Activation, ProofOfFunding
from wireleap_relay.wire.keys import PublicKey, SigningKey
from wireleap_relay.wire.payout import WithdrawalRequest
from wireleap_relay.wire.sharetoken import ContractStatement, Sharetoken
from wireleap_relay.wire.versions import RELAY_CONTRACT, Version

CLIENT_CONTRACT = Version(0, 1, 0)

_FUNDING = "dummy"


class SandboxContract:
    """A contract, and the issuer of the proofs of funding that it takes."""

    def __init__(
        self,
        key: SigningKey,
        endpoint: Endpoint,
        directory: DirectoryPointer,
        clock: WallClock,
        terms: Terms | None = None,
    ) -> None:
        """Serve under a URL, pointing relays at a directory."""
        self._key = key
        self._endpoint = endpoint
        self._directory = directory
        self._clock = clock
        self._terms = terms or Terms()
        self._ledger = Ledger(self._terms)
        self._issuer = SigningKey.generate()
        self._spent: set[str] = set()
        self.resource = JsonApi(
            {
                "/info": {"GET": self._get_info},
                "/servicekey/activate": {"POST": self._post_activate},
                "/submit": {"POST": self._post_submit},
                "/payout/balance": {"GET": self._get_balance},
                "/payout/tokens": {"GET": self._get_tokens},
                "/payout/withdrawals": {"GET": self._get_withdrawal, "POST": self._post_withdrawal},
            },
            {"Relay-Contract": RELAY_CONTRACT, "Client-Contract": CLIENT_CONTRACT},
        )

    @property
    def id(self) -> PublicKey:
        """What it is known by."""
        return self._key.public_key

    @property
    def endpoint(self) -> Endpoint:
        """Where it is."""
        return self._endpoint

    def info(self) -> ContractInfo:
        """What it says of itself."""
        terms = self._terms
        return ContractInfo(
            pubkey=self.id,
            directory=self._directory,
            version=Version(0, 1, 0),
            endpoint=self._endpoint,
            proof_of_funding=(Funding(_FUNDING, self._issuer.public_key, join(self._endpoint, "/funding")),),
            servicekey=ServicekeyTerms(terms.currency, terms.value, Seconds(terms.duration)),
            settlement=SettlementTerms(terms.fee_percent, Seconds(terms.submission_window)),
            payout=PayoutTerms(
                endpoint=join(self._endpoint, "/payout"),
                type=terms.payout_type,
                check_period=Seconds(terms.check_period),
                min_withdrawal=terms.min_withdrawal,
                max_withdrawal=terms.max_withdrawal,
            ),
            metadata={"operator": "sandbox", "name": "sandbox"},
        )

    def issue(self, lifetime: float = 30 * 86400.0) -> ProofOfFunding:
        """Give a proof of funding away.

        :param lifetime: seconds for which it may be spent.
        """
        return ProofOfFunding.sign(self._issuer, _FUNDING, int(self._clock() + lifetime))

    def access_key(self, count: int) -> AccessKey:
        """Give an access key away, worth this many servicekeys."""
        return AccessKey(AccessKeyContract(self._endpoint, self.id), tuple(self.issue() for _ in range(count)))

    def activate(self, servicekey: PublicKey) -> ContractStatement:
        """Vouch for a servicekey, from now on.

        :raises Problem: where it was activated before.
        """
        opens = int(self._clock() + self._terms.duration)
        closes = int(opens + self._terms.submission_window)
        statement = ContractStatement.sign(self._key, opens, closes)
        self._ledger.activate(servicekey, statement)
        return statement

    def status(self) -> LedgerStatus:
        """Show the books."""
        return self._ledger.status(self._clock())

    async def _get_info(self, call: Call) -> Answer:
        return json_answer(self.info())

    async def _post_activate(self, call: Call) -> Answer:
        wanted = call.read(Activation)
        proof = wanted.pof
        if proof.type != _FUNDING:
            raise Problem(BAD_REQUEST, "this type of proof of funding is not taken")
        if proof.expiration <= self._clock():
            raise Problem(BAD_REQUEST, "expired proof of funding")
        if not proof.verify(self._issuer.public_key):
            raise Problem(BAD_REQUEST, "invalid signature")
        if proof.nonce in self._spent:
            raise Problem(BAD_REQUEST, "this pof has been seen/used already")
        statement = self.activate(wanted.pubkey)
        self._spent.add(proof.nonce)
        return json_answer(statement)

    async def _post_submit(self, call: Call) -> Answer:
        relay = call.relay()
        token = call.read(Sharetoken)
        if token.relay_pubkey != relay:
            raise Problem(FORBIDDEN, "this sharetoken is for another relay")
        if token.contract.public_key != self.id:
            raise Problem(BAD_REQUEST, "contract public key mismatch")
        if not token.contract.verify() or not token.verify():
            raise Problem(BAD_REQUEST, "invalid signature")
        self._ledger.submit(token, self._clock())
        return status_answer(OK)

    async def _get_balance(self, call: Call) -> Answer:
        return json_answer(self._ledger.balance(call.relay(), self._clock()))

    async def _get_tokens(self, call: Call) -> Answer:
        return json_answer({"count": self._ledger.awaiting(call.relay(), self._clock())})

    async def _get_withdrawal(self, call: Call) -> Answer:
        return json_answer(self._ledger.last_withdrawal(call.relay(), self._clock()))

    async def _post_withdrawal(self, call: Call) -> Answer:
        relay = call.relay()
        return json_answer(self._ledger.withdraw(relay, call.read(WithdrawalRequest), self._clock()))
