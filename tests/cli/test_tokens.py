"""`wireleap-relay tokens`, beside a daemon that has the database open and without one."""

from __future__ import annotations

import contextlib
import io
import json
import sqlite3
import time
from functools import partial
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.tokens.test_store import Mint
from wireleap_relay.boundaries import Outcome
from wireleap_relay.cli import tokens
from wireleap_relay.cli.main import main
from wireleap_relay.home import Home
from wireleap_relay.tokens.store import TokenDatabase
from wireleap_relay.wire.sharetoken import Sharetoken


class TokensTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.home = Home(Path(self.mktemp()).absolute())
        now = int(time.time())
        self.mint = Mint(opens=now - 100, closes=now + 3600)
        self.database = TokenDatabase(self.home.token_database)
        self.addCleanup(self.database.close)
        self.tokens = [self.mint.token() for _ in range(6)]
        self.contract = self.mint.contract.public_key
        deposits = [
            partial(TokenDatabase.deposit, token=token, idempotency_key="k", now=now - 300.0) for token in self.tokens
        ]
        self.database.together(deposits)
        for token, state in zip(self.tokens, ("submitted", "refused", "expired"), strict=False):
            self.settle(token, state)
        self.database.remember(self.contract.raw, "https://contract.example")

    def settle(self, token: Sharetoken, state: Any) -> None:
        self.database.settle(token, Outcome(state, ""), time.time())

    def run_tokens(self, *words: str) -> tuple[int, str, str]:
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main(["--home", str(self.home.path), "tokens", *words])
        return code, out.getvalue(), err.getvalue()

    def test_json(self) -> None:
        for _ in range(2):  # beside a daemon, and without one
            code, out, err = self.run_tokens()
            self.assertEqual((code, err), (0, ""))
            [told] = json.loads(out)
            self.assertEqual((told["contract"], told["id"]), ("https://contract.example", str(self.contract)))
            self.assertEqual((told["received"], told["owed"]), (6, 3))
            self.assertEqual(told["counts"], {"held": 3, "submitting": 0, "submitted": 1, "refused": 1, "expired": 1})
            self.assertGreaterEqual(told["oldest_seconds"]["held"], 300)
            self.assertEqual(told["first_closing"], self.mint.statement.settlement_close)
            self.database.close()

    def test_a_table_for_people(self) -> None:
        self.patch(tokens, "wants_json", lambda _: False)
        code, out, _ = self.run_tokens()
        self.assertEqual(code, 0)
        self.assertIn("https://contract.example  held ", out)
        self.assertIn("3 of 6 sharetokens are owed; their windows close in ", out)

    def test_the_audit_adds_up(self) -> None:
        self.database.forget(time.time() + 10_000, 9)
        code, out, _ = self.run_tokens("audit", "--json")
        self.assertEqual(code, 0)
        [told] = json.loads(out)["contracts"]
        self.assertEqual((told["received"], told["missing"], told["forgotten"]), (6, 0, 1))
        self.assertEqual(told["counted"], {"held": 3, "submitting": 0, "submitted": 1, "refused": 1, "expired": 1})

    def test_the_audit_finds_what_is_missing(self) -> None:
        self.database._db.execute("DROP TRIGGER forgotten")
        self.database._db.execute("DELETE FROM sharetoken WHERE signature = ?", (self.tokens[5].signature.raw,))
        code, out, _ = self.run_tokens("audit", "--json")
        self.assertEqual(code, 1)
        told = json.loads(out)
        self.assertEqual((told["adds_up"], told["contracts"][0]["missing"]), (False, 1))

    def test_the_audit_in_words(self) -> None:
        self.patch(tokens, "wants_json", lambda _: False)
        code, out, _ = self.run_tokens("audit")
        self.assertEqual(code, 0)
        self.assertEqual(
            out,
            "https://contract.example: 6 received = 3 held + 0 submitting + 1 submitted + 1 refused + 1 expired\n"
            "It adds up.\n",
        )
        self.database._db.execute("UPDATE tally SET count = 7 WHERE what = 'received'")
        code, out, _ = self.run_tokens("audit")
        self.assertEqual(code, 1)
        self.assertIn("1 expired + 1 MISSING\nIt does not add up.", out)

    def test_export(self) -> None:
        folder = self.home.path / "out"
        code, out, _ = self.run_tokens("export", str(folder))
        self.assertEqual(code, 0)
        self.assertIn("3 sharetokens that are owed and 1 expired ones", out)
        owed = {file.stem for file in (folder / str(self.contract)).iterdir()}
        self.assertEqual(owed, {str(token.signature) for token in self.tokens[3:]})
        [expired] = (folder / "expired" / str(self.contract)).iterdir()
        self.assertEqual(Sharetoken.from_json(expired.read_text()), self.tokens[2])
        code, out, _ = self.run_tokens("export")
        self.assertEqual(code, 0)
        self.assertEqual(len(list((self.home.sharetokens / str(self.contract)).iterdir())), 3)

    def test_no_home_of_a_relay(self) -> None:
        self.database.close()
        self.home.token_database.unlink()
        code, out, err = self.run_tokens()
        self.assertEqual((code, out), (1, ""))
        self.assertIn("has not been started yet", err)

    def test_another_version_and_damage(self) -> None:
        self.database._db.execute("PRAGMA user_version=99")
        self.assertIn("another version of this software (schema 99)", self.run_tokens()[2])
        self.database._db.execute("PRAGMA user_version=2")
        self.database.close()
        size = self.home.token_database.stat().st_size
        with self.home.token_database.open("r+b") as file:
            file.seek(size // 2)
            file.write(b"\xa5" * (size // 2))
        code, out, _ = self.run_tokens("audit")
        self.assertEqual(code, 1)
        self.assertTrue(json.loads(out)["damage"])

    def test_a_folder_that_may_not_be_written_to(self) -> None:
        self.database.close()
        original = sqlite3.connect

        def connect(path: Any, **options: Any) -> sqlite3.Connection:
            return original(path, **options) if "immutable" in str(path) else _Unopened()  # type: ignore[return-value]

        self.patch(sqlite3, "connect", connect)
        self.assertEqual(json.loads(self.run_tokens()[1])[0]["received"], 6)


class _Unopened:
    """What a connection does that has no place for its shared memory."""

    def execute(self, _: str) -> None:
        raise sqlite3.OperationalError("unable to open database file")

    def close(self) -> None:
        pass
