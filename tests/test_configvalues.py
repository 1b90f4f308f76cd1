"""The single values of config.json."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from zoneinfo import ZoneInfo

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from wireleap_relay.configvalues import (
    DAY,
    HOUR,
    CalendarStart,
    DecoyChoice,
    ListenAddress,
    RestAddress,
    calendar_start,
    contract_key,
    decoy,
    folder,
    limit,
    listen_address,
    published,
    rest_address,
    seconds,
    umask,
    whole,
    worker_count,
)
from wireleap_relay.wire.errors import WireError
from wireleap_relay.wire.units import format_duration, format_size

ports = st.integers(1, 65535)
hosts = st.sampled_from(["", "relay.example", "127.0.0.1", "[::]", "[2001:db8::1]"])
json_values = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.text(), max_size=2)
READERS: list[Callable[[Any], Any]] = [
    worker_count,
    calendar_start,
    contract_key,
    decoy,
    folder,
    limit,
    listen_address,
    published,
    rest_address,
    umask,
    seconds(1, HOUR, or_zero=True),
    whole(1, 9),
]


class ValueTests(SynchronousTestCase):
    def refused(self, read: Callable[[Any], Any], *values: Any) -> None:
        for value in values:
            with self.assertRaises(WireError) as caught:
                read(value)
            self.assertTrue(str(caught.exception).startswith("expected "), f"{value!r}: {caught.exception}")

    @given(st.sampled_from(READERS), json_values)
    def test_nothing_else_is_raised(self, read: Callable[[Any], Any], value: Any) -> None:
        try:
            read(value)
        except WireError as e:
            self.assertTrue(str(e).startswith("expected "), e)

    @given(st.integers(10**9, 3600 * 10**9))
    def test_durations_are_read_back(self, nanoseconds: int) -> None:
        wanted = nanoseconds / 10**9
        self.assertAlmostEqual(seconds(1, HOUR)(format_duration(wanted)), wanted, places=8)

    def test_durations_have_bounds(self) -> None:
        read = seconds(1, DAY)
        self.assertEqual((read("1s"), read("24h"), read("1d")), (1.0, DAY, DAY))
        self.refused(read, "999ms", "24h1s", "0s", "", "-5s", 5, 5.0, True, None)
        self.assertEqual(seconds(1, DAY, or_zero=True)("0s"), 0.0)
        self.refused(seconds(1, DAY, or_zero=True), "1ms")
        with self.assertRaises(WireError) as caught:
            read("2d")
        self.assertEqual(str(caught.exception), "expected a duration from 1s to 1d")

    @given(st.integers(1, 2**64 - 1))
    def test_sizes_are_read_back(self, size: int) -> None:
        self.assertEqual(limit(format_size(size)), size)

    def test_sizes(self) -> None:
        self.refused(limit, "0", "0TB", "16EB", "1 parsec", 10, None)

    def test_whole_numbers(self) -> None:
        read = whole(1, 2**30)
        self.assertEqual((read(1), read(2**30)), (1, 2**30))
        self.refused(read, 0, -1, 2**30 + 1, True, 4096.0, "4096", None)

    @given(hosts, ports)
    def test_listening_addresses_are_read_back(self, host: str, port: int) -> None:
        address = listen_address(f"{host}:{port}")
        self.assertEqual((address.host, address.port), (host.strip("[]"), port))
        self.assertEqual(str(address), f"{host}:{port}")

    def test_listening_addresses(self) -> None:
        self.refused(listen_address, "", "13490", "x:", "x:0", "x:65536", "::1:80", "[::1:80", "[::1]", 80, None)
        self.refused(listen_address, "999.1.1.1:80", "a b:80", "x:१", "[127.0.0.1]:80", "[]:80", "http://x:80")

    def test_listening_beside_a_web_server(self) -> None:
        for text, address in (
            ("unix:/run/relay.sock", ListenAddress("", 0, "/run/relay.sock")),
            ("h2c+unix:/run/a b.sock", ListenAddress("", 0, "/run/a b.sock", plain=True)),
            ("h2c://127.0.0.1:13490", ListenAddress("127.0.0.1", 13490, plain=True)),
            ("h2c://[::1]:1", ListenAddress("::1", 1, plain=True)),
        ):
            self.assertEqual(listen_address(text), address)
            self.assertEqual(str(address), text)
        self.refused(
            listen_address, "unix:relay.sock", "unix:///", "unix:", "h2c+unix:/x/", "unix:/\0", "unix:/" + 107 * "x"
        )
        # In plain, nothing may leave this machine.
        self.refused(listen_address, "h2c://:1", "h2c://0.0.0.0:1", "h2c://192.0.2.1:1", "h2c://[::]:1", "h2c://x:1")
        self.refused(listen_address, "h2c://localhost:1", "h2c://127.0.0.1", "h2c:/x", "h2c+http://127.0.0.1:1")

    @given(hosts, ports)
    def test_rest_addresses_are_read_back(self, host: str, port: int) -> None:
        for end in ("", "/"):
            address = rest_address(f"http://{host}:{port}{end}")
            self.assertEqual(address, RestAddress(tcp=ListenAddress(host.strip("[]"), port)))

    def test_rest_addresses(self) -> None:
        self.assertEqual(rest_address("file:///run/relay%20one.sock").path, "/run/relay one.sock")
        self.assertEqual(rest_address("file:///" + 106 * "x").path, "/" + 106 * "x")
        self.refused(rest_address, "http://127.0.0.1", "https://x:1", "http://x:1/api", "http://x:1?", "unix:/x", 1)
        self.refused(rest_address, "file://run/x", "file:/run/x", "file:///", "file:///run/", "file:///run/x?y#z")
        self.refused(rest_address, "file:///run/%00", "file:///run/\0", "file:///" + 107 * "x", "file:///" + 54 * "é")

    def test_published_addresses(self) -> None:
        self.assertEqual(str(published("wireleap://relay.example")), "wireleap://relay.example:443")
        self.assertEqual(str(published("wireleap://[::1]:8/wireleap")), "wireleap://[::1]:8/wireleap")
        self.refused(published, "target://x:1", "https://x", "relay.example:1", "wireleap://", "wireleap://x:0", 7)

    def test_modes(self) -> None:
        self.assertEqual((umask("600"), umask("077")), (0o600, 0o077))
        self.refused(umask, "0600", "60", "888", "６００", "600\n", 600, None)

    def test_keys_and_folders(self) -> None:
        self.assertEqual(contract_key("user:pass:word"), "user:pass:word")
        self.refused(contract_key, "user", ":pass", "user:", "us er:pass", "", 1)
        self.assertEqual(folder("archive/tokens"), "archive/tokens")
        self.assertEqual(folder(""), "")
        self.refused(folder, "a\0b", 1)

    def test_decoys(self) -> None:
        self.assertEqual(decoy("405"), DecoyChoice())
        self.assertEqual(decoy("/var/www/html"), DecoyChoice(folder="/var/www/html"))
        for text, server in (
            ("http://127.0.0.1:8080", ListenAddress("127.0.0.1", 8080)),
            ("http://[::1]:80/", ListenAddress("::1", 80)),
        ):
            self.assertEqual(decoy(text), DecoyChoice(server=server))
        self.refused(decoy, "", "404", "www", "https://127.0.0.1:80", "http://127.0.0.1", "http://localhost:80")
        self.refused(decoy, "http://192.0.2.1:80", "http://[2001:db8::1]:80", "http://unix:/x", "/a\0b", 405)


class CalendarStarts(SynchronousTestCase):
    def test_how_they_are_written(self) -> None:
        berlin = ZoneInfo("Europe/Berlin")
        for text, expected in [
            ("daily", CalendarStart("day")),
            ("daily 06:30", CalendarStart("day", 0, 6, 30)),
            ("daily UTC", CalendarStart("day")),
            ("weekly mon", CalendarStart("week", 0)),
            ("weekly sunday 23:59 Europe/Berlin", CalendarStart("week", 6, 23, 59, berlin)),
            ("monthly 15 00:00", CalendarStart("month", 15)),
            ("monthly 31 Europe/Berlin", CalendarStart("month", 31, zone=berlin)),
        ]:
            self.assertEqual(calendar_start(text), expected)

    def test_what_they_are_not(self) -> None:
        for text, words in [
            ("", "expected text such as"),
            ("yearly", "expected text such as"),
            ("weekly", "expected text such as"),
            ("daily  06:00", "expected text such as"),
            ("daily 24:00", "from 00:00 to 23:59"),
            ("daily 00:60", "from 00:00 to 23:59"),
            ("weekly someday", "a day of the week"),
            ("monthly 0", "from 1 to 31"),
            ("monthly 32", "from 1 to 31"),
            ("daily Mars/Olympus", "Mars/Olympus is no time zone that this machine knows"),
            ("daily Europe", "no time zone"),
            ("daily a/../../etc/passwd", "expected text such as"),
            ("daily a//b", "no time zone"),
            (5, "expected text such as"),
        ]:
            with self.assertRaises(WireError) as caught:
                calendar_start(text)
            self.assertIn(words, str(caught.exception))


class WorkerCounts(SynchronousTestCase):
    def test_how_they_are_written(self) -> None:
        self.assertEqual([worker_count(value) for value in ("auto", 0, 1, 256)], [None, 0, 1, 256])
        for value in ("4", -1, 257, True, None, 2.0):
            with self.assertRaises(WireError) as caught:
                worker_count(value)
            self.assertEqual(str(caught.exception), 'expected "auto", or a whole number from 0 to 256')
