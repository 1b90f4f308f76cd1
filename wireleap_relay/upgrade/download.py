"""Fetches files of a release: over verified TLS, within bounds, and without holding the reactor up."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as TooLate
from twisted.internet.error import ConnectError, ConnectionClosed
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.threads import deferToThreadPool
from twisted.python.failure import Failure
from twisted.web.client import Agent, BrowserLikePolicyForHTTPS, ResponseDone, ResponseFailed
from twisted.web.http import PotentialDataLoss
from twisted.web.iweb import IPolicyForHTTPS

from wireleap_relay.webclient import make_pool

#: Seconds.
_CONNECT_TIMEOUT, _IDLE_TIMEOUT, _TIMEOUT = 15.0, 60.0, 3600.0
#: Bytes that are written at once.
_PIECE = 1 << 18

#: Is told how many bytes have come, and of how many (0 where that isn't known).
Progress = Callable[[int, int], None]


class DownloadFailed(Exception):
    """A file could not be fetched; the text says why."""


class NotThere(DownloadFailed):
    """The server does not have it."""


class Downloader:
    """Fetches files."""

    def __init__(self, reactor: Any, tls: IPolicyForHTTPS | None = None, idle_timeout: float = _IDLE_TIMEOUT) -> None:
        """Fetch with a reactor.

        :param tls: whom to trust; by default whom the system trusts.
        :param idle_timeout: seconds in which something has to come.
        """
        self._reactor = reactor
        self._idle_timeout = idle_timeout
        # Not treq's client: it would unpack what is packed, and what was signed are the bytes as they come.
        policy, pool = tls or BrowserLikePolicyForHTTPS(), make_pool(reactor)
        self._agent = Agent(reactor, policy, connectTimeout=_CONNECT_TIMEOUT, pool=pool)

    async def fetch(self, url: str, file: Path, limit: int, progress: Progress = lambda *_: None) -> None:
        """Fetch a file.

        :param limit: bytes that it may have.
        :raises NotThere: where the server says so.
        :raises DownloadFailed: where it can't be had whole.
        """
        if not url.startswith("https://"):
            raise DownloadFailed(f"{url} is not an https address")
        try:
            await self._fetch(url, file, limit, progress)
        except TooLate:
            raise DownloadFailed(f"{url}: nothing has come for {self._idle_timeout:g} s") from None
        except (ConnectError, ConnectionClosed, ResponseFailed) as e:
            raise DownloadFailed(f"{url}: {_said(e)}") from None
        except OSError as e:
            raise DownloadFailed(f"{file} can't be written: {e.strerror or e}") from None

    async def _fetch(self, url: str, file: Path, limit: int, progress: Progress) -> None:
        asked: Deferred[Any] = self._agent.request(b"GET", url.encode())
        asked.addTimeout(self._idle_timeout, self._reactor, _too_late)
        response = await asked
        if response.code != 200:
            response.deliverBody(_Unwanted())
            kind = NotThere if response.code in (404, 410) else DownloadFailed
            raise kind(f"{url}: the server answers with HTTP status {response.code}")
        length = response.length if isinstance(response.length, int) else 0
        if length > limit:
            response.deliverBody(_Unwanted())
            raise DownloadFailed(f"{url}: it has {length} bytes, more than the {limit} that it may have")
        with file.open("wb") as out:
            body = _Body(self._reactor, out, limit, lambda count: progress(count, length), self._idle_timeout)
            response.deliverBody(body)
            await body.done.addTimeout(_TIMEOUT, self._reactor)
            if length and body.count != length:
                raise DownloadFailed(f"{url}: only {body.count} of {length} bytes have come")


class _Unwanted(Protocol):
    """Hangs up."""

    def connectionMade(self) -> None:
        transport: Any = self.transport
        transport.stopProducing()


def _too_late(_: object, timeout: float) -> None:
    raise TooLate(timeout)


class _Body(Protocol):
    """Writes what comes, in a thread."""

    def __init__(
        self, reactor: Any, out: IO[bytes], limit: int, progress: Callable[[int], None], idle_timeout: float
    ) -> None:
        self.count = 0
        self.done: Deferred[None] = Deferred(lambda _: self._hang_up())
        self._reactor = reactor
        self._out = out
        self._limit = limit
        self._progress = progress
        self._pieces: list[bytes] = []
        self._waiting = 0
        self._writing: Deferred[Any] | None = None
        self._ended: Failure | None = None
        self._idle_timeout = idle_timeout
        self._patience = reactor.callLater(idle_timeout, self._too_slow)

    def dataReceived(self, data: bytes) -> None:
        self._patience.reset(self._idle_timeout)
        self.count += len(data)
        if self.count > self._limit:
            self._fail(DownloadFailed(f"more than {self._limit} bytes have come"))
            return
        self._pieces.append(data)
        self._waiting += len(data)
        if self._waiting >= _PIECE and self._writing is None:
            self._write()
        if self._writing is not None and self._waiting >= _PIECE:
            self._transport.pauseProducing()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._patience.active():
            self._patience.cancel()
        self._ended = reason
        if self._writing is None:
            self._write()

    @property
    def _transport(self) -> Any:
        return self.transport

    def _write(self) -> None:
        data, self._pieces, self._waiting = b"".join(self._pieces), [], 0
        pool = self._reactor.getThreadPool()
        self._writing = deferToThreadPool(self._reactor, pool, self._out.write, data)
        self._writing.addCallbacks(self._written, self._not_written)

    def _written(self, _: int) -> None:
        self._writing = None
        if self.done.called:
            return
        self._progress(self.count)
        if self._pieces:
            self._write()
        elif self._ended is None:
            self._transport.resumeProducing()
        elif self._ended.check(ResponseDone, PotentialDataLoss):
            # Without a length, only the sum that was signed tells whether it is whole.
            self.done.callback(None)
        else:
            self.done.errback(self._ended)

    def _not_written(self, failure: Failure) -> None:
        self._writing = None
        self._fail(failure.value or DownloadFailed("it can't be written"))

    def _too_slow(self) -> None:
        self._fail(TooLate())

    def _fail(self, why: BaseException) -> None:
        if not self.done.called:
            self.done.errback(why)
        self._hang_up()

    def _hang_up(self) -> None:
        # Not loseConnection: over TLS that waits for the other side.
        if self._ended is None:
            self._transport.stopProducing()


def _said(error: Exception) -> str:
    reasons = [reason.value for reason in getattr(error, "reasons", ())] or [error]
    texts = []
    for reason in reasons:
        arguments = reason.args[0] if reason.args else ""
        if isinstance(arguments, list) and arguments and isinstance(arguments[0], tuple):  # OpenSSL's
            texts.append(f"TLS: {arguments[0][-1]}")
        elif isinstance(reason, ConnectionClosed):
            texts.append("the connection was lost before it was whole")
        else:
            texts.append(str(reason) or type(reason).__name__)
    return "; ".join(dict.fromkeys(texts))
