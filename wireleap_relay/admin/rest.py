"""The REST API: what there is to see of a relay, over HTTP; nothing can be changed there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from ipaddress import ip_address
from typing import Any, cast
from weakref import WeakSet

import attrs
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IAddress
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

from wireleap_relay.admin.listening import ListeningService, is_loopback
from wireleap_relay.configvalues import RestAddress
from wireleap_relay.wire.encoding import write_json
from wireleap_relay.wire.status import Status

_METHODS = (b"GET", b"HEAD")
_IDLE = 60
_HEADERS = {
    "Server": "wireleap-relay",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}


@attrs.frozen
class Answer:
    """What goes back.

    :ivar headers: besides, or instead of, those that every answer has.
    """

    body: bytes
    code: int = 200
    content_type: str = "application/json"
    headers: Mapping[str, str] = {}


#: Gives the answer to one path.
Page = Callable[[], "Answer | Deferred[Answer]"]


def json_answer(data: object, code: int = 200) -> Answer:
    """Answer with JSON."""
    return Answer(write_json(data).encode() + b"\n", code)


class RestResource(Resource):
    """Serves pages by their path; everything else is answered with a status object."""

    isLeaf = True
    _log = Logger()

    def __init__(self, pages: Mapping[str, Page], *, names: Iterable[str] | None = None) -> None:
        """Serve pages.

        :param names: by which the server may be called besides its addresses; None for whatever one likes.
        """
        super().__init__()
        self._pages = {path.encode(): page for path, page in pages.items()}
        self._names = None if names is None else {"localhost", *names}

    def render(self, request: Request) -> Any:
        """Answer."""
        if not self._is_called(request):
            return _send(request, _status(403, "this server is not called that"))
        page = self._pages.get(request.path)
        if page is None:
            return _send(request, _status(404, "not found"))
        if request.method not in _METHODS:
            request.setHeader("Allow", b", ".join(_METHODS).decode())
            return _send(request, _status(405, "HTTP method not allowed"))
        finished = request.notifyFinish().addErrback(lambda _: None)
        answer: Deferred[Answer] = maybeDeferred(cast("Any", page))
        answer.addErrback(self._failed)
        answer.addCallback(lambda found: None if finished.called else _send(request, found))
        return NOT_DONE_YET

    def _is_called(self, request: Request) -> bool:
        """Tell whether a browser means this server: a name of others that leads here is an attack (DNS rebinding)."""
        if self._names is None:
            return True
        name = request.getRequestHostname().decode("ascii", "replace").strip("[]")
        if not name or name in self._names:
            return True
        try:
            ip_address(name)
        except ValueError:
            return False
        return True

    def _failed(self, failure: Failure) -> Answer:
        self._log.failure("The REST API met an error of its own", failure)
        return _status(500, "internal error")


def _status(code: int, description: str) -> Answer:
    return Answer(Status(code, description).to_json().encode() + b"\n", code)


def _send(request: Request, answer: Answer) -> int:
    request.setResponseCode(answer.code)
    headers = {**_HEADERS, "Content-Type": answer.content_type, "Content-Length": str(len(answer.body))}
    for name, value in {**headers, **answer.headers}.items():
        request.setHeader(name, value)
    if request.method != b"HEAD":
        request.write(answer.body)
    request.finish()
    return NOT_DONE_YET


class _Site(Site):
    noisy = False
    displayTracebacks = False

    def __init__(self, resource: Resource, reactor: Any) -> None:
        super().__init__(resource, reactor=reactor)
        self._transports: WeakSet[Any] = WeakSet()

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """Serve one client."""
        channel: Any = super().buildProtocol(addr)
        connect = channel.makeConnection

        def remember(transport: Any) -> None:
            self._transports.add(transport)
            connect(transport)

        channel.makeConnection = remember
        return channel

    def stopFactory(self) -> None:
        """Keep no connection for a next request: another daemon may be there for it."""
        for transport in list(self._transports):
            transport.loseConnection()
        super().stopFactory()

    def log(self, request: Any) -> None:
        """Nobody's address goes into a log."""


def make_site(reactor: Any, pages: Mapping[str, Page], names: Iterable[str] | None = None) -> Site:
    """Make what serves pages; see :class:`RestResource`."""
    site = _Site(RestResource(pages, names=names), reactor)
    site.timeOut = _IDLE
    return site


class RestService(ListeningService):
    """Serves the REST API."""

    def __init__(self, reactor: Any, address: RestAddress, mode: int, pages: Mapping[str, Page]) -> None:
        """Serve pages.

        :param mode: of the unix socket.
        """
        self.setName("rest")
        tcp = address.tcp
        self._outside = tcp is not None and not is_loopback(tcp.host)
        names = [tcp.host] if tcp is not None and not self._outside else None
        what = f"The REST API at {address}"
        super().__init__(reactor, what, address, mode, make_site(reactor, pages, names))

    def startService(self) -> None:
        """Begin to listen."""
        if self._outside:
            self._log.warn(
                "rest_api.address: {address} can be reached from outside: anybody may look at this relay",
                address=self._address,
            )
        super().startService()
