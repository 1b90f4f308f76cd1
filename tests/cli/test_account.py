"""`wireleap-relay balance` and `withdraw`: in memory where answers get lost, and as real processes over loopback."""

from __future__ import annotations

import contextlib
import datetime
import io
import json
import os
import sys
import time
from argparse import Namespace
from pathlib import Path
from typing import Any

from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred
from twisted.internet.utils import getProcessOutputAndValue
from twisted.trial.unittest import SynchronousTestCase, TestCase
from twisted.web.resource import Resource

from tests.upstream.worlds import MemoryWorld
from wireleap_relay.cli import account
from wireleap_relay.cli.command import CommandError
from wireleap_relay.home import Home
from wireleap_relay.sandbox.ledger import Terms
from wireleap_relay.sandbox.network import SandboxNetwork
from wireleap_relay.sandbox.relays import free_port
from wireleap_relay.wire.endpoint import Endpoint
from wireleap_relay.wire.keys import SigningKey
from wireleap_relay.wire.sharetoken import Sharetoken

reactor: Any = global_reactor
ROOT = Path(__file__).parents[2]


def earn(contract: Any, key: SigningKey, now: float) -> None:
    """Let a relay have earned 95 of a contract's units."""
    servicekey = SigningKey.generate()
    statement = contract.activate(servicekey.public_key)
    token = Sharetoken.sign(servicekey, statement, key.public_key, int(now))
    contract._ledger.submit(token, statement.settlement_open)


class WithdrawTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.world = MemoryWorld(Terms(duration=60, submission_window=30, check_period=1e9, max_withdrawal=500))
        self.home = Home(Path(self.mktemp()).absolute())
        self.home.path.mkdir()
        self.key = SigningKey.generate()
        earn(self.world.contract, self.key, self.world.now())
        self.world.advance(91)
        self.file = self.home.withdrawal(str(self.world.contract.id))

    def withdraw(self, amount: int = 50, destination: str = "me", wait: float = 100.0) -> tuple[str, str]:
        """Run the command.

        :returns: what it printed, and what was wrong.
        """
        api = self.world.upstream(self.key).contract(self.world.contract.endpoint)
        arguments = Namespace(home=self.home, amount=amount, destination=destination, yes=False)
        out = io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
            asking = Deferred.fromCoroutine(
                account._withdraw_from(api, Endpoint(self.world.contract.endpoint), arguments)
            )
            self.world.clock.pump([1.0] * int(wait))
        failed: list[Any] = []
        asking.addErrback(failed.append)
        return out.getvalue(), str(failed[0].trap(CommandError) and failed[0].value) if failed else ""

    def paid(self) -> int:
        """Tell what the contract has begun to pay."""
        return -self.world.contract._ledger.balance(self.key.public_key, self.world.now()).pending

    def test_it_is_paid_and_nothing_is_kept(self) -> None:
        out, wrong = self.withdraw()
        self.assertEqual(wrong, "")
        answer = json.loads(out)
        self.assertEqual((answer["state"], answer["amount"], answer["type"]), ("pending", 50, "dummy"))
        self.assertEqual(self.paid(), 50)
        self.assertFalse(self.file.exists())

    def test_what_can_not_be_is_not_asked_for(self) -> None:
        for amount, why in ((96, "owes 95 usd"), (501, "up to 500 at a time")):
            out, wrong = self.withdraw(amount)
            self.assertEqual(out, "")
            self.assertIn(why, wrong)
        self.assertFalse(self.file.exists())
        self.assertNotIn("POST", [method for method, _ in self.world.agent.requests])

    def test_a_refusal_is_told_and_done_with(self) -> None:
        self.withdraw()
        out, wrong = self.withdraw(20)
        self.assertEqual(out, "")
        self.assertIn("a withdrawal is already pending", wrong)
        self.assertFalse(self.file.exists())

    def test_a_lost_answer_is_found_with_the_contract(self) -> None:
        self.lose_answers()
        out, wrong = self.withdraw()
        self.assertEqual((json.loads(out)["amount"], wrong), (50, ""))
        self.assertEqual(self.paid(), 50)
        self.assertFalse(self.file.exists())

    def test_without_any_answer_it_is_asked_for_again_and_paid_once(self) -> None:
        """The request arrives, and then nobody is heard of any more."""
        self.lose_answers(hang_up=True)
        out, wrong = self.withdraw()
        self.assertEqual(out, "")
        self.assertIn("run the same command again", wrong)
        self.assertEqual(self.file.stat().st_mode & 0o777, 0o600)
        self.world.agent.down.clear()
        _, wrong = self.withdraw(20)
        self.assertIn("a withdrawal of 50 to me was asked for", wrong)
        out, wrong = self.withdraw()
        self.assertEqual((json.loads(out)["amount"], wrong), (50, ""))
        self.assertEqual((self.paid(), self.file.exists()), (50, False))

    def test_what_never_arrived_goes_again_under_the_same_key(self) -> None:
        self.world.agent.down.add(f"{self.world.contract.endpoint}/payout/withdrawals")
        original = self.world.agent.request
        keys: list[Any] = []

        def request(method: bytes, uri: bytes, headers: Any = None, bodyProducer: Any = None) -> Deferred[Any]:
            if method == b"POST":
                keys.append(headers.getRawHeaders("Idempotency-Key"))
            elif self.world.agent.down and not self.file.exists():
                self.world.agent.down.clear()
                answer = original(method, uri, headers, bodyProducer)
                self.world.agent.down.add(f"{self.world.contract.endpoint}/payout/withdrawals")
                return answer
            return original(method, uri, headers, bodyProducer)

        self.patch(self.world.agent, "request", request)
        _, wrong = self.withdraw()
        self.assertIn("run the same command again", wrong)
        self.world.agent.down.clear()
        self.withdraw()
        self.assertEqual(self.paid(), 50)
        self.assertEqual(len({tuple(key) for key in keys}), 1)

    def test_an_answer_that_decides_nothing_is_looked_into(self) -> None:
        class Broken(Resource):
            isLeaf = True
            original = self.world.contract.resource

            def render(self, request: Any) -> Any:
                if request.method == b"POST":
                    request.setResponseCode(500)
                    return b'{"code":500,"description":"internal server error"}'
                return self.original.render(request)

        self.world.root.putChild(b"contract", Broken())
        out, wrong = self.withdraw()
        self.assertEqual(out, "")
        self.assertIn("it knows of no such withdrawal", wrong)
        self.assertEqual((self.paid(), self.file.exists()), (0, False))

    def lose_answers(self, *, hang_up: bool = False) -> None:
        """Let requests to pay arrive, and their answers not."""
        original = self.world.agent.request

        def request(method: bytes, uri: bytes, headers: Any = None, bodyProducer: Any = None) -> Deferred[Any]:
            answer = original(method, uri, headers, bodyProducer)
            if method != b"POST":
                return answer
            answer.addErrback(lambda _: None)
            if hang_up:
                self.world.agent.down.add("http")
            return Deferred()

        self.patch(self.world.agent, "request", request)


class CommandTests(TestCase):
    def setUp(self) -> None:
        self.network = SandboxNetwork(reactor, time.time, terms=Terms(duration=0.0, submission_window=1.0))
        self.network.startService()
        self.addCleanup(self.network.stopService)
        self.home = Home(Path(self.mktemp()).absolute())
        self.key = self.home.create_identity(datetime.datetime.now(datetime.UTC)).key
        self.contract = self.network.contract.endpoint
        served = {"address": "wireleap://127.0.0.1:1", "role": "backing"}
        down = {**served, "upgrade_channel": "default"}
        config = {
            "address": "127.0.0.1:1",
            "contracts": {f"http://127.0.0.1:{free_port()}": down, self.contract: served},
        }
        self.home.config.write_text(json.dumps(config))

    async def run_command(self, *words: str) -> tuple[str, str, int]:
        command = ["-m", "wireleap_relay", "--home", str(self.home.path), *words]
        out, err, code = await getProcessOutputAndValue(
            sys.executable, command, env={**os.environ, "PYTHONPATH": str(ROOT)}
        )
        self.assertNotIn(b"Traceback", err + out)
        return out.decode(), err.decode(), code

    async def test_balance_and_withdraw(self) -> None:
        earn(self.network.contract, self.key, time.time())
        await self.until_earned()
        out, err, code = await self.run_command("balance")
        self.assertEqual((code, err), (1, ""))
        first, second = out.strip().split("\n}\n")
        down, up = json.loads(first + "}"), json.loads(second)
        self.assertEqual(list(down), ["contract", "error"])
        self.assertIn("refused", down["error"])
        self.assertEqual(
            up,
            {
                "contract": self.contract,
                "balance": {"currency": "usd", "available": 95},
                "tokens": {"count": 0},
                "withdrawal": None,
            },
        )
        out, err, code = await self.run_command(
            "withdraw", "--contract", self.contract, "--destination", "me", "--amount", "40"
        )
        self.assertEqual((json.loads(out)["amount"], err, code), (40, "", 0))
        out, _, code = await self.run_command("balance", "--contract", self.contract)
        self.assertEqual((json.loads(out)["withdrawal"]["destination"], code), ("me", 0))

    async def until_earned(self) -> None:
        while not self.network.contract._ledger.balance(self.key.public_key, time.time()).available:
            later: Deferred[None] = Deferred()
            reactor.callLater(0.1, later.callback, None)
            await later

    async def test_nonsense(self) -> None:
        for words, why in (
            (("--contract", "x", "--destination", "me", "--amount", "5"), "--contract x: expected a URL"),
            (("--contract", self.contract, "--destination", "me", "--amount", "0"), "expected a whole number above 0"),
            (("--contract", self.contract, "--destination", " ", "--amount", "5"), "--destination: expected"),
        ):
            out, err, code = await self.run_command("withdraw", *words)
            self.assertEqual((out, code), ("", 1))
            self.assertIn(why, err)
