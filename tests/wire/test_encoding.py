"""Base64url and JSON."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.wire import strategies
from wireleap_relay.wire.encoding import from_base64url, read_json, to_base64url, write_json
from wireleap_relay.wire.errors import WireError


class Base64urlTests(SynchronousTestCase):
    @given(st.binary(max_size=100))
    def test_round_trip(self, raw: bytes) -> None:
        text = to_base64url(raw)
        self.assertEqual(from_base64url(text, len(raw)), raw)
        self.assertNotIn("=", text)

    def test_alphabet(self) -> None:
        self.assertEqual(to_base64url(b"\xfb\xef\xff"), "--__")
        self.assertEqual(from_base64url("--__", 3), b"\xfb\xef\xff")

    def test_refusals(self) -> None:
        """Another size, padding, the other alphabet, white space, and a spelling with stray bits."""
        for text in (
            "AA",
            "AAAAAA",
            "",
            "AAA=",
            "++A",
            "//A",
            " AAA",
            "AA A",
            "AAA\n",
            "A\0A",
            "AAB",
            "AAÄ",
            "AA\ud800",
        ):
            with self.assertRaises(WireError, msg=repr(text)) as caught:
                from_base64url(text, 2)
            self.assertEqual(str(caught.exception), "expected 2 bytes as base64url without padding")


class ReadJsonTests(SynchronousTestCase):
    def assertRefused(self, text: str | bytes, problem: str) -> None:
        with self.assertRaises(WireError, msg=repr(text[:50])) as caught:
            read_json(text)
        self.assertEqual(str(caught.exception), problem)

    def test_text_and_bytes(self) -> None:
        for text in ('{"a":["é",1,-2.5,true,null]}', '{ "a" : ["\\u00e9", 1, -2.5, true, null] }\n'):
            expected = {"a": ["é", 1, -2.5, True, None]}
            self.assertEqual(read_json(text), expected)
            self.assertEqual(read_json(text.encode()), expected)

    def test_not_json(self) -> None:
        self.assertRefused("", "not JSON: Expecting value (line 1, column 1)")
        self.assertRefused('{"a":\n}', "not JSON: Expecting value (line 2, column 1)")
        self.assertRefused("1 2", "not JSON: Extra data (line 1, column 3)")

    def test_twice(self) -> None:
        self.assertRefused('{"a":1,"a":1}', "a key is there twice")
        self.assertRefused('[{"b":{"a":1,"c":2,"\\u0061":3}}]', "a key is there twice")

    def test_numbers_that_are_none(self) -> None:
        for name in ("NaN", "Infinity", "-Infinity"):
            self.assertRefused(f'{{"a":{name}}}', f"{name} is not a JSON number")
        for number in ("1e400", "-1e400", "1" + "0" * 400 + ".0"):
            self.assertRefused(f"[{number}]", "a number is too large")

    def test_too_much(self) -> None:
        """Python's own limits against long digits and deep nesting are refusals too."""
        self.assertRefused("9" * 5000, "not JSON: ValueError")
        self.assertRefused("[" * 100_000, "not JSON: RecursionError")
        self.assertRefused(b'{"a":' * 100_000, "not JSON: RecursionError")

    def test_not_utf_8(self) -> None:
        for raw in (b'"\xff"', b'"\xed\xa0\x80"', b'"\xc0\x80"'):
            self.assertRefused(raw, "not JSON: UnicodeDecodeError")

    def test_half_characters(self) -> None:
        """A lone surrogate can be no UTF-8, escaped or not, as a value or a key; a pair is a character."""
        for text in ('"\\ud800"', '{"\\udfff":1}', '["\ud800"]', '{"\udc80":1}', '"é\\ud83d\\u0041"'):
            self.assertRefused(text, "not JSON: UnicodeEncodeError")
        self.assertEqual(read_json('"\\ud83d\\ude00"'), "😀")


class WriteJsonTests(SynchronousTestCase):
    @given(
        st.dictionaries(
            strategies.texts,
            st.none()
            | st.booleans()
            | st.integers()
            | st.floats(allow_nan=False, allow_infinity=False)
            | strategies.texts,
            max_size=5,
        )
    )
    def test_round_trip(self, value: object) -> None:
        text = write_json(value)
        self.assertEqual(read_json(text), value)
        self.assertTrue(all(" " <= character <= "~" for character in text), text)

    def test_compact_in_order(self) -> None:
        self.assertEqual(write_json({"b": [1, 2], "a": "é\n"}), '{"b":[1,2],"a":"\\u00e9\\n"}')
