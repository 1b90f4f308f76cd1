"""What the daemon and its workers say to each other (AMP, over a socket that only they have)."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable
from typing import Any, ClassVar, get_args

import attrs
from twisted.protocols.amp import (
    Argument,
    BinaryBoxProtocol,
    Boolean,
    BoxDispatcher,
    Command,
    CommandLocator,
    Integer,
    ListOf,
    String,
    Unicode,
)

from wireleap_relay.boundaries import Contract, Reason, Standing
from wireleap_relay.tunnel import abuse
from wireleap_relay.tunnel.registry import DIAL_TIMES, TunnelCounts
from wireleap_relay.wire.address import Address
from wireleap_relay.wire.encoding import read_json
from wireleap_relay.wire.errors import WireError
from wireleap_relay.wire.keys import PublicKey
from wireleap_relay.wire.status import Status
from wireleap_relay.wire.structure import structure
from wireleap_relay.workers.health import ProcessStatus

_Arguments = list[tuple[bytes, Any]]

#: Bytes of sharetokens in one deposit: AMP carries values of up to 65,535.
DEPOSIT_SIZE = 60_000
LONGEST_LINE = 16_000

_REASONS = frozenset(get_args(Reason))
#: What there is to count by name.
_NAMES = {
    "refused": _REASONS,
    "dials": _REASONS | {"connected"},
    "handshakes": frozenset(("done", "failed")),
    "offences": frozenset(abuse.KINDS),
}


class Link(BinaryBoxProtocol, BoxDispatcher, CommandLocator):
    """AMP, without a line in the log for each connection."""

    def __init__(self) -> None:
        """Answer for oneself."""
        BinaryBoxProtocol.__init__(self, self)
        BoxDispatcher.__init__(self, self)


class Packed(Argument):
    """Bytes that may be longer than AMP's values: a config repeats itself."""

    def fromString(self, inString: bytes) -> bytes:
        """Unpack."""
        return zlib.decompress(inString)

    def toString(self, inObject: bytes) -> bytes:
        """Pack."""
        return zlib.compress(inObject)


class Standings(Argument):
    """What the book of contracts says."""

    def fromString(self, inString: bytes) -> list[Standing]:
        """Read them."""
        return [
            Standing(
                Contract(
                    fields["url"],
                    PublicKey.from_text(fields["id"]),
                    fields["role"],
                    Address.from_text(fields["address"]),
                ),
                fields["refusal"],
            )
            for fields in json.loads(inString)
        ]

    def toString(self, inObject: Iterable[Standing]) -> bytes:
        """Write them."""
        fields = [
            {
                "url": standing.contract.url,
                "id": str(standing.contract.id),
                "role": standing.contract.role,
                "address": str(standing.contract.address),
                "refusal": standing.refusal,
            }
            for standing in inObject
        ]
        return json.dumps(fields).encode()


class Key(Argument):
    """A public key."""

    def fromString(self, inString: bytes) -> PublicKey:
        """Read it."""
        return PublicKey(inString)

    def toString(self, inObject: PublicKey) -> bytes:
        """Write it."""
        return inObject.raw


class StatusText(Argument):
    """A status that clients are told."""

    def fromString(self, inString: bytes) -> Status:
        """Read it."""
        return Status.from_json(inString)

    def toString(self, inObject: Status) -> bytes:
        """Write it."""
        return inObject.to_json().encode()


@attrs.frozen
class Report:
    """A worker's counters since its start, by contract where that matters.

    :ivar from_clients: payload bytes.
    :ivar from_targets: payload bytes.
    :ivar open: tunnels right now.
    """

    from_clients: dict[str, int] = attrs.Factory(dict)
    from_targets: dict[str, int] = attrs.Factory(dict)
    open: dict[str, int] = attrs.Factory(dict)
    connections: int = 0
    tunnels: TunnelCounts = attrs.Factory(TunnelCounts)
    process: ProcessStatus = attrs.Factory(ProcessStatus)


class ReportText(Argument):
    """A report."""

    def fromString(self, inString: bytes) -> Report:
        """Read it.

        :raises WireError: where it isn't one, or holds what can't be counted.
        """
        report = structure(read_json(inString), Report)
        _check(report)
        return report

    def toString(self, inObject: Report) -> bytes:
        """Write it."""
        return json.dumps(attrs.asdict(inObject)).encode()


def _check(report: Report) -> None:
    tunnels = report.tunnels
    named = {name: getattr(tunnels, name) for name in _NAMES}
    counts = [report.connections, tunnels.open, tunnels.opened, *tunnels.dial_times]
    for by_name in (report.from_clients, report.from_targets, report.open, *named.values()):
        counts += by_name.values()
    if min(counts) < 0 or tunnels.dial_seconds < 0:
        raise WireError("there is less than nothing of something")
    if len(tunnels.dial_times) != len(DIAL_TIMES) + 1:
        raise WireError("dials are counted in other classes")
    if any(by_name.keys() - _NAMES[name] for name, by_name in named.items()):
        raise WireError("something is counted that there isn't")
    if report.from_clients.keys() != report.from_targets.keys():
        raise WireError("some contracts are counted in one direction only")


# From the daemon


class Begin(Command):
    """Serve clients on the sockets that came along."""

    arguments: ClassVar[_Arguments] = [
        (b"relay", Key()),
        (b"certificate", String()),
        (b"key", String()),
        (b"config", Packed()),
        (b"book", Standings()),
        (b"listening", Integer()),
        (b"accepts", Boolean()),
        (b"processes", Integer()),
    ]


class Accept(Command):
    """Accept connections, or let them wait."""

    arguments: ClassVar[_Arguments] = [(b"accepts", Boolean())]


class Reload(Command):
    """Go by another config."""

    arguments: ClassVar[_Arguments] = [(b"config", Packed())]


class Read(Command):
    """The book of contracts has changed."""

    arguments: ClassVar[_Arguments] = [(b"book", Standings())]


class Close(Command):
    """End every tunnel of a contract."""

    arguments: ClassVar[_Arguments] = [(b"contract", Key()), (b"status", StatusText())]


class Drain(Command):
    """Accept no more, let open tunnels finish; the answer comes when they have."""


class Hurry(Command):
    """Let them finish no longer."""


# From a worker


class Deposit(Command):
    """Keep sharetokens.

    The answer has a letter for each: ``n`` for one that is new and kept now,
    ``u`` for one that was used before, ``f`` where the store has failed.
    """

    arguments: ClassVar[_Arguments] = [(b"tokens", ListOf(String()))]
    response: ClassVar[_Arguments] = [(b"outcomes", String())]


class Count(Command):
    """Here are my counters."""

    arguments: ClassVar[_Arguments] = [(b"report", ReportText())]
    requiresAnswer = False


class Log(Command):
    """A line for the log, by its level as :class:`twisted.logger.LogLevel` has it."""

    arguments: ClassVar[_Arguments] = [(b"level", Unicode()), (b"namespace", Unicode()), (b"line", Unicode())]
    requiresAnswer = False
