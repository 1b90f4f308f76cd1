"""Tokens out of files and into files, as the Go relay keeps them; and a service that takes them over as it starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, gatherResults

from tests.tokens.test_service import StoreServiceTestCase
from tests.tokens.test_store import Mint
from wireleap_relay.tokens import takeover
from wireleap_relay.tokens.ledger import TokenCounts
from wireleap_relay.tokens.service import TokenStoreService
from wireleap_relay.tokens.store import TokenDatabase
from wireleap_relay.tokens.takeover import export
from wireleap_relay.wire.keys import SigningKey
from wireleap_relay.wire.sharetoken import ContractStatement, Sharetoken


class TakeoverTestCase(StoreServiceTestCase):
    def setUp(self) -> Deferred[None]:  # type: ignore[override]
        super().setUp()
        self.folder = self.path.parent
        self.id = str(self.mint.contract.public_key)
        return self.store.refresh()  # what is put there from here on is for the next service

    def put(self, token: Sharetoken, *folders: str, name: str = "", text: str | None = None) -> Path:
        file = self.folder.joinpath(*folders, name or f"{token.signature}.json")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(token.to_json() if text is None else text)
        return file

    def files(self) -> set[str]:
        return {str(file.relative_to(self.folder)) for file in self.folder.rglob("*.json")}

    async def start_again(self) -> None:
        await self.store.stopService()
        self.store = self.make()
        self.store.startService()
        await self.store.refresh()


class TakeoverTests(TakeoverTestCase):
    async def test_tokens_are_taken_over_once(self) -> None:
        held, closed, expired = self.mint.token(), Mint(), self.mint.token()
        closed.contract, closed.relay = self.mint.contract, self.mint.relay
        closed.statement = ContractStatement.sign(self.mint.contract, 100, 200)
        late = closed.token()
        self.put(held, self.id)
        self.put(late, "expired", self.id)
        self.put(expired, "expired", self.id)  # its window is open yet
        await self.start_again()
        self.assertEqual(self.counts(), TokenCounts(held=2, expired=1))
        self.assertEqual(
            self.files(),
            {
                f"taken-over/{self.id}/{held.signature}.json",
                f"taken-over/expired/{self.id}/{late.signature}.json",
                f"taken-over/expired/{self.id}/{expired.signature}.json",
            },
        )
        self.assertFalse(await self.store.deposit(held))
        # As after a crash between the commit and the move, and as after a while with the Go relay.
        self.put(held, self.id)
        await self.start_again()
        self.assertEqual(self.counts(), TokenCounts(held=2, expired=1))
        self.assertEqual(len(self.files()), 3)

    async def test_what_is_no_token_of_this_relay_is_put_aside(self) -> None:
        stranger, other = Mint(), Mint()
        stranger.relay = self.mint.relay
        stranger.statement = ContractStatement(1000, 2000, self.mint.contract.public_key, stranger.statement.signature)
        forged = self.mint.token()
        token = self.mint.token()
        bad = [
            self.put(token, self.id, name="half.json", text=token.to_json()[:400]),
            self.put(token, self.id, name="empty.json", text=""),
            self.put(token, self.id, name="long.json", text="[" * 200_000),
            self.put(token, self.id, name="binary.json", text="\0\x01{"),
            self.put(token, self.id, name="name.json"),
            self.put(token, str(SigningKey.generate().public_key)),
            self.put(other.token(), str(other.contract.public_key)),
            self.put(stranger.token(), self.id),
            self.put(forged, self.id, text=forged.to_json().replace('"timestamp":500', '"timestamp":501')),
        ]
        good = self.put(self.mint.token(), self.id)
        names = [str(file.relative_to(self.folder)) for file in bad]
        await self.start_again()
        self.assertEqual(self.counts(), TokenCounts(held=1))
        self.assertEqual(
            self.files(), {f"malformed/{name}" for name in names} | {f"taken-over/{good.relative_to(self.folder)}"}
        )
        await self.start_again()
        self.assertEqual(len(self.files()), 10)

    async def test_what_else_is_there_is_left_alone(self) -> None:
        token = self.mint.token()
        kept = [
            self.put(token, "malformed", self.id),
            self.put(token, name="in-no-folder.json"),
            self.put(token, self.id, "deeper"),
            self.put(token, self.id, name="note.txt"),
        ]
        (self.folder / self.id / "folder.json").mkdir(parents=True)
        await self.start_again()
        self.assertEqual(self.counts(), TokenCounts())
        self.assertTrue(all(file.exists() for file in kept))

    async def test_a_file_that_can_not_be_moved_stops_nothing(self) -> None:
        self.put(self.mint.token(), self.id)
        (self.folder / "taken-over").write_text("in the way")
        await self.start_again()
        self.assertEqual(self.counts(), TokenCounts(held=1))

    async def test_many_are_taken_over_with_progress_and_meanwhile_no_tunnels(self) -> None:
        self.patch(takeover, "_TOGETHER", 10)
        for _ in range(35):
            self.put(self.mint.token(), self.id)
        seen: list[str] = []
        original = TokenStoreService._be_busy

        def be_busy(service: TokenStoreService, what: str) -> None:
            original(service, what)
            seen.append(service.status().trouble)
            if what:
                self.failureResultOf(service.deposit(self.mint.token()), OSError)

        self.patch(TokenStoreService, "_be_busy", be_busy)
        await self.start_again()
        told = [f"sharetokens are being taken over: {count} of 35" for count in (0, 10, 20, 30, 35)]
        self.assertEqual(seen, ["", *told, ""][1:])
        self.assertEqual(self.counts(), TokenCounts(held=35))
        self.assertTrue(await self.store.deposit(self.mint.token()))

    async def test_a_crash_in_the_middle_loses_nothing(self) -> None:
        self.patch(takeover, "_TOGETHER", 10)
        tokens = [self.mint.token() for _ in range(25)]
        for token in tokens:
            self.put(token, self.id)
        await self.store.stopService()
        database = TokenDatabase(self.path)
        whole = takeover.Takeover(self.folder, self.mint.relay.public_key)

        def crash(done: int, of: int) -> None:
            raise ZeroDivisionError

        with self.assertRaises(ZeroDivisionError):
            whole.run(whole.files(), database, 900.0, crash)
        database.close()
        self.store = self.make()
        self.store.startService()
        await self.store.refresh()
        self.assertEqual(self.counts(), TokenCounts(held=25))
        self.assertEqual(len(list((self.folder / "taken-over" / self.id).iterdir())), 25)


class ExportTests(TakeoverTestCase):
    async def test_there_and_back(self) -> None:
        tokens = [self.mint.token() for _ in range(3)]
        await gatherResults([self.store.deposit(token) for token in tokens])
        states: Any = ["held", "submitting", "expired"]
        written = export(zip(tokens, states, strict=True), self.folder / "out")
        self.assertEqual(written, {"held": 2, "expired": 1})
        held, submitting, expired = (str(token.signature) for token in tokens)
        self.assertEqual(
            self.files(),
            {f"out/{self.id}/{held}.json", f"out/{self.id}/{submitting}.json", f"out/expired/{self.id}/{expired}.json"},
        )
        self.assertEqual((self.folder / f"out/{self.id}/{held}.json").read_text(), tokens[0].to_json())
