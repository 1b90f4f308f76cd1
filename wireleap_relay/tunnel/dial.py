"""Dials targets and next relays: resolve, check, connect to what was checked."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Iterable
from ipaddress import ip_address
from itertools import islice
from typing import Any, Generic, TypeVar

from twisted.internet import udp
from twisted.internet.defer import Deferred, DeferredList, fail, succeed
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.error import (
    CannotListenError,
    ConnectError,
    ConnectionRefusedError,  # noqa: A004
    NoRouteError,
    TimeoutError,  # noqa: A004
)
from twisted.internet.interfaces import IAddress, IConnector
from twisted.internet.protocol import ClientFactory, DatagramProtocol, Protocol
from twisted.internet.task import deferLater
from twisted.logger import LogLevel
from twisted.python import log
from twisted.python.failure import Failure

from wireleap_relay.boundaries import Refused
from wireleap_relay.exitpolicy import IPAddress
from wireleap_relay.tunnel.eyeballs import Race, interleave
from wireleap_relay.tunnel.nameserver import Family, LookupFailed
from wireleap_relay.tunnel.policy import DialPolicy
from wireleap_relay.tunnel.resolver import Resolver
from wireleap_relay.wire.payload import Connect

T = TypeVar("T")
P = TypeVar("P", bound="Dialled")
D = TypeVar("D", bound=DatagramProtocol)

#: The largest datagram that fits an IPv4 or IPv6 packet (RFC 768), in bytes.
LARGEST_DATAGRAM = 65_535
#: Addresses of a name, in each family, that are tried.
MOST_ADDRESSES = 8
#: Seconds that IPv4 addresses wait for IPv6 ones (RFC 8305, section 3).
RESOLUTION_DELAY = 0.05

_NO_NEWS = {"log_level": LogLevel.debug}
_FAMILIES: tuple[Family, ...] = ("6", "4")


class Dialled(Protocol):
    """What a dial ends in.

    :ivar connected_callback: to be called by ``connectionMade``.
    """

    connected_callback: Callable[[], None]


class UdpPort(udp.Port):
    """A socket whose begin and end are no news: there is one for each tunnel."""

    def startListening(self) -> None:
        """Bind."""
        log.callWithContext(_NO_NEWS, super().startListening)

    def connectionLost(self, reason: Any = None) -> None:
        """The socket is closed."""
        log.callWithContext(_NO_NEWS, super().connectionLost, reason)


class _Attempt(ClientFactory, Generic[P]):
    """One connection attempt."""

    noisy = False

    def __init__(self, build: Callable[[], P]) -> None:
        self._build = build
        self.connected: Deferred[P] = Deferred(self._cancel)
        self._connector: IConnector | None = None
        self._given_up = False

    def startedConnecting(self, connector: IConnector) -> None:
        """Remember what to stop when nobody wants the connection any more."""
        self._connector = connector

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        """Make the protocol; whoever waits for it hears of it when it is connected."""
        protocol = self._build()
        protocol.connected_callback = lambda: self.connected.callback(protocol)
        return protocol

    def clientConnectionFailed(self, connector: IConnector, reason: Failure) -> None:
        """Tell whoever waits."""
        if not self._given_up and not self.connected.called:
            self.connected.errback(reason)

    def _cancel(self, _: Deferred[P]) -> None:
        self._given_up = True
        if self._connector is not None:
            self._connector.disconnect()


class Dialler:
    """Opens the far side of tunnels.

    :ivar policy: who may be dialled.
    :ivar timeout: seconds for finding and reaching a tunnel's remote.
    """

    def __init__(self, reactor: Any, policy: DialPolicy, timeout: float, resolver: Resolver) -> None:
        """Dial within a policy."""
        self._reactor = reactor
        self._resolver = resolver
        self.policy = policy
        self.timeout = timeout

    def apply(self, policy: DialPolicy) -> None:
        """Dial within another policy from now on; tunnels that are open stay."""
        self.policy = policy

    async def tcp(self, connect: Connect, build: Callable[[], P]) -> P:
        """Connect to a tunnel's remote.

        :param build: makes the protocol, once there is a connection.
        :raises Refused: with 408 or 502 where it can't be reached, with 400
            where it may not be dialled.
        """

        def attempt(host: str) -> Deferred[P]:
            trying = _Attempt(build)
            source = self.policy.source(host)
            try:
                if source is not None:
                    # Twisted leaves sockets behind that it can't bind.
                    _own_address(host, source)
            except OSError as e:
                return fail(_no_socket(e))
            self._reactor.connectTCP(
                host,
                connect.remote.port,
                trying,
                timeout=self.timeout,
                bindAddress=None if source is None else (source, 0),
            )
            return trying.connected

        return await self._race(connect, attempt)

    async def udp(self, connect: Connect, build: Callable[[], D]) -> D:
        """Open a socket that exchanges datagrams with a tunnel's remote only.

        :raises Refused: as :meth:`tcp` does.
        """

        def attempt(host: str) -> Deferred[D]:
            source = self.policy.source(host)
            try:
                # Only where there is a route: a protocol must not see its port fail.
                _own_address(host, source)
                return succeed(self._open_udp(host, connect.remote.port, source, build()))
            except OSError as e:
                return fail(_no_socket(e))
            except CannotListenError:
                return fail(Refused(502, "dialling failed"))

        return await self._race(connect, attempt)

    def _open_udp(self, host: str, remote_port: int, source: str | None, protocol: D) -> D:
        any_source = "::" if ":" in host else "0.0.0.0"  # noqa: S104 - connected right below
        port = UdpPort(0, protocol, source or any_source, LARGEST_DATAGRAM, self._reactor)
        port.startListening()
        try:
            port.connect(host, remote_port)
        except OSError:
            port.stopListening()
            raise
        return protocol

    async def _race(self, connect: Connect, attempt: Callable[[str], Deferred[T]]) -> T:
        """Try the addresses of a tunnel's remote as they are found, each of them checked."""
        literal = _literal_family(connect.remote.host)
        if literal is not None:
            return await self._straight(connect, literal, attempt)
        race: Race[str, T] = Race(self._reactor, attempt, order=interleave)
        race.won.addTimeout(self.timeout, self._reactor)
        finding = Deferred.fromCoroutine(self._find(connect, race.add))
        finding.addCallbacks(race.no_more, lambda failure: race.no_more(failure.value))
        try:
            return await race.won
        except DeferredTimeout:
            what = "dialling" if race.begun else "looking the name up"
            raise Refused(408, f"{what} timed out") from None
        except ConnectError as e:
            raise _refusal(e) from None
        finally:
            finding.cancel()

    async def _straight(self, connect: Connect, family: Family, attempt: Callable[[str], Deferred[T]]) -> T:
        """Try the only address there is, without a race: its timers and Deferreds cost as much as the socket."""
        remote = connect.remote
        wanted = _wanted(connect)
        if family not in wanted:
            raise Refused(502, f"the address is not an IPv{wanted[0]} address")
        self.policy.check(remote.host, remote.port, remote.is_target)
        try:
            return await attempt(remote.host)
        except ConnectError as e:
            raise _refusal(e) from None

    async def _find(self, connect: Connect, add: Callable[[list[str]], None]) -> Refused:
        """Find the addresses of a name to try, and check them.

        :param add: given addresses as soon as they are known.
        :returns: why there is none, if there is none.
        """
        remote = connect.remote
        refusal: list[Refused] = []

        def check(found: Iterable[str]) -> None:
            passed = []
            for host in islice(found, MOST_ADDRESSES):
                try:
                    self.policy.check(host, remote.port, remote.is_target)
                except Refused as e:
                    refusal.append(e)
                else:
                    passed.append(host)
            add(passed)

        failure = await self._look_up(remote.host, _wanted(connect), check)
        if failure is not None and not refusal:
            return Refused(502, f"looking the name up failed: {failure}", "name")
        return refusal[0] if refusal else Refused(502, "name not found", "name")

    async def _look_up(
        self, name: str, wanted: list[Family], found: Callable[[Iterable[str]], None]
    ) -> LookupFailed | None:
        """Look a name up in both families at once (RFC 8305, section 3).

        :returns: why one can't be told, if it can't.
        """
        six_known: Deferred[None] = Deferred()

        async def family(which: Family) -> None:
            try:
                addresses = await self._resolver.look_up(name, which)
            finally:
                if which == "6":
                    six_known.callback(None)
            if which == "4" and "6" in wanted and addresses and not six_known.called:
                await _either(six_known, deferLater(self._reactor, RESOLUTION_DELAY))
            found(addresses)

        looking = [Deferred.fromCoroutine(family(which)) for which in wanted]
        try:
            results = await DeferredList(looking, consumeErrors=True)
        finally:
            for each in looking:
                each.cancel()
        for _, failure in results:
            if isinstance(failure, Failure):
                failure.trap(LookupFailed)
                return failure.value
        return None


async def _either(one: Deferred[None], other: Deferred[None]) -> None:
    await DeferredList([one, other], fireOnOneCallback=True, consumeErrors=True)
    one.cancel()
    other.cancel()


def is_here(address: IPAddress) -> bool:
    """Tell whether an address is one of this machine's; where that can't be told, it is."""
    if address.is_loopback:
        return True
    try:
        return _own_address(str(address)) == address
    except OSError as e:
        return e.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


def _own_address(remote: str, source: str | None = None) -> IPAddress:
    """Give the address that packets to another one leave from; nothing is sent.

    :param source: the address that they have to leave from.
    :raises OSError: where there is no route.
    """
    with socket.socket(socket.AF_INET6 if ":" in remote else socket.AF_INET, socket.SOCK_DGRAM) as asked:
        if source is not None:
            asked.bind((source, 0))
        asked.connect((remote, 9))
        return ip_address(asked.getsockname()[0].partition("%")[0])


def _wanted(connect: Connect) -> list[Family]:
    return [family for family in _FAMILIES if connect.protocol[-1] in (family, "p")]


def _literal_family(host: str) -> Family | None:
    if ":" in host:
        return "6"
    try:
        socket.inet_pton(socket.AF_INET, host)
    except OSError:
        return None
    return "4"


def _no_socket(error: OSError) -> Refused:
    no_route = error.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EAFNOSUPPORT)
    return Refused(502, "no route to the address" if no_route else "dialling failed")


def _refusal(error: Exception) -> Refused:
    """Put a failure to connect into words that tell nothing of this network."""
    match error:
        case TimeoutError():
            return Refused(408, "dialling timed out")
        case ConnectionRefusedError():
            return Refused(502, "connection refused")
        case NoRouteError():
            return Refused(502, "no route to the address")
        case _:
            return Refused(502, "dialling failed")
