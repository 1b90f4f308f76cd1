"""Everything that speaks HTTP/1.1, at either end, over sockets in memory."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, succeed
from twisted.logger import LogLevel, globalLogPublisher
from twisted.python.failure import Failure
from twisted.web.client import Agent

from tests.fuzz.reader import Tape
from tests.fuzz.rig import CONTRACT, RELAY
from tests.fuzz.sockets import MemoryReactor, MemorySocket
from tests.fuzz.tape import _TOKEN
from wireleap_relay.admin.rest import Answer as RestAnswer
from wireleap_relay.admin.rest import json_answer, make_site
from wireleap_relay.boundaries import UpstreamFailed
from wireleap_relay.tunnel.abuse import Rates
from wireleap_relay.tunnel.site import Answer, Folder
from wireleap_relay.tunnel.visitor import _LONGEST_HEAD, Visitor
from wireleap_relay.upgrade.download import Downloader, DownloadFailed
from wireleap_relay.upstream.client import SignedClient
from wireleap_relay.upstream.contract import HttpContract
from wireleap_relay.upstream.directory import HttpDirectory
from wireleap_relay.upstream.retry import RetryPolicy
from wireleap_relay.webclient import make_pool
from wireleap_relay.wire.address import Address
from wireleap_relay.wire.contractinfo import DirectoryPointer
from wireleap_relay.wire.endpoint import Endpoint
from wireleap_relay.wire.payout import WithdrawalRequest
from wireleap_relay.wire.relayentry import RelayEntry

_SITE = Folder(
    {b"/": Answer(200, ((b"etag", b'"1"'),), b"<h1>Gardening</h1>"), b"/big": Answer(200, (), bytes(70_000))}
)
_CODES = (b"200", b"304", b"400", b"404", b"405", b"431")


def visitor(data: bytes) -> None:
    """A stranger's bytes: after each piece stands how often it is said."""
    tape = Tape(data)
    stranger = Visitor(_SITE, lambda: 1.8e9, Rates(requests=1 + tape.byte()))
    while not tape.ended and not stranger.closed:
        size, times = tape.byte(), 1 << (tape.byte() & 15)
        stranger.receive(tape.bytes(size) * min(times, 65_536 // max(size, 1)))
        assert len(stranger._unread) <= _LONGEST_HEAD + 2 * 65_536
        if tape.byte() & 3:  # else the transport takes nothing
            said = b"".join(iter(stranger.take, b""))
            assert not said or said[9:12] in _CODES or not said.startswith(b"HTTP/1.")
    stranger.connection_lost()
    assert stranger.closed
    assert not stranger.take()


class _Pool:
    """Does at once what is for a thread."""

    def callInThreadWithCallback(self, told: Callable[[bool, Any], None], work: Callable[..., Any], *args: Any) -> None:
        try:
            found = work(*args)
        except Exception:  # noqa: BLE001 - as a thread does it
            told(False, Failure())
        else:
            told(True, found)


class WebReactor(MemoryReactor):
    """One with threads."""

    def getThreadPool(self) -> _Pool:
        return _Pool()

    def callFromThread(self, call: Callable[..., Any], *args: Any) -> None:
        self.callLater(0, call, *args)


class Noticed:
    """Complains of all that is logged as an error."""

    def __init__(self) -> None:
        self.troubles: list[str] = []

    def __enter__(self) -> Noticed:
        globalLogPublisher.addObserver(self)
        return self

    def __exit__(self, *_: object) -> None:
        globalLogPublisher.removeObserver(self)

    def __call__(self, event: dict[str, Any]) -> None:
        failure = event.get("log_failure") or event.get("failure")
        if failure is not None or event.get("log_level") in (LogLevel.error, LogLevel.critical):
            self.troubles.append(failure.getTraceback() if failure else str(event))

    def check(self) -> None:
        assert not self.troubles, self.troubles[0]


def _serve(reactor: WebReactor, asked: Deferred[Any], say: Callable[[MemorySocket], None]) -> None:
    """Answer whatever is asked, until that is over."""
    found: list[Any] = []
    asked.addBoth(found.append)
    for _ in range(12):
        reactor.run()
        if found:
            break
        trying = [each for each in reactor.attempts if each.state == "connecting"]
        if trying:
            say(trying[0].succeed())
        else:
            reactor.advance(20.0)
    assert found, "it never ends"
    [result] = found
    if hasattr(result, "trap"):
        result.trap(UpstreamFailed, DownloadFailed)


def _rest(reactor: WebReactor) -> None:
    for each in reactor.ends:
        each.eof = True
    for _ in range(4):
        reactor.run()
        reactor.advance(61.0)
    assert not [end for end in reactor.ends if not end.closed], "a socket stays open"
    waiting = reactor.getDelayedCalls()
    assert not waiting, f"something is still to be called: {waiting[0]}"


_ENTRY = RelayEntry.of_this_software(
    role="backing",
    address=Address.from_text("wireleap://192.0.2.1:443"),
    pubkey=RELAY.public_key,
    software="0.7.0",
    key=None,
    limit=None,
)
_KEY = "00" * 16


async def _solved(work: Callable[[], str]) -> str:
    return "$2a$"


_CALLS: list[Callable[[HttpContract, HttpDirectory], Awaitable[Any]]] = [
    lambda contract, _: contract.info(),
    lambda contract, _: contract.submit(_TOKEN, _KEY),
    lambda contract, _: contract.balance(),
    lambda contract, _: contract.tokens(),
    lambda contract, _: contract.last_withdrawal(),
    lambda contract, _: contract.withdraw(WithdrawalRequest(1, "bank", "me"), _KEY),
    lambda _, directory: directory.info(),
    lambda _, directory: directory.relays(),
    lambda _, directory: directory.enroll(_ENTRY),
    lambda _, directory: directory.heartbeat(_ENTRY),
    lambda _, directory: directory.disenroll(_ENTRY),
]


def upstream(data: bytes) -> None:
    """Answers of contracts and directories: the first byte says to what, the second how, the third whether it goes on."""
    tape = Tape(data)
    call, how, goes_on = _CALLS[tape.byte() % len(_CALLS)], tape.byte(), tape.byte() & 1
    reactor = WebReactor()
    pool = make_pool(reactor, persistent=True)
    agent = Agent(reactor, connectTimeout=10.0, pool=pool)
    client = SignedClient(agent, reactor, RELAY, policy=RetryPolicy(2, 1.0))
    pointer = DirectoryPointer(Endpoint("http://192.0.2.3"), CONTRACT.public_key)
    directory = HttpDirectory(client, reactor, pointer, _solved)
    rest = data[3:]
    if how & 1:
        size = how >> 1
        head, body = rest[:size], rest[size:]
        signature = f"Wireleap-Directory-Signature: {CONTRACT.sign(body)}\r\n"
        key = f"Wireleap-Directory-Pubkey: {CONTRACT.public_key}\r\n"
        first = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n" % len(body)
        rest = first + (signature + key).encode() + head + b"\r\n\r\n" + body

    def say(end: MemorySocket) -> None:
        reactor.run()
        end.feed(rest)
        end.eof = not goes_on
        reactor.run()

    with Noticed() as noticed:
        contract = HttpContract(client, Endpoint("http://192.0.2.2/v0"))
        asked = Deferred.fromCoroutine(call(contract, directory))  # type: ignore[arg-type]
        _serve(reactor, asked, say)
        pool.closeCachedConnections()
        _rest(reactor)
        noticed.check()


_MOST = 3000


def download(data: bytes) -> None:
    """Answers of a release site."""
    folder = Path(tempfile.mkdtemp(dir="/dev/shm" if os.path.isdir("/dev/shm") else None))
    reactor = WebReactor()
    downloader = Downloader(reactor)
    plain = Agent(reactor, connectTimeout=15.0, pool=make_pool(reactor))

    class _Plain:
        """Does without TLS."""

        def request(self, method: bytes, url: bytes) -> Any:
            return plain.request(method, url.replace(b"https", b"http"))

    downloader._agent = _Plain()  # type: ignore[assignment]

    def say(end: MemorySocket) -> None:
        reactor.run()
        end.feed(data[1:])
        end.eof = bool(data[:1] and data[0] & 1)
        reactor.run()

    try:
        with Noticed() as noticed:
            file = folder / "file"
            _serve(reactor, Deferred.fromCoroutine(downloader.fetch("https://192.0.2.4/", file, _MOST)), say)
            assert not file.exists() or file.stat().st_size <= _MOST
            _rest(reactor)
            noticed.check()
    finally:
        shutil.rmtree(folder)


def _pages(reactor: Any) -> dict[str, Callable[[], Any]]:
    def later() -> Deferred[RestAnswer]:
        return succeed(None).addCallback(lambda _: json_answer({"so": "so"}))

    def wrong() -> RestAnswer:
        raise OSError(13, "no")

    return {"/": lambda: json_answer([1]), "/api/status": later, "/wrong": wrong}


def rest(data: bytes) -> None:
    """Requests to the REST API."""
    tape = Tape(data)
    reactor = WebReactor()
    site = make_site(
        reactor, {"/": lambda: json_answer([1]), "/api/status": _pages(reactor)["/api/status"]}, ["x.example"]
    )
    protocol = site.buildProtocol(IPv4Address("TCP", "127.0.0.1", 1))
    with Noticed() as noticed:
        transport, end = reactor.connected(protocol)
        while not tape.ended and not end.closed:
            size, times = tape.byte(), 1 << (tape.byte() & 15)
            end.feed(tape.bytes(size) * min(times, 65_536 // max(size, 1)))
            reactor.run()
            assert not end.sent or end.sent.startswith((b"HTTP/1.", b"{"))
            assert b"Traceback" not in end.sent
        _rest(reactor)
        noticed.check()
