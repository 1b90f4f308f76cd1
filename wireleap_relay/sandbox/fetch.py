"""Fetches a page through a circuit."""

from __future__ import annotations

from typing import Any

import attrs
import treq
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import wrapClientTLS
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.internet.protocol import connectionDone
from twisted.internet.ssl import optionsForClientTLS
from twisted.python.failure import Failure
from twisted.web.client import URI, Agent, ResponseFailed
from twisted.web.iweb import IAgentEndpointFactory
from zope.interface import implementer

from wireleap_relay.sandbox.circuit import Circuit
from wireleap_relay.sandbox.link import TunnelTransport
from wireleap_relay.wire.address import join_host_port

_PATIENCE = 30.0


@attrs.frozen
class Page:
    """What came.

    :ivar status: HTTP's.
    :ivar seconds: from the request to the last byte.
    """

    status: int
    body: bytes
    seconds: float


@implementer(IStreamClientEndpoint)
class _CircuitEndpoint:
    """Connects by opening a tunnel."""

    def __init__(self, circuit: Circuit, target: str) -> None:
        self._circuit = circuit
        self._target = target

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        return Deferred.fromCoroutine(self._connect(protocolFactory))

    async def _connect(self, factory: IProtocolFactory) -> IProtocol:
        protocol: Any = factory.buildProtocol(None)  # type: ignore[arg-type]  # a tunnel has no address
        opened: Deferred[None] = Deferred()

        def failed(reason: Failure = connectionDone) -> None:
            if not opened.called:
                opened.errback(reason)

        transport = TunnelTransport(protocol, failed, lambda: opened.callback(None))
        transport.carry(await self._circuit.open("tcp", self._target, transport))
        await opened
        return protocol  # type: ignore[no-any-return]


@implementer(IAgentEndpointFactory)
class _Endpoints:
    def __init__(self, circuit: Circuit) -> None:
        self._circuit = circuit

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        endpoint = _CircuitEndpoint(self._circuit, join_host_port(uri.host.decode("ascii"), uri.port))
        if uri.scheme == b"https":
            wrapped: IStreamClientEndpoint = wrapClientTLS(optionsForClientTLS(uri.host.decode("ascii")), endpoint)
            return wrapped
        return endpoint


async def fetch(reactor: Any, circuit: Circuit, url: str) -> Page:
    """GET a page through a circuit.

    :raises Exception: what went wrong on the way: a TunnelError, or one of Twisted's web client.
    """
    start = reactor.seconds()
    agent = Agent.usingEndpointFactory(reactor, _Endpoints(circuit))
    asking = agent.request(b"GET", url.encode("ascii"))
    asking.addTimeout(_PATIENCE, reactor)
    try:
        response = await asking
    except ResponseFailed as e:
        raise e.reasons[0].value from None  # the rest of it is Twisted's own story
    body: bytes = await treq.content(response).addTimeout(_PATIENCE, reactor)
    return Page(response.code, body, reactor.seconds() - start)
