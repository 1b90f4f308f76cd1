"""The Protocols at which the parts meet, and the values that cross them.

No feature folder imports another: :mod:`wireleap_relay.composition` joins them
through what stands here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, Protocol

import attrs
from twisted.internet.defer import Deferred

from wireleap_relay.wire.address import Address
from wireleap_relay.wire.contractinfo import ContractInfo, DirectoryPointer
from wireleap_relay.wire.directoryinfo import DirectoryInfo
from wireleap_relay.wire.endpoint import Endpoint
from wireleap_relay.wire.keys import PublicKey
from wireleap_relay.wire.payload import Connect
from wireleap_relay.wire.payout import PayoutBalance, Withdrawal, WithdrawalRequest
from wireleap_relay.wire.relayentry import RelayEntry, Role
from wireleap_relay.wire.sharetoken import Sharetoken
from wireleap_relay.wire.status import Status
from wireleap_relay.wire.versions import Version

#: Unix seconds. Logic is handed one; it never asks the system itself.
WallClock = Callable[[], float]


#: Why a tunnel was not to be, in words for the operator's figures.
Reason = Literal[
    "request",
    "token",
    "contract",
    "duplicate",
    "policy",
    "name",
    "timeout",
    "unreachable",
    "overload",
    "store",
    "internal",
    "other",
]
_REASONS: dict[int, Reason] = {400: "request", 408: "timeout", 500: "internal", 502: "unreachable"}


class Refused(Exception):
    """A tunnel is not to be, or to be no longer; the code and the sentence are the client's to read.

    Codes as PROTOCOL's table in *The tunnel* has them. The sentence holds no
    address of the relay's own network, of the client or of the target.

    :ivar reason: a word for the operator's figures.
    """

    def __init__(self, code: int, description: str, reason: Reason | None = None) -> None:
        super().__init__(code, description)
        self.code = code
        self.description = description
        self.reason: Reason = reason or _REASONS.get(code, "other")


@attrs.define
class Meter:
    """Payload bytes that tunnels of one contract have carried, since the relay started.

    Tunnels add to it and nobody subtracts: whoever measures remembers what it saw last.

    :ivar from_clients: bytes read from clients.
    :ivar from_targets: bytes read from targets and next relays.
    """

    from_clients: int = 0
    from_targets: int = 0

    @property
    def total(self) -> int:
        """Both directions together, in bytes."""
        return self.from_clients + self.from_targets


@attrs.frozen
class Contract:
    """A contract that the relay serves.

    :ivar url: its endpoint, as the operator wrote it.
    :ivar id: its public key, known once it has answered.
    :ivar role: what the relay does for it.
    :ivar address: under which the relay is published.
    """

    url: str
    id: PublicKey
    role: Role
    address: Address


@attrs.frozen
class Standing:
    """A contract, and whether it takes tunnels.

    :ivar refusal: what clients are told where it takes none; empty where it does.
    """

    contract: Contract
    refusal: str = ""


@attrs.frozen
class Grant:
    """Leave to open one tunnel.

    :ivar contract: who is going to pay for it.
    :ivar meter: counts its bytes.
    :ivar role: what the relay does for the contract.
    """

    contract: PublicKey
    meter: Meter
    role: Role


class Admission(Protocol):
    """Decides which tunnels the relay opens, and takes the sharetokens that pay for them."""

    def check(self, connect: Connect) -> Grant:
        """Look at a request and its token; this only computes.

        :raises Refused: where the relay does not serve it.
        """

    def deposit(self, token: Sharetoken) -> Deferred[None]:
        """Keep a checked token durably; only after this may its tunnel carry traffic.

        :returns: fires when it is kept; fails with :exc:`Refused` where the
            token was seen before or can't be kept.
        """


class ContractBook(Protocol):
    """Which contracts are served right now."""

    def accepting(self, contract: PublicKey) -> Contract:
        """Give the contract that takes new tunnels under this public key.

        :raises Refused: where it is unknown, or is not accepting at the moment.
        """


class TokenStore(Protocol):
    """Keeps sharetokens until they are settled."""

    def deposit(self, token: Sharetoken) -> Deferred[bool]:
        """Commit a token to disk.

        :returns: fires with False where its signature was seen before; fails
            where the disk won't take it.
        """


class SubmissionFailed(Exception):
    """A contract gave no answer that decides over a token; the text says why.

    :ivar answered: it gave one that decides nothing. A contract repeats its
        answer to an idempotency key, so the next attempt needs a new one;
        where no answer came, the same key makes sure that a token which did
        arrive is not taken for another.
    """

    def __init__(self, why: str, *, answered: bool = False) -> None:
        super().__init__(why)
        self.answered = answered


@attrs.frozen
class Outcome:
    """What a contract has decided over a token.

    :ivar reason: the contract's words, where it did not take it.
    """

    state: Literal["submitted", "refused", "expired"]
    reason: str = ""


class Submitter(Protocol):
    """Hands sharetokens to the contracts that owe for them."""

    async def submit(self, token: Sharetoken, idempotency_key: str) -> Outcome:
        """POST a token to its contract.

        :raises SubmissionFailed: where it has to be tried again.
        """


class UsageSink(Protocol):
    """Where tunnels' bytes are counted."""

    def meter(self, contract: PublicKey) -> Meter:
        """Give the one meter of a contract."""


@attrs.frozen
class UsageReading:
    """What was carried in the present window. Times are Unix milliseconds.

    :ivar start: of the window.
    :ivar end: the first millisecond after it.
    :ivar carried: bytes by contract, whether it is still configured or not.
    :ivar pace: bytes per second by contract, over the last hour or what there is of it.
    """

    now: int
    start: int
    end: int
    carried: Mapping[PublicKey, int]
    pace: Mapping[PublicKey, float]

    @property
    def total(self) -> int:
        """Bytes of all contracts."""
        return sum(self.carried.values())


class Tunnels(Protocol):
    """The open tunnels."""

    def close(self, contract: PublicKey, status: Status) -> int:
        """End every tunnel of a contract, and tell clients why.

        :returns: how many there were.
        """

    def when_drained(self, contract: PublicKey) -> Deferred[None]:
        """Wait until a contract has no open tunnel; it may be cancelled."""


class UpgradeWatcher(Protocol):
    """Whom a directory's wish for another version of this software concerns."""

    def noticed(self, version: str) -> None:
        """A directory asks for a version that is newer than this one."""


class UpstreamFailed(Exception):
    """A contract or a directory did not do what it was asked; the text says why."""


class Unreachable(UpstreamFailed):
    """No answer came: the network, TLS or the time."""


class BadAnswer(UpstreamFailed):
    """Something came that is not an answer of this API.

    :ivar code: HTTP's, where it got that far.
    """

    def __init__(self, why: str, code: int | None = None) -> None:
        super().__init__(why)
        self.code = code


class Incompatible(BadAnswer):
    """The other side speaks another version of the interface."""


class ApiError(UpstreamFailed):
    """The other side refused, in the words of its API.

    :ivar code: HTTP's.
    """

    def __init__(self, code: int, status: Status) -> None:
        super().__init__(f"{code} {status.description}" + (f" ({status.cause})" if status.cause else ""))
        self.code = code
        self.status = status


@attrs.frozen
class Listed:
    """A directory lists the relay.

    :ivar upgrade: a version that the directory asks relays to upgrade to.
    """

    upgrade: Version | None = None


class ContractApi(Protocol):
    """A contract, as a relay talks to it; every call may raise :exc:`UpstreamFailed`."""

    async def info(self) -> ContractInfo:
        """Ask what it is."""

    async def submit(self, token: Sharetoken, idempotency_key: str) -> Status:
        """Hand in a sharetoken; the key is the same in every attempt of one submission."""

    async def balance(self) -> PayoutBalance:
        """Ask what it owes."""

    async def tokens(self) -> object:
        """Ask which tokens await settlement; JSON data of the contract's own form."""

    async def last_withdrawal(self) -> Withdrawal | None:
        """Ask how the last withdrawal stands."""

    async def withdraw(self, request: WithdrawalRequest, idempotency_key: str) -> Withdrawal:
        """Ask for money; the key is the same whenever this request is made again."""


class DirectoryApi(Protocol):
    """A directory, as a relay talks to it; every call may raise :exc:`UpstreamFailed`."""

    async def info(self) -> DirectoryInfo:
        """Ask what it is."""

    async def relays(self) -> dict[str, RelayEntry]:
        """Fetch the relays it lists, by address, and verify its signature."""

    async def enroll(self, entry: RelayEntry) -> Listed:
        """Ask to be listed, whatever work it takes."""

    async def heartbeat(self, entry: RelayEntry) -> Listed:
        """Ask to stay listed."""

    async def disenroll(self, entry: RelayEntry) -> None:
        """Ask to be listed no longer."""


class Upstream(Protocol):
    """Where contracts and directories are had from."""

    def contract(self, endpoint: Endpoint) -> ContractApi:
        """Give the contract at a URL."""

    def directory(self, pointer: DirectoryPointer) -> DirectoryApi:
        """Give the directory that a contract points at."""
