"""Asks name servers for a name's addresses (RFC 1035), without waiting in a thread.

twisted.names reads and writes the messages. Its own client logs two lines for
each question and asks from sockets that take answers from anybody; here every
question has a socket and a port of its own, connected to its server.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from functools import partial
from ipaddress import ip_address
from typing import Any, Literal, cast

import attrs
from twisted.internet.abstract import FileDescriptor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.names import dns
from twisted.python.failure import Failure

from wireleap_relay.tunnel.eyeballs import Race

Family = Literal["4", "6"]
Server = tuple[str, int]

#: Seconds that a server has before the next one, or it again, is asked too.
_PATIENCE = 1.0
_ROUNDS = 2
#: Seconds after which a question is sent once more: it got lost, or its server was not there.
_AGAIN = 2.0
_LARGEST_ANSWER = 4096
_KINDS: dict[str, int] = {"4": dns.A, "6": dns.AAAA}


class LookupFailed(Exception):
    """Nobody could tell a name's addresses; the text says why, and does not repeat the name."""


@attrs.frozen
class Answer:
    """What is known of a name.

    :ivar addresses: of one family; none where the name has none of it, or isn't.
    :ivar ttl: seconds for which this may be remembered.
    :ivar whole: False where there was more than fits into a datagram, and no address in what did.
    """

    addresses: tuple[str, ...]
    ttl: float
    whole: bool = True


def ask(reactor: Any, servers: Sequence[Server], host: str, family: Family) -> Deferred[Answer]:
    """Ask servers in turn until one answers; the caller sets the time limit.

    :returns: fires with the answer, fails with :exc:`LookupFailed`; cancel it to ask no more.
    """
    race: Race[Server, Answer] = Race(reactor, partial(_ask_one, reactor, host, _KINDS[family]), _PATIENCE)
    race.add(list(servers) * _ROUNDS)
    race.no_more(LookupFailed("there are no name servers"))
    return race.won


def _ask_one(reactor: Any, host: str, kind: int, server: Server) -> Deferred[Answer]:
    return _Question(reactor, host, kind, server).answered


class _Question(FileDescriptor):
    """One question to one server."""

    _socket: socket.socket | None = None
    _timer: IDelayedCall | None = None

    def __init__(self, reactor: Any, host: str, kind: int, server: Server) -> None:
        """Ask it."""
        super().__init__(reactor)
        self.answered: Deferred[Answer] = Deferred(lambda _: self._close())
        self._query = dns.Query(host.encode("ascii"), kind)
        self._id = int.from_bytes(os.urandom(2))
        message = dns.Message(self._id, recDes=1)
        message.queries = [self._query]
        self._message = message.toStr()
        try:
            version = socket.AF_INET6 if ":" in server[0] else socket.AF_INET
            self._socket = asking = socket.socket(version, socket.SOCK_DGRAM)
            asking.setblocking(False)
            asking.connect(server)
        except OSError as e:
            self._fail(f"a name server can't be asked: {e.strerror}")
        else:
            self.connected = 1
            self.startReading()
            self._send()

    def _send(self) -> None:
        assert self._socket is not None  # noqa: S101 - the timer ends with it
        try:
            self._socket.send(self._message)
        except OSError as e:
            self._fail(f"a name server can't be asked: {e.strerror}")
        else:
            self._timer = cast("Any", self.reactor).callLater(_AGAIN, self._send)

    def fileno(self) -> int:
        """Give the socket's."""
        return self._socket.fileno() if self._socket is not None else -1

    def doRead(self) -> None:
        """Look at what came; what is no answer to this question is passed over."""
        assert self._socket is not None  # noqa: S101 - only an open one is read
        try:
            data = self._socket.recv(_LARGEST_ANSWER)
        except BlockingIOError:
            return
        except OSError:
            self._fail("a name server can't be reached")
            return
        message = dns.Message()
        try:
            message.fromStr(data)
        except Exception:  # noqa: BLE001 - twisted.names raises whatever it stumbles over
            return
        if message.id != self._id or not message.answer or message.queries != [self._query]:
            return
        try:
            answer = _read(message, self._query)
        except LookupFailed as e:
            self._fail(str(e))
            return
        self._close()
        self.answered.callback(answer)

    def connectionLost(self, reason: Failure) -> None:
        """The reactor has seen an error on the socket: nobody listens there."""
        super().connectionLost(reason)
        if self._socket is not None:
            self._fail("a name server can't be reached")

    def _fail(self, why: str) -> None:
        self._close()
        self.answered.errback(LookupFailed(why))

    def _close(self) -> None:
        self.stopReading()
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _read(message: dns.Message, query: dns.Query) -> Answer:
    """Follow a name's aliases to its addresses.

    :raises LookupFailed: where the server could not tell.
    """
    if message.rCode not in (dns.OK, dns.ENAME):
        raise LookupFailed(f"a name server answered with code {message.rCode}")
    names = {query.name.name.lower()}
    addresses: list[str] = []
    ttls: list[int] = []
    # Servers give the aliases in order, before what they lead to.
    for record in message.answers:
        if record.name.name.lower() not in names or record.cls != dns.IN:
            continue
        payload = record.payload
        if isinstance(payload, dns.Record_CNAME):
            names.add(payload.name.name.lower())
        elif isinstance(payload, dns.Record_A if query.type == dns.A else dns.Record_AAAA):
            addresses.append(str(ip_address(payload.address)))
        else:
            continue
        ttls.append(record.ttl)
    if addresses:
        return Answer(tuple(addresses), min(ttls))
    if message.trunc:
        return Answer((), 0.0, whole=False)
    # RFC 2308, section 5: how long "there is none" holds stands in the zone's SOA.
    for record in message.authority:
        soa: Any = record.payload
        if record.type == dns.SOA:
            ttls.append(min(record.ttl, soa.minimum))
            break
    else:
        return Answer((), 0.0)
    return Answer((), min(ttls))
