"""A contract and its directory on loopback, for relays and clients of any make."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.threads import deferToThreadPool

from wireleap_relay.boundaries import WallClock
from wireleap_relay.sandbox.contract import SandboxContract
from wireleap_relay.sandbox.directory import Rules, SandboxDirectory
from wireleap_relay.sandbox.ledger import Terms
from wireleap_relay.sandbox.web import Nothing, QuietSite
from wireleap_relay.wire.endpoint import Endpoint
from wireleap_relay.wire.keys import SigningKey

_LOOPBACK = "127.0.0.1"


class SandboxNetwork(MultiService):
    """Serves a contract under ``/contract`` and its directory under ``/directory`` of one port.

    :ivar contract: there once the service has started.
    :ivar directory: likewise.
    """

    contract: SandboxContract
    directory: SandboxDirectory

    def __init__(
        self,
        reactor: Any,
        clock: WallClock,
        *,
        port: int = 0,
        terms: Terms | None = None,
        rules: Rules | None = None,
    ) -> None:
        """Serve with new keys.

        :param port: to listen on; 0 for any that is free.
        """
        super().__init__()
        self.setName("network")
        self._reactor = reactor
        self._clock = clock
        self._wanted_port = port
        self._terms = terms
        self._rules = rules
        self._port: Any = None

    def startService(self) -> None:
        """Listen.

        :raises twisted.internet.error.CannotListenError: where the port is taken.
        """
        root = Nothing()
        site = QuietSite(root, reactor=self._reactor)
        self._port = self._reactor.listenTCP(self._wanted_port, site, interface=_LOOPBACK)
        base = f"http://{_LOOPBACK}:{self._port.getHost().port}"
        self.directory = SandboxDirectory(
            SigningKey.generate(), Endpoint(f"{base}/directory"), self._clock, self._in_thread, self._rules
        )
        self.contract = SandboxContract(
            SigningKey.generate(), Endpoint(f"{base}/contract"), self.directory.pointer, self._clock, self._terms
        )
        root.putChild(b"contract", self.contract.resource)
        root.putChild(b"directory", self.directory.resource)
        super().startService()

    def stopService(self) -> Deferred[Any]:
        """Listen no longer."""
        stopped = maybeDeferred(super().stopService)
        return gatherResults([stopped, maybeDeferred(self._port.stopListening)], consumeErrors=True)

    def _in_thread(self, work: Callable[[], bool]) -> Deferred[bool]:
        return deferToThreadPool(self._reactor, self._reactor.getThreadPool(), work)
