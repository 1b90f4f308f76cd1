"""A SOCKS5 door to a circuit (RFC 1928): CONNECT and UDP ASSOCIATE, no authentication."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any, Protocol, cast

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer
from twisted.internet.protocol import DatagramProtocol, Factory, connectionDone
from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from wireleap_relay.sandbox.tunnel import Tunnel, TunnelError, TunnelReader
from wireleap_relay.wire.address import join_host_port
from wireleap_relay.wire.errors import WireError
from wireleap_relay.wire.payload import Protocol as Transported

_VERSION = 5
_CONNECT, _UDP_ASSOCIATE = 1, 3
_IPV4, _NAME, _IPV6 = 1, 3, 4
_NO_AUTHENTICATION, _NOTHING_ACCEPTABLE = 0, 0xFF
SUCCEEDED, GENERAL_FAILURE, REFUSED, TIMED_OUT, COMMAND_UNKNOWN, ADDRESS_UNKNOWN = 0, 1, 5, 6, 7, 8


class OpensTunnels(Protocol):
    """What the door leads to."""

    async def open(self, protocol: Transported, target: str, reader: TunnelReader) -> Tunnel:
        """Open a tunnel."""


def read_address(data: bytes, position: int) -> tuple[str, int, int] | None:
    """Read ATYP, address and port (RFC 1928, section 5).

    :returns: host, port and the position behind; None where more has to come.
    :raises WireError: where it is none of the three kinds.
    """
    if len(data) < position + 2:
        return None
    kind = data[position]
    if kind == _NAME:
        start, size = position + 2, data[position + 1]
    elif kind in (_IPV4, _IPV6):
        start, size = position + 1, 4 if kind == _IPV4 else 16
    else:
        raise WireError("unknown kind of address")
    end = start + size
    if len(data) < end + 2:
        return None
    raw = data[start:end]
    if kind == _NAME:
        host = raw.decode("ascii", "replace")
    else:
        host = str(IPv4Address(raw) if kind == _IPV4 else IPv6Address(raw))
    return host, struct.unpack_from(">H", data, end)[0], end + 2


def write_address(host: str, port: int) -> bytes:
    """Write ATYP, address and port."""
    try:
        address = ip_address(host)
    except ValueError:
        name = host.encode("ascii")
        return bytes([_NAME, len(name)]) + name + struct.pack(">H", port)
    return bytes([_IPV4 if address.version == 4 else _IPV6]) + address.packed + struct.pack(">H", port)


def _reply_code(error: Exception) -> int:
    code = error.status.code if isinstance(error, TunnelError) else 0
    return {502: REFUSED, 408: TIMED_OUT}.get(code, GENERAL_FAILURE)


@implementer(IHalfCloseableProtocol, IPushProducer)
class SocksConnection(TwistedProtocol):
    """One user of the door."""

    _log = Logger()
    _tunnel: Tunnel | None = None
    _association: _UdpAssociation | None = None

    def __init__(self, circuit: OpensTunnels, reactor: Any) -> None:
        """Lead to a circuit."""
        self._circuit = circuit
        self._reactor = reactor
        self._received = b""
        self._greeted = False
        self._opening: Deferred[None] | None = None
        self._owed = 0
        self._slow = False
        self._user_ended = False
        self._tunnel_is_over = False
        self._answered = False

    def dataReceived(self, data: bytes) -> None:
        """Bytes from the user."""
        if self._tunnel is not None:
            self._tunnel.write(data)
            return
        self._received += data
        if self._opening is None and self._association is None:
            self._negotiate()

    def _negotiate(self) -> None:
        data = self._received
        if not self._greeted:
            if len(data) < 2 or len(data) < 2 + data[1]:
                return
            if data[0] != _VERSION or _NO_AUTHENTICATION not in data[2 : 2 + data[1]]:
                self._write(bytes([_VERSION, _NOTHING_ACCEPTABLE]))
                self._close()
                return
            self._greeted = True
            self._write(bytes([_VERSION, _NO_AUTHENTICATION]))
            self._received = data = data[2 + data[1] :]
        if len(data) < 4:
            return
        try:
            read = read_address(data, 3)
        except WireError:
            self._answer(ADDRESS_UNKNOWN)
            return
        if read is None:
            return
        host, port, end = read
        self._received = data[end:]
        if data[1] == _CONNECT:
            transport: Any = self.transport
            transport.pauseProducing()
            self._opening = Deferred.fromCoroutine(self._connect(join_host_port(host, port)))
            self._opening.addErrback(lambda failure: self._log.failure("A tunnel could not be opened", failure))
        elif data[1] == _UDP_ASSOCIATE:
            self._associate()
        else:
            self._answer(COMMAND_UNKNOWN)

    async def _connect(self, target: str) -> None:
        try:
            tunnel = await self._circuit.open("tcp", target, self)
        except Exception as e:  # noqa: BLE001 - whatever it was, the user is told so
            self._answer(_reply_code(e))
            return
        if self._tunnel_is_over or not self.connected:
            tunnel.abort()
            return
        self._tunnel = tunnel
        transport: Any = self.transport
        transport.registerProducer(self, True)

    def _answer(self, code: int, host: str = "0.0.0.0", port: int = 0) -> None:  # noqa: S104 - a reply's blank
        self._answered = True
        self._write(bytes([_VERSION, code, 0]) + write_address(host, port))
        if code != SUCCEEDED:
            self._close()

    def _associate(self) -> None:
        transport: Any = self.transport
        host = transport.getHost().host
        self._association = association = _UdpAssociation(self._circuit, transport.getPeer().host)
        port = self._reactor.listenUDP(0, association, host, 65_535)
        self._answer(SUCCEEDED, host, port.getHost().port)

    def _write(self, data: bytes) -> None:
        cast("Any", self.transport).write(data)

    def _close(self) -> None:
        transport: Any = self.transport
        transport.unregisterProducer()
        transport.loseConnection()

    # What the tunnel says

    def tunnel_opened(self) -> None:
        """Answer in a moment: an error has the same headers, and its trailers come with them."""
        self._reactor.callLater(0, self._begin)

    def _begin(self) -> None:
        if self._answered or self._tunnel is None or not self.connected:
            return
        self._answer(SUCCEEDED)
        if self._received:
            self._tunnel.write(self._received)
            self._received = b""
        cast("Any", self.transport).resumeProducing()

    def data_received(self, data: bytes, frame_done: bool) -> None:
        """Bytes from the target."""
        self._begin()
        self._write(data)
        if self._slow:
            self._owed += len(data)
        elif self._tunnel is not None:
            self._tunnel.credit(len(data))

    def tunnel_ended(self, error: TunnelError | None) -> None:
        """The target ended its side, or the tunnel failed."""
        self._tunnel_is_over = True
        if error is not None and not self._answered:
            self._answer(_reply_code(error))
        elif error is not None:
            cast("Any", self.transport).abortConnection()
        else:
            self._begin()
            transport: Any = self.transport
            transport.unregisterProducer()
            transport.loseWriteConnection()
            if self._user_ended:
                transport.loseConnection()

    def pause(self) -> None:
        """The circuit does not keep up."""
        cast("Any", self.transport).pauseProducing()

    def resume(self) -> None:
        """It has caught up."""
        if not self._user_ended:
            cast("Any", self.transport).resumeProducing()

    # What the user's socket says

    def readConnectionLost(self) -> None:
        """The user ended its side."""
        self._user_ended = True
        if self._tunnel is None:
            self._close()
            return
        self._tunnel.end()
        if self._tunnel_is_over:
            cast("Any", self.transport).loseConnection()

    def writeConnectionLost(self) -> None:
        """The user has all that the target sent."""

    def pauseProducing(self) -> None:
        """The user does not keep up."""
        self._slow = True

    def resumeProducing(self) -> None:
        """It has caught up."""
        self._slow = False
        owed, self._owed = self._owed, 0
        if self._tunnel is not None:
            self._tunnel.credit(owed)

    def stopProducing(self) -> None:
        """The connection is gone; connectionLost follows."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The user is gone."""
        if self._tunnel is not None and not (self._tunnel_is_over and self._user_ended):
            self._tunnel.abort()
        if self._association is not None:
            self._association.close()


class _UdpTunnel:
    """The datagrams between a user and one target."""

    def __init__(self, association: _UdpAssociation, header: bytes) -> None:
        self._association = association
        self._header = header
        self._pieces: list[bytes] = []
        self._waiting: list[bytes] = []
        self.tunnel: Tunnel | None = None

    def send(self, datagram: bytes) -> None:
        if self.tunnel is None:
            self._waiting.append(datagram)
        else:
            self.tunnel.write(datagram)

    def ready(self, tunnel: Tunnel) -> None:
        self.tunnel = tunnel
        for datagram in self._waiting:
            tunnel.write(datagram)
        self._waiting.clear()

    def tunnel_opened(self) -> None:
        pass

    def data_received(self, data: bytes, frame_done: bool) -> None:
        self._pieces.append(data)
        if self.tunnel is not None:
            self.tunnel.credit(len(data))
        if frame_done:
            self._association.answer(self._header + b"".join(self._pieces))
            self._pieces.clear()

    def tunnel_ended(self, error: TunnelError | None) -> None:
        self._association.forget(self)

    def pause(self) -> None:
        pass

    def resume(self) -> None:
        pass


class _UdpAssociation(DatagramProtocol):
    """One user's UDP relay; each target has a tunnel of its own."""

    _log = Logger()

    def __init__(self, circuit: OpensTunnels, user: str) -> None:
        self._circuit = circuit
        self._user = user
        self._address: tuple[str, int] | None = None
        self._tunnels: dict[tuple[str, int], _UdpTunnel] = {}

    def datagramReceived(self, datagram: bytes, addr: tuple[str, int]) -> None:
        if addr[0] != self._user or len(datagram) < 4 or datagram[2]:
            return  # a stranger's, too short, or a fragment: RFC 1928, section 7, lets it be dropped
        try:
            read = read_address(datagram, 3)
        except WireError:
            return
        if read is None:
            return
        host, port, end = read
        self._address = addr
        tunnel = self._tunnels.get((host, port))
        if tunnel is None:
            tunnel = self._tunnels[host, port] = _UdpTunnel(self, b"\0\0\0" + write_address(host, port))
            opening = Deferred.fromCoroutine(self._circuit.open("udp", join_host_port(host, port), tunnel))
            opening.addCallbacks(tunnel.ready, self._not_opened, errbackArgs=(tunnel,))
        tunnel.send(datagram[end:])

    def _not_opened(self, failure: Failure, tunnel: _UdpTunnel) -> None:
        self._log.warn("No tunnel for datagrams: {why}", why=failure.getErrorMessage())
        self.forget(tunnel)

    def answer(self, datagram: bytes) -> None:
        if self.transport is not None and self._address is not None:
            self.transport.write(datagram, self._address)

    def forget(self, tunnel: _UdpTunnel) -> None:
        self._tunnels = {target: kept for target, kept in self._tunnels.items() if kept is not tunnel}

    def close(self) -> None:
        for each in list(self._tunnels.values()):
            if each.tunnel is not None:
                each.tunnel.abort()
        if self.transport is not None:
            self.transport.stopListening()


class SocksFactory(Factory):
    """Makes the door's connections."""

    noisy = False

    def __init__(self, circuit: OpensTunnels, reactor: Any) -> None:
        """Lead to a circuit."""
        self._circuit = circuit
        self._reactor = reactor

    def buildProtocol(self, addr: Any) -> SocksConnection:
        """Serve one user."""
        return SocksConnection(self._circuit, self._reactor)
