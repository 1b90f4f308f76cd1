"""The sandbox's contract, asked by the production client."""

from __future__ import annotations

import secrets
from fractions import Fraction
from typing import Any

import attrs
from treq.client import HTTPClient
from twisted.internet import reactor
from twisted.trial.unittest import TestCase
from twisted.web.client import Agent, HTTPConnectionPool

from tests.upstream.worlds import MemoryWorld, SocketWorld, WorldTestCase
from tests.vectordata import PROOF_OF_FUNDING
from wireleap_relay.boundaries import ApiError
from wireleap_relay.sandbox.ledger import Terms
from wireleap_relay.upstream.client import Request, SignedClient
from wireleap_relay.wire.encoding import write_json
from wireleap_relay.wire.endpoint import join
from wireleap_relay.wire.funding import Activation, ProofOfFunding
from wireleap_relay.wire.keys import SigningKey
from wireleap_relay.wire.payout import WithdrawalRequest
from wireleap_relay.wire.sharetoken import ContractStatement, Sharetoken
from wireleap_relay.wire.structure import converter, read, structure

KEY = "0123456789abcdef0123456789abcdef"


class ContractSuite:
    """Runs in memory and over sockets."""

    terms = Terms(duration=60.0, submission_window=30.0, value=Fraction(100), fee_percent=Fraction(5))
    world: Any
    contract: Any
    key: SigningKey

    def setUp(self) -> None:
        super().setUp()  # type: ignore[misc]
        self.servicekey = SigningKey.generate()

    def paid(self) -> ContractStatement:
        """Give the statement of a servicekey that was just activated."""
        statement: ContractStatement = self.world.contract.activate(self.servicekey.public_key)
        return statement

    def token(self, statement: ContractStatement, relay: SigningKey | None = None) -> Sharetoken:
        """Make a token for a relay."""
        return Sharetoken.sign(self.servicekey, statement, (relay or self.key).public_key, int(self.world.now()))

    async def refusal(self: Any, token: Sharetoken, key: str = KEY) -> tuple[int, str]:
        """Submit a token that is not taken."""
        error = await self.failure_of(self.contract.submit(token, key), ApiError)
        return error.code, error.status.cause

    async def activate(self: Any, pof: ProofOfFunding, servicekey: SigningKey | None = None) -> ContractStatement:
        """Activate a servicekey as a client does: without a signature."""
        request = Request(
            "POST",
            join(self.world.contract.endpoint, "/servicekey/activate"),
            converter.unstructure(Activation((servicekey or self.servicekey).public_key, pof)),
            without=frozenset({"Wireleap-Relay-Pubkey", "Wireleap-Relay-Signature"}),
        )
        client: SignedClient = self.contract._client
        return read((await client.call(request)).body, ContractStatement)

    async def test_info_reads_back(self: Any) -> None:
        self.assertEqual(await self.contract.info(), self.world.contract.info())

    async def test_activation_gives_a_statement_that_verifies(self: Any) -> None:
        statement = await self.activate(self.world.contract.issue())
        self.assertTrue(statement.verify())
        self.assertEqual(statement.public_key, self.world.contract.id)
        self.assertLess(abs(statement.settlement_open - (self.world.now() + 60)), 2)
        self.assertEqual(statement.settlement_close, statement.settlement_open + 30)

    async def test_a_proof_is_good_once(self: Any) -> None:
        proof = self.world.contract.issue()
        await self.activate(proof)
        error = await self.failure_of(self.activate(proof, SigningKey.generate()), ApiError)
        self.assertEqual((error.code, error.status.cause), (400, "this pof has been seen/used already"))

    async def test_a_servicekey_is_activated_once_and_its_second_proof_stays_good(self: Any) -> None:
        await self.activate(self.world.contract.issue())
        proof = self.world.contract.issue()
        error = await self.failure_of(self.activate(proof), ApiError)
        self.assertEqual(error.code, 409)
        await self.activate(proof, SigningKey.generate())

    async def test_bad_proofs_are_refused(self: Any) -> None:
        good = self.world.contract.issue()
        old = self.world.contract.issue(lifetime=-1)
        forged = ProofOfFunding.sign(SigningKey.generate(), "dummy", good.expiration)
        for proof, cause in (
            (old, "expired proof of funding"),
            (forged, "invalid signature"),
            (attrs.evolve(good, nonce="00"), "invalid signature"),
            (attrs.evolve(good, expiration=good.expiration + 1), "invalid signature"),
            (attrs.evolve(good, type="stripe"), "this type of proof of funding is not taken"),
        ):
            error = await self.failure_of(self.activate(proof), ApiError)
            self.assertEqual((error.code, error.status.cause), (400, cause))

    async def test_tokens_are_taken_while_the_window_is_open(self: Any) -> None:
        statement = self.paid()
        first, second, third = (self.token(statement) for _ in range(3))
        self.assertEqual(await self.refusal(first, "a" * 32), (400, "settlement window not yet open"))
        self.world.advance(61)
        self.assertEqual((await self.contract.submit(second, "b" * 32)).code, 200)
        self.world.advance(30)
        self.assertEqual(await self.refusal(third, "c" * 32), (400, "settlement window already closed"))

    async def test_a_token_is_taken_once(self: Any) -> None:
        token = self.token(self.paid())
        self.world.advance(61)
        await self.contract.submit(token, KEY)
        self.assertEqual(await self.refusal(token, "f" * 32), (409, "this sharetoken has been submitted already"))
        self.assertEqual(self.world.contract.status().accounts[self.key.public_key].awaiting, 1)

    async def test_a_repeated_request_gets_the_first_answer_again(self: Any) -> None:
        token = self.token(self.paid())
        self.world.advance(61)
        self.assertEqual(await self.contract.submit(token, KEY), await self.contract.submit(token, KEY))
        other = self.token(self.world.contract.activate(SigningKey.generate().public_key))
        self.assertEqual((await self.contract.submit(other, KEY)).code, 200, "it is the key that counts")
        self.assertEqual(self.world.contract.status().accounts[self.key.public_key].awaiting, 1)

    async def test_refusals_are_repeated_too(self: Any) -> None:
        token = self.token(self.paid())
        self.assertEqual((await self.refusal(token))[0], 400)
        self.world.advance(61)
        self.assertEqual(await self.refusal(token), (400, "settlement window not yet open"))
        self.assertEqual((await self.contract.submit(token, "f" * 32)).code, 200)

    async def test_bad_tokens_are_refused(self: Any) -> None:
        statement = self.paid()
        token = self.token(statement)
        self.world.advance(61)
        stranger = SigningKey.generate()
        foreign = ContractStatement.sign(stranger, statement.settlement_open, statement.settlement_close)
        shifted = attrs.evolve(statement, settlement_close=statement.settlement_close + 1000)
        longer = ContractStatement.sign(
            self.world.contract._key, statement.settlement_open, statement.settlement_close + 9
        )
        unpaid = Sharetoken.sign(stranger, statement, self.key.public_key, 0)
        for number, (bad, wanted) in enumerate(
            (
                (self.token(statement, relay=stranger), (403, "this sharetoken is for another relay")),
                (self.token(foreign), (400, "contract public key mismatch")),
                (self.token(shifted), (400, "invalid signature")),
                (attrs.evolve(token, timestamp=token.timestamp + 1), (400, "invalid signature")),
                (self.token(longer), (400, "this servicekey has not been activated for this period")),
                (unpaid, (400, "this servicekey has not been activated for this period")),
            )
        ):
            self.assertEqual(await self.refusal(bad, f"{number:032x}"), wanted)
        self.assertEqual(self.world.contract.status().accounts, {})

    async def test_a_servicekey_is_split_among_its_tokens_when_its_window_closes(self: Any) -> None:
        other = SigningKey.generate()
        elsewhere = self.world.upstream(other).contract(self.world.contract.endpoint)
        statement = self.paid()
        self.world.contract.activate(SigningKey.generate().public_key)  # nobody claims a share of this one
        mine = [self.token(statement) for _ in range(2)]
        theirs = self.token(statement, relay=other)
        self.world.advance(61)
        for number, token in enumerate(mine):
            await self.contract.submit(token, f"{number:032x}")
        await elsewhere.submit(theirs, KEY)
        self.assertEqual(await self.contract.tokens(), {"count": 2})
        self.assertEqual((await self.contract.balance()).available, 0)

        self.world.advance(30)
        self.assertEqual(await self.contract.tokens(), {"count": 0})
        balance = await self.contract.balance()
        self.assertEqual((balance.currency, balance.available, balance.pending), ("usd", 63, 0))
        self.assertEqual((await elsewhere.balance()).available, 31)
        status = self.world.contract.status()
        self.assertEqual(status.accounts[self.key.public_key].earned, Fraction(190, 3))
        self.assertEqual(status.accounts[other.public_key].earned, Fraction(95, 3))
        self.assertEqual((status.servicekeys, status.settled, status.kept), (2, 2, Fraction(105)))
        self.assertEqual(sum(account.earned for account in status.accounts.values()) + status.kept, 200)

    async def earn(self: Any) -> None:
        """Have 95 to withdraw."""
        token = self.token(self.paid())
        self.world.advance(61)
        await self.contract.submit(token, KEY)
        self.world.advance(30)

    def withdraw(self: Any, amount: int, destination: str) -> Any:
        return self.contract.withdraw(WithdrawalRequest(amount, "dummy", destination), secrets.token_hex(16))

    async def test_money_is_withdrawn(self: Any) -> None:
        await self.earn()
        self.assertIsNone(await self.contract.last_withdrawal())
        begun = await self.withdraw(50, "account 7")
        self.assertEqual((begun.id, begun.state, begun.amount), ("1", "pending", 50))
        self.assertEqual((begun.type, begun.destination), ("dummy", "account 7"))
        self.assertEqual((await self.contract.balance()).pending, -50)
        error = await self.failure_of(self.withdraw(1, "account 7"), ApiError)
        self.assertEqual((error.code, error.status.cause), (409, "a withdrawal is already pending"))
        self.world.advance(2)
        done = await self.contract.last_withdrawal()
        self.assertEqual((done.id, done.state), ("1", "complete"))
        balance = await self.contract.balance()
        self.assertEqual((balance.available, balance.pending), (45, 0))
        self.assertEqual((await self.withdraw(45, "account 7")).id, "2")

    async def test_bad_withdrawals_are_refused(self: Any) -> None:
        await self.earn()
        for amount, destination, wanted in (
            (0, "x", (400, "withdrawal amount is invalid (<= 0)")),
            (-5, "x", (400, "withdrawal amount is invalid (<= 0)")),
            (100_001, "x", (400, "withdrawal amount is out of range")),
            (96, "x", (403, "insufficient balance to complete request")),
            (5, "", (400, "withdrawal request type or destination is missing")),
        ):
            error = await self.failure_of(self.withdraw(amount, destination), ApiError)
            self.assertEqual((error.code, error.status.cause), wanted)
        self.assertEqual((await self.contract.balance()).available, 95)

    async def test_calls_of_relays_have_to_be_signed(self: Any) -> None:
        statement = self.paid()
        token = self.token(statement)
        for method, path, data in (
            ("POST", "/submit", token.to_fields()),
            ("GET", "/payout/balance", None),
            ("GET", "/payout/tokens", None),
            ("GET", "/payout/withdrawals", None),
            ("POST", "/payout/withdrawals", {"amount": 1, "type": "dummy", "destination": "x"}),
        ):
            url = join(self.world.contract.endpoint, path)
            for headers, without, cause in (
                ({}, {"Wireleap-Relay-Signature"}, "auth headers for Relay missing"),
                ({}, {"Wireleap-Relay-Pubkey"}, "auth headers for Relay missing"),
                (
                    {"Wireleap-Relay-Pubkey": str(SigningKey.generate().public_key)},
                    set(),
                    "auth signature for Relay does not verify",
                ),
                (
                    {"Wireleap-Relay-Signature": "AAAA"},
                    set(),
                    "auth headers for Relay: expected 64 bytes as base64url without padding",
                ),
            ):
                request = Request(method, url, data, headers=headers, without=frozenset(without))
                error = await self.failure_of(self.contract._client.call(request), ApiError)
                self.assertEqual((error.code, error.status.cause), (403, cause), f"{method} {path}")

    async def test_other_versions_are_refused(self: Any) -> None:
        url = join(self.world.contract.endpoint, "/info")
        for version in ("0.2.0", "junk"):
            request = Request("GET", url, headers={"Wireleap-Relay-Contract-Version": version})
            error = await self.failure_of(self.contract._client.call(request), ApiError)
            self.assertEqual(error.code, 400)
        await self.contract._client.call(Request("GET", url, headers={"Wireleap-Relay-Contract-Version": "0.1.9"}))

    async def test_what_is_not_there_gets_a_status_object(self: Any) -> None:
        base = self.world.contract.endpoint
        for method, url, code in (
            ("GET", join(base, "/nothing"), 404),
            ("GET", join(base, "/info/more"), 404),
            ("GET", str(base), 404),
            ("GET", base.rsplit("/", 1)[0] + "/", 404),
            ("GET", base.rsplit("/", 1)[0] + "/else/where", 404),
            ("DELETE", join(base, "/info"), 405),
            ("GET", join(base, "/submit"), 405),
            ("PATCH", join(base, "/payout/withdrawals"), 405),
        ):
            error = await self.failure_of(self.contract._client.call(Request(method, url)), ApiError)
            self.assertEqual((error.code, error.status.code), (code, code), f"{method} {url}")

    async def test_data_of_the_wrong_form_gets_400(self: Any) -> None:
        base = self.world.contract.endpoint
        for path in ("/submit", "/servicekey/activate", "/payout/withdrawals"):
            for data in (None, [], {}, "x", {"amount": "5"}):
                request = Request("POST", join(base, path), data)
                error = await self.failure_of(self.contract._client.call(request), ApiError)
                self.assertEqual(error.code, 400, f"{path} {data}")

    async def test_an_access_key_reads_back_and_its_proofs_are_good(self: Any) -> None:
        access_key = self.world.contract.access_key(2)
        text = write_json(converter.unstructure(access_key))
        self.assertEqual(read(text, type(access_key)), access_key)
        self.assertEqual(access_key.contract.public_key, self.world.contract.id)
        for proof in access_key.pofs:
            await self.activate(proof, SigningKey.generate())


class InMemory(ContractSuite, WorldTestCase):
    make_world = MemoryWorld


class OverSockets(ContractSuite, WorldTestCase):
    make_world = SocketWorld


class RawHttp(TestCase):
    """What only a client of another make can send."""

    async def test_text_that_is_not_json_gets_400(self) -> None:
        world = SocketWorld()
        pool = HTTPConnectionPool(reactor, persistent=False)
        http = HTTPClient(Agent(reactor, pool=pool))
        try:
            url = join(world.contract.endpoint, "/servicekey/activate")
            for body in (b"", b"{", b"\xff\xfe", b'{"a":1}{', b"NaN"):
                response = await http.post(url, data=body)
                status = structure(await response.json(), dict[str, Any])
                self.assertEqual((response.code, status["code"]), (400, 400), body)
                self.assertIn("not", status["cause"])
        finally:
            await world.stop()


class Vectors(TestCase):
    def test_a_proof_of_the_reference_verifies(self) -> None:
        proof = structure(PROOF_OF_FUNDING["json"], ProofOfFunding)
        issuer = SigningKey.from_text(PROOF_OF_FUNDING["seed"])
        self.assertEqual(proof.digest, PROOF_OF_FUNDING["digest"])
        self.assertTrue(proof.verify(issuer.public_key))
        self.assertEqual(issuer.sign(proof.digest.encode()), proof.signature)

    def test_a_proof_without_its_fields_is_refused(self) -> None:
        for name in ("type", "expiration", "nonce", "signature"):
            fields = {key: value for key, value in PROOF_OF_FUNDING["json"].items() if key != name}
            with self.assertRaisesRegex(ValueError, f"{name}: missing"):
                structure(fields, ProofOfFunding)
