"""What a worker says to its daemon, as bytes: whatever it is, the daemon keeps its books and its temper."""

from __future__ import annotations

import os
import random
from collections.abc import Callable

from tests.fuzz.reader import Tape
from tests.fuzz.rig import CONTRACT
from tests.fuzz.workerrig import BAD, GOOD, OTHER, Rig
from wireleap_relay.tunnel.registry import TunnelCounts
from wireleap_relay.workers import commands
from wireleap_relay.workers.health import ProcessStatus

_MOST_STEPS = 300


def box(**values: bytes) -> bytes:
    """Write a box as AMP does."""
    pieces = [len(text).to_bytes(2) + text for pair in values.items() for text in (pair[0].encode(), pair[1])]
    return b"".join(pieces) + b"\0\0"


def count(report: commands.Report, **more: bytes) -> bytes:
    """Write what a worker counts."""
    return box(_command=b"Count", report=commands.ReportText().toString(report), **more)


def deposit(*tokens: bytes, ask: bytes = b"1") -> bytes:
    """Write what a worker wants to be kept."""
    return box(_command=b"Deposit", tokens=b"".join(len(t).to_bytes(2) + t for t in tokens), _ask=ask)


class Player:
    """Plays one tape."""

    def __init__(self, data: bytes) -> None:
        self._tape = Tape(data)
        self.rig = Rig()
        self._sizes = [0, 0]

    def play(self) -> None:
        """Let all of it happen, and see that it ends well."""
        before = len(os.listdir("/proc/self/fd"))
        try:
            for _ in range(_MOST_STEPS):
                if self._tape.ended:
                    break
                _STEPS[self._tape.byte() % len(_STEPS)](self)
        finally:
            self.rig.finish()
        assert len(os.listdir("/proc/self/fd")) == before, "a descriptor stays open"

    def _raw(self) -> None:
        self.rig.say(self._tape.bytes(self._tape.number() % 2048))

    def _repeated(self) -> None:
        times = self._tape.number() % 5000
        self.rig.say(self._tape.bytes(self._tape.byte()) * times)

    def _box(self) -> None:
        values = {}
        for _ in range(self._tape.byte() % 5):
            key = self._tape.bytes(self._tape.byte() % 12).decode("latin-1")
            values[key] = self._tape.bytes(self._tape.number() % 1000)
        self.rig.say(box(**values))

    def _counts(self) -> None:
        flags = self._tape.byte()
        key = str((CONTRACT, OTHER)[flags & 1].public_key)
        if flags & 2:
            self._sizes = [size + self._tape.number() for size in self._sizes]
        elif flags & 4:
            self._sizes = [int.from_bytes(self._tape.bytes(8), signed=True) for _ in self._sizes]
        report = commands.Report(
            {key: self._sizes[0]},
            {key: self._sizes[1]},
            {key: self._tape.byte()} if flags & 8 else {},
            self._tape.byte() - 2 * (flags >> 7),
            TunnelCounts(
                open=self._tape.byte(), opened=self._tape.byte(), refused={"token": 1} if flags & 16 else {"x": 1}
            ),
            ProcessStatus(memory=1, lag=float(self._tape.byte())),
        )
        self.rig.say(count(report, **({"_ask": b"1"} if flags & 32 else {})))

    def _counts_anything(self) -> None:
        self.rig.say(box(_command=b"Count", report=self._tape.bytes(self._tape.number() % 2048)))

    def _deposits(self) -> None:
        tokens = []
        for _ in range(self._tape.byte() % 16):
            which = self._tape.byte()
            tokens.append(GOOD[which % len(GOOD)] if which < 250 else BAD[which - 250])
        self.rig.say(deposit(*tokens))

    def _deposits_anything(self) -> None:
        self.rig.say(deposit(self._tape.bytes(self._tape.number() % 2048)))

    def _tells(self) -> None:
        level = [b"info", b"warn", b"error", b"critical", b"debug", b"", b"loud"][self._tape.byte() % 7]
        line, namespace = (self._tape.bytes(self._tape.byte()) for _ in range(2))
        self.rig.say(box(_command=b"Log", level=level, namespace=namespace, line=line))

    def _answers(self) -> None:
        flags, tag = self._tape.byte(), b"%x" % self._tape.byte()
        if flags & 1:
            code = {"_error_code": self._tape.bytes(flags >> 2)} if flags & 2 else {}
            self.rig.say(box(_error=tag, _error_description=self._tape.bytes(4), **code))
        else:
            self.rig.say(box(_answer=tag))

    def _keep(self) -> None:
        self.rig.keep({0: None, 1: False}.get(self._tape.byte() % 8, True))

    def _reads(self) -> None:
        self.rig.end.room = 8 * self._tape.number()
        self.rig.settle()

    def _time(self) -> None:
        self.rig.pass_time(self._tape.byte() / 8)

    def _dies(self) -> None:
        how = self._tape.byte() % 4
        if how & 1:
            self.rig.end.eof = True
        if how & 2:
            self.rig.reactor.processes[-1].end()
        self.rig.settle()
        self._sizes = [0, 0]

    def _passes_descriptors(self) -> None:
        link = self.rig.worker._link
        if link is not None and self._tape.byte() == 0:
            link.fileDescriptorReceived(os.open(os.devnull, os.O_RDONLY))
        self.rig.settle()

    def _daemon(self) -> None:
        match self._tape.byte() % 8:
            case 0:
                self.rig.book.open("http://c")
            case 1:
                self.rig.asked.append(self.rig.plane.accept(False))
            case 2:
                self.rig.plane.hurry()
            case 3:
                waiting = self.rig.plane.when_drained(CONTRACT.public_key)
                waiting.addTimeout(30.0, self.rig.reactor, lambda *_: None)
                self.rig.asked.append(waiting)
            case 4:
                self.rig.asked.append(self.rig.worker.stop())
            case 5:
                self.rig.reactor.short = not self.rig.reactor.short
            case _:
                self.rig.look()
        self.rig.settle()


_STEPS: list[Callable[[Player], None]] = [
    Player._raw,
    Player._repeated,
    Player._box,
    Player._counts,
    Player._counts_anything,
    Player._deposits,
    Player._deposits_anything,
    Player._tells,
    Player._answers,
    Player._keep,
    Player._reads,
    Player._time,
    Player._dies,
    Player._passes_descriptors,
    Player._daemon,
    Player._counts,
    Player._deposits,
    Player._keep,
]
_NUMBERS = {step.__name__: number for number, step in reversed(list(enumerate(_STEPS)))}


def step(name: str, *values: int) -> bytes:
    """Write a step."""
    return bytes([_NUMBERS[f"_{name}"], *values])


def raw(data: bytes) -> bytes:
    """Write bytes that a worker says."""
    return step("raw", *len(data).to_bytes(2)) + data


def corpus(seed: int, size: int) -> list[bytes]:
    """Make tapes of what honest workers say, with some of what befalls them."""
    chance = random.Random(seed)
    return [_made_up(chance) for _ in range(size)]


def _made_up(chance: random.Random) -> bytes:
    tape = bytearray()
    for _ in range(chance.randrange(2, 40)):
        match chance.randrange(8):
            case 0 | 1:
                tape += step("counts", chance.choice([2, 10, 18, 26, 50]), 0, 200, 1, 44, 3, 5, 2, 2, 1)
            case 2 | 3:
                tape += step("deposits", 2, chance.randrange(4), chance.randrange(4)) + step("keep", 7)
            case 4:
                tape += step("tells", chance.randrange(4), 5, 4) + b"hellotest"
            case 5:
                tape += step("time", chance.randrange(20))
            case 6:
                tape += raw(chance.choice([count(commands.Report()), deposit(*GOOD), box(_answer=b"1")]))
            case _:
                names = [name for name in _NUMBERS if name not in ("_raw", "_repeated", "_box")]
                tape += step(chance.choice(names)[1:], *chance.randbytes(4))
    return bytes(tape)


def play(data: bytes) -> None:
    """Have a worker say what is on a tape, and complain of all that may not be."""
    Player(data).play()
