"""A session beside h2, whatever the two do, however the wire cuts it: neither says what the other does not understand,
and no byte is lost, doubled or out of order."""

from __future__ import annotations

from typing import Any

import h2.events
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.settings import SettingCodes
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.tunnel.peers import REQUEST, RESPONSE
from wireleap_relay.tunnel.fields import Fields
from wireleap_relay.tunnel.session import Session
from wireleap_relay.tunnel.settings import SessionLimits
from wireleap_relay.tunnel.stream import Stream

_TRAILERS: Fields = [(b"wl-status", b"{}")]
_LIMITS = SessionLimits(stream_window=3000, connection_window=70_000, frame=16_384)
_sizes = st.sampled_from([1, 100, 1500, 3000, 17_000, 40_000])
_which = st.integers(0, 7)
_CYCLE = bytes(i * 7 % 251 for i in range(251))


def _pattern(begin: int, size: int) -> bytes:
    """Bytes that tell where they belong."""
    start = begin % len(_CYCLE)
    return (_CYCLE * (size // len(_CYCLE) + 2))[start : start + size]


class _Ours:
    """Our end of a stream."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.sent = 0
        self.received = bytearray()
        self.owed = 0
        self.finished = self.peer_ended = self.reset = self.paused = False
        stream.handler = self

    def responded(self, headers: Fields) -> None:
        assert headers == RESPONSE

    def data_received(self, data: bytes, frame_done: bool) -> None:
        assert not self.peer_ended
        assert not self.reset
        self.received += data
        self.owed += len(data)

    def ended(self, trailers: Fields) -> None:
        assert not self.peer_ended
        assert not self.reset
        self.peer_ended = True

    def was_reset(self, code: int) -> None:
        assert not self.reset
        self.reset = True

    def pause(self) -> None:
        assert not self.paused
        self.paused = True

    def resume(self) -> None:
        assert self.paused
        self.paused = False


class _Theirs:
    """h2's end of a stream."""

    def __init__(self) -> None:
        self.sent = 0
        self.received = bytearray()
        self.answered = self.finished = self.peer_ended = self.reset = False


class Beside(RuleBasedStateMachine):
    """What both roles have in common; bytes under way wait in ``to_us`` and ``to_them``."""

    ours_is_client: bool

    def __init__(self) -> None:
        super().__init__()
        self.ours: dict[int, _Ours] = {}
        self.theirs: dict[int, _Theirs] = {}
        self.to_us = self.to_them = b""
        self.session = Session(wake=lambda: None, opened=None if self.ours_is_client else self._opened, limits=_LIMITS)
        self.h2 = H2Connection(H2Configuration(client_side=not self.ours_is_client, header_encoding=None))
        self.h2.initiate_connection()
        self.window = 5000
        self.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: self.window, SettingCodes.HEADER_TABLE_SIZE: 100})
        self._carry_all()

    def _opened(self, stream: Stream, fields: Fields) -> None:
        self.ours[stream.id] = _Ours(stream)
        stream.respond(RESPONSE)

    # The wire

    @rule(size=st.integers(1, 400))
    def carry_some(self, size: int) -> None:
        self._take()
        piece, self.to_us = self.to_us[:size], self.to_us[size:]
        self.session.receive(piece)
        piece, self.to_them = self.to_them[:size], self.to_them[size:]
        self._hear(piece)

    @rule()
    def carry_all(self) -> None:
        self._carry_all()

    @rule(writable=st.booleans())
    def transport(self, writable: bool) -> None:
        self.session.writable = writable

    def _take(self) -> None:
        self.to_us += self.h2.data_to_send()
        if self.session.writable:
            self.to_them += self.session.take()

    def _carry_all(self) -> None:
        self._take()
        while self.to_us or self.to_them:
            data, self.to_us = self.to_us, b""
            self.session.receive(data)
            data, self.to_them = self.to_them, b""
            self._hear(data)
            self._take()

    def _hear(self, data: bytes) -> None:
        events = self.h2.receive_data(data)
        for event in events:
            if isinstance(event, h2.events.StreamReset):
                self.theirs.setdefault(event.stream_id, _Theirs()).reset = True
        for event in events:
            self._heard(event)

    def _heard(self, event: Any) -> None:
        stream = self.theirs.setdefault(event.stream_id, _Theirs()) if getattr(event, "stream_id", 0) else _Theirs()
        match event:
            case h2.events.RequestReceived():
                assert event.headers == REQUEST
                if not stream.reset:
                    self.h2.send_headers(event.stream_id, RESPONSE)
                stream.answered = True
            case h2.events.ResponseReceived():
                assert event.headers == RESPONSE
                stream.answered = True
            case h2.events.DataReceived():
                stream.received += event.data
                self._acknowledge(event.stream_id, event.flow_controlled_length)
            case h2.events.StreamEnded():
                stream.peer_ended = True
            case h2.events.ConnectionTerminated():
                assert event.error_code == 0

    def _acknowledge(self, stream_id: int, size: int) -> None:
        if size and not self.theirs[stream_id].reset:
            self.h2.acknowledge_received_data(size, stream_id)

    # What both sides do

    @rule(which=_which, size=_sizes)
    def we_send(self, which: int, size: int) -> None:
        for end in self._our_ends(which):
            if not end.finished:
                end.stream.send(_pattern(end.sent, size))
                end.sent += size

    @rule(which=_which, trailers=st.booleans())
    def we_finish(self, which: int, trailers: bool) -> None:
        for end in self._our_ends(which):
            if not end.finished:
                end.stream.finish(_TRAILERS if trailers else None)
                end.finished = True

    @rule(which=_which)
    def we_reset(self, which: int) -> None:
        for end in self._our_ends(which):
            end.stream.reset()
            end.reset = True

    @rule(which=_which)
    def we_give_credit(self, which: int) -> None:
        for end in self._our_ends(which):
            end.stream.credit(end.owed)
            end.owed = 0

    @rule(which=_which, size=_sizes, padding=st.sampled_from([None, 0, 1, 200]))
    def they_send(self, which: int, size: int, padding: int | None) -> None:
        for stream_id, end in self._their_ends(which):
            room = min(self.h2.local_flow_control_window(stream_id), self.h2.max_outbound_frame_size)
            size = min(size, room - (padding + 1 if padding is not None else 0))
            if size > 0:
                self.h2.send_data(stream_id, _pattern(end.sent, size), pad_length=padding)
                end.sent += size

    @rule(which=_which, trailers=st.booleans())
    def they_finish(self, which: int, trailers: bool) -> None:
        for stream_id, end in self._their_ends(which):
            if trailers:
                self.h2.send_headers(stream_id, _TRAILERS, end_stream=True)
            else:
                self.h2.end_stream(stream_id)
            end.finished = True

    @rule(which=_which)
    def they_reset(self, which: int) -> None:
        for stream_id, end in self._their_ends(which):
            self.h2.reset_stream(stream_id)
            end.reset = True

    @rule(more=st.sampled_from([0, 1, 5000, 100_000]))
    def they_open_windows(self, more: int) -> None:
        # Smaller ones are none of h2's strengths: it takes an empty frame for one too many then.
        self.window += more
        self.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: self.window})

    @rule()
    def they_ping(self) -> None:
        self.h2.ping(bytes(8))

    def _our_ends(self, which: int) -> list[_Ours]:
        ends = [end for end in self.ours.values() if not end.reset and not end.stream.closed]
        return [ends[which % len(ends)]] if ends else []

    def _their_ends(self, which: int) -> list[tuple[int, _Theirs]]:
        def may_send(end: _Theirs) -> bool:
            return not end.finished and not end.reset and (end.answered or not self.ours_is_client)

        ends = [(stream_id, end) for stream_id, end in self.theirs.items() if may_send(end)]
        return [ends[which % len(ends)]] if ends else []

    # What has to hold

    @invariant()
    def no_byte_is_out_of_place(self) -> None:
        assert not self.session.closed, (self.session.error, self.session.offence)
        for stream_id, end in self.ours.items():
            there = self.theirs.get(stream_id, _Theirs())
            assert end.received == _pattern(0, len(end.received))
            assert there.received == _pattern(0, len(there.received))
            assert len(end.received) <= there.sent
            assert len(there.received) <= end.sent

    def teardown(self) -> None:
        """Let everything through: what was sent and not reset has arrived."""
        self.session.writable = True
        self.they_open_windows(2**20)
        self._carry_all()
        while any(end.owed for end in self.ours.values()):
            for end in self.ours.values():
                end.stream.credit(end.owed)
                end.owed = 0
            self._carry_all()
        for stream_id, end in self.ours.items():
            there = self.theirs[stream_id]
            if end.reset or there.reset:
                continue
            assert len(there.received) == end.sent, (stream_id, len(there.received), end.sent)
            assert len(end.received) == there.sent
            assert there.peer_ended == end.finished
            assert end.peer_ended == there.finished
            assert end.stream.closed == (end.finished and there.finished)
            assert not end.paused


class BesideAClient(Beside):
    """We are the server, as relays are."""

    ours_is_client = False

    @precondition(lambda self: len(self.theirs) < 12)
    @rule(end=st.booleans())
    def they_open(self, end: bool) -> None:
        stream_id = self.h2.get_next_available_stream_id()
        self.h2.send_headers(stream_id, REQUEST, end_stream=end)
        self.theirs[stream_id] = there = _Theirs()
        there.finished = end


class BesideAServer(Beside):
    """We are the client, as the sandbox's are."""

    ours_is_client = True

    @precondition(lambda self: len(self.ours) < 12)
    @rule()
    def we_open(self) -> None:
        stream = self.session.open(REQUEST)
        self.ours[stream.id] = _Ours(stream)


_SETTINGS = settings(max_examples=150, stateful_step_count=50, deadline=None)


class BesideAClientTests(BesideAClient.TestCase):  # type: ignore[misc]
    settings = _SETTINGS


class BesideAServerTests(BesideAServer.TestCase):  # type: ignore[misc]
    settings = _SETTINGS
