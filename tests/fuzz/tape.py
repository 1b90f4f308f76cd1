"""Bytes as things that happen at a relay's door: what fuzzers change, and what cases are kept as."""

from __future__ import annotations

import random
from collections.abc import Callable

from h2.settings import SettingCodes

from tests.fuzz.reader import Tape
from tests.fuzz.rig import CLIENT, NOW, RELAY, STATEMENT, Rig
from wireleap_relay.tunnel import frames
from wireleap_relay.tunnel.abuse import Rates
from wireleap_relay.tunnel.fields import Fields, write_fields
from wireleap_relay.tunnel.session import Session
from wireleap_relay.tunnel.settings import SessionLimits
from wireleap_relay.wire.address import Address
from wireleap_relay.wire.payload import Connect
from wireleap_relay.wire.sharetoken import Sharetoken
from wireleap_relay.wire.versions import CLIENT_RELAY

#: Small, so that a fuzzer meets the bounds.
LIMITS = SessionLimits(streams=8, header_list=4096, stream_window=16_384, connection_window=70_000)
#: Things that happen on one tape.
_MOST_STEPS = 400

_TOKEN = Sharetoken.sign(CLIENT, STATEMENT, RELAY.public_key, NOW)


def payload(protocol: str, remote: str) -> bytes:
    return Connect(protocol, Address.from_text(remote), _TOKEN, CLIENT_RELAY).to_json().encode()  # type: ignore[arg-type]


PAYLOADS = [
    payload("tcp", "target://8.8.8.8:80"),
    payload("tcp", "target://name.example:80"),
    payload("udp", "target://127.0.0.1:53"),
    payload("tcp", "wireleap://127.0.0.1:443"),
    payload("tcp", "target://127.0.0.1:80"),
    b'{"command":"PING"}',
    b"{}",
    b"\xff",
]


def request(which: int) -> Fields:
    """A request; after all payloads come other methods, and requests that are none."""
    method, at = (b"PUT", which % 16) if which % 16 < len(PAYLOADS) else ([b"GET", b"HEAD", b"CONNECT"][which % 3], 5)
    fields = [(b":method", method), (b":scheme", b"https"), (b":authority", b"relay"), (b":path", b"/")]
    if which % 16 != 15:
        fields.append((b"wl-payload", PAYLOADS[at]))
    if which & 16:
        fields.append((b"content-length", b"%d" % (which >> 5)))
    return fields


class Player:
    """Plays one tape."""

    def __init__(self, data: bytes) -> None:
        self._tape = Tape(data)
        flags = self._tape.byte()
        limits = SessionLimits(rates=Rates(4, 4, 8, 8)) if flags & 1 else LIMITS
        self.rig = Rig(limits, 30.0 if flags & 2 else 0.0, ["", "", "site", "server"][flags >> 3 & 3])
        self._stream_id = 1
        if flags & 4:
            self._say(frames.PREFACE + frames.settings({SettingCodes.INITIAL_WINDOW_SIZE: 20_000}))

    def play(self) -> None:
        """Let all of it happen, and see that it ends well."""
        try:
            for _ in range(_MOST_STEPS):
                if self._tape.ended or self.rig.wire.closed:
                    break
                _STEPS[self._tape.byte() % len(_STEPS)](self)
        finally:
            self.rig.finish()

    def _say(self, data: bytes) -> None:
        if not self.rig.wire.closed:
            self.rig.say(data)

    # Steps

    def _raw(self) -> None:
        self._say(self._tape.bytes(self._tape.number() % 2048))

    def _request(self) -> None:
        which, how = self._tape.byte(), self._tape.byte()
        block = write_fields(request(which))
        first, *rest = frames.header_frames(self._stream_id, block, bool(how & 1), 16_384 if how & 2 else 300)
        self._say(first + b"".join(rest))
        self._stream_id += 2

    def _payload(self) -> None:
        which, size, flags = self._tape.byte(), self._tape.number() % 20_000, self._tape.byte() & 9
        self._say(frames.header(size, frames.DATA, flags, 2 * (which % 16) + 1) + bytes(size))

    def _frame(self) -> None:
        kind, flags, stream_id = self._tape.byte() % 11, self._tape.byte(), self._tape.byte() % 32
        body = self._tape.bytes(self._tape.byte())
        self._say(frames.header(len(body), kind, flags, stream_id) + body)

    def _window(self) -> None:
        stream_id, size = self._tape.byte() % 32, self._tape.number()
        self._say(frames.window_update(stream_id, size))

    def _reach(self) -> None:
        self.rig.reach(self._tape.byte() % 4 != 0)

    def _keep(self) -> None:
        self.rig.keep({0: None, 1: False}.get(self._tape.byte() % 8, True))

    def _name(self) -> None:
        which = self._tape.byte() % 5
        self.rig.name([("9.9.9.9",), ("2620:fe::fe", "9.9.9.9"), (), None, ("169.254.169.254",)][which])

    def _target_sends(self) -> None:
        which, size = self._tape.byte(), self._tape.number()
        end = self.rig.target(which)
        if end is not None:
            end.feed(bytes(4 * size))
            self.rig.settle()

    def _target_says(self) -> None:
        which, said = self._tape.byte(), self._tape.bytes(self._tape.number() % 2048)
        end = self.rig.target(which)
        if end is not None:
            end.feed(said)
            self.rig.settle()

    def _target_ends(self) -> None:
        which = self._tape.byte()
        end = self.rig.target(which >> 2)
        if end is not None:
            end.eof = True
            end.broken = bool(which & 1)
            self.rig.settle()

    def _target_takes(self) -> None:
        which, size = self._tape.byte(), self._tape.number()
        end = self.rig.target(which)
        if end is not None:
            end.room = size
            self.rig.settle()

    def _client_takes(self) -> None:
        self.rig.wire.room = 8 * self._tape.number()
        self.rig.settle()

    def _client_ends(self) -> None:
        how = self._tape.byte()
        self.rig.wire.eof = True
        self.rig.wire.broken = bool(how & 1)
        self.rig.settle()

    def _time(self) -> None:
        self.rig.pass_time(self._tape.byte() / 16)

    def _long_time(self) -> None:
        self.rig.pass_time(self._tape.byte() % 40)

    def _datagrams(self) -> None:
        count = self._tape.byte()
        for port in [port for port in self.rig.ports if port.open]:
            if count == 255:
                port.protocol.connectionRefused()
            else:
                port.protocol.datagramReceived(bytes(32 * count), None)
        self.rig.settle()

    def _operator(self) -> None:
        match self._tape.byte() % 4:
            case 0:
                for connection in list(self.rig.hall.connections):
                    connection.leave()
            case 1:
                self.rig.registry.close_all("the relay is stopping")
            case 2:
                for connection in list(self.rig.hall.connections):
                    connection.abort()
            case _:
                self.rig.pass_time(0.5)
        self.rig.settle()


_STEPS: list[Callable[[Player], None]] = [
    Player._raw,
    Player._request,
    Player._payload,
    Player._frame,
    Player._window,
    Player._reach,
    Player._keep,
    Player._name,
    Player._target_sends,
    Player._target_ends,
    Player._target_takes,
    Player._client_takes,
    Player._client_ends,
    Player._time,
    Player._long_time,
    Player._datagrams,
    Player._operator,
    Player._request,
    Player._payload,
    Player._reach,
    Player._keep,
    Player._target_says,
]
#: Steps that take bytes off the tape.
_WORDY = ("_raw", "_frame", "_target_says")
_NUMBERS = {step.__name__: number for number, step in reversed(list(enumerate(_STEPS)))}


def play(data: bytes) -> None:
    """Let what is on a tape happen at a door, and complain of all that may not be."""
    Player(data).play()


def corpus(seed: int, count: int) -> list[bytes]:
    """Record tapes: of what honest clients say, and of tunnels to which this and that happens."""
    chance = random.Random(seed)
    kinds = [_recorded] * 5 + [_made_up] * 4 + [_strange]
    return [chance.choice(kinds)(chance) for _ in range(count)]


def raw_bytes(tape: bytes) -> bytes:
    """Give what the client itself wrote on a tape that was recorded, up to the first other thing."""
    pieces, at = [], 1
    while tape[at : at + 1] == bytes([_NUMBERS["_raw"]]):
        end = at + 3 + int.from_bytes(tape[at + 1 : at + 3])
        pieces.append(tape[at + 3 : end])
        at = end
    return b"".join(pieces)


def _step(name: str, *values: int) -> bytes:
    return bytes([_NUMBERS[name], *values])


def _made_up(chance: random.Random) -> bytes:
    def steps(most: int, make: Callable[[], bytes]) -> bytes:
        return b"".join(make() for _ in range(chance.randrange(1, most)))

    def request_step() -> bytes:
        return _step("_request", chance.choice([0, 0, 0, 1, 2, 4, 5, 9]), chance.choice([0, 0, 0, 1, 2]))

    def help_step() -> bytes:
        return chance.choice([_step("_keep", 7), _step("_reach", 1), _step("_name", chance.randrange(5))])

    names = [name for name in _NUMBERS if name not in (*_WORDY, "_client_ends", "_operator", "_long_time")]
    end = _step(chance.choice(["_client_ends", "_operator", "_long_time"]), *chance.randbytes(1))
    return (
        bytes([chance.choice([4, 4, 5, 6, 4 + 16, 4 + 24])])
        + steps(6, request_step)
        + steps(8, help_step)
        + steps(40, lambda: _step(chance.choice(names), *chance.randbytes(3)))
        + end
    )


_SAID = (
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    b"HTTP/1.0 304 Not Modified\r\nX-Y: z\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 404 Not Found\r\n\r\nnone",
)


def _strange(chance: random.Random) -> bytes:
    """A stranger, who is shown something, over HTTP/2 or HTTP/1.1."""
    two = chance.random() < 0.5
    tape = bytearray([chance.choice([16, 24, 24]) + 4 * two])
    for _ in range(chance.randrange(1, 12)):
        if two:
            tape += _step("_request", chance.choice([8, 9, 10, 11, 24, 26]), chance.randrange(4))
        else:
            said = chance.choice([b"GET / HTTP/1.1\r\n\r\n", b"HEAD /big HTTP/1.0\r\n", b"\r\n", b"POST /"])
            tape += _step("_raw", 0, len(said)) + said
        tape += _step("_reach", chance.randrange(4))
        answer = chance.choice(_SAID)
        tape += _step("_target_says", chance.randrange(3), 0, len(answer)) + answer
        name = chance.choice([name for name in _NUMBERS if name not in _WORDY])
        tape += _step(name, *chance.randbytes(3))
    return bytes(tape)


def _recorded(chance: random.Random) -> bytes:
    tape = bytearray([chance.choice([0, 2])])

    def say() -> None:
        data = client.take()
        while data:
            size = chance.choice([len(data), 1 + chance.randrange(40), 9, 24, 500])
            piece, data = data[:size][:2000], data[min(size, 2000) :]
            tape.extend(_step("_raw", len(piece) >> 8, len(piece) & 0xFF) + piece)

    client = Session(wake=lambda: None)
    say()
    streams = []
    for _ in range(chance.randrange(1, 25)):
        what = chance.randrange(12)
        if what < 3:
            stream = client.open(request(chance.choice([0, 0, 0, 1, 2, 4, 5, 6, 9, 15])))
            stream.handler = _Deaf()
            streams.append(stream)
            say()
            tape.extend(_step("_keep", 7) + _step("_reach", 1))
        elif what < 6 and streams:
            chance.choice(streams).send(bytes(chance.choice([1, 100, 3000])))
            say()
        elif what == 6 and streams:
            chance.choice(streams).finish()
            say()
        elif what == 7 and streams:
            chance.choice(streams).reset()
            say()
        else:
            name = chance.choice([name for name in _NUMBERS if name not in _WORDY])
            tape.extend(_step(name, *chance.randbytes(3)))
    return bytes(tape)


class _Deaf:
    """A handler of a stream on which nothing is heard."""

    def __getattr__(self, _: str) -> Callable[..., None]:
        return lambda *_: None
