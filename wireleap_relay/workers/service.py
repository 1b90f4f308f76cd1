"""The daemon's side: keeps workers running, and is their data plane to the rest of the relay."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from twisted.application.service import Service
from twisted.internet.defer import Deferred, gatherResults
from twisted.logger import Logger

from wireleap_relay.boundaries import TokenStore, UsageSink
from wireleap_relay.config import Config
from wireleap_relay.contracts.book import Book
from wireleap_relay.ownprocess import Steady
from wireleap_relay.tokens.takeover import NotOurs, check
from wireleap_relay.tunnel.registry import TunnelCounts
from wireleap_relay.tunnel.sockets import Listening
from wireleap_relay.wire.errors import WireError
from wireleap_relay.wire.keys import PublicKey
from wireleap_relay.wire.sharetoken import Sharetoken
from wireleap_relay.wire.status import Status
from wireleap_relay.workers import commands
from wireleap_relay.workers.plane import PlaneStatus
from wireleap_relay.workers.process import WorkerProcess


@attrs.frozen
class PublicIdentity:
    """What clients know the relay by; its signing key is none of a worker's business."""

    relay: PublicKey
    certificate: x509.Certificate
    tls_key: Ed25519PrivateKey


class WorkersService(Service):
    """A number of workers; see :class:`wireleap_relay.workers.plane.DataPlane`."""

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        count: int,
        config: Config,
        source: bytes,
        identity: PublicIdentity,
        *,
        book: Book,
        store: TokenStore,
        usage: UsageSink,
        inherited: Sequence[socket.socket] = (),
        accepts: bool = True,
    ) -> None:
        """Serve a relay's clients.

        :param source: the text that the config was read from.
        :param inherited: sockets that listen already; without any the config's address is bound.
        :param accepts: whether to accept from the beginning.
        """
        self.setName("plane")
        self._config = config
        self._relay = identity.relay
        self._book = book
        self._store = store
        self._usage = usage
        self._inherited = inherited
        self._accepts = accepts
        self._listening: Listening | None = None
        self._drained: dict[PublicKey, list[_Waiter]] = {}
        self._begin = {
            "relay": identity.relay,
            "certificate": identity.certificate.public_bytes(Encoding.PEM),
            "key": identity.tls_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
            "config": source,
        }
        self._workers = [WorkerProcess(reactor, number, self) for number in range(count)]
        self._watch = Steady(reactor, 1.0, self._look)
        book.read_on(self._book_changed)

    def privilegedStartService(self) -> None:
        """Bind, as long as there are rights to it.

        :raises CannotListenError: where the address is taken or not ours.
        """
        super().privilegedStartService()
        self._listening = Listening(self._config.address, len(self._workers), self._inherited)

    def startService(self) -> None:
        """Bind where that is not done yet, and start the workers.

        :raises CannotListenError: where the address is taken or not ours.
        """
        super().startService()
        count = len(self._workers)
        if self._listening is None:
            self._listening = Listening(self._config.address, count, self._inherited)
        for worker in self._workers:
            worker.start(self._listening.share(worker.number, count))
        self._watch.start()
        self._log.info(
            "Listening at {address} with {count} workers", address=self._listening.address, count=len(self._workers)
        )

    def stopService(self) -> Deferred[Any]:
        """Accept no more, let open tunnels finish, then let the workers go."""
        super().stopService()
        self._watch.stop()
        if self._listening is not None:
            self._listening.close()
        return gatherResults([worker.stop() for worker in self._workers], consumeErrors=True)

    @property
    def listening(self) -> Listening | None:
        """What they are bound to; None while they are not."""
        return self._listening

    def accept(self, accepts: bool) -> Deferred[Any]:
        """Have them accept connections, or let them wait."""
        self._accepts = accepts
        return gatherResults([worker.accept(accepts) for worker in self._workers])

    def apply(self, config: Config, source: bytes) -> None:
        """Go by another config from here on."""
        self._config = config
        self._begin["config"] = source
        for worker in self._workers:
            worker.tell(commands.Reload, config=source)

    def hurry(self) -> None:
        """Stop without waiting for tunnels to finish."""
        for worker in self._workers:
            worker.tell(commands.Hurry)

    def close(self, contract: PublicKey, status: Status) -> int:
        """End every tunnel of a contract.

        :returns: how many there were when last heard of.
        """
        count = sum(worker.open(contract) for worker in self._workers)
        for worker in self._workers:
            worker.tell(commands.Close, contract=contract, status=status)
        return count

    def when_drained(self, contract: PublicKey) -> Deferred[None]:
        """Wait until every worker has said that a contract has no open tunnel; it may be cancelled."""
        waiter = _Waiter({worker.number for worker in self._workers if worker.is_running})
        if not waiter.missing:
            waiter.done.callback(None)
        else:
            self._drained.setdefault(contract, []).append(waiter)
        return waiter.done

    def status(self) -> PlaneStatus:
        """Tell what they are doing."""
        statuses = tuple(worker.status() for worker in self._workers)
        tunnels = sum((worker.tunnels for worker in self._workers), TunnelCounts())
        port = self._listening.address.port if self.running and self._listening is not None else 0
        return PlaneStatus(port, sum(status.connections for status in statuses), tunnels, statuses)

    # What workers ask for

    def beginning(self) -> Mapping[str, Any]:
        """Give what a new worker is told."""
        book = self._book.standings()
        return {**self._begin, "book": book, "accepts": self._accepts, "processes": len(self._workers)}

    def knows(self, contract: PublicKey) -> bool:
        """Tell whether a worker can have heard of a contract."""
        return self._book.known(contract) is not None

    def check(self, token: Sharetoken) -> None:
        """Look at a sharetoken that a worker has been given, or so it says.

        :raises WireError: where it is none of this relay's.
        """
        if not self.knows(token.contract.public_key):
            raise WireError("a sharetoken is of a contract that this relay does not have")
        try:
            check(token, self._relay)
        except NotOurs as e:
            raise WireError(f"a sharetoken is none of this relay's: {e}") from None

    @property
    def tokens(self) -> TokenStore:
        """Where their sharetokens are kept."""
        return self._store

    @property
    def drain_timeout(self) -> float:
        """Seconds that open tunnels have to finish."""
        return self._config.drain_timeout

    def counted(self, number: int, carried: Mapping[PublicKey, tuple[int, int]]) -> None:
        """Count what a worker has carried since it was last heard of."""
        for contract, (from_clients, from_targets) in carried.items():
            meter = self._usage.meter(contract)
            meter.from_clients += from_clients
            meter.from_targets += from_targets
        self._heard_of(number)

    def gone(self, number: int) -> None:
        """A worker is gone, and its tunnels with it."""
        self._heard_of(number)

    def _look(self) -> None:
        for worker in self._workers:
            worker.look()

    def _heard_of(self, number: int) -> None:
        for contract, waiters in list(self._drained.items()):
            for waiter in waiters:
                waiter.missing.discard(number)
            if any(worker.open(contract) for worker in self._workers):
                continue
            self._drained[contract] = [waiter for waiter in waiters if not waiter.fire()]
            if not self._drained[contract]:
                del self._drained[contract]

    def _book_changed(self) -> None:
        for worker in self._workers:
            worker.tell(commands.Read, book=self._book.standings())


@attrs.define(eq=False)
class _Waiter:
    """Somebody who waits until each of some workers has been heard of."""

    missing: set[int]
    done: Deferred[None] = attrs.field(factory=lambda: Deferred(lambda _: None))

    def fire(self) -> bool:
        """Tell them, if it is time.

        :returns: whether they need not be thought of any more.
        """
        if not self.missing and not self.done.called:
            self.done.callback(None)
        return self.done.called
