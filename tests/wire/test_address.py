"""Addresses of relays and targets."""

from __future__ import annotations

from hypothesis import given
from twisted.trial.unittest import SynchronousTestCase

from tests.wire import strategies
from wireleap_relay.wire.address import Address, is_host, join_host_port
from wireleap_relay.wire.errors import WireError
from wireleap_relay.wire.structure import converter, structure

URL = "expected a URL such as target://host:port or wireleap://host:port/path"
HOST = "expected a host name, an IPv4 address or an IPv6 address in brackets"
TARGET = "expected target://host:port"
PORT = "expected a port from 1 to 65535"


class AddressTests(SynchronousTestCase):
    def assertRefused(self, text: str, problem: str) -> None:
        with self.assertRaises(WireError, msg=repr(text)) as caught:
            Address.from_text(text)
        self.assertEqual(str(caught.exception), problem, text)

    def test_read(self) -> None:
        for text, address in {
            "target://example.com:443": Address("target", "example.com", 443),
            "target://192.0.2.1:1": Address("target", "192.0.2.1", 1),
            "target://[2001:db8::1]:65535": Address("target", "2001:db8::1", 65535),
            "target://[::ffff:192.0.2.1]:80": Address("target", "::ffff:192.0.2.1", 80),
            "target://localhost.:80": Address("target", "localhost.", 80),
            "target://_dns.X--n.example:53": Address("target", "_dns.X--n.example", 53),
            "wireleap://relay.example.com:13490/wireleap": Address("wireleap", "relay.example.com", 13490, "/wireleap"),
            "wireleap://[::1]:13490/": Address("wireleap", "::1", 13490, "/"),
            "https://relay.example.com:8443/a?b#c": Address("https", "relay.example.com", 8443, "/a?b#c"),
        }.items():
            self.assertEqual(Address.from_text(text), address)
            self.assertEqual(str(address), text)

    def test_default_port(self) -> None:
        """Relays have one, targets have none."""
        for text, printed in {
            "wireleap://relay.example.com": "wireleap://relay.example.com:443",
            "https://relay.example.com/wireleap": "https://relay.example.com:443/wireleap",
            "wireleap://[::1]": "wireleap://[::1]:443",
        }.items():
            self.assertEqual(Address.from_text(text).port, 443)
            self.assertEqual(str(Address.from_text(text)), printed)

    def test_no_url(self) -> None:
        for text in (
            "",
            "example.com:443",
            "//example.com:443",
            "http://example.com:443",
            "ftp://example.com:443",
            "Target://example.com:443",
            "target:example.com:443",
            "target://:443",
            "target://example.com:",
            "target://example.com:123456",
            "target://example.com:-1",
            "target://example.com:４４３",
            "target://user@example.com:443",
            "target://exämple.com:443",
            "target://exa mple.com:443",
            "target://example.com:443\n",
            " target://example.com:443",
            "target://example.com\0:443",
            "target://[fe80::1%eth0]:443",
            "target://::1:443",
            "target://[::1:443",
            "target://a.-:443",
            "wireleap://example.com:443path",
            "wireleap://example.com:443/a b",
            "wireleap://example.com:443/ä",
            "wireleap://example.com:443/" + "a" * 1025,
        ):
            self.assertRefused(text, URL)

    def test_no_host(self) -> None:
        for text in (
            "target://a..b:443",
            "target://a-.b:443",
            "target://1.2.3:443",
            "target://256.1.1.1:443",
            "target://[1.2.3.4]:443",
            "target://[:::1]:443",
            "target://[12345::]:443",
            "target://[abcd]:443",
            "target://" + "a" * 64 + ":443",
        ):
            self.assertRefused(text, HOST)

    def test_targets(self) -> None:
        for text in ("target://example.com", "target://[::1]", "target://example.com:443/", "target://a:1/wireleap"):
            self.assertRefused(text, TARGET)

    def test_ports(self) -> None:
        for scheme in ("target", "wireleap", "https"):
            for port in ("0", "00000", "65536", "99999"):
                self.assertRefused(f"{scheme}://example.com:{port}", PORT)
            for port in ("1", "65535", "00080"):
                self.assertEqual(Address.from_text(f"{scheme}://example.com:{port}").port, int(port))

    def test_is_target(self) -> None:
        self.assertTrue(Address("target", "a", 1).is_target)
        self.assertFalse(Address("wireleap", "a", 1).is_target)
        self.assertFalse(Address("https", "a", 1).is_target)

    def test_host_port(self) -> None:
        self.assertEqual(Address("target", "a.b", 1).host_port, "a.b:1")
        self.assertEqual(Address("wireleap", "::1", 2, "/path").host_port, "[::1]:2")
        self.assertEqual(join_host_port("192.0.2.1", 3), "192.0.2.1:3")

    def test_structured(self) -> None:
        text = "wireleap://[::1]:443/wireleap"
        address = structure(text, Address)
        self.assertEqual(address, Address("wireleap", "::1", 443, "/wireleap"))
        self.assertEqual(converter.unstructure(address), text)
        for value in (None, 5, [text], {"scheme": "target", "host": "a", "port": 1}):
            with self.assertRaises(WireError, msg=repr(value)) as caught:
                structure(value, Address)
            self.assertEqual(str(caught.exception), "expected text")

    @given(strategies.addresses)
    def test_round_trip(self, address: Address) -> None:
        self.assertEqual(Address.from_text(str(address)), address)


class HostTests(SynchronousTestCase):
    def test_hosts(self) -> None:
        for host in (
            "a",
            "localhost",
            "example.com",
            "example.com.",
            "a-b.c_d",
            "1a",
            "1.2.3.4.com",
            "0xyz",
            "x0x1",
            "a" * 63 + ".b",
            ".".join(["a" * 49] * 5) + ".bc",
            "0.0.0.0",
            "255.255.255.255",
            "::",
            "::1",
            "2001:DB8::1",
            "1:2:3:4:5:6:7:8",
            "::ffff:1.2.3.4",
        ):
            self.assertTrue(is_host(host), host)

    def test_no_hosts(self) -> None:
        for host in (
            "",
            ".",
            "..",
            ".a",
            "a..",
            "-a",
            "a-",
            "a.-b",
            "a b",
            "a\n",
            "a\0",
            "ä",
            "a/b",
            "a@b",
            "a" * 64,
            ".".join(["a" * 49] * 5) + ".bcde",
            ":",
            "1:2",
            "1:2:3:4:5:6:7:8:9",
            "[::1]",
            "::1]",
            "::g",
        ):
            self.assertFalse(is_host(host), host)

    def test_numbers_that_resolvers_take_for_addresses(self) -> None:
        """All of these but the last two are 127.0.0.1 to inet_aton(3); none is a name (RFC 1123, section 2.1)."""
        for host in (
            "127.1",
            "127.0.1",
            "2130706433",
            "017700000001",
            "0177.0.0.1",
            "127.0.0.01",
            "0x7f000001",
            "0X7F000001",
            "0x7f.0.0.1",
            "127.0.0.0x1",
            "127.0.0x1",
            "127.0.0.1.",
            "0x",
        ):
            self.assertFalse(is_host(host), host)

    @given(strategies.hosts)
    def test_every_kind(self, host: str) -> None:
        self.assertTrue(is_host(host))
