"""Status objects."""

from __future__ import annotations

import json

from hypothesis import given
from twisted.trial.unittest import SynchronousTestCase

from tests.vectordata import STATUSES
from tests.wire import strategies
from wireleap_relay.wire.errors import WireError
from wireleap_relay.wire.status import Status


class StatusTests(SynchronousTestCase):
    def test_vectors(self) -> None:
        for text in STATUSES:
            self.assertEqual(Status.from_json(text).to_json(), text)
            self.assertEqual(Status.from_json(text.encode() + b"\n").to_json(), text)

    def test_fields(self) -> None:
        self.assertEqual(
            Status.from_json(STATUSES[0]),
            Status(502, "dial tcp 127.0.0.1:1: connect: connection refused", "target"),
        )
        self.assertEqual(Status.from_json('{"code":1,"cause":"c","new":[]}'), Status(1, "", "", "c"))
        self.assertEqual(Status(1, "d", "o", "c").to_json(), '{"code":1,"description":"d","origin":"o","cause":"c"}')

    def test_description_is_always_there(self) -> None:
        self.assertEqual(Status(200).to_json(), '{"code":200,"description":""}')

    @given(strategies.statuses)
    def test_round_trip(self, status: Status) -> None:
        self.assertEqual(Status.from_json(status.to_json()), status)
        self.assertEqual(Status.from_json(status.to_json().encode()), status)

    @given(strategies.wild_texts, strategies.wild_texts, strategies.wild_texts)
    def test_fit_for_a_header(self, description: str, origin: str, cause: str) -> None:
        """Whatever its texts are, it is one line of visible ASCII (RFC 9110, section 5.5), and JSON."""
        text = Status(400, description, origin, cause).to_json()
        self.assertTrue(all(" " <= character <= "~" for character in text), text)
        self.assertEqual(set(json.loads(text)) - {"origin", "cause"}, {"code", "description"})

    def test_controls(self) -> None:
        everything = "".join(map(chr, [*range(0x21), *range(0x7F, 0xA1), 0x2028, 0x2029, 0xFEFF, 0x1F600]))
        text = Status(400, everything).to_json()
        self.assertTrue(text.isascii())
        self.assertTrue(text.isprintable())
        self.assertEqual(Status.from_json(text).description, everything)

    def test_refusals(self) -> None:
        for text, problem in {
            "{}": "code: missing",
            "null": "expected a JSON object",
            '["code"]': "expected a JSON object",
            '{"code":"400"}': "code: expected a whole number",
            '{"code":true}': "code: expected a whole number",
            '{"code":4e2}': "code: expected a whole number",
            '{"code":1,"cause":null}': "cause: expected text",
            '{"code":null,"description":1,"origin":{}}': (
                "code: expected a whole number; description: expected text; origin: expected text"
            ),
            '{"code":1,"code":2}': "a key is there twice",
        }.items():
            with self.assertRaises(WireError, msg=text) as caught:
                Status.from_json(text)
            self.assertEqual(str(caught.exception), problem)
