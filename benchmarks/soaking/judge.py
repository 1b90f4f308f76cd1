"""What has to hold of a relay that is soaked."""

from __future__ import annotations

import re
import sqlite3
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from soaking.account import Account, Bounds
from soaking.faults import Fault
from soaking.names import DOMAIN
from soaking.relay import Sample
from wireleap_relay.wire.keys import Signature

#: Of all tunnels, that faults have to leave in peace for the run to show anything.
_GOOD = 0.3
#: Looks at a process that make a history.
_HISTORY = 40
#: What a process may have grown by that has done the same work for long, and, when it rests, since it rested first.
_GROWTH, _MORE_MEMORY = 1.15, 24 * 2**20
_MORE_AT_WORK = {"descriptors": 12, "threads": 12, "delayed_calls": 12}
#: (A daemon may have eight connections to a contract at any time, each with a timer.)
_MORE_AT_REST = {"descriptors": 10, "threads": 8, "delayed_calls": 10}
#: What a traceback in a log ends with.
_TRACE = re.compile(r"^Traceback \(most recent call last\):\n(?:[ ].*\n|\n)*(\S.*)", re.MULTILINE)


class Judge:
    """Looks at everything, and remembers what does not hold.

    :ivar broken: what does not.
    """

    def __init__(self, account: Account) -> None:
        """Judge by the books."""
        self.broken: list[str] = []
        self._account = account
        self._before = Bounds(0, 0)
        self._counted = 0
        self._first_rest: dict[int, Sample] = {}

    # When all rest

    def rest(
        self,
        counts: Mapping[str, int],
        samples: Mapping[int, Sample],
        *,
        tunnels: int,
        connections: int,
        targets: int,
    ) -> Bounds:
        """Nobody uses the relay any more.

        :param counts: bytes that it has counted in all: the last one late, those before it when what was carried had to
            be known there.
        :param tunnels: that are open.
        :param connections: of workers.
        :param targets: that are connected.
        :returns: between which numbers its count had to have grown since the last rest.
        """
        for number, what in ((tunnels, "tunnels"), (connections, "connections of workers"), (targets, "targets")):
            if number:
                self.broken.append(f"{number} {what} are open when all rest")
        *before, counted = counts.values()
        if any(each != counted for each in before):
            self.broken.append(f"bytes are counted too late: {dict(counts)}")
        bounds, grown = self._account.bounds(), counted - self._counted
        came = bounds - self._before
        if not came.least <= grown <= came.most:
            self.broken.append(f"{grown} bytes counted since the last rest; it must be {came.least} to {came.most}")
        if not bounds.least <= counted <= bounds.most:
            self.broken.append(f"{counted} bytes counted in all; it must be {bounds.least} to {bounds.most}")
        self._before, self._counted = bounds, counted
        self._account.settle()
        for pid, sample in samples.items():
            first = self._first_rest.setdefault(pid, sample)
            for name, most in _MORE_AT_REST.items():
                more = getattr(sample, name) - getattr(first, name)
                if more > most:
                    self.broken.append(f"process {pid} rests with {more} more {name} than at first")
        return came

    # In the end

    def bytes(self) -> None:
        """Every byte that came out anywhere was the one that belonged there; nobody was told that it was all when it was not."""
        self.broken += self._account.strange
        for record in self._account.records:
            there, back = record.there, record.back
            if there.wrong or back.wrong:
                self.broken.append(f"wrong bytes came out of {record}")
            if there.arrived > there.sent or back.arrived > back.sent:
                self.broken.append(f"more came out than was sent: {record}")
            if back.closed and not (back.finished and back.arrived == back.sent):
                self.broken.append(f"a client was told that its target has ended, which it had not: {record}")

    def tunnels(self, faults: Sequence[Fault]) -> None:
        """What does not come to its good end was touched by a fault; no target was told of an end that was none."""
        records, failed = self._account.records, self._account.failed()
        for record in failed:
            if not any(fault.excuses(record) for fault in faults):
                self.broken.append(f"no fault explains {record}")
        for record in records:
            there = record.there
            cut = there.closed and not (there.finished and there.arrived == there.sent)
            if cut and not any(fault.ends(record) for fault in faults):
                self.broken.append(f"a target was told that its client has ended, which it had not: {record}")
        good = len(records) - len(failed)
        if good < len(records) * _GOOD:
            self.broken.append(f"of {len(records)} tunnels only {good} did as they should")

    def tokens(self, database: Path, taken: set[Signature]) -> str:
        """No sharetoken of a tunnel that was served is lost, and each was handed in.

        :param taken: by the contract.
        :returns: how many there were.
        """
        served = {record.token.raw for record in self._account.records if record.opened and record.token is not None}
        with sqlite3.connect(database) as opened:
            kept = dict(opened.execute("SELECT signature, state FROM sharetoken").fetchall())
        opened.close()
        known = {signature.raw for signature in taken}
        for tokens, what in ((served - kept.keys() - known, "are lost"), (served - known, "were not handed in")):
            if tokens:
                self.broken.append(f"{len(tokens)} sharetokens of served tunnels {what}")
        refused = Counter(state for state in kept.values() if state not in ("submitted", "held", "submitting"))
        if refused:
            self.broken.append(f"sharetokens are kept as {dict(refused)}")
        return f"{len(served)} sharetokens of served tunnels; {len(kept)} are kept, {len(taken)} taken by the contract"

    def growth(self, histories: Mapping[int, Sequence[Sample]]) -> list[str]:
        """No process has grown while it did the same work.

        :returns: what memory each of them had that was there for long.
        """
        told = []
        for pid, history in histories.items():
            if len(history) < _HISTORY:
                continue
            third = len(history) // 3
            early, late = history[third // 2 : third + third // 2], history[-third:]
            for name, most in _MORE_AT_WORK.items():
                more = _median(late, name) - _median(early, name)
                if more > most:
                    self.broken.append(f"process {pid} works with {more:.0f} more {name} than before")
            before, after = _median(early, "memory"), _median(late, "memory")
            if after > before * _GROWTH + _MORE_MEMORY:
                self.broken.append(f"process {pid} has grown from {before:.0f} to {after:.0f} bytes")
            told.append(
                f"process {pid}, seen {len(history)} times: {before / 2**20:.1f} MB early, {after / 2**20:.1f} MB late"
            )
        return told

    def log(self, text: str, target: int) -> None:
        """A relay's log has no error that nobody foresaw, no worker that was ended for what it said, and no target.

        :param target: the port of all of them.
        """
        for error in sorted(set(_TRACE.findall(text))):
            self.broken.append(f"the log has a traceback that ends with {error}")
        for words in ("is ended for what it says", f"127.0.0.1:{target}", DOMAIN):
            if words in text:
                self.broken.append(f"the log says {words!r}")


def _median(samples: Sequence[Sample], name: str) -> float:
    return statistics.median(getattr(sample, name) for sample in samples)
