"""The sharetoken database through any life: nothing that was taken is lost, and its books are what is in it."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import attrs
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.tokens.test_store import Mint
from wireleap_relay.boundaries import Outcome
from wireleap_relay.tokens.ledger import TokenCounts
from wireleap_relay.tokens.store import TokenDatabase
from wireleap_relay.wire.sharetoken import Sharetoken

_MINTS = [Mint(1000, 2000), Mint(1500, 4000)]
_TOKENS = [mint.token() for mint in _MINTS for _ in range(6)]
_which = st.sampled_from(_TOKENS)
_OWED = ("held", "submitting")


class Life(RuleBasedStateMachine):
    """Beside a model: the state of each token that was taken, and how many were forgotten."""

    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory()
        self._path = Path(self._folder.name) / "sharetokens.db"
        self.database = self._open()
        self.now = 500.0
        self.states: dict[Sharetoken, str] = {}
        self.changed: dict[Sharetoken, float] = {}
        self.received = 0
        self.forgotten = 0

    def _open(self) -> TokenDatabase:
        database = TokenDatabase(self._path)
        # Power cuts have tests of their own.
        database._db.execute("PRAGMA synchronous=OFF")
        return database

    def _to(self, token: Sharetoken, state: str) -> None:
        if self.states[token] != state:
            self.states[token] = state
            self.changed[token] = self.now

    @rule(tokens=st.lists(_which, min_size=1, max_size=4))
    def taken(self, tokens: list[Sharetoken]) -> None:
        jobs = [partial(TokenDatabase.deposit, token=each, idempotency_key="k", now=self.now) for each in tokens]
        expected = []
        for token in tokens:
            expected.append(token not in self.states)
            if expected[-1]:
                self.states[token], self.changed[token] = "held", self.now
                self.received += 1
        assert self.database.together(jobs) == expected

    @rule(now=st.sampled_from([500.0, 1200.0, 1700.0, 1999.0, 2000.0, 3000.0, 4000.0, 5000.0]))
    def the_clock_says(self, now: float) -> None:
        self.now = now

    @rule(mint=st.sampled_from(_MINTS), most=st.integers(1, 4))
    def handed_in(self, mint: Mint, most: int) -> None:
        for held in self.database.claim(mint.contract.public_key.raw, self.now, most):
            assert self.states[held.token] in _OWED
            assert held.token.contract.settlement_open < self.now < held.token.contract.settlement_close
            self._to(held.token, "submitting")

    @rule(token=_which, state=st.sampled_from(["submitted", "refused", "expired"]), archive=st.booleans())
    def decided(self, token: Sharetoken, state: Any, archive: bool) -> None:
        self.database.settle(token, Outcome(state, "so it is"), self.now, archive=archive)
        if self.states.get(token) not in (None, "submitted", "refused"):
            self.states[token], self.changed[token] = state, self.now

    @rule(token=_which, later=st.sampled_from([10.0, 500.0]))
    def put_off(self, token: Sharetoken, later: float) -> None:
        self.database.postpone(token, self.now + later, "it is down", "another")

    @rule()
    def windows_close(self) -> None:
        self.database.expire(self.now, 100)
        for token, state in self.states.items():
            if state in _OWED and token.contract.settlement_close <= self.now:
                self._to(token, "expired")

    @rule()
    def the_clock_was_wrong(self) -> None:
        self.database.hasten(self.now)
        self.database.revive(self.now)
        for token, state in self.states.items():
            if state == "expired" and self.changed[token] > self.now < token.contract.settlement_close:
                self._to(token, "owed again")

    @rule()
    def archived(self) -> None:
        self.database.archived(self.database.to_archive(100))

    @precondition(lambda self: "submitted" in self.states.values())
    @rule()
    def forgets(self) -> None:
        waiting = set(self.database.to_archive(100))
        self.database.forget(self.now, 100)
        for token, state in list(self.states.items()):
            if state == "submitted" and token.contract.settlement_close < self.now and token not in waiting:
                del self.states[token]
                self.forgotten += 1

    @rule()
    def begun_anew(self) -> None:
        self.database.close()
        self.database = self._open()

    @invariant()
    def the_books_are_right(self) -> None:
        rows = dict(self.database._db.execute("SELECT signature, state FROM sharetoken").fetchall())
        assert set(rows) == {token.signature.raw for token in self.states}
        for token, state in self.states.items():
            found = rows[token.signature.raw]
            if state == "owed again":
                assert found in _OWED
                self.states[token] = found
            else:
                assert found == state
        books = self.database.ledger()
        assert sum(each.received for each in books) == self.received
        counts = [attrs.asdict(each.counts) for each in books]
        for name in attrs.asdict(TokenCounts()):
            # What was taken by its contract counts for ever, whether it is remembered or not.
            expected = list(self.states.values()).count(name) + (self.forgotten if name == "submitted" else 0)
            assert sum(each[name] for each in counts) == expected, name

    def teardown(self) -> None:
        self.database.close()
        self._folder.cleanup()


class LifeTests(Life.TestCase):  # type: ignore[misc]
    settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
