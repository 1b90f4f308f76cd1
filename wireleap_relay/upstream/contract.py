"""A contract's calls (PROTOCOL: *API requests*)."""

from __future__ import annotations

from wireleap_relay.boundaries import BadAnswer
from wireleap_relay.upstream.client import Request, SignedClient, read_answer
from wireleap_relay.upstream.retry import RetryPolicy
from wireleap_relay.wire.contractinfo import ContractInfo
from wireleap_relay.wire.encoding import read_json
from wireleap_relay.wire.endpoint import Endpoint, join
from wireleap_relay.wire.errors import WireError
from wireleap_relay.wire.payout import PayoutBalance, Withdrawal, WithdrawalRequest
from wireleap_relay.wire.sharetoken import Sharetoken
from wireleap_relay.wire.status import Status
from wireleap_relay.wire.structure import converter, structure

_ONCE = RetryPolicy(tries=1)


class HttpContract:
    """The contract at a URL; see :class:`wireleap_relay.boundaries.ContractApi`."""

    def __init__(self, client: SignedClient, endpoint: Endpoint) -> None:
        """Speak through a client."""
        self._client = client
        self._endpoint = endpoint

    async def info(self) -> ContractInfo:
        """Ask what it is.

        :raises UpstreamFailed: where it doesn't say.
        """
        return await self._client.get(self._at("/info"), ContractInfo)

    async def submit(self, token: Sharetoken, idempotency_key: str) -> Status:
        """Hand in a sharetoken, once: whoever hands them in has a schedule of their own.

        :param idempotency_key: 32 hex digits, the same in every attempt of one submission.
        :raises UpstreamFailed: where the contract doesn't take it, or doesn't say.
        """
        request = Request("POST", self._at("/submit"), token.to_fields(), idempotency_key=idempotency_key, policy=_ONCE)
        return read_answer(await self._client.call(request), Status)

    async def balance(self) -> PayoutBalance:
        """Ask what it owes.

        :raises UpstreamFailed: where it doesn't say.
        """
        return await self._client.get(self._at("/payout/balance"), PayoutBalance)

    async def tokens(self) -> object:
        """Ask which tokens await settlement.

        :returns: JSON data of the contract's own form.
        :raises UpstreamFailed: where it doesn't say.
        """
        return await self._get_json("/payout/tokens")

    async def last_withdrawal(self) -> Withdrawal | None:
        """Ask how the last withdrawal stands.

        :returns: None where there was none yet.
        :raises UpstreamFailed: where it doesn't say.
        """
        answer = await self._get_json("/payout/withdrawals")
        if answer is None:
            return None
        try:
            return structure(answer, Withdrawal)
        except WireError as e:
            raise BadAnswer(f"the answer can't be read: {e}") from None

    async def withdraw(self, request: WithdrawalRequest, idempotency_key: str) -> Withdrawal:
        """Ask for money.

        :param idempotency_key: 32 hex digits, the same whenever this request is made again.
        :raises UpstreamFailed: where the contract doesn't pay, or doesn't say.
        """
        data = converter.unstructure(request)
        posted = Request("POST", self._at("/payout/withdrawals"), data, idempotency_key=idempotency_key)
        return read_answer(await self._client.call(posted), Withdrawal)

    async def _get_json(self, path: str) -> object:
        reply = await self._client.call(Request("GET", self._at(path)))
        try:
            data: object = read_json(reply.body)
        except WireError as e:
            raise BadAnswer(f"the answer can't be read: {e}", reply.code) from None
        return data

    def _at(self, path: str) -> str:
        return join(self._endpoint, path)
