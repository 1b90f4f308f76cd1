"""What every tunnel was given to carry and what came out of it, byte by byte: the soak's own books, without I/O."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable

import attrs

from wireleap_relay.tunnel.splice import READ_SIZE
from wireleap_relay.tunnel.stream import HIGH_WATER
from wireleap_relay.wire.keys import Signature

#: Bytes that repeat so late that no tunnel gets there unnoticed, and where in them the next tunnel's begin.
_PERIOD, _NEXT = 1_000_003, 104_729
_BYTES = random.Random(251).randbytes(_PERIOD) * 2
#: What a relay may have read from a target and not sent to its client, whose window is full (docs/architecture.md, *Bounds*).
_HELD = HIGH_WATER + READ_SIZE
_REFUSALS = (400, 408, 500, 502)
#: Seconds for which it is known when bytes arrived.
_KNOWN = 20.0


class Way:
    """One direction of one tunnel. Its bytes tell where they belong: no other tunnel, and not the other direction, has the same.

    :ivar sent: bytes that its sender gave away.
    :ivar kept: of those, what never left the sender.
    :ivar arrived: bytes that came out.
    :ivar wrong: whether one of them was another one than was sent there.
    :ivar finished: the sender has sent all.
    :ivar closed: the receiver was told that this was all.
    """

    def __init__(self, number: int, noted: Callable[[int], None]) -> None:
        """Begin, as the direction of that number; ``noted`` is told of what arrives."""
        self._begin = number * _NEXT % _PERIOD
        self._noted = noted
        self.sent = self.kept = self.arrived = 0
        self.wrong = self.finished = self.closed = False

    def say(self, size: int) -> bytes:
        """Give the next bytes to send, at most a mebibyte less a few."""
        data = self._at(self.sent, size)
        self.sent += size
        return data

    def hear(self, data: bytes) -> None:
        """Compare what arrives with what belongs there."""
        for start in range(0, len(data), 2**16):
            piece = data[start : start + 2**16]
            self.wrong = self.wrong or piece != self._at(self.arrived, len(piece))
            self.arrived += len(piece)
        self._noted(len(data))

    def _at(self, position: int, size: int) -> bytes:
        start = (self._begin + position) % _PERIOD
        return _BYTES[start : start + size]


class Record:
    """One tunnel: what it was to do, and what became of it. Times are seconds of this process's clock; 0 for never.

    :ivar size: bytes that its client, its target or both are to send, as its mode has it.
    :ivar by_name: its target was asked for by name.
    :ivar direct: no other relay is between.
    :ivar client_port: that its client's connection comes from; 0 while that is not known, and where it is not direct.
    :ivar relay_port: that the relay's connection to its target comes from; 0 while that is not known.
    :ivar headed: the target has its first line.
    :ivar trouble: empty where it did what it had to do.
    :ivar code: of the status that it ended with, 0 for none.
    :ivar promised: bytes that the relay might have sent to the client when it ended, over those that came.
    :ivar there: from client to target.
    :ivar back: from target to client.
    """

    def __init__(self, account: Account, number: int, mode: str, size: int, *, by_name: bool, direct: bool) -> None:
        self._account = account
        self.number = number
        self.mode = mode
        self.size = size
        self.by_name = by_name
        self.direct = direct
        self.header = f"{mode} {size} {number}\n".encode()
        self.headed = False
        self.token: Signature | None = None
        self.client_port = self.relay_port = 0
        self.begun = account.clock()
        self.opened = self.ended = 0.0
        self.trouble = ""
        self.code = 0
        self.promised = 0
        self.there, self.back = Way(2 * number, self._note), Way(2 * number + 1, self._note)
        self._arrivals: deque[tuple[float, int]] = deque()
        self._certain: int | None = None

    def __repr__(self) -> str:
        return (
            f"tunnel {self.number} ({self.mode} {self.size}{', by name' if self.by_name else ''}"
            f"{'' if self.direct else ', through another relay'}): {self.trouble or 'well'};"
            f" {self.there.arrived} of {self.there.sent} bytes there, {self.back.arrived} of {self.back.sent} back,"
            f" {self.begun - self._account.begun:.1f} to {self.ended - self._account.begun:.1f} s"
        )

    def head(self) -> None:
        """The target has heard the first line."""
        self.headed = True
        self._note(len(self.header))

    @property
    def refused(self) -> bool:
        """Whether it was told that it was not to be, and was not."""
        return self.code in _REFUSALS and not self.opened and not self.headed

    @property
    def arrived(self) -> int:
        """Give the bytes that came out, at either end."""
        return self.there.arrived + self.back.arrived + (len(self.header) if self.headed else 0)

    @property
    def least(self) -> int:
        """Give the bytes that the relay must have counted, and kept the count of: they came out."""
        return self.arrived if self._certain is None else self._certain

    @property
    def most(self) -> int:
        """Give the bytes that the relay may have counted: those that it can have read.

        A client's: all that it has sent. A target's: what left it; but no more than has
        reached the client, what the client's window lets through, and what the relay holds.
        """
        if self.refused:
            return 0
        back = self.back
        return len(self.header) + self.there.sent + min(back.sent - back.kept, back.arrived + self.promised + _HELD)

    def uncounted_since(self, when: float) -> None:
        """The relay may have forgotten all that it has counted since then."""
        certain = self.arrived - sum(size for at, size in self._arrivals if at > when)
        self._certain = certain if self._certain is None else min(self._certain, certain)

    def settle(self) -> None:
        """Nothing of it can be forgotten any more."""
        self._arrivals.clear()

    def _note(self, size: int) -> None:
        now = self._account.clock()
        arrivals = self._arrivals
        arrivals.append((now, size))
        while arrivals[0][0] < now - _KNOWN:
            arrivals.popleft()


@attrs.frozen
class Bounds:
    """Between which numbers a relay's count has to be, in bytes."""

    least: int
    most: int

    def __sub__(self, other: Bounds) -> Bounds:
        """Give what came on."""
        return Bounds(self.least - other.least, self.most - other.most)


class Account:
    """All tunnels of a run.

    :ivar clock: gives seconds.
    :ivar begun: when.
    :ivar strange: what was seen at targets that no tunnel was to bring there.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        """Begin without any."""
        self.clock = clock
        self.begun = clock()
        self.records: list[Record] = []
        self.strange: list[str] = []

    def new(self, mode: str, size: int, *, by_name: bool, direct: bool) -> Record:
        """Begin a tunnel."""
        record = Record(self, len(self.records), mode, size, by_name=by_name, direct=direct)
        self.records.append(record)
        return record

    def find(self, header: bytes) -> Record | None:
        """Find the tunnel that a target's first line belongs to; complain where there is none, or it came twice."""
        _, _, number = header.rpartition(b" ")
        record = self.records[int(number)] if number.strip().isdigit() and int(number) < len(self.records) else None
        if record is None or record.header != header or record.headed:
            self.strange.append(f"a target was told {header[:80]!r}")
            return None
        return record

    def failed(self) -> list[Record]:
        """Give those that did not do as they should."""
        return [record for record in self.records if record.trouble]

    def lost_since(self, when: float, elsewhere: set[int]) -> None:
        """A process of the relay has died, and with it the counts since then.

        :param elsewhere: ports to targets of processes that live; their tunnels are not concerned.
        """
        for record in self.records:
            if record.relay_port not in elsewhere and (not record.ended or record.ended > when - 1.0):
                record.uncounted_since(when)

    def settle(self) -> None:
        """What has come out so far is on the relay's account, and on its disk."""
        for record in self.records:
            record.settle()

    def bounds(self) -> Bounds:
        """Give what the relay has to have counted so far."""
        return Bounds(sum(record.least for record in self.records), sum(record.most for record in self.records))
