"""A relay as its successor and their supervisor see it."""

from __future__ import annotations

import os
import signal
import socket
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.python.failure import Failure

from wireleap_relay import __version__
from wireleap_relay.home import HomeError
from wireleap_relay.readiness import ReadinessService
from wireleap_relay.relay import Relay
from wireleap_relay.tunnel.probe import NotReached, ping
from wireleap_relay.upgrade.handover import Carried
from wireleap_relay.upgrade.peer import PeerFailed, Succession
from wireleap_relay.wire.keys import PublicKey

#: Seconds that a relay has to answer its own PING.
_PATIENCE = 5.0


class RelayIncumbent:
    """Does with a relay what is asked of it; see :class:`wireleap_relay.upgrade.handover.Incumbent`."""

    def __init__(
        self,
        reactor: Any,
        relay: Relay,
        readiness: ReadinessService,
        succession: Succession | None,
    ) -> None:
        """Speak for a relay.

        :param succession: what a predecessor has handed over.
        """
        self._reactor = reactor
        self._relay = relay
        self._readiness = readiness
        self._succession = succession
        self._stopping = False
        self.leaves = False
        reactor.addSystemEventTrigger("before", "shutdown", self._stops)

    def hand_out(self) -> tuple[dict[str, Any], list[socket.socket]]:
        """Give what a successor needs, and the sockets that listen."""
        parts = self._relay.parts
        listening = parts.plane.listening
        if listening is None or self._stopping:
            raise PeerFailed("the relay is stopping")
        fields = {
            "address": str(self._relay.config.address),
            "account": parts.usage.account().to_fields() if parts.usage is not None else None,
            "supervisor": self._readiness.supervisor(),
        }
        return fields, list(dict.fromkeys(listening.sockets))

    def accept(self, accepts: bool) -> Deferred[Any]:
        """Accept connections, or let them wait for another process."""
        return self._relay.parts.plane.accept(accepts)

    def keep(self, keeps: bool) -> Deferred[Any]:
        """Be the keeper, or leave that to another process."""
        listening = self._relay.parts.plane.listening
        if listening is not None:
            if keeps:
                listening.claim()
            else:
                listening.hand_on()
        return Deferred.fromCoroutine(self._relay.keep(keeps))

    def leave(self, successor: int) -> Deferred[Any]:
        """Leave the home to another process, and stop, without a word to directories."""
        return Deferred.fromCoroutine(self._leave(successor))

    async def _leave(self, successor: int) -> None:
        if self.leaves:
            return
        self.leaves = True
        self._relay.leave()
        await self._readiness.hand_on(successor)
        self._reactor.callLater(0, signal.raise_signal, signal.SIGTERM)

    def adopt(self) -> None:
        """Be the relay to whoever looks after its processes."""
        if self._succession is not None:
            self._readiness.adopt(self._succession.supervisor)

    def stay(self) -> None:
        """Tell directories that it is this version which serves."""
        self._relay.parts.contracts.stay()

    def carried(self) -> Carried:
        """Give what this process has carried since it started."""
        meters = self._relay.parts.meters.all()
        return {str(contract): (meter.from_clients, meter.from_targets) for contract, meter in meters.items()}

    def heard(self, grown: Carried) -> None:
        """Count what another process has carried."""
        for contract, (from_clients, from_targets) in grown.items():
            meter = self._relay.parts.elsewhere.meter(PublicKey.from_text(contract))
            meter.from_clients += from_clients
            meter.from_targets += from_targets

    def health(self) -> dict[str, Any]:
        """Tell how it does."""
        statuses = self._relay.parts.contracts.status()
        return {
            "pid": os.getpid(),
            "version": __version__,
            "stopping": self._stopping,
            "enrolled": [status.url for status in statuses if status.enrolled],
            "troubles": {status.url: status.trouble for status in statuses if status.trouble},
            "tunnels": self._relay.parts.plane.status().tunnels.open,
            "workers": [worker.state for worker in self._relay.parts.plane.status().workers],
        }

    def ping(self) -> Deferred[Any]:
        """Ask for a PING where it listens."""
        listening = self._relay.parts.plane.listening
        if listening is None:
            raise PeerFailed("the relay does not listen")
        asked = Deferred.fromCoroutine(ping(self._reactor, listening.address, self._relay.parts.relay, _PATIENCE))
        return asked.addErrback(_not_reached)

    def supervise(self) -> Deferred[None]:
        """Start the supervisor of the upgrade that is staged."""
        upgrades = self._relay.parts.upgrades
        started = deferToThreadPool(self._reactor, self._reactor.getThreadPool(), upgrades.supervise)
        return started.addErrback(_not_started)

    def abandoned(self) -> None:
        """Go on with an upgrade that nobody works on any more."""
        self._relay.parts.upgrades.abandoned()

    def _stops(self) -> None:
        self._stopping = True


def _not_started(failure: Failure) -> None:
    failure.trap(HomeError)
    raise PeerFailed(failure.getErrorMessage())


def _not_reached(failure: Failure) -> None:
    failure.trap(NotReached)
    raise PeerFailed(failure.getErrorMessage())
