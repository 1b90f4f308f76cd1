"""A tunnel as the way to the next relay."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IPushProducer, ITransport
from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from wireleap_relay.sandbox.tunnel import Tunnel, TunnelError


@implementer(ITransport, IPushProducer)
class TunnelTransport:
    """A tunnel as the transport of the next relay's TLS: what makes a circuit of connections."""

    def __init__(
        self,
        protocol: TwistedProtocol,
        failed: Callable[[Failure], None],
        opened: Callable[[], None] = lambda: None,
    ) -> None:
        """Carry a protocol.

        :param failed: hears why the tunnel broke, which TLS would not tell.
        :param opened: hears when the far end was reached.
        """
        self._tell_opened = opened
        self._protocol = protocol
        self._failed = failed
        self._tunnel: Tunnel | None = None
        self._producer: Any = None
        self._paused = False
        self._owed = 0
        self._lost = False

    def carry(self, tunnel: Tunnel) -> None:
        """Use this tunnel.

        The protocol may speak at once: that the far end was reached, some web servers keep
        to themselves until it speaks, too.
        """
        self._tunnel = tunnel
        self._protocol.makeConnection(self)

    # What the tunnel hears

    def tunnel_opened(self) -> None:
        """The next relay was reached."""
        self._tell_opened()

    def data_received(self, data: bytes, frame_done: bool) -> None:
        """Bytes from the next relay."""
        self._protocol.dataReceived(data)
        if self._paused:
            self._owed += len(data)
        elif self._tunnel is not None:
            self._tunnel.credit(len(data))

    def tunnel_ended(self, error: TunnelError | None) -> None:
        """The next relay, or the way to it, is gone."""
        self._lose(Failure(error or ConnectionDone()))

    def pause(self) -> None:
        """Too much waits."""
        if self._producer is not None:
            self._producer.pauseProducing()

    def resume(self) -> None:
        """It is through."""
        if self._producer is not None:
            self._producer.resumeProducing()

    # What the protocol asks of its transport

    def write(self, data: bytes) -> None:
        """Send bytes."""
        if self._tunnel is not None:
            self._tunnel.write(data)

    def writeSequence(self, data: Iterable[bytes]) -> None:
        """Send bytes."""
        self.write(b"".join(data))

    def loseConnection(self) -> None:
        """Send what waits, and go."""
        if self._tunnel is not None:
            self._tunnel.end()
        self._lose(Failure(ConnectionDone()))

    def abortConnection(self) -> None:
        """Go."""
        if self._tunnel is not None:
            self._tunnel.abort()
        self._lose(Failure(ConnectionLost()))

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Remember whom to pause."""
        self._producer = producer

    def unregisterProducer(self) -> None:
        """There is nobody to pause."""
        self._producer = None

    def pauseProducing(self) -> None:
        """Give no more credit."""
        self._paused = True

    def resumeProducing(self) -> None:
        """Give it again."""
        self._paused = False
        owed, self._owed = self._owed, 0
        if self._tunnel is not None:
            self._tunnel.credit(owed)

    def stopProducing(self) -> None:
        """Go."""
        self.loseConnection()

    def getPeer(self) -> Any:
        """A tunnel has no address."""
        return None

    def getHost(self) -> Any:
        """A tunnel has no address."""
        return None

    def _lose(self, reason: Failure) -> None:
        if not self._lost:
            self._lost = True
            if isinstance(reason.value, TunnelError):
                self._failed(reason)
            self._protocol.connectionLost(reason)
