"""Where an operator comes in: a TCP address, or a unix socket with its mode."""

from __future__ import annotations

import errno
import socket
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IDelayedCall, IListeningPort, IProtocolFactory
from twisted.logger import Logger

from wireleap_relay.configvalues import RestAddress

_TRY_AGAIN = 2.0


class ListeningService(Service):
    """Listens at an address.

    Where that is taken the relay works all the same, and this tries again: one
    relay may be taking another's place.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        what: str,
        address: RestAddress,
        mode: int,
        factory: IProtocolFactory,
        *,
        aloud: bool = True,
    ) -> None:
        """Listen at an address.

        :param what: the operator finds there, and where.
        :param mode: of the unix socket.
        :param aloud: whether it is worth a line in the log that it listens.
        """
        self._reactor = reactor
        self._what = what
        self._address = address
        self._mode = mode
        self._factory = factory
        self._aloud = aloud
        self._port: IListeningPort | None = None
        self._again: IDelayedCall | None = None
        self._trouble = ""

    def startService(self) -> None:
        """Begin to listen."""
        super().startService()
        self._listen()

    def stopService(self) -> Deferred[Any]:
        """Listen no longer."""
        super().stopService()
        if self._again is not None and self._again.active():
            self._again.cancel()
        port, self._port = self._port, None
        return maybeDeferred(port.stopListening) if port is not None else succeed(None)

    def status(self) -> str:
        """Tell why it does not listen; empty where it does."""
        return self._trouble

    def _listen(self) -> None:
        try:
            self._port = self._bind()
        except (CannotListenError, OSError) as e:
            why = str(getattr(e, "socketError", e))
            if why != self._trouble:
                self._log.error("{what} can't be opened yet: {why}", what=self._what, why=why)
            self._trouble = why
            self._again = self._reactor.callLater(_TRY_AGAIN, self._listen)
            return
        self._trouble = ""
        if self._aloud:
            self._log.info("{what} is open", what=self._what)

    def _bind(self) -> IListeningPort:
        tcp = self._address.tcp
        port: IListeningPort
        if tcp is not None:
            port = self._reactor.listenTCP(tcp.port, self._factory, interface=tcp.host)
            return port
        path = self._address.path or ""
        _remove_dead(path)
        port = self._reactor.listenUNIX(path, self._factory, mode=self._mode)
        return port


def _remove_dead(path: str) -> None:
    """Remove the socket of a process that is gone.

    :raises OSError: where somebody listens there, or where it is something else.
    """
    if not Path(path).is_socket():
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        asking.setblocking(False)
        try:
            asking.connect(path)
        except ConnectionRefusedError:
            Path(path).unlink()
            return
    raise OSError(errno.EADDRINUSE, "somebody listens there", path)


def is_loopback(host: str) -> bool:
    """Tell whether an address can be reached from this machine only."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
