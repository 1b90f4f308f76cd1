"""Answers strangers: from a site of our own, or from another web server on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from twisted.logger import Logger

from wireleap_relay.boundaries import WallClock
from wireleap_relay.configvalues import DecoyChoice
from wireleap_relay.tunnel.abuse import Rates
from wireleap_relay.tunnel.site import FolderTooLarge, NotAllowed, Site, fields_of, read_folder
from wireleap_relay.tunnel.stream import Headers, Stream, StreamHandler, header_value
from wireleap_relay.tunnel.visitor import Conversation, Visitor

_PIECE = 64 * 1024
_log = Logger()


class Decoy(Protocol):
    """What strangers meet.

    :ivar hides: it is to look as if there were nothing else.
    """

    hides: bool

    def request(self, stream: Stream, headers: Headers) -> None:
        """Answer a request that opens no tunnel, over HTTP/2."""

    def conversation(self, transport: Any, wake: Any, rates: Rates) -> Conversation:
        """Talk to somebody who speaks HTTP/1.1.

        :param transport: the client's own, to be paused.
        :param wake: called when the conversation has something to write, outside of its ``receive``.
        """


class SiteDecoy:
    """Answers from a site; see :class:`Decoy`."""

    def __init__(self, now: WallClock, site: Site | None = None) -> None:
        """Show a site; without one every method is refused."""
        self._now = now
        self._site = site or NotAllowed()
        self.hides = site is not None

    def request(self, stream: Stream, headers: Headers) -> None:
        """Answer a request over HTTP/2.

        What the client still sends is looked at as closely as any request is;
        it is held to its window, for nobody gives credit.
        """
        method = header_value(headers, b":method") or b""
        path = header_value(headers, b":path") or b""
        answer = self._site.answer(method, path, header_value(headers, b"if-none-match"))
        body = b"" if method == b"HEAD" else answer.body
        stream.handler = page = _Page(stream, body)
        fields = [(b":status", b"%d" % answer.code), *fields_of(answer, self._now())]
        stream.respond(fields, end=not body)
        page.resume()

    def conversation(self, transport: Any, wake: Any, rates: Rates) -> Conversation:
        """Talk to somebody who speaks HTTP/1.1."""
        return Visitor(self._site, self._now, rates)


class _Page(StreamHandler):
    """A page that is being sent, no faster than it is read."""

    def __init__(self, stream: Stream, body: bytes) -> None:
        self._stream = stream
        self._body = body
        self._at = 0
        self._paused = False

    def resume(self) -> None:
        """Send on."""
        self._paused = False
        while not self._paused and self._at < len(self._body):
            piece = self._body[self._at : self._at + _PIECE]
            self._at += len(piece)
            self._stream.send(piece)
        if self._at == len(self._body):
            self._stream.finish()

    def pause(self) -> None:
        """Enough for now."""
        self._paused = True

    def responded(self, headers: Headers) -> None:
        """Not for servers."""

    def data_received(self, data: bytes, frame_done: bool) -> None:
        """Nobody reads it."""

    def ended(self, trailers: Headers) -> None:
        """The client has said all it has to say."""

    def was_reset(self, code: int) -> None:
        """The client does not want it any more."""


def make_decoy(reactor: Any, now: WallClock, choice: DecoyChoice) -> Decoy:
    """Make what an operator has chosen; a folder that can't be read is an error in the log, and 405 instead."""
    if choice.server is not None:
        # Nothing else in a worker is a web client, and it takes its time and memory to be imported.
        from wireleap_relay.tunnel.backend import WebServerDecoy

        return WebServerDecoy(reactor, choice.server)
    if choice.folder is None:
        return SiteDecoy(now)
    try:
        return SiteDecoy(now, read_folder(Path(choice.folder)))
    except (OSError, FolderTooLarge) as e:
        _log.error("Strangers get 405: the decoy's folder can't be shown: {why}", why=str(e))
        return SiteDecoy(now)
