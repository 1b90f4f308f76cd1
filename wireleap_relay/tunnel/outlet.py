"""Writes to sockets at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IPullProducer
from zope.interface import implementer


@implementer(IPullProducer)
class Outlet:
    """The way out through one of Twisted's TCP transports.

    A transport queues what it is given, has the reactor ask the system whether
    the socket takes it, sends it in the next turn and takes the question back:
    a turn and two system calls more than it takes to send it. Nearly always the
    socket does take it; so it is asked first, and the transport has the rest.
    """

    __slots__ = ("_drained", "_send", "_transport", "waiting")

    def __init__(self, transport: Any, drained: Callable[[], None]) -> None:
        """Write to a transport.

        :param drained: called when the socket has taken all that had to wait.
        :ivar waiting: some of it waits; more may be written, and waits too.
        """
        self._transport = transport
        self._send = transport.getHandle().send
        self._drained = drained
        self.waiting = False

    def write(self, data: bytes) -> None:
        """Write bytes: now, or behind what waits already."""
        if self.waiting:
            self._transport.write(data)
            return
        try:
            sent = self._send(data)
        except OSError:
            # Full, or broken: the transport meets the same, and knows what to do.
            sent = 0
        if sent < len(data):
            # As a pull producer we hear when all is gone, and once right here, before anything waits.
            self._transport.registerProducer(self, False)
            self.waiting = True
            self._transport.write(data[sent:])

    def forget(self) -> None:
        """Watch over nothing any more: a transport that has a producer does not close before it is told to."""
        if self.waiting:
            self.waiting = False
            self._transport.unregisterProducer()

    def resumeProducing(self) -> None:
        """The transport has nothing left to send."""
        if self.waiting:
            self.forget()
            self._drained()

    def stopProducing(self) -> None:
        """The connection is gone; its protocol hears of it."""
