"""A worker's side of the talk with its daemon."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import Any, cast

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509 import load_pem_x509_certificate
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.protocol import connectionDone
from twisted.logger import LogEvent, LogLevel, formatEvent
from twisted.python.failure import Failure

from wireleap_relay.boundaries import Standing
from wireleap_relay.config import Config, parse_config
from wireleap_relay.contracts.book import Copy
from wireleap_relay.ownprocess import Steady
from wireleap_relay.reload import applicable
from wireleap_relay.tunnel.tls import ServerTLS
from wireleap_relay.usage.meters import Meters
from wireleap_relay.wire.keys import PublicKey
from wireleap_relay.wire.sharetoken import Sharetoken
from wireleap_relay.wire.status import Status
from wireleap_relay.workers import commands
from wireleap_relay.workers.health import ProcessHealth
from wireleap_relay.workers.plane import Plane

#: File descriptors that a worker is born with.
CONTROL, LISTENING = 3, 4

_COUNT_EVERY = 0.2


class Worker(commands.Link):
    """Does what the daemon says, and tells it what was carried.

    Without its daemon it can't keep sharetokens, so it ends when that is gone.
    """

    def __init__(self, reactor: Any) -> None:
        """Wait for the daemon's word."""
        super().__init__()
        self._reactor = reactor
        self._book = Copy()
        self._meters = Meters()
        self._store = DaemonStore(reactor, self)
        self._config: Config
        self._plane: Plane | None = None
        self._health = ProcessHealth(reactor)
        self._counting = Steady(reactor, _COUNT_EVERY, self._count)

    @commands.Begin.responder
    def begin(
        self,
        relay: PublicKey,
        certificate: bytes,
        key: bytes,
        config: bytes,
        book: list[Standing],
        listening: int,
        accepts: bool,
        processes: int,
    ) -> dict[str, Any]:
        """Serve clients."""
        self._book.read(book)
        self._config = parse_config(config)[0]
        tls_key = cast("Ed25519PrivateKey", load_pem_private_key(key, None))
        self._plane = Plane(
            self._reactor,
            self._config,
            relay,
            ServerTLS(load_pem_x509_certificate(certificate), tls_key),
            book=self._book,
            store=self._store,
            usage=self._meters,
            inherited=[_inherited(LISTENING + number) for number in range(listening)],
            accepts=accepts,
            processes=processes,
        )
        self._plane.startService()
        self._counting.start(now=True)
        self._health.start()
        return {}

    @commands.Accept.responder
    def accept(self, accepts: bool) -> dict[str, Any]:
        """Accept connections, or let them wait."""
        self._running().accept(accepts)
        return {}

    @commands.Reload.responder
    def reload(self, config: bytes) -> dict[str, Any]:
        """Go by another config."""
        self._config, _ = applicable(self._config, parse_config(config)[0])
        self._running().apply(self._config, config)
        return {}

    @commands.Read.responder
    def read(self, book: list[Standing]) -> dict[str, Any]:
        """Take over what the book of contracts says now."""
        self._book.read(book)
        return {}

    @commands.Close.responder
    def close(self, contract: PublicKey, status: Status) -> dict[str, Any]:
        """End every tunnel of a contract."""
        self._running().close(contract, status)
        return {}

    @commands.Drain.responder
    def drain(self) -> Deferred[dict[str, Any]]:
        """Let open tunnels finish."""
        return maybeDeferred(self._running().stopService).addCallback(self._drained)

    @commands.Hurry.responder
    def hurry(self) -> dict[str, Any]:
        """Let them finish no longer."""
        self._running().hurry()
        return {}

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The daemon is gone, or has no more use for this process."""
        super().connectionLost(reason)
        self._reactor.stop()

    def log(self, event: LogEvent) -> None:
        """Tell the daemon of an event; it keeps the log."""
        level = event.get("log_level", LogLevel.info)
        ports = event.get("log_namespace") == "log_legacy" and not event.get("isError")
        if self.transport is None or level is LogLevel.debug or ports:
            return  # the daemon has told of the port that it shares with this process
        line = formatEvent(event)
        failure = event.get("log_failure")
        if failure is not None:
            line = f"{line}\n{failure.getTraceback()}"
        self.callRemote(
            commands.Log,
            level=level.name,
            namespace=str(event.get("log_namespace", "")),
            line=line[: commands.LONGEST_LINE],
        )

    def _running(self) -> Plane:
        assert self._plane is not None  # noqa: S101 - the daemon begins with Begin
        return self._plane

    def _drained(self, _: object) -> dict[str, Any]:
        self._counting.stop()
        self._count()
        return {}

    def _count(self) -> None:
        plane = self._running()
        status = plane.status()
        meters = self._meters.all()
        self.callRemote(
            commands.Count,
            report=commands.Report(
                {str(contract): meter.from_clients for contract, meter in meters.items()},
                {str(contract): meter.from_targets for contract, meter in meters.items()},
                {str(contract): count for contract, count in plane.registry.open_by_contract().items()},
                status.connections,
                status.tunnels,
                self._health.status(),
            ),
        )


class DaemonStore:
    """The daemon's sharetoken store; see :class:`wireleap_relay.boundaries.TokenStore`.

    Tokens that come in one turn of the reactor travel together.
    """

    def __init__(self, clock: Any, daemon: commands.Link) -> None:
        """Ask a daemon."""
        self._clock = clock
        self._daemon = daemon
        self._waiting: list[tuple[bytes, Deferred[bool]]] = []

    def deposit(self, token: Sharetoken) -> Deferred[bool]:
        """Have a token committed to disk.

        :returns: fires with False where it was seen before; fails where the
            daemon can't keep it.
        """
        kept: Deferred[bool] = Deferred()
        if not self._waiting:
            self._clock.callLater(0, self._send)
        self._waiting.append((token.to_json().encode(), kept))
        return kept

    def _send(self) -> None:
        waiting, self._waiting = self._waiting, []
        batch: list[tuple[bytes, Deferred[bool]]] = []
        size = 0
        for each in waiting:
            if batch and size + len(each[0]) > commands.DEPOSIT_SIZE:
                self._send_batch(batch)
                batch, size = [], 0
            batch.append(each)
            size += len(each[0])
        self._send_batch(batch)

    def _send_batch(self, batch: list[tuple[bytes, Deferred[bool]]]) -> None:
        asked = self._daemon.callRemote(commands.Deposit, tokens=[token for token, _ in batch])
        asked.addCallbacks(self._answered, self._failed, callbackArgs=(batch,), errbackArgs=(batch,))

    def _answered(self, answer: Mapping[str, bytes], batch: list[tuple[bytes, Deferred[bool]]]) -> None:
        for outcome, (_, kept) in zip(answer["outcomes"].decode(), batch, strict=True):
            if outcome == "f":
                kept.errback(OSError("the daemon can't keep sharetokens"))
            else:
                kept.callback(outcome == "n")

    def _failed(self, failure: Failure, batch: list[tuple[bytes, Deferred[bool]]]) -> None:
        for _, kept in batch:
            kept.errback(failure)


def _inherited(number: int) -> socket.socket:
    """Take a socket over that came with the process."""
    inherited = socket.socket(fileno=number)
    inherited.setblocking(False)
    return inherited
