"""Requests signed with the relay's key (PROTOCOL: *API requests*)."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any, TypeVar

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent

from wireleap_relay.boundaries import ApiError, BadAnswer, Incompatible, Unreachable, UpstreamFailed
from wireleap_relay.upstream.agent import Reply, exchange
from wireleap_relay.upstream.retry import RetryPolicy
from wireleap_relay.wire.encoding import write_json
from wireleap_relay.wire.errors import WireError
from wireleap_relay.wire.keys import SigningKey
from wireleap_relay.wire.status import Status
from wireleap_relay.wire.structure import read
from wireleap_relay.wire.versions import RELAY_CONTRACT, RELAY_DIR, Version

T = TypeVar("T")

DIR_VERSION = "Wireleap-Relay-Dir-Version"
CONTRACT_VERSION = "Wireleap-Relay-Contract-Version"
_INTERFACES = {DIR_VERSION: RELAY_DIR, CONTRACT_VERSION: RELAY_CONTRACT}

#: Bytes of an answer that are read, where the caller doesn't say.
_ANSWER_LIMIT = 1024 * 1024


@attrs.frozen
class Request:
    """What to ask.

    :ivar data: JSON data; None goes as ``null``.
    :ivar headers: besides those that every request has.
    :ivar without: headers that this request leaves out.
    :ivar idempotency_key: of a POST; None for a new one.
    :ivar answer_limit: bytes of the answer's body that are read.
    :ivar patience: seconds beyond the client's timeout.
    :ivar policy: which failures are worth another try; None for the client's own.
    """

    method: str
    url: str
    data: object = None
    headers: Mapping[str, str] = attrs.field(factory=dict)
    without: frozenset[str] = frozenset()
    idempotency_key: str | None = None
    answer_limit: int = _ANSWER_LIMIT
    patience: float = 0.0
    policy: RetryPolicy | None = None


def read_answer(reply: Reply, kind: type[T]) -> T:
    """Read an answer's body.

    :raises BadAnswer: where it isn't such a value.
    """
    try:
        return read(reply.body, kind)
    except WireError as e:
        raise BadAnswer(f"the answer can't be read: {e}", reply.code) from None


class SignedClient:
    """Makes requests in a relay's name, and makes them again where that may help."""

    _log = Logger()

    def __init__(
        self,
        agent: IAgent,
        clock: Any,
        key: SigningKey,
        *,
        timeout: float = 15.0,
        policy: RetryPolicy | None = None,
    ) -> None:
        """Speak through an agent that follows no redirects.

        :param clock: an IReactorTime.
        :param timeout: seconds for a request and all of its answer.
        """
        self._agent = agent
        self._clock = clock
        self._key = key
        self._timeout = timeout
        self._policy = policy or RetryPolicy()

    async def call(self, request: Request) -> Reply:
        """Ask until there is an answer, or no point in asking again.

        :returns: an answer with a code of 200 to 299.
        :raises UpstreamFailed: where there is no other.
        """
        body = write_json(request.data).encode()
        headers = self._headers(request, body)
        tried = 0
        while True:
            try:
                return await self._once(request, headers, body)
            except UpstreamFailed as e:
                tried += 1
                delay = (request.policy or self._policy).delay(tried, e)
                if delay is None:
                    raise
                self._log.info(
                    "{method} {url}: {why}; trying again in {delay} s",
                    method=request.method,
                    url=request.url,
                    why=str(e),
                    delay=delay,
                )
            await deferLater(self._clock, delay)

    async def get(self, url: str, kind: type[T]) -> T:
        """GET something.

        :raises UpstreamFailed: where it isn't to be had.
        """
        return read_answer(await self.call(Request("GET", url)), kind)

    def _headers(self, request: Request, body: bytes) -> Headers:
        headers = Headers()
        named = {
            "Content-Type": "application/json",
            "Accept-Encoding": "identity",
            "User-Agent": "wireleap-relay",
            **{name: str(version) for name, version in _INTERFACES.items()},
            "Wireleap-Relay-Pubkey": str(self._key.public_key),
            "Wireleap-Relay-Signature": str(self._key.sign(body)),
            **request.headers,
        }
        if request.method == "POST":
            named["Idempotency-Key"] = request.idempotency_key or secrets.token_hex(16)
        for name, value in named.items():
            if name not in request.without:
                headers.setRawHeaders(name, [value])
        return headers

    async def _once(self, request: Request, headers: Headers, body: bytes) -> Reply:
        timeout = self._timeout + request.patience
        asking = exchange(self._agent, request.method, request.url, headers.copy(), body, request.answer_limit)
        reply = await Deferred.fromCoroutine(asking).addTimeout(timeout, self._clock, _too_late)
        _check_versions(reply)
        if 200 <= reply.code < 300:
            return reply
        raise _refusal(reply)


def _too_late(_: object, timeout: float) -> Reply:
    raise Unreachable(f"no answer within {timeout:g} s")


def _check_versions(reply: Reply) -> None:
    for name, ours in _INTERFACES.items():
        text = reply.header(name)
        if not text:
            continue
        try:
            compatible = ours.compatible_with(Version.from_text(text))
        except WireError:
            compatible = False
        if not compatible:
            raise Incompatible(f"{name} is {text!r:.40}, and this relay speaks {ours}", reply.code)


def _refusal(reply: Reply) -> UpstreamFailed:
    if 300 <= reply.code < 400:
        return BadAnswer(f"answered {reply.code}: redirects are not followed", reply.code)
    try:
        status = Status.from_json(reply.body)
    except WireError:
        return BadAnswer(f"answered {reply.code} without a status object", reply.code)
    return ApiError(reply.code, status)
