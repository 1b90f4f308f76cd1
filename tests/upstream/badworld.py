"""Servers that do what no server should."""

from __future__ import annotations

from typing import Any

import attrs
from twisted.internet import reactor as global_reactor
from twisted.internet.protocol import Factory, Protocol
from twisted.web.resource import Resource
from twisted.web.server import Request

reactor: Any = global_reactor


@attrs.frozen
class Seen:
    """A request as it arrived."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class Scripted(Resource):
    """Answers each request with the next of its answers, and the last one for ever."""

    isLeaf = True

    def __init__(self, *answers: tuple[int, bytes, dict[str, str]]) -> None:
        super().__init__()
        self._answers = list(answers)
        self.seen: list[Seen] = []

    def render(self, request: Request) -> bytes:
        """Answer."""
        headers = {name.decode(): values[0].decode() for name, values in request.requestHeaders.getAllRawHeaders()}
        assert request.content is not None
        self.seen.append(Seen(request.method.decode(), request.uri.decode(), headers, request.content.read()))
        code, body, extra = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        request.setResponseCode(code)
        for name, value in extra.items():
            request.setHeader(name, value)
        return body


class _RawProtocol(Protocol):
    def __init__(self, server: RawServer) -> None:
        self._server = server

    def connectionMade(self) -> None:
        self._server.open.append(self)

    def dataReceived(self, data: bytes) -> None:
        assert self.transport is not None
        self._server.requests += 1
        self.transport.write(self._server.answer)
        if self._server.close:
            self.transport.loseConnection()

    def connectionLost(self, reason: Any = None) -> None:
        self._server.open.remove(self)


class RawServer:
    """Sends the same bytes to whoever says something."""

    def __init__(self, answer: bytes, *, close: bool = False) -> None:
        self.answer = answer
        self.close = close
        self.requests = 0
        self.open: list[_RawProtocol] = []
        factory = Factory.forProtocol(lambda: _RawProtocol(self))  # type: ignore[arg-type]
        factory.noisy = False
        self._port = reactor.listenTCP(0, factory, interface="127.0.0.1")

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self._port.getHost().port}"

    async def stop(self) -> None:
        """Hang up."""
        for protocol in self.open[:]:
            protocol.transport.abortConnection()  # type: ignore[union-attr]
        await self._port.stopListening()
