"""The relay's side of TLS, against the standard library's other side, without sockets."""

from __future__ import annotations

import contextlib
import ssl
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.tunnel.world import make_certificate
from wireleap_relay.tunnel.tls import ServerTLS, TLSFailed
from wireleap_relay.wire.keys import SigningKey


class Client:
    """A client's TLS."""

    def __init__(self) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.set_alpn_protocols(["h2"])
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing)

    def step(self, work: Any) -> bytes:
        """Do something, and give what is to be sent for it."""
        with contextlib.suppress(ssl.SSLWantReadError):
            work()
        return self.outgoing.read()


class TLSTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.client = Client()
        key = SigningKey.generate()
        self.server = ServerTLS(make_certificate(key), key.private).connection()
        self.server.receive(self.client.step(self.client.tls.do_handshake))
        self.client.incoming.write(self.server.said())
        self.server.receive(self.client.step(self.client.tls.do_handshake))
        self.assertTrue(self.server.established)

    def test_last_words_that_come_with_the_farewell_are_read(self) -> None:
        words = self.client.step(lambda: self.client.tls.write(b"last words"))
        farewell = self.client.step(self.client.tls.unwrap)
        self.assertEqual(self.server.receive(words + farewell), b"last words")
        self.assertTrue(self.server.ended)

    def test_a_record_in_pieces(self) -> None:
        record = self.client.step(lambda: self.client.tls.write(b"hello"))
        self.assertEqual(self.server.receive(record[:7]), b"")
        self.assertEqual(self.server.receive(record[7:]), b"hello")
        self.assertFalse(self.server.ended)

    def test_what_is_larger_than_a_record_comes_whole(self) -> None:
        data = bytes(range(256)) * 1000
        self.client.incoming.write(self.server.encrypt(data))
        got = b""
        while len(got) < len(data):
            got += self.client.tls.read(65_536)
        self.assertEqual(got, data)

    def test_rubbish(self) -> None:
        with self.assertRaises(TLSFailed):
            self.server.receive(b"GET / HTTP/1.1\r\n\r\n")
