"""How the sharetokens stand: what the store's service, the commands and the admin area show. Times are Unix seconds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal, get_args

import attrs

from wireleap_relay.tokens import schedule
from wireleap_relay.wire.keys import PublicKey
from wireleap_relay.wire.units import format_duration

#: ``held`` until its window opens, ``submitting`` from the first attempt on, then one of the last three.
State = Literal["held", "submitting", "submitted", "refused", "expired"]

STATES: tuple[State, ...] = get_args(State)


@attrs.frozen
class TokenCounts:
    """How many tokens of a contract are in each state; ``submitted`` has those that were forgotten since."""

    held: int = 0
    submitting: int = 0
    submitted: int = 0
    refused: int = 0
    expired: int = 0

    @property
    def owed(self) -> int:
        """Those that the contract has not decided over."""
        return self.held + self.submitting

    @property
    def total(self) -> int:
        """All of them."""
        return self.held + self.submitting + self.submitted + self.refused + self.expired


@attrs.frozen
class Window:
    """When tokens may be handed in."""

    opens: int
    closes: int


@attrs.frozen
class ContractTokens:
    """The tokens of one contract.

    :ivar url: empty where it is not known.
    :ivar received: tokens that were ever taken, counted as they came in.
    :ivar oldest: by state, since when the token is in it that is so for longest.
    :ivar closing: the window that closes first, of those whose tokens are owed; None where none are.
    :ivar last_closing: when the last of those windows closes.
    :ivar trouble: why the last attempt to hand one in has failed; empty where it has not.
    """

    contract: PublicKey
    url: str = ""
    received: int = 0
    counts: TokenCounts = TokenCounts()
    oldest: Mapping[State, float] = attrs.field(factory=dict)
    closing: Window | None = None
    last_closing: int | None = None
    trouble: str = ""

    @property
    def name(self) -> str:
        """What people know it by."""
        return self.url or str(self.contract)

    def is_urgent(self, now: float) -> bool:
        """Tell whether tokens are owed whose window is within a tenth of closing."""
        return self.closing is not None and schedule.is_urgent(now, self.closing.opens, self.closing.closes)


@attrs.frozen
class TokensStatus:
    """The ledger.

    :ivar trouble: why tokens can't be kept right now, so that new tunnels are refused; empty when they can.
    :ivar contracts: those of which there ever was a token.
    :ivar alarms: what an operator should look at, a sentence each; ``trouble`` is one of them.
    """

    trouble: str = ""
    contracts: tuple[ContractTokens, ...] = ()
    alarms: tuple[str, ...] = ()

    @property
    def counts(self) -> dict[PublicKey, TokenCounts]:
        """How many tokens of each contract are in each state."""
        return {each.contract: each.counts for each in self.contracts}


def alarms(now: float, trouble: str, contracts: Iterable[ContractTokens]) -> tuple[str, ...]:
    """Say what an operator should look at."""
    found = [f"sharetokens can't be kept, so new tunnels are refused: {trouble}"] if trouble else []
    for each in contracts:
        if each.closing is not None and each.is_urgent(now):
            left = format_duration(max(round(each.closing.closes - now), 0))
            why = each.trouble or "they are being handed in"
            found.append(f"{each.counts.owed} sharetokens are owed by {each.name}, and in {left} it closes: {why}")
    return tuple(found)
