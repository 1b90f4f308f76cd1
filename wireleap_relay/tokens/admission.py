"""Which requests are served: the checks of a sharetoken (PROTOCOL: *Sharetoken*)."""

from __future__ import annotations

from collections import OrderedDict

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from wireleap_relay.boundaries import ContractBook, Grant, Refused, TokenStore, UsageSink, WallClock
from wireleap_relay.wire.keys import PublicKey
from wireleap_relay.wire.payload import Connect
from wireleap_relay.wire.sharetoken import ContractStatement, Sharetoken

#: Verified statements remembered; a client's whole period has one of them.
_STATEMENTS = 10_000


class SharetokenAdmission:
    """Admits a tunnel for a sharetoken that is owed to this relay."""

    def __init__(
        self, relay: PublicKey, contracts: ContractBook, store: TokenStore, usage: UsageSink, clock: WallClock
    ) -> None:
        """Admit for one relay."""
        self._relay = relay
        self._contracts = contracts
        self._store = store
        self._usage = usage
        self._clock = clock
        self._verified: OrderedDict[ContractStatement, None] = OrderedDict()

    def check(self, connect: Connect) -> Grant:
        """Look at a request and its token.

        :raises Refused: with 400 and the reason.
        """
        token = connect.token
        if token.relay_pubkey != self._relay:
            raise Refused(400, "the sharetoken is for another relay", "token")
        contract = self._contracts.accepting(token.contract.public_key)
        if token.contract.settlement_open <= self._clock():
            raise Refused(400, "the sharetoken has expired", "token")
        if not self._statement_holds(token.contract):
            raise Refused(400, "the sharetoken's contract signature does not verify", "token")
        if not token.verify():
            raise Refused(400, "the sharetoken's signature does not verify", "token")
        return Grant(contract.id, self._usage.meter(contract.id), contract.role)

    def deposit(self, token: Sharetoken) -> Deferred[None]:
        """Keep a token that was checked.

        :returns: fires when it is on disk; fails with :exc:`Refused`: 400 for
            a token seen before, 500 where it can't be kept.
        """
        return self._store.deposit(token).addCallbacks(self._deposited, self._not_kept)

    def _deposited(self, new: bool) -> None:
        if not new:
            raise Refused(400, "the sharetoken was used before", "duplicate")

    def _not_kept(self, failure: Failure) -> None:
        if failure.check(CancelledError):
            failure.raiseException()  # nobody waits for it any more
        # The store itself tells the operator why.
        raise Refused(500, "the relay can't keep sharetokens at the moment", "store")

    def _statement_holds(self, statement: ContractStatement) -> bool:
        """Verify a contract's statement, or remember that it was."""
        if statement in self._verified:
            self._verified.move_to_end(statement)
            return True
        if not statement.verify():
            return False
        self._verified[statement] = None
        if len(self._verified) > _STATEMENTS:
            self._verified.popitem(last=False)
        return True
