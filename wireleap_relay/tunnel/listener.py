"""The service that listens for clients."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import attrs
from twisted.application.service import Service
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import Factory
from twisted.internet.task import LoopingCall, deferLater
from twisted.logger import Logger

from wireleap_relay.configvalues import ListenAddress
from wireleap_relay.tunnel.connection import ClientConnection, Patience
from wireleap_relay.tunnel.opening import Doorway
from wireleap_relay.tunnel.registry import TunnelCounts
from wireleap_relay.tunnel.settings import SessionLimits
from wireleap_relay.tunnel.sockets import Listening, accept_from
from wireleap_relay.tunnel.tls import Plain, ServerTLS

#: Seconds that clients have to take what their tunnels end with.
_LAST_WORDS = 1.0


@attrs.frozen
class ListenerStatus:
    """What the listener is doing.

    :ivar port: the TCP port it is bound to; 0 while it is not, and for a unix socket.
    :ivar connections: of clients, right now.
    """

    port: int
    connections: int
    tunnels: TunnelCounts


class _Factory(Factory):
    noisy = False

    def __init__(self, build: Callable[[], ClientConnection]) -> None:
        self._build = build

    def buildProtocol(self, addr: Any) -> ClientConnection:
        return self._build()


class ListenerService(Service):
    """Accepts clients and serves their tunnels.

    :ivar drain_timeout: seconds that open tunnels have to finish when the service stops.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        *,
        address: ListenAddress,
        tls: ServerTLS,
        doorway: Doorway,
        drain_timeout: float,
        limits: SessionLimits | None = None,
        patience: Patience | None = None,
        bound: socket.socket | None = None,
    ) -> None:
        """Listen at an address; with port 0 at any that is free.

        :param bound: a socket that listens there already; the service closes it.
        """
        self._reactor = reactor
        self._address = address
        self._bound = bound
        self._listening: Listening | None = None
        self._doorway = doorway
        self.drain_timeout = drain_timeout
        self._deadline = 0.0
        self._limits = limits or SessionLimits()
        self._patience = patience or Patience()
        self._connections: set[ClientConnection] = set()
        self._port: IListeningPort | None = None
        self._watch = LoopingCall(self._look_at_watch)
        self._watch.clock = reactor
        layer = Plain if address.plain else tls.connection
        self._factory = _Factory(lambda: ClientConnection(layer(), doorway, self._connections, self._limits))

    def startService(self) -> None:
        """Bind and accept.

        :raises twisted.internet.error.CannotListenError: where the address is taken or not ours.
        """
        super().startService()
        if self._bound is None:
            self._listening = Listening(self._address)
            self._port = accept_from(self._reactor, self._listening.sockets[0], self._factory)
            self._log.info("Listening at {address}", address=self._listening.address)
        else:
            self._port = accept_from(self._reactor, self._bound, self._factory)
            self._bound.close()
        self._watch.start(1.0, now=False)

    def stopService(self) -> Deferred[None]:
        """Accept no more, let open tunnels finish, then close what is left."""
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        port, self._port = self._port, None
        if port is None:
            return
        if self._listening is not None:
            self._listening.close()
        await maybeDeferred(port.stopListening)
        for connection in list(self._connections):
            connection.leave()
        self._deadline = self._reactor.seconds() + self.drain_timeout
        await self._while_connected()
        ended = self._doorway.registry.close_all("the relay is stopping")
        if ended:
            self._log.info("{count} tunnels did not finish in time", count=ended)
            self._deadline = self._reactor.seconds() + _LAST_WORDS
            await self._while_connected()
        for connection in list(self._connections):
            connection.abort()
        while self._connections:
            await deferLater(self._reactor, 0)
        self._watch.stop()

    async def _while_connected(self) -> None:
        while self._connections and self._reactor.seconds() < self._deadline:
            await deferLater(self._reactor, 0.05)

    def hurry(self) -> None:
        """Stop without waiting for tunnels to finish."""
        self._deadline = self._reactor.seconds()

    def status(self) -> ListenerStatus:
        """Tell what the listener is doing."""
        bound = self._port.getHost() if self._port is not None else None
        port = bound.port if isinstance(bound, IPv4Address | IPv6Address) else 0
        return ListenerStatus(port, len(self._connections), self._doorway.registry.counts())

    def _look_at_watch(self) -> None:
        for connection in list(self._connections):
            connection.look_at_watch(self._patience)
