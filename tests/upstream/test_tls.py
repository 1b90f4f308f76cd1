"""HTTPS: who is trusted, and who isn't."""

from __future__ import annotations

import datetime
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from OpenSSL import SSL
from twisted.internet.ssl import Certificate, ContextFactory, trustRootFromCertificates
from twisted.trial.unittest import TestCase
from twisted.web.client import BrowserLikePolicyForHTTPS

from tests.upstream.badworld import Scripted, reactor
from tests.upstream.worlds import turns
from wireleap_relay.boundaries import Unreachable
from wireleap_relay.sandbox.web import QuietSite
from wireleap_relay.upstream.retry import RetryPolicy
from wireleap_relay.upstream.service import UpstreamService
from wireleap_relay.wire.endpoint import Endpoint
from wireleap_relay.wire.keys import SigningKey


class SelfSigned(ContextFactory):
    """A server's TLS, with a certificate for a host that it made itself."""

    def __init__(self, host: str) -> None:
        key, self.certificate = self_signed(host)
        self._context = SSL.Context(SSL.TLS_METHOD)
        self._context.use_privatekey(key)
        self._context.use_certificate(self.certificate)

    def getContext(self) -> SSL.Context:
        """Give it to a connection."""
        return self._context


def self_signed(host: str) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    """Make a certificate for a host."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    return key, certificate


class Https(TestCase):
    def setUp(self) -> None:
        self.server = Scripted((200, b"null", {}))

    async def ask(self, tls: SelfSigned, *, trusted: bool) -> Any:
        """Ask a server on localhost something."""
        port = reactor.listenSSL(0, QuietSite(self.server), tls, interface="127.0.0.1")
        pem = tls.certificate.public_bytes(serialization.Encoding.PEM)
        roots = trustRootFromCertificates([Certificate.loadPEM(pem)])
        service = UpstreamService(reactor, SigningKey.generate(), BrowserLikePolicyForHTTPS(roots) if trusted else None)
        service.startService()
        service._client._policy = RetryPolicy(tries=1)
        try:
            contract = service.contract(Endpoint(f"https://localhost:{port.getHost().port}"))
            return await contract.last_withdrawal()
        finally:
            await service.stopService()
            await port.stopListening()
            await turns()

    async def test_a_trusted_certificate(self) -> None:
        self.assertIsNone(await self.ask(SelfSigned("localhost"), trusted=True))
        self.assertEqual(len(self.server.seen), 1)

    async def test_a_certificate_that_nobody_vouches_for(self) -> None:
        with self.assertRaisesRegex(Unreachable, "TLS: certificate verify failed"):
            await self.ask(SelfSigned("localhost"), trusted=False)
        self.assertEqual(self.server.seen, [])

    async def test_a_certificate_for_another_host(self) -> None:
        with self.assertRaisesRegex(Unreachable, "TLS: the certificate is not for this host"):
            await self.ask(SelfSigned("elsewhere.test"), trusted=True)
        self.assertEqual(self.server.seen, [])
