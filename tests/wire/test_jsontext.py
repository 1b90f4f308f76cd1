"""Where in a text its keys are."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from wireleap_relay.wire.jsontext import below, position, repeated_keys
from wireleap_relay.wire.structure import Mistake

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=12,
)


class JsonTextTests(SynchronousTestCase):
    def test_paths(self) -> None:
        self.assertEqual(below("", "address"), "address")
        self.assertEqual(below("rest_api", "address"), "rest_api.address")
        self.assertEqual(below("contracts", "https://c.example"), 'contracts["https://c.example"]')
        self.assertEqual(below('contracts["http://c"]', "role"), 'contracts["http://c"].role')
        for odd in ("", "a b", "é", "1st", 'x"', "x\n"):
            self.assertEqual(below("", odd), f"[{json.dumps(odd)}]")

    def test_positions(self) -> None:
        text = "ab\ncd"
        self.assertEqual(position(text, 0), "line 1, column 1")
        self.assertEqual(position(text, 4), "line 2, column 2")
        self.assertEqual(position("", 0), "line 1, column 1")

    def test_repeated(self) -> None:
        text = '{"a": [{"b": "\\"b\\": {"}, {"b": 1}],\n "c": {"b": 1,\n  "\\u0062" : 2, "b": 3}, "a": "a"}'
        self.assertEqual(
            list(repeated_keys(text)),
            [
                Mistake("c.b", "is there more than once (line 3, column 3)"),
                Mistake("c.b", "is there more than once (line 3, column 17)"),
                Mistake("a", "is there more than once (line 3, column 26)"),
            ],
        )

    def test_what_is_no_json_has_none(self) -> None:
        for text in ("", '{"a": 1, "a": 2', '"', "[" * 100_000, '{"a": 1, "a": ' + "9" * 5000 + "}"):
            self.assertEqual(list(repeated_keys(text)), [])

    @given(json_values, st.sampled_from([None, 2]), st.booleans())
    def test_an_object_has_its_keys_once(self, value: Any, indent: int | None, ascii_only: bool) -> None:
        self.assertEqual(list(repeated_keys(json.dumps(value, indent=indent, ensure_ascii=ascii_only))), [])

    @given(st.text(), json_values, json_values)
    def test_a_repeated_key_is_found(self, name: str, one: Any, other: Any) -> None:
        key = json.dumps(name)
        text = f'{{"outer": {{{key}: {json.dumps(one)}, {key}: {json.dumps(other)}}}}}'
        self.assertEqual([mistake.path for mistake in repeated_keys(text)], [below("outer", name)])

    @given(st.text())
    def test_no_text_raises(self, text: str) -> None:
        list(repeated_keys(text))
