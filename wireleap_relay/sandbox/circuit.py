"""Circuits of one to many relays, paid for hop by hop.

To every relay but the first, a client speaks TLS and HTTP/2 *through* the
tunnel before it; so each of its connections crosses the whole circuit, and
only the first relay sees more than one of them on one connection.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import attrs
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from wireleap_relay.sandbox.link import TunnelTransport
from wireleap_relay.sandbox.tunnel import Tunnel, TunnelReader
from wireleap_relay.tunnel.client import RelayConnection, connect, over_tls
from wireleap_relay.wire.address import Address
from wireleap_relay.wire.keys import PublicKey
from wireleap_relay.wire.payload import Connect
from wireleap_relay.wire.payload import Protocol as Transported
from wireleap_relay.wire.sharetoken import Sharetoken
from wireleap_relay.wire.versions import CLIENT_RELAY


@attrs.frozen
class Hop:
    """A relay on a circuit."""

    address: Address
    pubkey: PublicKey


class Wallet(Protocol):
    """Pays relays."""

    def token(self, relay: PublicKey) -> Sharetoken:
        """Make a fresh sharetoken for a relay."""


class Circuit:
    """A way through the network.

    :ivar hops: from the first relay to the last.
    :ivar times: seconds after which each of them was reached, when a tunnel was last opened.
    """

    def __init__(self, reactor: Any, hops: Sequence[Hop], wallet: Wallet, timeout: float = 10.0) -> None:
        """Go through ``hops``, and pay each of them from a wallet."""
        self.hops = tuple(hops)
        self.times: tuple[float, ...] = ()
        self._reactor = reactor
        self._wallet = wallet
        self._timeout = timeout
        self._connections: list[RelayConnection] = []
        self._connecting: list[Deferred[None]] = []

    async def open(self, protocol: Transported, target: str, reader: TunnelReader) -> Tunnel:
        """Open a tunnel through every hop to a target.

        :param target: ``host:port``.
        :param reader: reads what comes out of it.
        :raises TunnelError: where a relay on the way could not be reached.
        """
        start = self._reactor.seconds()
        connection = await self._to_first()
        times = [self._reactor.seconds() - start]
        for hop in self.hops[1:]:
            connection = await self._through(connection, hop)
            times.append(self._reactor.seconds() - start)
        self.times = tuple(times)
        last = self.hops[-1]
        asked = self._payload(last, protocol, Address.from_text(f"target://{target}"))
        return Tunnel(connection.request(asked), reader)

    def close(self) -> None:
        """Give up the connections to the first relay, and all tunnels with them."""
        for connection in self._connections:
            connection.close()

    def _payload(self, hop: Hop, protocol: Transported, remote: Address) -> str:
        return Connect(protocol, remote, self._wallet.token(hop.pubkey), CLIENT_RELAY).to_json()

    async def _to_first(self) -> RelayConnection:
        while True:
            for connection in self._connections:
                if connection.usable:
                    return connection
            waiting: Deferred[None] = Deferred()
            self._connecting.append(waiting)
            if len(self._connecting) == 1:
                connecting = Deferred.fromCoroutine(connect(self._reactor, self.hops[0].address, self._timeout))
                connecting.addCallbacks(self._connected, self._not_connected)
            await waiting

    def _connected(self, connection: RelayConnection) -> None:
        self._connections.append(connection)
        waiting, self._connecting = self._connecting, []
        for each in waiting:
            each.callback(None)

    def _not_connected(self, failure: Failure) -> None:
        waiting, self._connecting = self._connecting, []
        for each in waiting:
            each.errback(failure)

    async def _through(self, connection: RelayConnection, hop: Hop) -> RelayConnection:
        index = self.hops.index(hop)
        inner = RelayConnection(hop.address)
        transport = TunnelTransport(over_tls(inner, hop.address.host, self._reactor), inner.connectionLost)
        asked = self._payload(self.hops[index - 1], "tcp", hop.address)
        transport.carry(Tunnel(connection.request(asked), transport))
        inner.ready.addTimeout(self._timeout, self._reactor)
        return await inner.ready
