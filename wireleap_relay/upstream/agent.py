"""One HTTP exchange: a body of bytes goes, and of what comes nothing past a limit."""

from __future__ import annotations

from typing import Any, TypeVar

import attrs
from OpenSSL import SSL
from service_identity import CertificateError, VerificationError
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.error import ConnectError, ConnectionClosed
from twisted.internet.interfaces import IConsumer
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import RequestTransmissionFailed, ResponseDone, ResponseFailed
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer, IResponse
from zope.interface import implementer

from wireleap_relay.boundaries import BadAnswer, Unreachable

T = TypeVar("T")

_BROKEN = (ConnectionClosed, SSL.Error, VerificationError, CertificateError, OSError)
_FAILURES = (ConnectError, RequestTransmissionFailed, ResponseFailed, *_BROKEN)


@attrs.frozen
class Reply:
    """An answer, whole.

    :ivar code: HTTP's.
    """

    code: int
    headers: Headers
    body: bytes

    def header(self, name: str) -> str:
        """Give a header's first value; empty where there is none. What is no UTF-8 in it is replaced."""
        values = self.headers.getRawHeaders(name.encode())
        return values[0].decode("utf-8", "replace") if values else ""


@implementer(IBodyProducer)
class _Body:
    """A request's body, written at once: it is small."""

    def __init__(self, body: bytes) -> None:
        self.length = len(body)
        self._body = body

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        consumer.write(self._body)
        return succeed(None)

    def stopProducing(self) -> None:
        """Do nothing: all is written."""

    pauseProducing = resumeProducing = stopProducing


class _Bounded(Protocol):
    """Collects an answer's body up to a limit, and hangs up past it."""

    def __init__(self, limit: int) -> None:
        self.done: Deferred[bytes] = Deferred(self._cancelled)
        self._limit = limit
        self._chunks: list[bytes] = []
        self._size = 0

    def dataReceived(self, data: bytes) -> None:
        self._size += len(data)
        if self._size <= self._limit:
            self._chunks.append(data)
        elif not self.done.called:
            self.done.errback(BadAnswer(f"the answer is longer than {self._limit} bytes"))
            self._hang_up()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.done.called:
            return
        if reason.check(ResponseDone, PotentialDataLoss):
            self.done.callback(b"".join(self._chunks))
        else:
            self.done.errback(reason)

    def _cancelled(self, _: Deferred[bytes]) -> None:
        self._hang_up()

    def _hang_up(self) -> None:
        # Not loseConnection: over TLS that waits for the other side.
        transport: Any = self.transport
        transport.stopProducing()


async def exchange(agent: IAgent, method: str, url: str, headers: Headers, body: bytes, limit: int) -> Reply:
    """Make one request, and wait for all of its answer.

    :param limit: bytes of the answer's body that are read.
    :raises Unreachable: where the network or TLS fails.
    :raises BadAnswer: where the answer isn't HTTP, or is longer than the limit.
    :raises CancelledError: where the caller gave up.
    """
    try:
        response: IResponse = await _given_up_at_once(
            agent.request(method.encode(), url.encode(), headers, _Body(body))
        )
        collector = _Bounded(limit)
        response.deliverBody(collector)
        return Reply(response.code, response.headers, await collector.done)
    except _FAILURES as e:
        raise _named(e) from e


def _given_up_at_once(asking: Deferred[T]) -> Deferred[T]:
    """Make the end of a request that is given up look like that: Twisted tells what broke when it broke it off."""

    def give_up(_: Deferred[T]) -> None:
        answer.errback(CancelledError())
        asking.cancel()

    answer: Deferred[T] = Deferred(give_up)
    asking.addBoth(lambda result: None if answer.called else answer.callback(result))
    return answer


def _named(failure: Exception) -> Unreachable | BadAnswer:
    """Say what went wrong without the names of Twisted's classes."""
    reasons = [reason.value for reason in getattr(failure, "reasons", ())] or [failure]
    broken = [reason for reason in reasons if isinstance(reason, (ConnectError, *_BROKEN))]
    if not broken:
        return BadAnswer("the answer is not HTTP")
    return Unreachable("; ".join(map(_said, broken)))


def _said(reason: BaseException) -> str:
    match reason:
        case SSL.Error(args=[[(_, _, why), *_]]):
            return f"TLS: {why}"
        case VerificationError() | CertificateError():
            return "TLS: the certificate is not for this host"
        case ConnectionClosed():
            return "the connection was lost before the answer was whole"
        case _:
            return str(reason) or type(reason).__name__
