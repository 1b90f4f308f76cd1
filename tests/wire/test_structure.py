"""Strict structuring: nothing coerced, every mistake with its path."""

from __future__ import annotations

from typing import Any, Literal

import attrs
from cattrs.gen import make_dict_structure_fn
from twisted.trial.unittest import SynchronousTestCase

from tests.vectordata import SHARETOKENS
from wireleap_relay.wire.errors import WireError
from wireleap_relay.wire.keys import PublicKey, Signature
from wireleap_relay.wire.structure import Mistake, Mistaken, converter, mistakes, read, strict_converter, structure


@attrs.frozen
class Inner:
    name: str
    size: int = 0


@attrs.frozen
class Outer:
    text: str = ""
    number: int = 0
    flag: bool = False
    choice: Literal["one", "two"] = "one"
    inner: Inner | None = None
    items: tuple[Inner, ...] = ()
    words: list[str] = attrs.field(factory=list)
    table: dict[str, Inner] = attrs.field(factory=dict)
    key: PublicKey | None = None
    signature: Signature | None = None


KEY = SHARETOKENS[0]["json"]["public_key"]
SIGNATURE = SHARETOKENS[0]["json"]["signature"]
NUMBER, TEXT, FLAG = "expected a whole number", "expected text", "expected true or false"
OBJECT, ARRAY = "expected a JSON object", "expected a JSON array"


class StructureTests(SynchronousTestCase):
    def assertRefused(self, value: Any, problem: str) -> None:
        with self.assertRaises(WireError, msg=repr(value)) as caught:
            structure(value, Outer)
        self.assertEqual(str(caught.exception), problem)

    def test_everything(self) -> None:
        fields = {
            "text": "t",
            "number": -5,
            "flag": True,
            "choice": "two",
            "inner": {"name": "n"},
            "items": [{"name": "a", "size": 1}, {"name": "b"}],
            "words": ["x"],
            "table": {"k": {"name": "c"}},
            "key": KEY,
            "signature": SIGNATURE,
        }
        value = structure(fields, Outer)
        expected = Outer(
            "t",
            -5,
            True,
            "two",
            Inner("n"),
            (Inner("a", 1), Inner("b")),
            ["x"],
            {"k": Inner("c")},
            PublicKey.from_text(KEY),
            Signature.from_text(SIGNATURE),
        )
        self.assertEqual(value, expected)
        self.assertEqual(converter.unstructure(value)["key"], KEY)
        self.assertEqual(converter.unstructure(value)["signature"], SIGNATURE)

    def test_unknown_fields_are_ignored(self) -> None:
        self.assertEqual(structure({"new": 1, "inner": {"name": "n", "new": []}}, Outer), Outer(inner=Inner("n")))

    def test_nothing_is_coerced(self) -> None:
        """Each kind of field refuses each kind of JSON value that isn't its own."""
        values = {"text": "t", "number": 5, "float": 5.0, "flag": True, "null": None, "object": {}, "array": []}
        kinds = {"text": TEXT, "number": NUMBER, "flag": FLAG}
        for field, problem in kinds.items():
            for kind, value in values.items():
                if kind != field:
                    self.assertRefused({field: value}, f"{field}: {problem}")
        for kind, value in values.items():
            self.assertRefused({"choice": value}, "choice: expected one of one, two")
            if kind not in ("object", "null"):
                self.assertRefused({"inner": value}, f"inner: {OBJECT}")
            if kind != "object":
                self.assertRefused({"table": value}, f"table: {OBJECT}")
                self.assertRefused(value, OBJECT)
            if kind != "array":
                self.assertRefused({"items": value}, f"items: {ARRAY}")
                self.assertRefused({"words": value}, f"words: {ARRAY}")
            if kind not in ("text", "null"):
                self.assertRefused({"key": value}, f"key: {TEXT}")
                self.assertRefused({"signature": value}, f"signature: {TEXT}")

    def test_wide_numbers(self) -> None:
        for number in (2**63 - 1, -(2**63)):
            self.assertEqual(structure({"number": number}, Outer).number, number)
        for number in (2**63, -(2**63) - 1, 10**4000):
            self.assertRefused({"number": number}, "number: expected a whole number of 64 bits")

    def test_every_mistake_with_its_path(self) -> None:
        """In the order of the fields."""
        wrong = {
            "signature": KEY,
            "key": SIGNATURE,
            "table": {"k": {"size": "1"}, "l": 5},
            "words": ["a", 1],
            "items": [{"name": "a"}, {"size": 1}, 5],
            "inner": {"name": 1, "size": None},
            "text": 1,
        }
        self.assertRefused(
            wrong,
            "text: expected text; "
            "inner.name: expected text; inner.size: expected a whole number; "
            "items[1].name: missing; items[2]: expected a JSON object; "
            "words[1]: expected text; "
            "table[k].name: missing; table[k].size: expected a whole number; table[l]: expected a JSON object; "
            "key: expected 32 bytes as base64url without padding; "
            "signature: expected 64 bytes as base64url without padding",
        )

    def test_read(self) -> None:
        self.assertEqual(read('{"text": "t"}', Outer), Outer("t"))
        self.assertEqual(read(b'{"text": "t"}', Outer), Outer("t"))
        for text, problem in {
            "{": "not JSON: Expecting property name enclosed in double quotes (line 1, column 2)",
            "null": OBJECT,
            '{"text":"a","text":"b"}': "a key is there twice",
            '{"inner":{}}': "inner.name: missing",
        }.items():
            with self.assertRaises(WireError, msg=text) as caught:
                read(text, Outer)
            self.assertEqual(str(caught.exception), problem)


class ForbiddingTests(SynchronousTestCase):
    """A converter of one's own, which refuses unknown keys."""

    def setUp(self) -> None:
        self.converter = strict_converter()
        for kind in (Inner, Outer):
            hook: Any = make_dict_structure_fn(kind, self.converter, _cattrs_forbid_extra_keys=True)
            self.converter.register_structure_hook(kind, hook)

    def test_unknown_keys(self) -> None:
        fields = {"text": 5, "zoo": 1, "ark": 2, "inner": {"name": "n", "x": 1}}
        with self.assertRaises(WireError) as caught:
            structure(fields, Outer, self.converter)
        self.assertEqual(
            str(caught.exception), "text: expected text; inner.x: unknown key; ark: unknown key; zoo: unknown key"
        )
        with self.assertRaises(WireError):
            read('{"zoo": 1}', Outer, self.converter)
        self.assertEqual(read('{"zoo": 1}', Outer), Outer())

    def test_below_a_path(self) -> None:
        with self.assertRaises(Exception) as caught:  # cattrs' own
            self.converter.structure({"name": "n", "x": 1}, Inner)
        self.assertEqual(list(mistakes(caught.exception, "a.b")), [Mistake("a.b.x", "unknown key")])

    def test_printed(self) -> None:
        self.assertEqual(str(Mistake("a.b", "missing")), "a.b: missing")
        self.assertEqual(str(Mistake("", "missing")), "missing")

    def test_whole_paths_stay(self) -> None:
        """A hook that knows the paths itself has them reported as they are."""
        found = [Mistake("a.b", "missing"), Mistake("", "expected text")]

        def refuse(value: Any, kind: Any) -> Any:
            raise Mistaken(found)

        self.converter.register_structure_hook(Inner, refuse)
        with self.assertRaises(Exception) as caught:  # cattrs' own
            self.converter.structure({"inner": {}}, Outer)
        self.assertEqual(list(mistakes(caught.exception)), found)
        with self.assertRaises(WireError) as refused:
            structure({}, Inner, self.converter)
        self.assertEqual(str(refused.exception), "a.b: missing; expected text")
