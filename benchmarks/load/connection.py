"""A client's connection to a relay, cheap enough to keep a relay busy from one core."""

from __future__ import annotations

import json
import selectors
import socket
import ssl
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from wireleap_relay.tunnel.session import Session
from wireleap_relay.tunnel.settings import SessionLimits
from wireleap_relay.tunnel.stream import Headers, Stream
from wireleap_relay.wire.address import Address
from wireleap_relay.wire.encoding import from_base64url
from wireleap_relay.wire.keys import PublicKey, SigningKey
from wireleap_relay.wire.payload import Connect
from wireleap_relay.wire.sharetoken import ContractStatement, Sharetoken
from wireleap_relay.wire.structure import read
from wireleap_relay.wire.versions import CLIENT_RELAY

#: What the network's clients announce: 4 MiB a stream, 1 GiB a connection.
_WINDOW = 4 * 2**20
LIMITS = SessionLimits(frame=16_384, stream_window=_WINDOW, largest_stream_window=_WINDOW, connection_window=2**30)
_READ = 256 * 1024

_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
_TLS.check_hostname = False
_TLS.verify_mode = ssl.CERT_NONE
_TLS.minimum_version = ssl.TLSVersion.TLSv1_3


def tls(alpn: bool) -> ssl.SSLContext:
    """Give the client's TLS."""
    _TLS.set_alpn_protocols(["h2"] if alpn else [])
    return _TLS


class Purse:
    """Pays a relay out of a servicekey."""

    def __init__(self, file: Path, relay: str, clock: Any) -> None:
        """Read a servicekey as clients keep it."""
        fields = json.loads(file.read_text())
        self._key = SigningKey(from_base64url(fields["private_key"], 64)[:32])
        self._statement = read(json.dumps(fields["contract"]), ContractStatement)
        self._relay = PublicKey.from_text(relay)
        self._clock = clock

    def request(self, target: str) -> Headers:
        """Write a request for a tunnel, with a fresh sharetoken."""
        token = Sharetoken.sign(self._key, self._statement, self._relay, int(self._clock()))
        remote = Address.from_text(f"target://{target}")
        return [
            (b":method", b"PUT"),
            (b":scheme", b"https"),
            (b":authority", b"relay"),
            (b":path", b"/"),
            (b"wl-payload", Connect("tcp", remote, token, CLIENT_RELAY).to_json().encode()),
        ]


class Handler:
    """A tunnel's end: gives credit for all that comes."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.received = 0
        self.paused = False
        stream.handler = self

    def responded(self, headers: Headers) -> None:
        """The relay has answered."""

    def data_received(self, data: bytes, frame_done: bool) -> None:
        """Count."""
        self.received += len(data)
        self.stream.credit(len(data))

    def ended(self, trailers: Headers) -> None:
        """Nobody ends these tunnels but the client."""
        raise SystemExit(f"a tunnel was ended by the relay: {trailers}")

    def was_reset(self, code: int) -> None:
        """Nobody resets them either."""
        raise SystemExit(f"a tunnel was reset by the relay: {code}")

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = False


class RawStream:
    """The only stream of a connection without HTTP/2."""

    handler: Any

    def __init__(self, session: RawSession) -> None:
        self._session = session

    def send(self, data: bytes) -> None:
        self._session.send(data)

    def credit(self, amount: int) -> None:
        """Nothing to do."""

    def reset(self) -> None:
        """Nothing to do."""


class RawSession:
    """TLS alone, for a forwarder such as stunnel; as much of :class:`Session` as is used here."""

    def __init__(self, wake: Any) -> None:
        self.writable = True
        self._wake = wake
        self._queue: deque[bytes] = deque()
        self._stream = RawStream(self)

    def open(self, headers: Headers) -> RawStream:
        return self._stream

    def send(self, data: bytes) -> None:
        self._queue.append(data)
        if self.writable:
            self._wake()
        else:
            self._stream.handler.paused = True

    def take(self) -> bytes:
        if not self._queue:
            return b""
        data = self._queue.popleft()
        self._stream.handler.paused = bool(self._queue)
        return data

    def receive(self, data: bytes) -> None:
        self._stream.handler.data_received(data, True)


class Connection:
    """TLS and HTTP/2 over a socket that never blocks, served by a selector.

    :ivar ready: TLS is up.
    """

    def __init__(
        self,
        selector: selectors.BaseSelector,
        address: tuple[str, int],
        raw: bool,
        when_ready: Callable[[Connection], object],
        rcvbuf: int = 0,
        source: tuple[str, int] | None = None,
    ) -> None:
        plain = socket.socket()
        if source:
            plain.bind(source)
        if rcvbuf:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
        plain.connect(address)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        plain.setblocking(False)
        self._selector = selector
        self._socket = tls(not raw).wrap_socket(plain, do_handshake_on_connect=False)
        self.session: Any = RawSession(self._flush) if raw else Session(wake=self._flush, limits=LIMITS)
        self.session.writable = False
        self.ready = False
        self._when_ready = when_ready
        self._unsent = b""
        self._interest = selectors.EVENT_READ
        selector.register(self._socket, self._interest, self)
        self.act(selectors.EVENT_WRITE)

    def open(self, request: Headers) -> Stream:
        """Ask for a tunnel."""
        opened: Stream = self.session.open(request)
        return opened

    def close(self) -> None:
        """Leave."""
        self.ready = False
        self._selector.unregister(self._socket)
        self._socket.close()

    def act(self, events: int) -> None:
        """Do what the socket is ready for."""
        if not self.ready and not self._handshake():
            return
        if events & selectors.EVENT_WRITE:
            self._flush()
        if events & selectors.EVENT_READ:
            self._read()

    def _handshake(self) -> bool:
        try:
            self._socket.do_handshake()
        except ssl.SSLWantReadError:
            return False
        self.ready = True
        self.session.writable = True
        self._flush()
        self._when_ready(self)
        return True

    def _read(self) -> None:
        pieces = []
        size = 0
        try:
            while size < _READ:
                piece = self._socket.recv(_READ)
                if not piece:
                    raise SystemExit("the relay closed a connection")
                pieces.append(piece)
                size += len(piece)
        except ssl.SSLWantReadError:
            pass
        if pieces:
            self.session.receive(b"".join(pieces))
            self._flush()

    def _flush(self) -> None:
        if not self.ready:
            return
        try:
            while self._unsent or (data := self.session.take()):
                data = self._unsent or data
                self._unsent = data
                sent = self._socket.send(data)
                self._unsent = data[sent:]
        except ssl.SSLWantWriteError:
            pass
        self.session.writable = not self._unsent
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._unsent else 0)
        if wanted != self._interest:
            self._interest = wanted
            self._selector.modify(self._socket, wanted, self)
