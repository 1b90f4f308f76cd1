"""Twisted's web client, with what it lacks: an end for an answer's head, and for requests that are answered with nonsense."""

from __future__ import annotations

from typing import Any

from twisted.python.failure import Failure
from twisted.web._newclient import BODY, HTTP11ClientProtocol, ParseError, Request
from twisted.web.client import HTTPConnectionPool, _HTTP11ClientFactory

#: Bytes of an answer before its body, and of all answers that are not the last one.
LONGEST_HEAD = 2**17


class _Protocol(HTTP11ClientProtocol):
    _head = 0

    def request(self, request: Request) -> Any:
        """Begin to count anew."""
        self._head = 0
        return super().request(request)

    def dataReceived(self, data: bytes) -> None:
        """Read no head that has no end: Twisted keeps all of it, and 400 MB come in a second."""
        parser: Any = self._parser
        if parser is not None and parser.state != BODY:
            self._head += len(data)
            if self._head > LONGEST_HEAD:
                self._break_off(Failure(ParseError("the head of an answer has no end", b"")))
                return
        super().dataReceived(data)

    def _giveUp(self, reason: Failure) -> None:  # noqa: N802 - Twisted's
        if self.state == "TRANSMITTING":
            self._break_off(reason)
        else:
            super()._giveUp(reason)

    def _break_off(self, reason: Failure) -> None:
        transport: Any = self.transport
        transport.abortConnection()
        # While a request is on its way, this would forget who waits for its answer; the end of the connection tells them.
        if self.state != "TRANSMITTING":
            self._disconnectParser(reason)


class _Factory(_HTTP11ClientFactory):
    noisy = False

    def buildProtocol(self, addr: Any) -> _Protocol:
        """Make one for a connection."""
        return _Protocol(self._quiescentCallback)


def make_pool(reactor: Any, *, persistent: bool = False) -> HTTPConnectionPool:
    """Make what an :class:`twisted.web.client.Agent` takes its connections from.

    :param persistent: whether they are kept for other requests.
    """
    pool = HTTPConnectionPool(reactor, persistent)
    pool._factory = _Factory
    return pool
