"""A directory that keeps its relays in memory (PROTOCOL: *API requests*)."""

from __future__ import annotations

import re
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from typing import get_args

import attrs
import bcrypt

from wireleap_relay.boundaries import WallClock
from wireleap_relay.sandbox.answers import BAD_REQUEST, CHALLENGE, CONFLICT, FORBIDDEN, OK, UPGRADE, Problem
from wireleap_relay.sandbox.web import Answer, Call, JsonApi, json_answer, status_answer
from wireleap_relay.wire.contractinfo import DirectoryPointer
from wireleap_relay.wire.directoryinfo import DirectoryInfo, RoleInfo, UpgradeChannels
from wireleap_relay.wire.encoding import write_json
from wireleap_relay.wire.endpoint import Endpoint
from wireleap_relay.wire.keys import PublicKey, SigningKey
from wireleap_relay.wire.relayentry import RelayEntry, Role
from wireleap_relay.wire.versions import RELAY_DIR, Version

CLIENT_DIR = Version(0, 2, 0)

#: bcrypt reads no further.
_BCRYPT_BYTES = 72
_HASH = re.compile(r"\$2[ab]\$(\d\d)\$[./A-Za-z0-9]{53}", re.ASCII)

#: Runs slow work elsewhere, and gives its result.
Runner = Callable[[Callable[[], bool]], Awaitable[bool]]


@attrs.frozen
class Rules:
    """What a directory asks of relays.

    :ivar cost: of the bcrypt challenge, from 4 to 18; None for no challenge.
    :ivar challenge_size: characters of a challenge after its cost.
    :ivar keys: by role, what relays of it have to have as ``key``; anybody may take on a role that is not there.
    :ivar heartbeat_timeout: seconds without a heartbeat after which a relay is forgotten.
    :ivar relay_version: that relays are asked to upgrade to.
    """

    cost: int | None = 4
    challenge_size: int = 48
    keys: dict[Role, frozenset[str]] = attrs.field(factory=dict)
    heartbeat_timeout: float = 15 * 60.0
    relay_version: Version | None = None


@attrs.frozen
class ListedRelay:
    """A relay in the list.

    :ivar seen_at: Unix seconds of its last heartbeat.
    :ivar heartbeats: after its enrollment.
    """

    entry: RelayEntry
    seen_at: float
    heartbeats: int = 0


class SandboxDirectory:
    """A directory for one contract."""

    def __init__(
        self, key: SigningKey, endpoint: Endpoint, clock: WallClock, run: Runner, rules: Rules | None = None
    ) -> None:
        """Serve under a URL.

        :param run: runs slow work where it holds nobody up.
        """
        self._key = key
        self._endpoint = endpoint
        self._clock = clock
        self._run = run
        self._rules = rules or Rules()
        self._relays: dict[PublicKey, ListedRelay] = {}
        self._challenges: dict[PublicKey, str] = {}
        self.resource = JsonApi(
            {
                "/info": {"GET": self._get_info},
                "/relays": {"GET": self._get_relays, "POST": self._post_relay, "DELETE": self._delete_relay},
            },
            {"Relay-Dir": RELAY_DIR, "Client-Dir": CLIENT_DIR},
        )

    @property
    def pointer(self) -> DirectoryPointer:
        """What its contract tells of it."""
        return DirectoryPointer(self._endpoint, self._key.public_key)

    def info(self) -> DirectoryInfo:
        """What it says of itself."""
        counts = Counter(listed.entry.role for listed in self.status().values())
        roles: tuple[Role, ...] = get_args(Role)
        latest = self._rules.relay_version
        channel = {"default": latest} if latest else {}
        return DirectoryInfo(
            public_key=self._key.public_key,
            endpoint=self._endpoint,
            version="0.1.0",
            enrollment={role: RoleInfo(counts[role], role in self._rules.keys) for role in roles},
            update_channels=channel,
            upgrade_channels=UpgradeChannels(relay=channel),
        )

    def status(self) -> dict[PublicKey, ListedRelay]:
        """Show the list, as it stands now."""
        oldest = self._clock() - self._rules.heartbeat_timeout
        self._relays = {key: listed for key, listed in self._relays.items() if listed.seen_at >= oldest}
        return dict(self._relays)

    def forget(self) -> None:
        """Lose everything, as after a restart without a disk."""
        self._relays.clear()
        self._challenges.clear()

    async def _get_info(self, call: Call) -> Answer:
        return json_answer(self.info())

    async def _get_relays(self, call: Call) -> Answer:
        entries = (attrs.evolve(listed.entry, key=None) for listed in self.status().values())
        body = write_json({str(entry.address): entry.to_fields() for entry in entries}).encode()
        signature = self._key.sign(body)
        return Answer(
            200,
            body,
            (
                ("Wireleap-Directory-Pubkey", str(self._key.public_key)),
                ("Wireleap-Directory-Signature", str(signature)),
            ),
        )

    async def _post_relay(self, call: Call) -> Answer:
        entry = self._entry_of(call)
        relay = entry.pubkey
        keys = self._rules.keys.get(entry.role)
        if keys is not None and entry.key not in keys:
            raise Problem(BAD_REQUEST, "enrollment key is incorrect")
        others = self.status()
        listed = others.pop(relay, None)
        if any(other.entry.address == entry.address for other in others.values()):
            raise Problem(CONFLICT, "this address belongs to another relay")
        if listed is None and self._rules.cost is not None:
            response = call.header("Wireleap-Directory-Response")
            if not response:
                return self._challenge(relay, self._rules.cost)
            await self._check(relay, call.header("Wireleap-Directory-Challenge"), response)
        self._relays[relay] = ListedRelay(entry, self._clock(), listed.heartbeats + 1 if listed else 0)
        latest, software = self._rules.relay_version, entry.versions.get("software")
        if latest is not None and software is not None and software < latest:
            return status_answer(attrs.evolve(UPGRADE, cause=str(latest)))
        return status_answer(OK)

    async def _delete_relay(self, call: Call) -> Answer:
        self._relays.pop(self._entry_of(call).pubkey, None)
        return status_answer(OK)

    def _entry_of(self, call: Call) -> RelayEntry:
        """Read a relay's entry, sent by the relay itself."""
        relay = call.relay()
        entry = call.read(RelayEntry)
        if entry.pubkey != relay:
            raise Problem(FORBIDDEN, "this entry is of another relay")
        if entry.address.is_target:
            raise Problem(BAD_REQUEST, "address: expected wireleap://host:port")
        return entry

    def _challenge(self, relay: PublicKey, cost: int) -> Answer:
        text = f"{cost}~" + secrets.token_hex(self._rules.challenge_size // 2)
        self._challenges[relay] = text
        return status_answer(CHALLENGE, [("Wireleap-Directory-Challenge", text)])

    async def _check(self, relay: PublicKey, challenge: str, response: str) -> None:
        """Check a relay's answer to its challenge, which is good once.

        :raises Problem: where it is wrong.
        """
        given = self._challenges.pop(relay, None)
        if given is None or given != challenge:
            raise Problem(FORBIDDEN, "this challenge was not given")
        match = _HASH.fullmatch(response)
        if match is None or int(match[1]) != self._rules.cost:
            raise Problem(FORBIDDEN, "challenge response is not a bcrypt hash of this cost")
        text = challenge.encode()[:_BCRYPT_BYTES]
        if not await self._run(partial(bcrypt.checkpw, text, response.encode())):
            raise Problem(FORBIDDEN, "challenge response is wrong")
