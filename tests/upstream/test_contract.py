"""The client's side of a contract, where the contract is not the sandbox's."""

from __future__ import annotations

from typing import Any

from treq.testing import RequestTraversalAgent
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.upstream.badworld import Scripted
from wireleap_relay.boundaries import BadAnswer
from wireleap_relay.upstream.client import SignedClient
from wireleap_relay.upstream.contract import HttpContract
from wireleap_relay.wire.encoding import read_json, write_json
from wireleap_relay.wire.endpoint import Endpoint
from wireleap_relay.wire.keys import SigningKey
from wireleap_relay.wire.payout import WithdrawalRequest
from wireleap_relay.wire.sharetoken import ContractStatement, Sharetoken

PK = str(SigningKey.generate().public_key)
INFO: dict[str, Any] = {"pubkey": PK, "directory": {"endpoint": "https://dir.test/d", "public_key": PK}}


class Contracts(SynchronousTestCase):
    def contract(self, *bodies: object) -> HttpContract:
        answers = [
            (200, body if isinstance(body, bytes) else write_json(body).encode(), dict[str, str]()) for body in bodies
        ]
        self.server = Scripted(*answers)
        client = SignedClient(RequestTraversalAgent(self.server), Clock(), SigningKey.generate())
        return HttpContract(client, Endpoint("http://contract.test/some/path/"))

    def result(self, asking: Any) -> Any:
        return self.successResultOf(Deferred.fromCoroutine(asking))

    def refusal(self, asking: Any) -> str:
        return str(self.failureResultOf(Deferred.fromCoroutine(asking), BadAnswer).value)

    def test_the_least_that_a_contract_can_say(self) -> None:
        info = self.result(self.contract(INFO).info())
        self.assertEqual((str(info.pubkey), info.directory.endpoint), (PK, "https://dir.test/d"))
        self.assertEqual(self.server.seen[0].path, "/some/path/info")

    def test_what_a_contract_says_besides_is_ignored(self) -> None:
        info = self.result(self.contract({**INFO, "news": [1], "payout": {"type": "stripe", "extra": 1}}).info())
        self.assertEqual(info.payout.type, "stripe")

    def test_an_info_that_is_none(self) -> None:
        for body, why in (
            (b"<html>", "not JSON"),
            (b"", "not JSON"),
            (b"null", "expected a JSON object"),
            ([], "expected a JSON object"),
            ({}, "pubkey: missing; directory: missing"),
            ({**INFO, "pubkey": "x"}, "pubkey: expected 32 bytes"),
            ({**INFO, "directory": None}, "directory: expected a JSON object"),
            ({**INFO, "directory": {"public_key": PK}}, "directory.endpoint: missing"),
            ({**INFO, "directory": {"public_key": PK, "endpoint": "ftp://x"}}, "directory.endpoint: expected a URL"),
            ({**INFO, "payout": {"type": 5}}, "payout.type: expected text"),
        ):
            self.assertIn(why, self.refusal(self.contract(body).info()))

    def test_a_submission_carries_the_token_and_the_key(self) -> None:
        client, contract = SigningKey.generate(), SigningKey.generate()
        token = Sharetoken.sign(client, ContractStatement.sign(contract, 10, 20), client.public_key, 5)
        self.result(self.contract({"code": 200, "description": "OK"}).submit(token, "0" * 32))
        (seen,) = self.server.seen
        self.assertEqual((seen.method, seen.path, seen.body), ("POST", "/some/path/submit", token.to_json().encode()))
        self.assertEqual(seen.headers["Idempotency-Key"], "0" * 32)

    def test_a_submission_without_a_status_is_not_one(self) -> None:
        client = SigningKey.generate()
        token = Sharetoken.sign(client, ContractStatement.sign(client, 10, 20), client.public_key, 5)
        self.refusal(self.contract(b"OK").submit(token, "0" * 32))

    def test_a_withdrawal_carries_the_key(self) -> None:
        answer = {"id": "7", "state": "pending", "state_changed": 9, "amount": 5, "type": "stripe", "destination": "x"}
        contract = self.contract({**answer, "receipt": {"url": "y"}})
        withdrawal = self.result(contract.withdraw(WithdrawalRequest(5, "stripe", "x"), "0" * 32))
        self.assertEqual((withdrawal.id, withdrawal.receipt), ("7", {"url": "y"}))
        [asked] = self.server.seen
        self.assertEqual((asked.method, asked.path), ("POST", "/some/path/payout/withdrawals"))
        self.assertEqual(read_json(asked.body), {"amount": 5, "type": "stripe", "destination": "x"})
        self.assertEqual(asked.headers["Idempotency-Key"], "0" * 32)

    def test_payouts_that_cannot_be_read(self) -> None:
        for body in (b"x", b"[]", b'{"id":"1","state":"lost"}'):
            self.assertIn("can't be read", self.refusal(self.contract(body).last_withdrawal()))
            self.assertIn("can't be read", self.refusal(self.contract(body).balance()))
        self.assertIn("can't be read", self.refusal(self.contract(b"x").tokens()))

    def test_tokens_have_any_form(self) -> None:
        for form in ({}, [], None, 5, {"a": [1]}):
            self.assertEqual(self.result(self.contract(form).tokens()), form)
