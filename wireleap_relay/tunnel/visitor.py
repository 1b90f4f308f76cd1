"""A connection of a stranger who speaks HTTP/1.1: sans-IO, with the face that a session has."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Protocol

from h2.errors import ErrorCodes

from wireleap_relay.boundaries import WallClock
from wireleap_relay.tunnel import abuse
from wireleap_relay.tunnel.abuse import Budget, Rates
from wireleap_relay.tunnel.site import Answer, Site, fields_of
from wireleap_relay.tunnel.stream import Stream

#: Bytes of a request's head.
_LONGEST_HEAD = 16 * 1024
#: Bytes given to the transport before it is asked whether it wants more.
_PIECE = 64 * 1024

_REQUEST = re.compile(rb"([!-~]+) ([!-~]+) HTTP/1\.([01])")
# The spaces around a value are for strip(): in here, there would be a million ways to share out a thousand of them.
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):(.*)")

#: What a web server tells who speaks HTTP to it where it expects TLS, as Go's does.
NOT_TLS = b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n"


class Conversation(Protocol):
    """What a connection has with its client, whatever they speak.

    :ivar writable: whether the transport takes more.
    :ivar closed: it is over: write what :meth:`take` still gives, and close.
    :ivar offence: why it is over, as :mod:`wireleap_relay.tunnel.abuse` calls it; empty where that is no offence.
    :ivar streams: the open ones, by their ids.
    :ivar leaving: we have said that we serve no more requests.
    :ivar peer_leaving: the client has said that it has no more.
    :ivar budget: what the client may do without end, but not without measure.
    """

    offence: str
    streams: dict[int, Stream]
    leaving: bool
    peer_leaving: bool
    budget: Budget

    @property
    def writable(self) -> bool:
        """Whether the transport takes more."""

    @writable.setter
    def writable(self, value: bool) -> None: ...

    @property
    def closed(self) -> bool:
        """Whether it is over."""

    @property
    def half_finished(self) -> bool:
        """Whether the client has begun something, and not ended it."""

    @property
    def frames_received(self) -> int:
        """A number that grows while the client is getting on."""

    @property
    def sent(self) -> int:
        """Bytes of payload that have been sent on streams."""

    def receive(self, data: bytes) -> None:
        """Take bytes off the wire."""

    def take(self) -> bytes:
        """Take what is to be written now; empty when nothing is."""

    def leave(self) -> None:
        """Serve no more requests."""

    def fail(self, code: ErrorCodes, offence: str = "") -> None:
        """End it."""

    def spend(self, kind: str, amount: int = 1) -> bool:
        """Account for what the client did; too much of it ends the conversation."""

    def connection_lost(self) -> None:
        """The transport is gone."""


class Http1Conversation:
    """What conversations in HTTP/1.1 share; see :class:`Conversation`."""

    def __init__(self, rates: Rates) -> None:
        """Begin with no stream, for there are none."""
        self.writable = True
        self.offence = ""
        self.streams: dict[int, Stream] = {}
        self.leaving = False
        self.peer_leaving = False
        self.budget = Budget(rates)
        self.frames_received = 0
        self.sent = 0

    def fail(self, code: ErrorCodes, offence: str = "") -> None:
        """End it."""
        raise NotImplementedError

    def spend(self, kind: str, amount: int = 1) -> bool:
        """Account for what the client did; too much of it ends the conversation."""
        if self.budget.spend(kind, amount):
            return True
        self.fail(ErrorCodes.ENHANCE_YOUR_CALM, kind)
        return False


class Visitor(Http1Conversation):
    """A conversation in HTTP/1.1, answered from a site; see :class:`Conversation`."""

    def __init__(self, site: Site, now: WallClock, rates: Rates) -> None:
        """Wait for the first request."""
        super().__init__(rates)
        self._site = site
        self._now = now
        self._unread = b""
        self._out = b""
        self._body = memoryview(b"")
        self._last = False

    @property
    def half_finished(self) -> bool:
        """Whether a request has begun, and not ended."""
        return bool(self._unread) and not self._is_speaking

    @property
    def closed(self) -> bool:
        """Whether the last answer is out."""
        return self._last and not self._is_speaking

    @property
    def _is_speaking(self) -> bool:
        return bool(self._out or self._body)

    def receive(self, data: bytes) -> None:
        """Take bytes off the wire."""
        if self._last:
            return
        self._unread += data
        if not self._is_speaking:
            self._read()
        elif len(self._unread) > _LONGEST_HEAD:
            # It asks on and on, and reads no answer.
            self.fail(ErrorCodes.ENHANCE_YOUR_CALM, abuse.UNREAD)

    def take(self) -> bytes:
        """Take what is to be written now; empty when nothing is."""
        if not self._is_speaking and self._unread and not self._last:
            self._read()
        piece = self._out + self._body[:_PIECE]
        self._body = self._body[_PIECE:]
        self._out = b""
        return piece

    def leave(self) -> None:
        """Serve no more requests."""
        self.leaving = self._last = True

    def fail(self, code: ErrorCodes, offence: str = "") -> None:
        """End it, without another word."""
        self.offence = offence
        self._last = True
        self._out, self._body = b"", memoryview(b"")

    def connection_lost(self) -> None:
        """The transport is gone."""
        self.fail(ErrorCodes.NO_ERROR)

    def _read(self) -> None:
        """Answer the next request, if it is there."""
        head, end, rest = self._unread.lstrip(b"\r\n").partition(b"\r\n\r\n")
        if len(head) > _LONGEST_HEAD or (not head and len(self._unread) > _LONGEST_HEAD):
            return self._say(Answer(431, ((b"content-type", b"text/plain"),)), b"GET", last=True)
        if not end and (not head or head[:1].isalpha()):
            return None
        self._unread = rest
        self.frames_received += 1
        if not self.spend(abuse.REQUESTS):
            return None
        first, *lines = head.split(b"\r\n")
        request = _REQUEST.fullmatch(first)
        matches = [_FIELD.fullmatch(line) for line in lines]
        if request is None or not all(matches):
            return self._say(Answer(400, ((b"content-type", b"text/plain"),)), b"GET", last=True)
        method, path, minor = request.groups()
        fields = {match[1].lower(): match[2].strip(b" \t") for match in matches if match is not None}
        # Nobody reads a body here, so what follows one could not be told from it.
        has_body = b"transfer-encoding" in fields or fields.get(b"content-length", b"0") != b"0"
        last = minor == b"0" or has_body or fields.get(b"connection", b"").lower() == b"close"
        return self._say(self._site.answer(method, path, fields.get(b"if-none-match")), method, last)

    def _say(self, answer: Answer, method: bytes, last: bool) -> None:
        lines = [b"HTTP/1.1 %d %s" % (answer.code, HTTPStatus(answer.code).phrase.encode())]
        lines += [b"%s: %s" % (_title(name), value) for name, value in fields_of(answer, self._now())]
        if last:
            lines.append(b"Connection: close")
        self._out = b"\r\n".join([*lines, b"", b""])
        self._body = memoryview(b"" if method == b"HEAD" else answer.body)
        self._last = self._last or last


def _title(name: bytes) -> bytes:
    return {b"etag": b"ETag"}.get(name) or b"-".join(part.capitalize() for part in name.split(b"-"))
