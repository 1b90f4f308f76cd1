"""What the sandbox's contract and directory have in common: a signed JSON API (PROTOCOL: *API requests*)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, TypeVar

import attrs
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http_headers import Headers
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

from wireleap_relay.sandbox.answers import BAD_REQUEST, FORBIDDEN, INTERNAL, METHOD, NOT_FOUND, Problem
from wireleap_relay.wire.encoding import write_json
from wireleap_relay.wire.errors import WireError
from wireleap_relay.wire.keys import PublicKey, Signature
from wireleap_relay.wire.status import Status
from wireleap_relay.wire.structure import converter, read
from wireleap_relay.wire.versions import Version

T = TypeVar("T")

#: Answers kept for requests that are repeated with their ``Idempotency-Key``.
_REMEMBERED = 10_000


@attrs.frozen
class Answer:
    """What goes back.

    :ivar headers: besides those that every answer has.
    """

    code: int
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()


def json_answer(value: object, headers: Iterable[tuple[str, str]] = ()) -> Answer:
    """Answer 200 with JSON data, or with a value that the wire's converter knows."""
    return Answer(200, write_json(converter.unstructure(value)).encode(), tuple(headers))


def status_answer(status: Status, headers: Iterable[tuple[str, str]] = ()) -> Answer:
    """Answer with a status object, and with its code."""
    return Answer(status.code, status.to_json().encode() + b"\n", tuple(headers))


@attrs.frozen
class Call:
    """A request, as a handler sees it."""

    headers: Headers
    body: bytes

    def header(self, name: str) -> str:
        """Give a header's first value; empty where there is none."""
        values = self.headers.getRawHeaders(name)
        return values[0] if values else ""

    def read(self, kind: type[T]) -> T:
        """Read the body.

        :raises WireError: where it isn't such a value.
        """
        return read(self.body, kind)

    def relay(self) -> PublicKey:
        """Tell which relay signed the request.

        :raises Problem: 403 where none did.
        """
        key, signature = self.header("Wireleap-Relay-Pubkey"), self.header("Wireleap-Relay-Signature")
        if not key or not signature:
            raise Problem(FORBIDDEN, "auth headers for Relay missing")
        try:
            relay = PublicKey.from_text(key)
            signed = relay.verify(Signature.from_text(signature), self.body)
        except WireError as e:
            raise Problem(FORBIDDEN, f"auth headers for Relay: {e}") from None
        if not signed:
            raise Problem(FORBIDDEN, "auth signature for Relay does not verify")
        return relay


Handler = Callable[[Call], Awaitable[Answer]]


class JsonApi(Resource):
    """A folder of JSON calls; every answer, 404 and 405 too, is JSON.

    Like the network's own servers it answers a POST that repeats an
    ``Idempotency-Key`` with what it answered the first time.
    """

    isLeaf = True
    _log = Logger()

    def __init__(self, routes: Mapping[str, Mapping[str, Handler]], interfaces: Mapping[str, Version]) -> None:
        """Serve handlers by path (beginning with ``/``) and method.

        :param interfaces: that it speaks, by the names they have in headers, such as ``Relay-Dir``.
        """
        super().__init__()
        self._routes = routes
        self._interfaces = interfaces
        self._answered: OrderedDict[tuple[str, str], Answer] = OrderedDict()

    def render(self, request: Request) -> int:
        """Serve one request."""
        method = (request.method or b"").decode("ascii", "replace")
        path = "/" + b"/".join(request.postpath or ()).decode("utf-8", "replace")
        call = Call(request.requestHeaders, request.content.read() if request.content else b"")
        gone: list[Failure] = []
        request.notifyFinish().addErrback(gone.append)

        def respond(answer: Answer) -> None:
            if not gone:
                self._write(request, answer)

        serving = Deferred.fromCoroutine(self._serve(method, path, call))
        serving.addErrback(self._crashed)
        serving.addCallback(respond)
        return NOT_DONE_YET

    async def _serve(self, method: str, path: str, call: Call) -> Answer:
        try:
            handler = self._find(method, path)
            self._check_versions(call)
            key = call.header("Idempotency-Key") if method == "POST" else ""
            return await (self._once(handler, call, (path, key)) if key else handler(call))
        except Problem as e:
            return status_answer(e.status)
        except WireError as e:
            return status_answer(attrs.evolve(BAD_REQUEST, cause=str(e)))

    def _find(self, method: str, path: str) -> Handler:
        methods = self._routes.get(path)
        if methods is None:
            raise Problem(NOT_FOUND)
        if method not in methods:
            raise Problem(METHOD, f"supported methods are {', '.join(methods)}")
        return methods[method]

    def _check_versions(self, call: Call) -> None:
        for interface, ours in self._interfaces.items():
            text = call.header(f"Wireleap-{interface}-Version")
            if text and not ours.compatible_with(Version.from_text(text)):
                raise Problem(BAD_REQUEST, f"invalid client API version: expecting {ours}, got {text}")

    async def _once(self, handler: Handler, call: Call, key: tuple[str, str]) -> Answer:
        answer = self._answered.get(key)
        if answer is None:
            try:
                answer = await handler(call)
            except Problem as e:
                answer = status_answer(e.status)
            self._answered[key] = answer
            if len(self._answered) > _REMEMBERED:
                self._answered.popitem(last=False)
        return answer

    def _crashed(self, failure: Failure) -> Answer:
        self._log.failure("A request could not be served", failure)
        return status_answer(INTERNAL)

    def _write(self, request: Request, answer: Answer) -> None:
        request.setResponseCode(answer.code)
        headers = request.responseHeaders
        headers.setRawHeaders("Content-Type", ["application/json"])
        for interface, version in self._interfaces.items():
            headers.setRawHeaders(f"Wireleap-{interface}-Version", [str(version)])
        for name, value in answer.headers:
            headers.setRawHeaders(name, [value])
        headers.setRawHeaders("Content-Length", [str(len(answer.body))])
        request.write(answer.body)
        request.finish()


class Nothing(Resource):
    """The root of an API's server: nothing is here but its children."""

    def getChild(self, path: bytes, request: Any) -> Resource:
        """Answer whatever isn't there."""
        return JsonApi({}, {})

    def render(self, request: Request) -> int:
        """Answer for the root itself."""
        return JsonApi({}, {}).render(request)


class QuietSite(Site):
    """A server that writes nothing of its clients into the log."""

    noisy = False

    def log(self, request: Any) -> None:
        """Leave a request out."""
