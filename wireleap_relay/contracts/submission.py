"""Hands sharetokens to the contracts that owe for them (PROTOCOL: *Sharetoken*)."""

from __future__ import annotations

import secrets

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
        self._spent: dict[str, str] = {}

    async def submit(self, token: Sharetoken, idempotency_key: str) -> Outcome:
        """POST a token to its contract.

        :param idempotency_key: 32 hex digits, the same in every attempt. After
            an answer that decides nothing another one is sent in its place: a
            contract would give the same answer again.
        :raises SubmissionFailed: where it has to be tried again.
        """
        contract = self._book.known(token.contract.public_key)
        if contract is None:
            raise SubmissionFailed("this contract has not answered yet, or is not configured")
        api = self._upstream.contract(parse_endpoint(contract.url))
        try:
            await api.submit(token, self._spent.get(idempotency_key, idempotency_key))
        except ApiError as e:
            outcome = _outcome(e.code, e.status)
            if outcome is None:
                self._spent[idempotency_key] = secrets.token_hex(16)
                raise SubmissionFailed(str(e)) from e
        except UpstreamFailed as e:
            raise SubmissionFailed(str(e)) from e
        else:
            outcome = Outcome("submitted")
        self._spent.pop(idempotency_key, None)
        return outcome


def _outcome(code: int, status: Status) -> Outcome | None:
    """Read a refusal; None where it decides nothing."""
    if code not in _VERDICTS or status.cause == _NOT_OPEN:
        return None
    reason = status.cause or status.description
    if code == 409:
        # It has the token: an earlier attempt's answer got lost.
        return Outcome("submitted", reason)
    return Outcome("expired" if status.cause == _CLOSED else "refused", reason)
