"""The REST API: what there is to see of a relay, over HTTP; nothing can be changed there."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Iterable, Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Any, cast

import attrs
from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IDelayedCall, IListeningPort
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

from wireleap_relay.configvalues import RestAddress
from wireleap_relay.wire.encoding import write_json
from wireleap_relay.wire.status import Status

_METHODS = (b"GET", b"HEAD")
_TRY_AGAIN = 2.0
_IDLE = 60
_HEADERS = {
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
        name = request.getRequestHostname().decode("ascii", "replace").strip("[]")
        if self._names is None or not name or name in self._names:
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

    def log(self, request: Any) -> None:
        """Nobody's address goes into a log."""


class RestService(Service):
    """Listens at a TCP address or a unix socket.

    Where that is taken the relay works all the same, and this tries again: one
    relay may be taking another's place.
    """

    _log = Logger()

    def __init__(self, reactor: Any, address: RestAddress, mode: int, pages: Mapping[str, Page]) -> None:
        """Serve pages.

        :param mode: of the unix socket.
        """
        self.setName("rest")
        self._reactor = reactor
        self._address = address
        self._mode = mode
        tcp = address.tcp
        guarded = tcp is not None and is_loopback(tcp.host)
        self._site = _Site(
            RestResource(pages, names=[tcp.host] if tcp is not None and guarded else None), reactor=reactor
        )
        self._site.timeOut = _IDLE
        self._port: IListeningPort | None = None
        self._again: IDelayedCall | None = None
        self._trouble = ""

    def startService(self) -> None:
        """Begin to listen."""
        super().startService()
        tcp = self._address.tcp
        if tcp is not None and not is_loopback(tcp.host):
            self._log.warn(
                "rest_api.address: {address} can be reached from outside: anybody may look at this relay", address=tcp
            )
        self._listen()

    def stopService(self) -> Deferred[Any]:
        """Listen no longer."""
        super().stopService()
        if self._again is not None and self._again.active():
            self._again.cancel()
        port, self._port = self._port, None
        return maybeDeferred(port.stopListening) if port is not None else succeed(None)

    def status(self) -> str:
        """Tell what is wrong; empty while it listens."""
        return self._trouble

    def _listen(self) -> None:
        try:
            self._port = self._bind()
        except (CannotListenError, OSError) as e:
            why = str(getattr(e, "socketError", e))
            if why != self._trouble:
                self._log.error("The REST API can't listen yet: {why}", why=why)
            self._trouble = why
            self._again = self._reactor.callLater(_TRY_AGAIN, self._listen)
            return
        self._trouble = ""
        self._log.info("The REST API is at {address}", address=self._address)

    def _bind(self) -> IListeningPort:
        tcp = self._address.tcp
        port: IListeningPort
        if tcp is not None:
            port = self._reactor.listenTCP(tcp.port, self._site, interface=tcp.host)
            return port
        path = self._address.path or ""
        _remove_dead(path)
        port = self._reactor.listenUNIX(path, self._site, mode=self._mode)
        return port


def _remove_dead(path: str) -> None:
    """Remove the socket of a process that is gone.

    :raises OSError: where somebody listens there, or where it is something else.
    """
    if not Path(path).is_socket():
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        asking.setblocking(False)
        try:
            asking.connect(path)
        except ConnectionRefusedError:
            Path(path).unlink()
            return
    raise OSError(errno.EADDRINUSE, "somebody listens there", path)


def is_loopback(host: str) -> bool:
    """Tell whether an address can be reached from this machine only."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
