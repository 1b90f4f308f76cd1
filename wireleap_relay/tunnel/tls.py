"""The relay's TLS: 1.3 only, HTTP/2 for tunnels (PROTOCOL: *The tunnel*) and HTTP/1.1 for strangers; sans-IO."""

from __future__ import annotations

import os
import ssl
from contextlib import suppress

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509 import Certificate

ALPN = b"h2"
_FOR_STRANGERS = "http/1.1"
#: No request in HTTP/1.1 has this method (RFC 9113, section 3.4).
_BEGINS = b"PRI "

#: Bytes of payload in the largest record (RFC 8446, section 5.1).
_RECORD = 16 * 1024
#: Payload that is encrypted at once: OpenSSL keeps as large a buffer for the rest of the connection.
_AT_ONCE = 4 * _RECORD


class TLSFailed(Exception):
    """A connection's TLS is over.

    :ivar is_http: the client speaks HTTP, without TLS.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.is_http = reason == "HTTP_REQUEST"


class ServerTLS:
    """Makes the server's side of TLS connections.

    The standard library's TLS: through pyOpenSSL every call crosses cffi and
    copies its buffer, and a small write costs twice as much.
    """

    def __init__(self, certificate: Certificate, key: Ed25519PrivateKey) -> None:
        """Serve with the relay's certificate and its key."""
        self._context = context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.set_alpn_protocols([ALPN.decode(), _FOR_STRANGERS])
        # The network's clients never resume a session; two tickets for each were a quarter of the handshake's cost.
        context.num_tickets = 0
        _load(
            context,
            certificate.public_bytes(Encoding.PEM),
            key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        )

    def connection(self) -> TLSConnection:
        """Make one connection."""
        return TLSConnection(self._context)


class TLSConnection:
    """One connection: what the client sends goes in and comes out in plain, and the other way round.

    :ivar established: the handshake is done.
    :ivar speaks_h2: and the client speaks HTTP/2; OpenSSL lets others in, too.
    :ivar ended: the client has said that it is through.
    """

    __slots__ = ("_incoming", "_outgoing", "_tls", "ended", "established", "speaks_h2")

    def __init__(self, context: ssl.SSLContext) -> None:
        self.established = False
        self.ended = False
        self.speaks_h2 = False
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)

    def receive(self, data: bytes) -> bytes:
        """Take bytes off the wire; :meth:`said` may have something to send then.

        :returns: what they hold, perhaps nothing.
        :raises TLSFailed: where the connection is beyond repair.
        """
        self._incoming.write(data)
        try:
            if not self.established and not self._handshake():
                return b""
            return self._read()
        except ssl.SSLError as e:
            raise TLSFailed(e.reason) from None

    def encrypt(self, data: bytes) -> bytes:
        """Give what to send for some payload."""
        if len(data) <= _AT_ONCE:
            self._tls.write(data)
            return self._outgoing.read()
        view, pieces = memoryview(data), []
        for start in range(0, len(data), _AT_ONCE):
            self._tls.write(view[start : start + _AT_ONCE])
            pieces.append(self._outgoing.read())
        return b"".join(pieces)

    def said(self) -> bytes:
        """Give what TLS itself has to say: the handshake's messages, alerts, answers to new keys."""
        return self._outgoing.read()

    def close(self) -> bytes:
        """Give what to send as the very last (RFC 8446, section 6.1)."""
        with suppress(ssl.SSLError):  # the client has not said that it is through, and nobody waits for that
            self._tls.unwrap()
        return self._outgoing.read()

    def _handshake(self) -> bool:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        self.speaks_h2 = self._tls.selected_alpn_protocol() == ALPN.decode()
        self.established = True
        return True

    def _read(self) -> bytes:
        read = self._tls.read
        pieces = []
        try:
            # Asking for what isn't there costs an exception, so look first.
            while self._incoming.pending or self._tls.pending():
                piece = read(_RECORD)
                if not piece:
                    self.ended = True
                    break
                pieces.append(piece)
        except ssl.SSLWantReadError:
            pass  # the rest of a record is still on its way
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)


class Plain:
    """Stands where TLS would, in front of a web server that has done it: HTTP/2 with prior knowledge, or HTTP/1.1.

    :ivar established: enough is there to tell which.
    :ivar ended: never: the end of the connection says it.
    """

    __slots__ = ("_first", "ended", "established", "speaks_h2")

    def __init__(self) -> None:
        self.ended = False
        self.established = False
        self.speaks_h2 = False
        self._first = b""

    def receive(self, data: bytes) -> bytes:
        """Take bytes off the wire."""
        if self.established:
            return data
        self._first += data
        if len(self._first) < len(_BEGINS):
            return b""
        self.established = True
        self.speaks_h2 = self._first.startswith(_BEGINS)
        return self._first

    def encrypt(self, data: bytes) -> bytes:
        """Give what to send for some payload."""
        return data

    def said(self) -> bytes:
        """Give nothing: there is nobody who would say something of its own."""
        return b""

    def close(self) -> bytes:
        """Give nothing: the end of the connection says it."""
        return b""


def _load(context: ssl.SSLContext, certificate: bytes, key: bytes) -> None:
    """Load what ``ssl`` takes from files only, without writing a key to one: through pipes."""
    ends: list[int] = []
    try:
        names = []
        for text in (certificate, key):
            reading, writing = os.pipe()
            ends.append(reading)
            with os.fdopen(writing, "wb") as pipe:
                pipe.write(text)
            names.append(f"/dev/fd/{reading}")
        context.load_cert_chain(*names)
    finally:
        for end in ends:
            os.close(end)
