"""The data plane of one process: it accepts clients, admits tunnels and carries them."""

from __future__ import annotations

import math
import socket
import time
from collections.abc import Sequence
from typing import Any, Protocol

import attrs
from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, maybeDeferred

from wireleap_relay.boundaries import ContractBook, TokenStore, Tunnels, UsageSink
from wireleap_relay.clientlimits import ClientLimits
from wireleap_relay.config import Config
from wireleap_relay.tokens.admission import SharetokenAdmission
from wireleap_relay.tunnel.abuse import Rates
from wireleap_relay.tunnel.connection import Patience
from wireleap_relay.tunnel.decoy import make_decoy
from wireleap_relay.tunnel.dial import Dialler, is_here
from wireleap_relay.tunnel.hall import Hall
from wireleap_relay.tunnel.listener import ListenerService
from wireleap_relay.tunnel.opening import Doorway
from wireleap_relay.tunnel.policy import DialPolicy
from wireleap_relay.tunnel.registry import Registry, TunnelCounts
from wireleap_relay.tunnel.resolver import Resolver
from wireleap_relay.tunnel.settings import SessionLimits
from wireleap_relay.tunnel.sockets import Listening
from wireleap_relay.tunnel.tls import ServerTLS
from wireleap_relay.wire.keys import PublicKey
from wireleap_relay.wire.status import Status
from wireleap_relay.workers.health import ProcessStatus


@attrs.frozen
class WorkerStatus:
    """One worker's process.

    :ivar state: starting, running or gone.
    :ivar pid: 0 while there is none.
    :ivar restarts: how often it had to be replaced.
    :ivar out_of_memory: how often because it had no memory left.
    """

    number: int
    state: str
    pid: int
    restarts: int
    out_of_memory: int
    connections: int
    tunnels: int
    process: ProcessStatus


@attrs.frozen
class PlaneStatus:
    """What the data plane is doing.

    :ivar port: the TCP port it is bound to; 0 while it is not, and for a unix socket.
    :ivar connections: of clients, right now.
    :ivar workers: none where the daemon does it itself.
    """

    port: int
    connections: int
    tunnels: TunnelCounts
    workers: tuple[WorkerStatus, ...] = ()


class DataPlane(Tunnels, Protocol):
    """Serves clients, in this process or in others."""

    def apply(self, config: Config, source: bytes) -> None:
        """Go by another config from here on.

        :param source: the text that it was read from.
        """

    def hurry(self) -> None:
        """Stop without waiting for tunnels to finish."""

    @property
    def listening(self) -> Listening | None:
        """What it is bound to; None while it is not."""

    def accept(self, accepts: bool) -> Deferred[Any]:
        """Accept connections, or let them wait in the sockets' queues, for later or for another process.

        :returns: fires when every process does as it was told.
        """

    def status(self) -> PlaneStatus:
        """Tell what it is doing."""


class Plane(MultiService):
    """The data plane in this process; see :class:`DataPlane`."""

    def __init__(
        self,
        reactor: Any,
        config: Config,
        relay: PublicKey,
        tls: ServerTLS,
        *,
        book: ContractBook,
        store: TokenStore,
        usage: UsageSink,
        inherited: Sequence[socket.socket] = (),
        accepts: bool = True,
        processes: int = 1,
    ) -> None:
        """Serve a relay's clients.

        :param inherited: sockets that listen already; without any the config's address is bound.
        :param accepts: whether to accept from the beginning.
        :param processes: that serve them, this one included.
        """
        super().__init__()
        self.setName("plane")
        self.registry = Registry(reactor, relay)
        resolver = Resolver(reactor)
        resolver.setServiceParent(self)
        self.doorway = Doorway(
            relay,
            SharetokenAdmission(relay, book, store, usage, time.time),
            Dialler(reactor, DialPolicy.from_config(config, is_here), config.timeout, resolver),
            self.registry,
            reactor,
            make_decoy(reactor, time.time, config.decoy),
            config.maxtime,
        )
        self._reactor = reactor
        self.listener = ListenerService(
            reactor,
            address=config.address,
            tls=tls,
            doorway=self.doorway,
            drain_timeout=config.drain_timeout,
            limits=_session_limits(config.limits),
            patience=_patience(config.limits),
            hall=Hall(self.registry, config.limits, processes=processes),
            inherited=inherited,
            accepts=accepts,
        )
        self.listener.setServiceParent(self)
        self.doorway.is_overloaded = lambda: self.listener.hall.refuses

    def apply(self, config: Config, source: bytes) -> None:
        """Go by another config from here on."""
        self.doorway.maxtime = config.maxtime
        self.doorway.decoy = make_decoy(self._reactor, time.time, config.decoy)
        self.doorway.dialler.timeout = config.timeout
        self.doorway.dialler.apply(DialPolicy.from_config(config, is_here))
        self.listener.drain_timeout = config.drain_timeout
        self.listener.limits = _session_limits(config.limits)
        self.listener.patience = _patience(config.limits)
        self.listener.hall.apply(config.limits)

    def hurry(self) -> None:
        """Stop without waiting for tunnels to finish."""
        self.listener.hurry()

    @property
    def listening(self) -> Listening | None:
        """What it is bound to; None while it is not."""
        return self.listener.listening

    def accept(self, accepts: bool) -> Deferred[Any]:
        """Accept connections, or let them wait."""
        return maybeDeferred(self.listener.accept, accepts)

    def close(self, contract: PublicKey, status: Status) -> int:
        """End every tunnel of a contract."""
        return self.registry.close(contract, status)

    def when_drained(self, contract: PublicKey) -> Deferred[None]:
        """Wait until a contract has no open tunnel; it may be cancelled."""
        return self.registry.when_drained(contract)

    def status(self) -> PlaneStatus:
        """Tell what it is doing."""
        listener = self.listener.status()
        return PlaneStatus(listener.port, listener.connections, listener.tunnels)


def _session_limits(limits: ClientLimits) -> SessionLimits:
    rates = Rates(resets=limits.reset_rate, requests=limits.request_rate, frames=limits.frame_rate)
    return SessionLimits(streams=limits.tunnels_per_connection, rates=rates)


def _patience(limits: ClientLimits) -> Patience:
    waits = (limits.handshake_timeout, limits.headers_timeout, limits.idle_timeout, limits.stall_timeout)
    return Patience(*map(math.ceil, waits))
