"""The sandbox contract's books: servicekeys sold, sharetokens handed in, money owed (PROTOCOL: *Sharetoken*, *API requests*)."""

from __future__ import annotations

from fractions import Fraction

import attrs

from wireleap_relay.sandbox.answers import BAD_REQUEST, CONFLICT, FORBIDDEN, Problem
from wireleap_relay.wire.keys import PublicKey, Signature
from wireleap_relay.wire.payout import PayoutBalance, Withdrawal, WithdrawalRequest
from wireleap_relay.wire.sharetoken import ContractStatement, Sharetoken


@attrs.frozen
class Terms:
    """What a contract asks and pays.

    :ivar value: of a servicekey, in ``currency``.
    :ivar fee_percent: of it that the contract keeps.
    :ivar duration: seconds for which a servicekey pays.
    :ivar submission_window: seconds after that, for which its sharetokens are taken.
    :ivar check_period: seconds until a withdrawal is complete.
    """

    currency: str = "usd"
    value: Fraction = Fraction(100)
    fee_percent: Fraction = Fraction(5)
    duration: float = 24 * 3600.0
    submission_window: float = 3600.0
    payout_type: str = "dummy"
    check_period: float = 1.0
    min_withdrawal: int = 1
    max_withdrawal: int = 100_000


@attrs.frozen
class Account:
    """How one relay stands.

    :ivar awaiting: sharetokens handed in whose servicekey is not settled yet.
    :ivar settled: sharetokens that were paid.
    :ivar earned: by them, before withdrawals.
    :ivar balance: what is left.
    """

    awaiting: int = 0
    settled: int = 0
    earned: Fraction = Fraction(0)
    balance: Fraction = Fraction(0)


@attrs.frozen
class LedgerStatus:
    """The books.

    :ivar servicekeys: sold so far.
    :ivar settled: of them.
    :ivar kept: by the contract: fees, and servicekeys that nobody claimed a share of.
    """

    servicekeys: int
    settled: int
    kept: Fraction
    accounts: dict[PublicKey, Account]


@attrs.define
class _Servicekey:
    statement: ContractStatement
    shares: list[PublicKey] = attrs.field(factory=list)
    settled: bool = False


class Ledger:
    """Keeps the books in memory; whoever asks brings the time, in Unix seconds."""

    def __init__(self, terms: Terms) -> None:
        """Open the books."""
        self._terms = terms
        self._servicekeys: dict[PublicKey, _Servicekey] = {}
        self._seen: set[Signature] = set()
        self._accounts: dict[PublicKey, Account] = {}
        self._withdrawals: dict[PublicKey, Withdrawal] = {}
        self._kept = Fraction(0)

    def activate(self, servicekey: PublicKey, statement: ContractStatement) -> None:
        """Sell a servicekey.

        :raises Problem: where it was sold before.
        """
        if servicekey in self._servicekeys:
            raise Problem(CONFLICT, "this servicekey has been activated already")
        self._servicekeys[servicekey] = _Servicekey(statement)

    def submit(self, token: Sharetoken, now: float) -> None:
        """Take a sharetoken whose signatures verify.

        :raises Problem: where its servicekey was not sold here, where it is
            too early or too late, and where it was handed in before.
        """
        sold = self._servicekeys.get(token.public_key)
        if sold is None or sold.statement != token.contract:
            raise Problem(BAD_REQUEST, "this servicekey has not been activated for this period")
        if now < token.contract.settlement_open:
            raise Problem(BAD_REQUEST, "settlement window not yet open")
        if now >= token.contract.settlement_close:
            raise Problem(BAD_REQUEST, "settlement window already closed")
        if token.signature in self._seen:
            raise Problem(CONFLICT, "this sharetoken has been submitted already")
        self._seen.add(token.signature)
        sold.shares.append(token.relay_pubkey)
        self._change(token.relay_pubkey, awaiting=1)

    def balance(self, relay: PublicKey, now: float) -> PayoutBalance:
        """Tell what a relay is owed."""
        self._advance(now)
        withdrawal = self._withdrawals.get(relay)
        pending = -withdrawal.amount if withdrawal and withdrawal.state == "pending" else 0
        balance = self._accounts.get(relay, Account()).balance
        return PayoutBalance(self._terms.currency, balance.numerator // balance.denominator, pending)

    def awaiting(self, relay: PublicKey, now: float) -> int:
        """Tell how many of a relay's sharetokens await settlement."""
        self._advance(now)
        return self._accounts.get(relay, Account()).awaiting

    def last_withdrawal(self, relay: PublicKey, now: float) -> Withdrawal | None:
        """Tell how a relay's last withdrawal stands."""
        self._advance(now)
        return self._withdrawals.get(relay)

    def withdraw(self, relay: PublicKey, request: WithdrawalRequest, now: float) -> Withdrawal:
        """Begin to pay a relay.

        :raises Problem: where the request isn't one, where one is under way, and
            where the money isn't there.
        """
        self._advance(now)
        if request.amount <= 0:
            raise Problem(BAD_REQUEST, "withdrawal amount is invalid (<= 0)")
        if not self._terms.min_withdrawal <= request.amount <= self._terms.max_withdrawal:
            raise Problem(BAD_REQUEST, "withdrawal amount is out of range")
        if not request.type or not request.destination:
            raise Problem(BAD_REQUEST, "withdrawal request type or destination is missing")
        last = self._withdrawals.get(relay)
        if last is not None and last.state == "pending":
            raise Problem(CONFLICT, "a withdrawal is already pending")
        if self._accounts.get(relay, Account()).balance < request.amount:
            raise Problem(FORBIDDEN, "insufficient balance to complete request")
        number = str(int(last.id) + 1 if last else 1)
        begun = Withdrawal(number, "pending", int(now), request.amount, request.type, request.destination)
        self._withdrawals[relay] = begun
        return begun

    def status(self, now: float) -> LedgerStatus:
        """Show the books."""
        self._advance(now)
        settled = sum(sold.settled for sold in self._servicekeys.values())
        return LedgerStatus(len(self._servicekeys), settled, self._kept, dict(self._accounts))

    def _advance(self, now: float) -> None:
        """Do what has become due."""
        for sold in self._servicekeys.values():
            if not sold.settled and sold.statement.settlement_close <= now:
                self._settle(sold)
        for relay, withdrawal in self._withdrawals.items():
            due = withdrawal.state_changed + self._terms.check_period
            if withdrawal.state == "pending" and due <= now:
                self._withdrawals[relay] = attrs.evolve(withdrawal, state="complete", state_changed=int(now))
                self._change(relay, balance=Fraction(-withdrawal.amount))

    def _settle(self, sold: _Servicekey) -> None:
        """Split a servicekey's value, less the fee, evenly among its sharetokens."""
        sold.settled = True
        if not sold.shares:
            self._kept += self._terms.value
            return
        fee = self._terms.value * self._terms.fee_percent / 100
        share = (self._terms.value - fee) / len(sold.shares)
        self._kept += fee
        for relay in sold.shares:
            self._change(relay, awaiting=-1, settled=1, earned=share, balance=share)

    def _change(
        self,
        relay: PublicKey,
        *,
        awaiting: int = 0,
        settled: int = 0,
        earned: Fraction = Fraction(0),
        balance: Fraction = Fraction(0),
    ) -> None:
        old = self._accounts.get(relay, Account())
        self._accounts[relay] = Account(
            old.awaiting + awaiting, old.settled + settled, old.earned + earned, old.balance + balance
        )
