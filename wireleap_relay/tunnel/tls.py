"""The relay's TLS: 1.3 only, HTTP/2 only (PROTOCOL: *The tunnel*)."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509 import Certificate
from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.protocols.tls import TLSMemoryBIOProtocol
from zope.interface import implementer

ALPN = b"h2"


def _select(_: SSL.Connection, offered: list[bytes]) -> bytes | SSL._NoOverlappingProtocols:
    return ALPN if ALPN in offered else SSL.NO_OVERLAPPING_PROTOCOLS


@implementer(IOpenSSLServerConnectionCreator)
class ServerTLS:
    """Makes the server's side of TLS connections.

    OpenSSL lets a client in that names no protocol at all: whoever accepts
    connections has to look at what was negotiated.
    """

    def __init__(self, certificate: Certificate, key: Ed25519PrivateKey) -> None:
        """Serve with the relay's certificate and its key."""
        self._context = context = SSL.Context(SSL.TLS_METHOD)
        context.set_min_proto_version(SSL.TLS1_3_VERSION)
        context.use_certificate(certificate)
        context.use_privatekey(key)
        context.set_alpn_select_callback(_select)

    def serverConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        """Make one connection."""
        return SSL.Connection(self._context, None)
