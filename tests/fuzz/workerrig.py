"""A daemon with one worker, in memory, and what has to hold whatever that says."""

from __future__ import annotations

import datetime
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessExitedAlready, ProcessTerminated
from twisted.logger import globalLogPublisher
from twisted.python.failure import Failure

from tests.admin.views import make_view
from tests.fuzz.rig import CLIENT, CONTRACT, NOW, RELAY, STATEMENT, Disk
from tests.fuzz.sockets import MemoryReactor, MemorySocket
from wireleap_relay.admin.metrics import exposition
from wireleap_relay.admin.snapshot import api_status, api_workers
from wireleap_relay.admin.view import Carried
from wireleap_relay.boundaries import Contract
from wireleap_relay.config import parse_config
from wireleap_relay.contracts.book import Book
from wireleap_relay.home import _make_identity
from wireleap_relay.usage.meters import Meters
from wireleap_relay.wire.address import Address
from wireleap_relay.wire.encoding import write_json
from wireleap_relay.wire.keys import PublicKey, SigningKey
from wireleap_relay.wire.sharetoken import ContractStatement, Sharetoken
from wireleap_relay.workers.link import _LONGEST_BOX, _MOST_WAITING
from wireleap_relay.workers.process import _FASTEST
from wireleap_relay.workers.service import PublicIdentity, WorkersService

#: Bytes that may wait for a worker that does not read.
_MOST_UNREAD = 2**19
#: Processes: one, and those that have some seconds left to end in.
_MOST_ALIVE = 5
_SOURCE = b'{"address":"127.0.0.1:1","contracts":{"http://c":{"address":"wireleap://r:1","role":"backing"}}}'
_CONFIG = parse_config(_SOURCE)[0]
_IDENTITY = _make_identity(RELAY, datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC))
OTHER = SigningKey(bytes([9]) * 32)


def _token(contract: SigningKey = CONTRACT, relay: PublicKey = RELAY.public_key) -> Sharetoken:
    statement = STATEMENT if contract is CONTRACT else ContractStatement.sign(contract, NOW + 1000, NOW + 2000)
    return Sharetoken.sign(CLIENT, statement, relay, NOW)


GOOD = [_token().to_json().encode() for _ in range(4)]
BAD = [
    _token(OTHER).to_json().encode(),
    _token(relay=OTHER.public_key).to_json().encode(),
    attrs.evolve(_token(), timestamp=1).to_json().encode(),
    attrs.evolve(_token(), contract=attrs.evolve(STATEMENT, settlement_close=1)).to_json().encode(),
    b"{}",
    b"",
]


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


class Rig(Disk):
    """A daemon's data plane with one worker, whose words the test has.

    :ivar kept: sharetokens that came as far as the store.
    :ivar asked: what the rest of the daemon waits for.
    :ivar distrusted: how many processes were ended for what they said.
    """

    def __init__(self) -> None:
        super().__init__()
        self.reactor = BoxReactor()
        self.book = Book()
        self.book.enter(
            Contract("http://c", CONTRACT.public_key, "backing", Address.from_text("wireleap://192.0.2.1:443"))
        )
        self.meters = Meters()
        self.kept: list[Sharetoken] = []
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
        return super().deposit(token)

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
        assert {token.to_json().encode() for token in self.kept} <= set(GOOD)
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
        self.keep_all()
        self.pass_time(6.0)
        assert stopped.called, "it does not stop"
        assert all(each.called for each in self.asked), "somebody waits for ever"
        assert not any(process.alive for process in self.reactor.processes), "a process stays"
        self.reactor.check_nothing_is_left()
