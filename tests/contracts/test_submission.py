"""Handing in sharetokens, against the sandbox's contract and against answers it never gives."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.upstream.badworld import Scripted
from tests.upstream.worlds import MemoryWorld
from wireleap_relay.boundaries import Contract, Outcome, SubmissionFailed
from wireleap_relay.contracts.book import Book
from wireleap_relay.contracts.submission import ContractSubmitter
from wireleap_relay.sandbox.ledger import Terms
from wireleap_relay.wire.address import Address
from wireleap_relay.wire.keys import PublicKey, SigningKey
from wireleap_relay.wire.sharetoken import Sharetoken
from wireleap_relay.wire.status import Status

KEY = "0" * 32


class Submission(SynchronousTestCase):
    def setUp(self) -> None:
        self.world = MemoryWorld(Terms(duration=60, submission_window=30))
        self.key = SigningKey.generate()
        self.book = Book()
        self.remembered: dict[PublicKey, str] = {}
        self.submitter = ContractSubmitter(self.book, self.world.upstream(self.key), self.remembered.get)
        contract = self.world.contract
        self.book.enter(Contract(contract.endpoint, contract.id, "backing", Address("wireleap", "h", 1)))
        servicekey = SigningKey.generate()
        self.statement = contract.activate(servicekey.public_key)
        self.token = Sharetoken.sign(servicekey, self.statement, self.key.public_key, 0)
        self.other = Sharetoken.sign(servicekey, self.statement, SigningKey.generate().public_key, 0)

    def submit(self, token: Sharetoken | None = None, key: str = KEY) -> Deferred[Outcome]:
        submitting = Deferred.fromCoroutine(self.submitter.submit(token or self.token, key))
        self.world.clock.pump([5.0] * 2)
        return submitting

    def answer(self, code: int, cause: str = "", description: str = "no") -> Scripted:
        """Put a contract in its place that always says the same."""
        server = Scripted((code, Status(code, description, cause=cause).to_json().encode(), {}))
        self.world.root.putChild(b"contract", server)
        return server

    def failure(self, **arguments: Any) -> str:
        return str(self.failureResultOf(self.submit(**arguments), SubmissionFailed).value)

    def test_a_token_is_taken(self) -> None:
        self.world.advance(61)
        self.assertEqual(self.successResultOf(self.submit()), Outcome("submitted"))
        self.assertEqual(self.world.contract.status().accounts[self.key.public_key].awaiting, 1)

    def test_a_token_that_the_contract_has_is_submitted(self) -> None:
        self.world.advance(61)
        self.successResultOf(self.submit())
        self.assertEqual(self.successResultOf(self.submit(key="1" * 32)).state, "submitted")

    def test_a_token_too_early_is_tried_again_with_another_key(self) -> None:
        self.assertIn("not yet open", self.failure())
        self.world.advance(61)
        # A contract repeats its answer to a key.
        self.assertIn("not yet open", self.failure())
        self.assertEqual(self.successResultOf(self.submit(key="1" * 32)).state, "submitted")

    def test_a_token_too_late_has_expired(self) -> None:
        self.world.advance(95)
        outcome = self.successResultOf(self.submit())
        self.assertEqual(outcome, Outcome("expired", "settlement window already closed"))

    def test_verdicts(self) -> None:
        for code in (400, 409, 410, 422):
            self.answer(code, "so it is")
            state = "submitted" if code == 409 else "refused"
            self.assertEqual(self.successResultOf(self.submit()), Outcome(state, "so it is"))
        self.answer(400, description="bad request")
        self.assertEqual(self.successResultOf(self.submit()), Outcome("refused", "bad request"))

    def test_what_decides_nothing_is_tried_again(self) -> None:
        for code in (401, 403, 404, 405, 408, 429, 500, 502, 503):
            self.answer(code)
            self.assertIn(str(code), self.failure())

    def test_a_failure_tells_whether_there_was_an_answer(self) -> None:
        self.world.agent.down.add("http")
        failed = self.failureResultOf(self.submit(), SubmissionFailed).value
        self.assertFalse(failed.answered)
        self.world.agent.down.clear()
        self.world.root.putChild(b"contract", Scripted((502, b"<html>a proxy", {})))
        failed = self.failureResultOf(self.submit(), SubmissionFailed).value
        self.assertTrue(failed.answered)
        server = self.answer(500)
        failed = self.failureResultOf(self.submit(), SubmissionFailed).value
        self.assertTrue(failed.answered)
        self.assertEqual({seen.headers["Idempotency-Key"] for seen in server.seen}, {KEY})

    def test_an_unknown_contract_is_waited_for(self) -> None:
        submitter = ContractSubmitter(Book(), self.world.upstream(self.key), self.remembered.get)
        submitting = Deferred.fromCoroutine(submitter.submit(self.token, KEY))
        failed = self.failureResultOf(submitting, SubmissionFailed).value
        self.assertIn("nobody knows where the contract is", str(failed))
        self.assertFalse(failed.answered)

    def test_a_contract_that_left_the_config_still_owes(self) -> None:
        self.world.advance(61)
        self.remembered[self.world.contract.id] = self.world.contract.endpoint
        submitter = ContractSubmitter(Book(), self.world.upstream(self.key), self.remembered.get)
        submitting = Deferred.fromCoroutine(submitter.submit(self.token, KEY))
        self.assertEqual(self.successResultOf(submitting), Outcome("submitted"))

    def test_a_contract_that_is_not_enrolled_with_is_submitted_to(self) -> None:
        self.book.close(self.world.contract.endpoint)
        self.world.advance(61)
        self.assertEqual(self.successResultOf(self.submit()).state, "submitted")
