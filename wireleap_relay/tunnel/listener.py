"""The service that listens for clients."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from typing import Any

import attrs
from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.protocol import Factory
from twisted.internet.task import deferLater
from twisted.logger import Logger

from wireleap_relay.configvalues import ListenAddress
from wireleap_relay.ownprocess import Steady
from wireleap_relay.tunnel.connection import ClientConnection, Patience
from wireleap_relay.tunnel.hall import Hall
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

    def __init__(self, hall: Hall, build: Callable[[bytes], ClientConnection]) -> None:
        self._hall = hall
        self._build = build

    def buildProtocol(self, addr: Any) -> ClientConnection | None:
        network = self._hall.network(getattr(addr, "host", None))
        return self._build(network) if self._hall.admits(network) else None


class ListenerService(Service):
    """Accepts clients and serves their tunnels.

    :ivar drain_timeout: seconds that open tunnels have to finish when the service stops.
    :ivar limits: of connections that begin.
    :ivar patience: with all of them.
    :ivar hall: where they are.
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
        hall: Hall | None = None,
        inherited: Sequence[socket.socket] = (),
        accepts: bool = True,
    ) -> None:
        """Listen at an address; with port 0 at any that is free.

        :param inherited: sockets that listen there already; the service closes them.
        :param accepts: whether to accept from the beginning; see :meth:`accept`.
        """
        self._reactor = reactor
        self._address = address
        self._inherited = inherited
        self._accepts = accepts
        self._listening: Listening | None = None
        self._doorway = doorway
        self.drain_timeout = drain_timeout
        self._deadline = 0.0
        self.limits = limits or SessionLimits()
        self.patience = patience or Patience()
        self.hall = hall or Hall(doorway.registry)
        self._ports: list[Any] = []
        self._watch = Steady(reactor, 1.0, self._look_at_watch)
        layer = Plain if address.plain else tls.connection
        self._factory = _Factory(
            self.hall, lambda network: ClientConnection(layer(), doorway, self.hall, self.limits, network)
        )

    def privilegedStartService(self) -> None:
        """Bind, as long as there are rights to it.

        :raises twisted.internet.error.CannotListenError: where the address is taken or not ours.
        """
        super().privilegedStartService()
        self._listening = Listening(self._address, inherited=self._inherited)

    def startService(self) -> None:
        """Bind where that is not done yet, and accept.

        :raises twisted.internet.error.CannotListenError: where the address is taken or not ours.
        """
        super().startService()
        if self._listening is None:
            self._listening = Listening(self._address, inherited=self._inherited)
        self._ports = [accept_from(self._reactor, each, self._factory) for each in self._listening.sockets]
        self.accept(self._accepts)
        if not self._inherited:
            self._log.info("Listening at {address}", address=self._listening.address)
        self._watch.start()

    def accept(self, accepts: bool) -> None:
        """Accept connections, or let them wait in the sockets' queues, for later or for another process."""
        self._accepts = accepts
        for port in self._ports:
            if accepts:
                port.startReading()
            else:
                port.stopReading()

    @property
    def listening(self) -> Listening | None:
        """What it is bound to; None while it is not."""
        return self._listening

    def stopService(self) -> Deferred[None]:
        """Accept no more, let open tunnels finish, then close what is left."""
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        ports, self._ports = self._ports, []
        listening, self._listening = self._listening, None
        if listening is None:
            return
        listening.close()
        for port in ports:
            await maybeDeferred(port.stopListening)
        for connection in list(self.hall.connections):
            connection.leave()
        self._deadline = self._reactor.seconds() + self.drain_timeout
        await self._while_connected()
        ended = self._doorway.registry.close_all("the relay is stopping")
        if ended:
            self._log.info("{count} tunnels did not finish in time", count=ended)
            self._deadline = self._reactor.seconds() + _LAST_WORDS
            await self._while_connected()
        for connection in list(self.hall.connections):
            connection.abort()
        while self.hall.connections:
            await deferLater(self._reactor, 0)
        self._watch.stop()

    async def _while_connected(self) -> None:
        while self.hall.connections and self._reactor.seconds() < self._deadline:
            await deferLater(self._reactor, 0.05)

    def hurry(self) -> None:
        """Stop without waiting for tunnels to finish."""
        self._deadline = self._reactor.seconds()

    def status(self) -> ListenerStatus:
        """Tell what the listener is doing."""
        port = self._listening.address.port if self._listening is not None else 0
        return ListenerStatus(port, len(self.hall.connections), self._doorway.registry.counts())

    def _look_at_watch(self) -> None:
        self.hall.second_passed()
        for connection in list(self.hall.connections):
            connection.look_at_watch(self.patience)
