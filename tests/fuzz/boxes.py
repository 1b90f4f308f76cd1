"""What a worker says to its daemon, as bytes: whatever it is, the daemon keeps its books and its temper."""

from __future__ import annotations

import datetime
import os
import random
from collections.abc import Callable
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessExitedAlready, ProcessTerminated
from twisted.logger import globalLogPublisher
from twisted.python.failure import Failure

from tests.admin.views import make_view
from tests.fuzz.reader import Tape
from tests.fuzz.rig import CLIENT, CONTRACT, NOW, RELAY, STATEMENT
from tests.fuzz.sockets import MemoryReactor, MemorySocket
from wireleap_relay.admin.metrics import exposition
from wireleap_relay.admin.snapshot import api_status, api_workers
from wireleap_relay.admin.view import Carried
from wireleap_relay.boundaries import Contract
from wireleap_relay.config import parse_config
from wireleap_relay.contracts.book import Book
from wireleap_relay.home import _make_identity
from wireleap_relay.tunnel.registry import TunnelCounts
from wireleap_relay.usage.meters import Meters
from wireleap_relay.wire.address import Address
from wireleap_relay.wire.encoding import write_json
from wireleap_relay.wire.keys import PublicKey, SigningKey
from wireleap_relay.wire.sharetoken import ContractStatement, Sharetoken
from wireleap_relay.workers import commands
from wireleap_relay.workers.health import ProcessStatus
from wireleap_relay.workers.link import _LONGEST_BOX, _MOST_WAITING
from wireleap_relay.workers.process import _FASTEST
from wireleap_relay.workers.service import PublicIdentity, WorkersService

_MOST_STEPS = 300
#: Bytes that may wait for a worker that does not read.
_MOST_UNREAD = 2**19
#: Processes: one, and those that have some seconds left to end in.
_MOST_ALIVE = 5
_SOURCE = b'{"address":"127.0.0.1:1","contracts":{"http://c":{"address":"wireleap://r:1","role":"backing"}}}'
_CONFIG = parse_config(_SOURCE)[0]
_IDENTITY = _make_identity(RELAY, datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC))
_OTHER = SigningKey(bytes([9]) * 32)


def _token(contract: SigningKey = CONTRACT, relay: PublicKey = RELAY.public_key) -> Sharetoken:
    statement = STATEMENT if contract is CONTRACT else ContractStatement.sign(contract, NOW + 1000, NOW + 2000)
    return Sharetoken.sign(CLIENT, statement, relay, NOW)


_GOOD = [_token().to_json().encode() for _ in range(4)]
_BAD = [
    _token(_OTHER).to_json().encode(),
    _token(relay=_OTHER.public_key).to_json().encode(),
    attrs.evolve(_token(), timestamp=1).to_json().encode(),
    attrs.evolve(_token(), contract=attrs.evolve(STATEMENT, settlement_close=1)).to_json().encode(),
    b"{}",
    b"",
]


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


class _Process:
    """A worker's process; it ends when it is killed, and else when it likes."""

    pid = 4711

    def __init__(self, reactor: BoxReactor, protocol: Any) -> None:
        self.alive = True
        self._reactor = reactor
        self._socket = reactor.ends[-1]
        self._protocol = protocol

    def signalProcess(self, name: str) -> None:
        assert name == "KILL"
        if not self.alive:
            raise ProcessExitedAlready
        self._reactor.callLater(0, self.end)

    def end(self) -> None:
        if self.alive:
            self.alive = False
            self._socket.eof = self._socket.finished = True
            self._socket.room = 1
            self._protocol.processEnded(Failure(ProcessTerminated()))


class BoxReactor(MemoryReactor):
    """Has processes too."""

    def __init__(self) -> None:
        super().__init__()
        self.processes: list[_Process] = []
        self.short = False

    def adoptStreamConnection(self, descriptor: int, family: int, factory: Any) -> None:
        self.connected(factory.buildProtocol(None))

    def spawnProcess(self, protocol: Any, *_: Any, **__: Any) -> _Process:
        if self.short:
            # What the transport would notice: its other end is closed.
            self.ends[-1].eof = True
            raise OSError(11, "Resource temporarily unavailable")
        self.processes.append(_Process(self, protocol))
        return self.processes[-1]


class Rig:
    """A daemon's data plane with one worker, whose words the test has.

    :ivar kept: sharetokens that came as far as the store.
    :ivar deposits: those that wait for the disk.
    :ivar asked: what the rest of the daemon waits for.
    :ivar distrusted: how many processes were ended for what they said.
    """

    def __init__(self) -> None:
        self.reactor = BoxReactor()
        self.book = Book()
        self.book.enter(
            Contract("http://c", CONTRACT.public_key, "backing", Address.from_text("wireleap://192.0.2.1:443"))
        )
        self.meters = Meters()
        self.kept: list[Sharetoken] = []
        self.deposits: list[Deferred[bool]] = []
        self.asked: list[Deferred[Any]] = []
        self.troubles: list[str] = []
        self.distrusted = 0
        self.plane = WorkersService(
            self.reactor,
            1,
            _CONFIG,
            _SOURCE,
            PublicIdentity(RELAY.public_key, _IDENTITY.certificate, _IDENTITY.tls_key),
            book=self.book,
            store=self,
            usage=self.meters,
        )
        [self.worker] = self.plane._workers
        globalLogPublisher.addObserver(self._noticed)
        self.worker.start(())

    def deposit(self, token: Sharetoken) -> Deferred[bool]:
        self.kept.append(token)
        self.deposits.append(Deferred())
        return self.deposits[-1]

    def _noticed(self, event: dict[str, Any]) -> None:
        failure = event.get("log_failure") or event.get("failure")
        if failure is not None:
            self.troubles.append(failure.getTraceback())
        text = str(event.get("log_format", ""))
        self.distrusted += "is ended for what it says" in text

    @property
    def end(self) -> MemorySocket:
        """The worker's end of the socket."""
        return self.reactor.ends[-1]

    def say(self, data: bytes) -> None:
        """Have the worker say something."""
        if not self.end.closed:
            self.end.feed(data)
        self.settle()

    def keep(self, outcome: bool | None) -> None:
        """Have the disk keep the oldest sharetoken."""
        waiting = [each for each in self.deposits if not each.called]
        if waiting:
            waiting[0].callback(outcome) if outcome is not None else waiting[0].errback(OSError("no disk"))
        self.settle()

    def settle(self) -> None:
        """Let the daemon work until it rests, and look at everything."""
        self.reactor.run()
        self.check()

    def pass_time(self, seconds: float) -> None:
        while seconds > 0:
            self.reactor.advance(min(seconds, 1.0))
            self.worker.look()
            self.settle()
            seconds -= 1.0

    def check(self) -> None:
        """Look at all that must be true at any time."""
        assert not self.troubles, self.troubles[0]
        assert set(self.meters.all()) <= {CONTRACT.public_key}
        most = _FASTEST * (self.reactor.seconds() + len(self.reactor.ends))
        for meter in self.meters.all().values():
            assert min(meter.from_clients, meter.from_targets) >= 0
            assert meter.total <= most
        assert {token.to_json().encode() for token in self.kept} <= set(_GOOD)
        link = self.worker._link
        if link is not None:
            assert link._waiting <= _MOST_WAITING + 2**16
            assert len(link._unprocessed) <= _LONGEST_BOX
            transport: Any = link.transport
            assert len(transport.dataBuffer) + transport._tempDataLen <= _MOST_UNREAD
        assert sum(process.alive for process in self.reactor.processes) <= _MOST_ALIVE

    def look(self) -> None:
        """Show it in every way there is."""
        meters = {key: Carried(meter.from_clients, meter.from_targets) for key, meter in self.meters.all().items()}
        view = attrs.evolve(make_view(), plane=self.plane.status(), carried=meters)
        exposition(view)
        write_json([api_workers(view), api_status(view)])

    def finish(self) -> None:
        """Stop, and see that nothing stays behind."""
        try:
            self.look()
            self._go()
        finally:
            globalLogPublisher.removeObserver(self._noticed)

    def _go(self) -> None:
        self.reactor.short = False
        self.pass_time(31.0)  # another worker has come by then
        stopped = self.worker.stop()
        self.pass_time(_CONFIG.drain_timeout + 6.0)
        self.pass_time(6.0)
        while any(not each.called for each in self.deposits):
            self.keep(True)
        self.pass_time(6.0)
        assert stopped.called, "it does not stop"
        assert all(each.called for each in self.asked), "somebody waits for ever"
        assert not any(process.alive for process in self.reactor.processes), "a process stays"
        assert not any(end for end in self.reactor.ends if not end.closed), "a socket stays open"
        waiting = self.reactor.getDelayedCalls()
        assert not waiting, f"something is still to be called: {waiting[0]}"


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
        key = str((CONTRACT, _OTHER)[flags & 1].public_key)
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
            tokens.append(_GOOD[which % len(_GOOD)] if which < 250 else _BAD[which - 250])
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
                tape += raw(chance.choice([count(commands.Report()), deposit(*_GOOD), box(_answer=b"1")]))
            case _:
                names = [name for name in _NUMBERS if name not in ("_raw", "_repeated", "_box")]
                tape += step(chance.choice(names)[1:], *chance.randbytes(4))
    return bytes(tape)


def play(data: bytes) -> None:
    """Have a worker say what is on a tape, and complain of all that may not be."""
    Player(data).play()
