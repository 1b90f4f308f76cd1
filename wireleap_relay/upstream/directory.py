"""A directory's calls (PROTOCOL: *API requests*)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from twisted.logger import Logger

from wireleap_relay.boundaries import BadAnswer, Listed
from wireleap_relay.upstream.agent import Reply
from wireleap_relay.upstream.challenge import Challenge
from wireleap_relay.upstream.client import DIR_VERSION, Request, SignedClient, read_answer
from wireleap_relay.wire.contractinfo import DirectoryPointer
from wireleap_relay.wire.directoryinfo import DirectoryInfo
from wireleap_relay.wire.encoding import read_json
from wireleap_relay.wire.endpoint import join
from wireleap_relay.wire.errors import WireError
from wireleap_relay.wire.keys import PublicKey, Signature
from wireleap_relay.wire.relayentry import RelayEntry
from wireleap_relay.wire.status import Status
from wireleap_relay.wire.structure import structure
from wireleap_relay.wire.versions import Version

#: Bytes of a list of relays.
_LIST_LIMIT = 16 * 1024 * 1024

_CHALLENGED = "repeat request with response to challenge in headers"
_UPGRADE = "please upgrade your relay to the given version as soon as possible"
_CHALLENGE = "Wireleap-Directory-Challenge"
_RESPONSE = "Wireleap-Directory-Response"

#: Runs slow work where it holds nobody up, and gives its result.
Runner = Callable[[Callable[[], str]], Awaitable[str]]


class HttpDirectory:
    """The directory that a contract points at; see :class:`wireleap_relay.boundaries.DirectoryApi`."""

    _log = Logger()

    def __init__(self, client: SignedClient, clock: Any, pointer: DirectoryPointer, run: Runner) -> None:
        """Speak through a client.

        :param clock: an IReactorTime.
        :param run: runs the work of challenges.
        """
        self._client = client
        self._clock = clock
        self._pointer = pointer
        self._run = run

    async def info(self) -> DirectoryInfo:
        """Ask what it is.

        :raises UpstreamFailed: where it doesn't say.
        """
        return await self._client.get(self._at("/info"), DirectoryInfo)

    async def relays(self) -> dict[str, RelayEntry]:
        """Fetch the relays it lists, by address; entries that can't be read are left out.

        :raises UpstreamFailed: where it doesn't say, or where its contract's
            word about its key and the list's signature don't agree.
        """
        reply = await self._client.call(Request("GET", self._at("/relays"), answer_limit=_LIST_LIMIT))
        self._check_signature(reply)
        try:
            data = structure(read_json(reply.body), dict[str, Any])
        except WireError as e:
            raise BadAnswer(f"the list of relays can't be read: {e}", reply.code) from None
        relays: dict[str, RelayEntry] = {}
        for address, fields in data.items():
            try:
                relays[address] = structure(fields, RelayEntry)
            except WireError as e:
                self._log.info("Directory {url} lists a relay that can't be read: {why}", url=self._at(""), why=str(e))
        return relays

    async def enroll(self, entry: RelayEntry) -> Listed:
        """Ask to be listed, and do the work that this takes.

        :raises UpstreamFailed: where it refuses, or doesn't say.
        """
        return await self._announce(entry, frozenset())

    async def heartbeat(self, entry: RelayEntry) -> Listed:
        """Ask to stay listed; a directory that lost its state asks for work again.

        :raises UpstreamFailed: where it refuses, or doesn't say.
        """
        return await self._announce(entry, frozenset({DIR_VERSION}))

    async def disenroll(self, entry: RelayEntry) -> None:
        """Ask to be listed no longer.

        :raises UpstreamFailed: where it refuses, or doesn't say.
        """
        await self._client.call(self._request("DELETE", entry, frozenset({DIR_VERSION}), {}, 0.0))

    async def _announce(self, entry: RelayEntry, without: frozenset[str]) -> Listed:
        reply = await self._client.call(self._request("POST", entry, without, {}, 0.0))
        status = read_answer(reply, Status)
        if _asks(status, _CHALLENGED):
            challenge = Challenge.from_text(reply.header(_CHALLENGE))
            began = self._clock.seconds()
            answer = {_CHALLENGE: challenge.text, _RESPONSE: await self._run(challenge.solve)}
            # To check the hash takes the directory as long as it took to make it.
            patience = 2 * (self._clock.seconds() - began)
            reply = await self._client.call(self._request("POST", entry, without, answer, patience))
            status = read_answer(reply, Status)
        if _asks(status, _CHALLENGED):
            raise BadAnswer("the directory has the answer to its challenge, and asks for it again")
        return Listed(_upgrade(status))

    def _request(
        self, method: str, entry: RelayEntry, without: frozenset[str], headers: dict[str, str], patience: float
    ) -> Request:
        return Request(
            method,
            self._at("/relays"),
            entry.to_fields(),
            headers={"Wireleap-Relay-Version": str(entry.versions["software"]), **headers},
            without=without,
            patience=patience,
        )

    def _check_signature(self, reply: Reply) -> None:
        try:
            key = PublicKey.from_text(reply.header("Wireleap-Directory-Pubkey"))
            signature = Signature.from_text(reply.header("Wireleap-Directory-Signature"))
        except WireError:
            raise BadAnswer("the list of relays is not signed", reply.code) from None
        if key != self._pointer.public_key:
            raise BadAnswer("the list of relays is signed with a key that its contract doesn't name", reply.code)
        if not key.verify(signature, reply.body):
            raise BadAnswer("the signature of the list of relays does not verify", reply.code)

    def _at(self, path: str) -> str:
        return join(self._pointer.endpoint, path)


def _asks(status: Status, description: str) -> bool:
    return status.code == 202 and status.description == description


def _upgrade(status: Status) -> Version | None:
    if not _asks(status, _UPGRADE):
        return None
    try:
        return Version.from_text(status.cause)
    except WireError:
        raise BadAnswer("the directory asks for an upgrade to a version that can't be read") from None
