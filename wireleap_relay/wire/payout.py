"""A relay's money at a contract (PROTOCOL: *API requests*, ``/payout``)."""

from __future__ import annotations

from typing import Any, Literal

import attrs

from wireleap_relay.wire.apifields import write_without_defaults


@attrs.frozen
class PayoutBalance:
    """What a contract owes to a relay.

    :ivar available: whole units of ``currency``.
    :ivar pending: what a withdrawal under way is going to change.
    """

    currency: str
    available: int
    pending: int = 0


@attrs.frozen
class WithdrawalRequest:
    """A relay asks for its money.

    :ivar amount: whole units of the contract's currency.
    :ivar type: the contract's own ``payout.type``.
    """

    amount: int
    type: str
    destination: str


@attrs.frozen
class Withdrawal:
    """A withdrawal as the contract knows it.

    :ivar state_changed: Unix seconds.
    :ivar receipt: any JSON; the payment system's own.
    """

    id: str
    state: Literal["pending", "complete", "failed"]
    state_changed: int
    amount: int
    type: str
    destination: str
    receipt: Any = None


write_without_defaults(PayoutBalance, Withdrawal)
