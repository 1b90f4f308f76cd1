"""Dials targets and next relays: resolve, check, connect to what was checked."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.error import (
    ConnectError,
    ConnectionRefusedError,  # noqa: A004
    NoRouteError,
    TimeoutError,  # noqa: A004
)
from twisted.internet.interfaces import IAddress, IConnector, IHostResolution, IResolutionReceiver
from twisted.internet.protocol import ClientFactory, DatagramProtocol, Protocol
from twisted.python.failure import Failure
from zope.interface import implementer

from wireleap_relay.boundaries import Refused
from wireleap_relay.tunnel.policy import DialPolicy
from wireleap_relay.wire.payload import Connect

P = TypeVar("P", bound="Dialled")
D = TypeVar("D", bound=DatagramProtocol)

#: The largest datagram that fits an IPv4 or IPv6 packet (RFC 768), in bytes.
LARGEST_DATAGRAM = 65_535


class Dialled(Protocol):
    """What a dial ends in.

    :ivar connected_callback: to be called by ``connectionMade``.
    """

    connected_callback: Callable[[], None]


@implementer(IResolutionReceiver)
class _Resolution:
    """Collects a name's addresses."""

    def __init__(self) -> None:
        self.done: Deferred[list[str]] = Deferred()
        self._found: list[str] = []

    def resolutionBegan(self, resolutionInProgress: IHostResolution) -> None:
        """The resolver has begun."""

    def addressResolved(self, address: IAddress) -> None:
        """An address was found."""
        assert isinstance(address, IPv4Address | IPv6Address)  # noqa: S101 - we ask for no other
        self._found.append(address.host)

    def resolutionComplete(self) -> None:
        """There are no more."""
        if not self.done.called:
            self.done.callback(self._found)


class _Attempt(ClientFactory, Generic[P]):
    """One connection attempt."""

    noisy = False

    def __init__(self, build: Callable[[], P]) -> None:
        self._build = build
        self.connected: Deferred[P] = Deferred(self._cancel)
        self._connector: IConnector | None = None

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
        if not self.connected.called:
            self.connected.errback(reason)

    def _cancel(self, _: Deferred[P]) -> None:
        if self._connector is not None:
            self._connector.disconnect()


class Dialler:
    """Opens the far side of tunnels."""

    def __init__(self, reactor: Any, policy: DialPolicy, timeout: float) -> None:
        """Dial within a policy, and within ``timeout`` seconds for each tunnel."""
        self._reactor = reactor
        self.policy = policy
        self.timeout = timeout

    async def tcp(self, connect: Connect, build: Callable[[], P]) -> P:
        """Connect to a tunnel's remote.

        :param build: makes the protocol, once there is a connection.
        :raises Refused: with 408 or 502 where it can't be reached, with 400
            where it may not be dialled.
        """
        give_up_at = self._reactor.seconds() + self.timeout
        failure: Refused | None = None
        for host in await self._resolve(connect):
            left = give_up_at - self._reactor.seconds()
            if left <= 0:
                break
            attempt = _Attempt(build)
            self._reactor.connectTCP(host, connect.remote.port, attempt, timeout=left)
            try:
                return await attempt.connected
            except ConnectError as e:
                failure = _refusal(e)
        raise failure or Refused(408, "dialling timed out")

    async def udp(self, connect: Connect, build: Callable[[], D]) -> D:
        """Open a socket that exchanges datagrams with a tunnel's remote only.

        :raises Refused: as :meth:`tcp` does.
        """
        host = (await self._resolve(connect))[0]
        protocol = build()
        interface = "::" if ":" in host else "0.0.0.0"  # noqa: S104 - any source address, connected right below
        try:
            port = self._reactor.listenUDP(0, protocol, interface, LARGEST_DATAGRAM)
        except OSError:
            raise Refused(502, "dialling failed") from None
        try:
            port.connect(host, connect.remote.port)
        except OSError:
            port.stopListening()
            raise Refused(502, "no route to the address") from None
        return protocol

    async def _resolve(self, connect: Connect) -> list[str]:
        """Give the addresses to try, each of them checked."""
        host = connect.remote.host
        family = connect.protocol[-1]
        literal = _literal_family(host)
        if literal is not None:
            if family in "46" and family != literal:
                raise Refused(502, f"the address is not an IPv{family} address")
            found = [host]
        else:
            found = await self._look_up(host, family)
            if not found:
                raise Refused(502, "name not found")
        for address in found:
            self.policy.check(address)
        return found

    async def _look_up(self, host: str, family: str) -> list[str]:
        kinds = {"4": [IPv4Address], "6": [IPv6Address]}.get(family)
        resolution = _Resolution()
        self._reactor.nameResolver.resolveHostName(resolution, host, 0, kinds, "TCP")
        resolution.done.addTimeout(self.timeout, self._reactor)
        try:
            return list(dict.fromkeys(await resolution.done))
        except DeferredTimeout:
            raise Refused(408, "looking the name up timed out") from None


def _literal_family(host: str) -> str | None:
    if ":" in host:
        return "6"
    try:
        socket.inet_pton(socket.AF_INET, host)
    except OSError:
        return None
    return "4"


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
