"""Files that a relay reads and did not write itself, with anything in them."""

from __future__ import annotations

import contextlib
from ipaddress import ip_address
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.upgrade.keys import NOW, Signer
from wireleap_relay.home import Home, HomeError
from wireleap_relay.tunnel.resolver import _Files, _read_files
from wireleap_relay.upgrade.record import Record, read_record
from wireleap_relay.upgrade.release import NotGenuine, read_keys, read_listing
from wireleap_relay.upgrade.rules import Unwanted, read_skipped

_words = st.sampled_from(
    ["nameserver", "127.0.0.1", "::1", "fe80::1%eth0", "#", ";", "options", "relay.local", "\0", "."]
)
_lines = st.lists(st.lists(_words | st.text(max_size=8), max_size=4).map(" ".join), max_size=6).map("\n".join)


class FileTests(SynchronousTestCase):
    def file(self, content: str | bytes) -> Path:
        path = Path(self.mktemp()).absolute()
        path.write_bytes(content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content)
        return path

    @given(_lines | st.binary(max_size=80), _lines)
    def test_name_servers_and_hosts(self, servers: str | bytes, hosts: str) -> None:
        found = _read_files(_Files(), self.file(servers), self.file(hosts), 53)
        self.assertTrue(found.servers)
        for host, port in found.servers:
            ip_address(host)
            self.assertEqual(port, 53)

    @given(st.binary(max_size=200) | st.text())
    def test_keys_of_a_home(self, content: str | bytes) -> None:
        home = Home(Path(self.mktemp()).absolute())
        home.path.mkdir()
        for file in (home.key_seed, home.certificate, home.tls_key):
            file.write_bytes(self.file(content).read_bytes())
        for load in (home.load_key, home._load_certificate, home._load_tls_key):
            with contextlib.suppress(HomeError):
                load()

    @given(st.binary(max_size=100) | st.sampled_from([b'"0.7.0"', b'"1"', b"7", b'{"state": "probation"}']))
    def test_what_upgrades_remember(self, content: bytes) -> None:
        with contextlib.suppress(Unwanted):
            read_skipped(self.file(content))
        home = Home(Path(self.mktemp()).absolute())
        home.path.mkdir()
        home.upgrade_record.write_bytes(content)
        self.assertIsInstance(read_record(home), Record)


class ReleaseTests(SynchronousTestCase):
    signer = Signer()
    listing = signer.listing("0.8.0", one=bytes(64), two=bytes(range(64)))

    @given(st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 3), st.binary(max_size=3)), min_size=1, max_size=4))
    def test_a_list_that_was_tampered_with(self, changes: list[tuple[int, int, bytes]]) -> None:
        text = bytearray(self.listing)
        for at, cut, put in changes:
            text[at % len(text) : at % len(text) + cut] = put
        try:
            found = read_listing(bytes(text), [self.signer.cert], NOW)
        except NotGenuine:
            return
        self.assertEqual(found, read_listing(self.listing, [self.signer.cert], NOW))

    @given(st.text(max_size=60) | st.sampled_from(["# wireleap-relay 0.8.0", "# wireleap-relay x\n", "#\n\n"]))
    def test_whatever_was_signed(self, text: str) -> None:
        with contextlib.suppress(NotGenuine):
            read_listing(self.signer.sign(text.encode()), [self.signer.cert], NOW)

    @given(st.binary(max_size=200))
    def test_no_keys(self, data: bytes) -> None:
        self.assertRaises(NotGenuine, read_keys, data)
