"""Hands sharetokens to the contracts that owe for them (PROTOCOL: *Sharetoken*)."""

from __future__ import annotations

from collections.abc import Callable

from wireleap_relay.boundaries import ApiError, BadAnswer, Outcome, SubmissionFailed, Upstream, UpstreamFailed
from wireleap_relay.contracts.book import Book
from wireleap_relay.wire.endpoint import parse_endpoint
from wireleap_relay.wire.keys import PublicKey
from wireleap_relay.wire.sharetoken import Sharetoken
from wireleap_relay.wire.status import Status

_CLOSED = "settlement window already closed"
_NOT_OPEN = "settlement window not yet open"

#: Codes by which a contract decides over a token, once and for all.
_VERDICTS = frozenset({400, 409, 410, 422})


class ContractSubmitter:
    """Finds a token's contract; see :class:`wireleap_relay.boundaries.Submitter`."""

    def __init__(self, book: Book, upstream: Upstream, remembered: Callable[[PublicKey], str | None]) -> None:
        """Submit to the contracts in a book, and to those that were known before.

        :param remembered: gives the URL that a contract had.
        """
        self._book = book
        self._upstream = upstream
        self._remembered = remembered

    async def submit(self, token: Sharetoken, idempotency_key: str) -> Outcome:
        """POST a token to its contract.

        :param idempotency_key: 32 hex digits.
        :raises SubmissionFailed: where it has to be tried again.
        """
        key = token.contract.public_key
        contract = self._book.known(key)
        url = contract.url if contract is not None else self._remembered(key)
        if url is None:
            raise SubmissionFailed(
                "nobody knows where the contract is: it has not answered yet, or was never configured"
            )
        api = self._upstream.contract(parse_endpoint(url))
        try:
            await api.submit(token, idempotency_key)
        except ApiError as e:
            outcome = _outcome(e.code, e.status)
            if outcome is None:
                raise SubmissionFailed(str(e), answered=True) from e
            return outcome
        except UpstreamFailed as e:
            raise SubmissionFailed(str(e), answered=isinstance(e, BadAnswer) and e.code is not None) from e
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
