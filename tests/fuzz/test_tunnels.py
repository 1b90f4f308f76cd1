"""Tunnels in any weather, from a client's session through a whole door to targets' sockets: no byte is lost, doubled or
out of order, both sides learn how it ended, and whoever stalls holds no more than the bounds say."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.fuzz.rig import Rig
from tests.fuzz.sockets import ROOM, MemorySocket
from tests.fuzz.tape import request
from wireleap_relay.tunnel.fields import Fields
from wireleap_relay.tunnel.session import Session
from wireleap_relay.tunnel.stream import Stream, header_value
from wireleap_relay.wire.status import Status

_CYCLE = bytes(i * 7 % 251 for i in range(251))
_which = st.integers(0, 7)
_sizes = st.sampled_from([1, 300, 20_000, 200_000])


def _pattern(begin: int, size: int) -> bytes:
    start = begin % len(_CYCLE)
    return (_CYCLE * (size // len(_CYCLE) + 2))[start : start + size]


class _End:
    """The client's end of a tunnel, and what its target's end has done."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.end: MemorySocket | None = None
        self.sent = self.fed = self.owed = 0
        self.received = bytearray()
        self.finished = self.over = self.gone = False
        self.status: Status | None = None
        self.credits = True
        self.deaf = False
        stream.handler = self

    def responded(self, headers: Fields) -> None: ...

    def data_received(self, data: bytes, frame_done: bool) -> None:
        assert not self.over
        self.received += data
        self.owed += len(data)
        if self.credits:
            self.give()

    def give(self) -> None:
        self.stream.credit(self.owed)
        self.owed = 0

    def ended(self, trailers: Fields) -> None:
        text = header_value(trailers, b"wl-status")
        self.over = True
        self.status = Status.from_json(text) if text is not None else None

    def was_reset(self, code: int) -> None:
        self.gone = True

    def pause(self) -> None: ...

    def resume(self) -> None: ...


class Tunnels(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.rig = Rig()
        self.client = Session(wake=lambda: None)
        self.tunnels: list[_End] = []
        self._exchange()

    def _exchange(self) -> None:
        """Let bytes flow until none does."""
        while True:
            said = self.client.take()
            if said:
                self.rig.say(said)
            heard, self.rig.heard = bytes(self.rig.heard), bytearray()
            if heard:
                self.client.receive(heard)
                self.rig.wire.room = ROOM  # the client has read it
                self.rig.settle()
            if not said and not heard:
                return

    def _pick(self, which: int) -> _End | None:
        alive = [each for each in self.tunnels if not each.gone and not each.stream.closed]
        return alive[which % len(alive)] if alive else None

    # The client

    @precondition(lambda self: len(self.tunnels) < 6)
    @rule(reached=st.booleans())
    def opens(self, reached: bool) -> None:
        tunnel = _End(self.client.open(request(0)))
        self.tunnels.append(tunnel)
        self._exchange()
        before = len(self.rig.reactor.ends)
        self.rig.keep(True)
        self.rig.reach(reached)
        if reached:
            tunnel.end = self.rig.reactor.ends[before]
        self._exchange()
        if not reached:
            assert tunnel.status is not None
            assert tunnel.status.code == 502

    @rule(which=_which, size=_sizes)
    def client_sends(self, which: int, size: int) -> None:
        tunnel = self._pick(which)
        if tunnel is not None and not tunnel.finished and tunnel.stream.queued < 10**6:
            tunnel.stream.send(_pattern(tunnel.sent, size))
            tunnel.sent += size
            self._exchange()

    @rule(which=_which)
    def client_finishes(self, which: int) -> None:
        tunnel = self._pick(which)
        if tunnel is not None and not tunnel.finished:
            tunnel.stream.finish()
            tunnel.finished = True
            self._exchange()

    @rule(which=_which)
    def client_stops_reading(self, which: int) -> None:
        tunnel = self._pick(which)
        if tunnel is not None:
            tunnel.credits = False

    @rule(which=_which)
    def client_reads_on(self, which: int) -> None:
        tunnel = self._pick(which)
        if tunnel is not None:
            tunnel.credits = True
            tunnel.give()
            self._exchange()

    @rule(which=_which)
    def client_resets(self, which: int) -> None:
        tunnel = self._pick(which)
        if tunnel is not None:
            tunnel.stream.reset()
            tunnel.gone = True
            self._exchange()
            assert tunnel.end is None or tunnel.end.closed or tunnel.finished

    # Its targets

    @rule(which=_which, size=_sizes)
    def target_sends(self, which: int, size: int) -> None:
        tunnel = self._pick(which)
        if tunnel is not None and tunnel.end is not None and not tunnel.end.eof and not tunnel.end.closed:
            tunnel.end.feed(_pattern(tunnel.fed, size))
            tunnel.fed += size
            self.rig.settle()
            self._exchange()

    @rule(which=_which, room=st.sampled_from([0, 1, 5000, 2**20]))
    def target_takes(self, which: int, room: int) -> None:
        tunnel = self._pick(which)
        if tunnel is not None and tunnel.end is not None and not tunnel.deaf:
            tunnel.end.room = room
            self.rig.settle()
            self._exchange()

    @rule(which=_which)
    def target_takes_no_more_for_ever(self, which: int) -> None:
        tunnel = self._pick(which)
        if tunnel is not None and tunnel.end is not None:
            tunnel.deaf = True
            tunnel.end.room = 0

    @rule(which=_which)
    def target_finishes(self, which: int) -> None:
        tunnel = self._pick(which)
        if tunnel is not None and tunnel.end is not None:
            tunnel.end.eof = True
            self.rig.settle()
            self._exchange()

    @rule(seconds=st.sampled_from([0.5, 3.0]))
    def time_passes(self, seconds: float) -> None:
        self.rig.pass_time(seconds)
        self._exchange()

    # What has to hold

    @invariant()
    def bytes_are_where_they_belong(self) -> None:
        assert not self.client.closed
        for tunnel in self.tunnels:
            assert tunnel.received == _pattern(0, len(tunnel.received))
            assert len(tunnel.received) <= tunnel.fed
            if tunnel.end is not None:
                assert tunnel.end.sent == _pattern(0, len(tunnel.end.sent))
                assert len(tunnel.end.sent) <= tunnel.sent

    def teardown(self) -> None:
        try:
            self._let_all_through()
        finally:
            self.client.connection_lost()
            self.rig.finish()

    def _let_all_through(self) -> None:
        for tunnel in self.tunnels:
            if tunnel.end is not None and not tunnel.deaf:
                tunnel.end.room = 2**30
            tunnel.credits = True
            tunnel.give()
        self.rig.settle()
        self._exchange()
        for tunnel in self.tunnels:
            if tunnel.gone or tunnel.end is None or tunnel.deaf:
                continue
            assert len(tunnel.end.sent) == tunnel.sent
            assert len(tunnel.received) == tunnel.fed
            assert tunnel.over == tunnel.end.eof
            assert tunnel.end.finished == (tunnel.finished or tunnel.end.closed)
            assert tunnel.status is None


class TunnelsTests(Tunnels.TestCase):  # type: ignore[misc]
    settings = settings(max_examples=50, stateful_step_count=30, deadline=None)
