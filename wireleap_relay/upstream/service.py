"""The way to contracts and directories: connections, kept while they are of use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.web.client import Agent, BrowserLikePolicyForHTTPS
from twisted.web.iweb import IPolicyForHTTPS

from wireleap_relay.upstream.client import SignedClient
from wireleap_relay.upstream.contract import HttpContract
from wireleap_relay.upstream.directory import HttpDirectory
from wireleap_relay.upstream.retry import RetryPolicy
from wireleap_relay.webclient import make_pool
from wireleap_relay.wire.contractinfo import DirectoryPointer
from wireleap_relay.wire.endpoint import Endpoint
from wireleap_relay.wire.keys import SigningKey

#: Seconds: shorter than what servers grant, so that a request seldom meets a connection that is just being closed.
_KEPT_IDLE = 30
#: As many as there are requests to one contract at once, when sharetokens are handed in.
_KEPT_PER_HOST = 8
_CONNECT_TIMEOUT = 10.0


class UpstreamService(Service):
    """Gives out contracts and directories; see :class:`wireleap_relay.boundaries.Upstream`."""

    def __init__(
        self, reactor: Any, key: SigningKey, tls: IPolicyForHTTPS | None = None, policy: RetryPolicy | None = None
    ) -> None:
        """Speak in the name of a relay.

        :param tls: whom to trust; by default whom the system trusts.
        :param policy: which requests to make again; by default those that PROTOCOL names.
        """
        self.setName("upstream")
        self._reactor = reactor
        self._pool = make_pool(reactor, persistent=True)
        self._pool.cachedConnectionTimeout = _KEPT_IDLE
        self._pool.maxPersistentPerHost = _KEPT_PER_HOST
        agent = Agent(reactor, tls or BrowserLikePolicyForHTTPS(), connectTimeout=_CONNECT_TIMEOUT, pool=self._pool)
        self._client = SignedClient(agent, reactor, key, policy=policy)

    def contract(self, endpoint: Endpoint) -> HttpContract:
        """Give the contract at a URL."""
        return HttpContract(self._client, endpoint)

    def directory(self, pointer: DirectoryPointer) -> HttpDirectory:
        """Give the directory that a contract points at."""
        return HttpDirectory(self._client, self._reactor, pointer, self._in_thread)

    def stopService(self) -> Deferred[None]:
        """Close idle connections, and every other one as soon as it is."""
        super().stopService()
        self._pool.cachedConnectionTimeout = 0
        closed: Deferred[None] = self._pool.closeCachedConnections()
        return closed

    def _in_thread(self, work: Callable[[], str]) -> Deferred[str]:
        return deferToThreadPool(self._reactor, self._reactor.getThreadPool(), work)
