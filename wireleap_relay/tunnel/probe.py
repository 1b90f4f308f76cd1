"""Calls at a relay as a client would, to see whether the way there is as tunnels need it."""

from __future__ import annotations

from typing import Any

import attrs
from OpenSSL import SSL
from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as TooLate
from twisted.internet.error import ConnectError, ConnectionClosed

from wireleap_relay.configvalues import ListenAddress
from wireleap_relay.tunnel.answers import STATUS
from wireleap_relay.tunnel.client import NoHttp2, RelayConnection, connect
from wireleap_relay.tunnel.stream import Headers, Stream, header_value
from wireleap_relay.wire.address import Address
from wireleap_relay.wire.encoding import write_json
from wireleap_relay.wire.errors import WireError
from wireleap_relay.wire.keys import PublicKey, SigningKey
from wireleap_relay.wire.payload import Connect
from wireleap_relay.wire.sharetoken import ContractStatement, Sharetoken
from wireleap_relay.wire.status import Status
from wireleap_relay.wire.versions import CLIENT_RELAY

_PING = write_json({"command": "PING"})
#: Bytes of an answer that are looked at.
_ENOUGH = 4096
#: Where every interface can be reached at.
_LOOPBACK = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - nothing is bound there
#: Unix seconds of a time that has not come.
_LATER = 2**40


class NotReached(Exception):
    """The relay did not answer; the text tells an operator why."""


@attrs.frozen
class Way:
    """What the way to a relay is like.

    :ivar seconds: until its answer to a PING was there, TLS and all.
    :ivar tells_errors: clients learn why tunnels end; a web server that drops trailers keeps it from them.
    """

    seconds: float
    tells_errors: bool


async def probe(reactor: Any, address: Address, relay: PublicKey, patience: float = 10.0) -> Way:
    """Ask a relay for a PING, and for a tunnel that it has to refuse.

    Both are asked of its published address, so that a web server which stands
    there is part of what is looked at. The tunnel's request stays open on the
    client's side, as tunnels do: a web server that waits for its end before it
    passes it on is found out. The token with it is of no contract.

    :param relay: who is expected to answer.
    :param patience: in seconds, for each of the two answers.
    :raises NotReached: where another one answers, or none.
    """
    start = reactor.seconds()
    connection = await _connect(reactor, address, patience)
    try:
        answer = await _ask(reactor, connection, _PING, patience)
        _check_pong(answer, address, relay)
        seconds = reactor.seconds() - start
        refusal = await _ask(reactor, connection, _unpaid(relay), patience)
    finally:
        connection.close()
    return Way(seconds, header_value(refusal.trailers, STATUS) is not None)


async def ping(reactor: Any, where: ListenAddress, relay: PublicKey, patience: float = 10.0) -> float:
    """Ask a relay on this machine for a PING, at the address where it listens.

    :param patience: in seconds.
    :returns: seconds until its answer was there, TLS and all.
    :raises NotReached: where another one answers, or none.
    """
    start = reactor.seconds()
    address = Address("wireleap", _LOOPBACK.get(where.host, where.host), where.port)
    way = _ThroughUnix(reactor, where.path) if where.path else reactor
    connection = await _connect(way, address, patience, plain=where.plain)
    try:
        _check_pong(await _ask(reactor, connection, _PING, patience), address, relay)
    finally:
        connection.close()
    return float(reactor.seconds() - start)


class _ThroughUnix:
    """A reactor that connects to one unix socket, wherever it is asked to."""

    def __init__(self, reactor: Any, path: str) -> None:
        self._reactor = reactor
        self._path = path

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def connectTCP(self, host: str, port: int, factory: Any, timeout: float) -> Any:
        return self._reactor.connectUNIX(self._path, factory, timeout)


async def _connect(reactor: Any, address: Address, patience: float, *, plain: bool = False) -> RelayConnection:
    try:
        return await connect(reactor, address, patience, plain=plain)
    except NoHttp2:
        raise NotReached(f"{address.host_port} speaks no HTTP/2") from None
    except TooLate:
        raise NotReached(f"{address.host_port} has not answered within {patience:g} s") from None
    except SSL.Error:
        raise NotReached(f"{address.host_port} does not speak TLS 1.3") from None
    except ConnectionClosed:
        raise NotReached(f"{address.host_port} has hung up before TLS was agreed upon") from None
    except ConnectError as e:
        raise NotReached(f"{address.host_port} can't be connected to: {e}") from None


@attrs.define(eq=False)
class _Answer:
    """Reads an answer to its end."""

    stream: Stream
    status: bytes = b""
    body: bytes = b""
    trailers: Headers = attrs.field(factory=list)
    done: Deferred[None] = attrs.field(factory=Deferred)

    def responded(self, headers: Headers) -> None:
        self.status = header_value(headers, b":status") or b""

    def data_received(self, data: bytes, frame_done: bool) -> None:
        self.body = (self.body + data)[:_ENOUGH]
        self.stream.credit(len(data))

    def ended(self, trailers: Headers) -> None:
        self.trailers = trailers
        self.done.callback(None)

    def was_reset(self, code: int) -> None:
        if not self.done.called:
            self.done.errback(NotReached(f"the answer was broken off with HTTP/2 error {code}"))

    def pause(self) -> None:
        """Nothing is sent."""

    def resume(self) -> None:
        """Nothing is sent."""


async def _ask(reactor: Any, connection: RelayConnection, payload: str, patience: float) -> _Answer:
    stream = connection.request(payload)
    stream.handler = answer = _Answer(stream)
    answer.done.addTimeout(patience, reactor)
    try:
        await answer.done
    except TooLate:
        raise NotReached(
            f"no answer came within {patience:g} s: a web server that is in between has to pass requests on before"
            " they end"
        ) from None
    stream.reset()
    return answer


def _check_pong(answer: _Answer, address: Address, relay: PublicKey) -> None:
    where = f"{address.host_port}{address.path or '/'}"
    if answer.status != b"200":
        status = answer.status.decode("ascii", "replace")
        raise NotReached(f"{where} answers with HTTP status {status}: that is not passed on to the relay")
    try:
        pong = Status.from_json(answer.body)
    except WireError:
        raise NotReached(f"{where} does not answer as a relay does: that is not passed on to the relay") from None
    if pong.origin != str(relay):
        raise NotReached(f"{where} leads to another relay")


def _unpaid(relay: PublicKey) -> str:
    statement = ContractStatement.sign(SigningKey.generate(), _LATER, _LATER)
    token = Sharetoken.sign(SigningKey.generate(), statement, relay, 0)
    return Connect("tcp", Address.from_text("target://probe.invalid:443"), token, CLIENT_RELAY).to_json()
