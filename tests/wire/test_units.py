"""Durations and data sizes."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.vectordata import DATASIZES, DURATIONS
from tests.wire import strategies
from wireleap_relay.wire.errors import WireError
from wireleap_relay.wire.units import (
    format_duration,
    format_duration_for_people,
    format_size,
    parse_duration,
    parse_size,
)


class DurationTests(SynchronousTestCase):
    def assertRefused(self, text: str) -> None:
        with self.assertRaises(WireError, msg=repr(text)) as caught:
            parse_duration(text)
        self.assertEqual(str(caught.exception), 'expected a duration such as "5m0s", "1.5h" or "30d"')

    def test_vectors(self) -> None:
        for vector in DURATIONS["durations"]:
            seconds = parse_duration(vector["text"])
            self.assertEqual(seconds, vector["seconds"], vector)
            self.assertEqual(format_duration(seconds), vector["json"], vector)
            self.assertEqual(format_duration_for_people(seconds), vector["human"], vector)

    def test_read_right(self) -> None:
        for text, seconds in DURATIONS["ours"]["accept"]:
            self.assertEqual(parse_duration(text), seconds, text)

    def test_refusals(self) -> None:
        for text in DURATIONS["ours"]["refuse"]:
            self.assertRefused(text)
        for text in (
            "+5m",
            " 5m",
            "5m ",
            "5m\n",
            "5M",
            "5min",
            "1.2.3s",
            ".s",
            "1..5s",
            ".",
            "0.",
            "1e3s",
            "٣s",
            "5m\0",
            "00",
        ):
            self.assertRefused(text)

    def test_units(self) -> None:
        for text, seconds in {
            "7ns": 7e-9,
            "7us": 7e-6,
            "7µs": 7e-6,  # the micro sign
            "7μs": 7e-6,  # the Greek letter
            "7ms": 7e-3,
            "7s": 7,
            "7m": 420,
            "7h": 25200,
            "7d": 604800,
        }.items():
            self.assertEqual(parse_duration(text), seconds, text)

    def test_decimals(self) -> None:
        """Go takes a number without digits on one side of its point."""
        for text, seconds in {".5h": 1800, "1.s": 1, "1.h.5m": 3630, "0.0000000019s": 1e-9, "1.05m": 63}.items():
            self.assertEqual(parse_duration(text), seconds, text)

    def test_longest(self) -> None:
        """Go's limit of 63 bits of nanoseconds, in 292 years, and nothing beyond."""
        for text in ("2562047h47m16.854775807s", "9223372036854775807ns", "106751d"):
            parse_duration(text)
        for text in ("2562047h47m17s", "9223372036854780000ns", "106752d", "99999999999999999999d", "9" * 5000 + "s"):
            self.assertRefused(text)

    def test_parts_of_a_second(self) -> None:
        """As Go prints them: the largest unit that leaves a whole part."""
        for seconds, text in {
            1e-9: "1ns",
            999e-9: "999ns",
            1e-6: "1µs",
            1.5e-6: "1.5µs",
            999.999e-6: "999.999µs",
            1e-3: "1ms",
            0.3: "300ms",
            1.000001e-3: "1.000001ms",
            0.999999999: "999.999999ms",
            1: "1s",
            1.5: "1.5s",
            59.000000001: "59.000000001s",
            60.25: "1m0.25s",
            3600: "1h0m0s",
        }.items():
            self.assertEqual(format_duration(seconds), text)

    def test_for_people(self) -> None:
        for seconds, text in {
            0: "0s",
            86399: "23h59m59s",
            86400: "1d",
            86400.5: "1d500ms",
            90000: "1d1h0m0s",
            31536000: "365d",
        }.items():
            self.assertEqual(format_duration_for_people(seconds), text)

    @given(st.integers(0, 2**53) | st.integers(0, 2**63 - 1))
    @example(4456323797209255)  # a product of floats makes this one more
    @example(2**63 - 1)
    def test_round_trip(self, nanoseconds: int) -> None:
        seconds = parse_duration(f"{nanoseconds}ns")
        self.assertEqual(seconds, nanoseconds / 10**9)
        self.assertEqual(parse_duration(format_duration(seconds)), seconds)
        self.assertEqual(parse_duration(format_duration_for_people(seconds)), seconds)

    @given(st.integers(0, 2**53 - 1))
    def test_exact(self, nanoseconds: int) -> None:
        """While a float holds every nanosecond, none is lost: 104 days."""
        parts = format_duration(nanoseconds / 10**9)
        again = format_duration(parse_duration(parts))
        self.assertEqual(again, parts)
        self.assertEqual(round(parse_duration(parts) * 1000), round(nanoseconds / 10**6))


class SizeTests(SynchronousTestCase):
    def assertRefused(self, text: str, more: str = "") -> None:
        with self.assertRaises(WireError, msg=repr(text[:50])) as caught:
            parse_size(text)
        self.assertEqual(str(caught.exception), 'expected a data size such as "512MB" or "10TB"' + more)

    def test_vectors(self) -> None:
        for vector in DATASIZES["datasizes"]:
            if "error" in vector:
                with self.assertRaises(WireError, msg=vector["text"]):
                    parse_size(vector["text"])
            else:
                size = parse_size(vector["text"])
                self.assertEqual(size, int(vector["bytes"]), vector)
                self.assertEqual(format_size(size), vector["string"], vector)

    def test_refusals(self) -> None:
        for text in DATASIZES["ours"]["refuse"]:
            self.assertRefused(text)
        for text in (" ", "1 2", "1kbb", "1bk", "+1", "1,5GB", "1TBB", "٣GB", "1GB\0", "1 000", "9" * 5000, "1ZB"):
            self.assertRefused(text)

    def test_units(self) -> None:
        for power, unit in enumerate(("", "k", "m", "g", "t", "p", "e")):
            for spelling in {unit, unit.upper(), f"{unit}b", f"{unit.upper()}B", f"{unit}B"}:
                self.assertEqual(parse_size(f" 3 {spelling} "), 3 * 1024**power, spelling)

    def test_largest(self) -> None:
        self.assertEqual(parse_size("18446744073709551615"), 2**64 - 1)
        for text in ("18446744073709551616", "16EB", "99999999999999999999EB"):
            self.assertRefused(text, " below 16EB")

    def test_written(self) -> None:
        for size, text in {
            0: "0B",
            1: "1B",
            1024: "1KB",
            1025: "1025B",
            3 * 2**60: "3EB",
            1024**2 * 1023: "1023MB",
        }.items():
            self.assertEqual(format_size(size), text)

    def test_much_white_space(self) -> None:
        """A long text is refused at once: with time going by its square this would take minutes."""
        self.assertRefused("1" + " " * 200_000 + "x")

    @given(strategies.sizes)
    def test_round_trip(self, size: int) -> None:
        self.assertEqual(parse_size(format_size(size)), size)
