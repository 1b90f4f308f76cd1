"""Hands sharetokens to the contracts that owe for them (PROTOCOL: *Sharetoken*)."""

from __future__ import annotations

from wireleap_relay.boundaries import ApiError, Outcome, SubmissionFailed, Upstream, UpstreamFailed
from wireleap_relay.contracts.book import Book
from wireleap_relay.wire.endpoint import parse_endpoint
from wireleap_relay.wire.sharetoken import Sharetoken
from wireleap_relay.wire.status import Status

_CLOSED = "settlement window already closed"
_NOT_OPEN = "settlement window not yet open"

#: Codes by which a contract decides over a token, once and for all.
_VERDICTS = frozenset({400, 409, 410, 422})


class ContractSubmitter:
    """Finds a token's contract; see :class:`wireleap_relay.boundaries.Submitter`."""

    def __init__(self, book: Book, upstream: Upstream) -> None:
        """Submit to the contracts in a book."""
        self._book = book
        self._upstream = upstream

    async def submit(self, token: Sharetoken, idempotency_key: str) -> Outcome:
        """POST a token to its contract.

        :param idempotency_key: 32 hex digits.
        :raises SubmissionFailed: where it has to be tried again.
        """
        contract = self._book.known(token.contract.public_key)
        if contract is None:
            raise SubmissionFailed("this contract has not answered yet, or is not configured")
        api = self._upstream.contract(parse_endpoint(contract.url))
        try:
            await api.submit(token, idempotency_key)
        except ApiError as e:
            outcome = _outcome(e.code, e.status)
            if outcome is None:
                raise SubmissionFailed(str(e), answered=True) from e
            return outcome
        except UpstreamFailed as e:
            raise SubmissionFailed(str(e)) from e
        return Outcome("submitted")


def _outcome(code: int, status: Status) -> Outcome | None:
    """Read a refusal; None where it decides nothing."""
    if code not in _VERDICTS or status.cause == _NOT_OPEN:
        return None
    reason = status.cause or status.description
    if code == 409:
        # It has the token: an earlier attempt's answer got lost.
        return Outcome("submitted", reason)
    return Outcome("expired" if status.cause == _CLOSED else "refused", reason)
