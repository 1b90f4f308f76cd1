"""The composition root: joins the parts of a relay, and knows nothing else."""

from __future__ import annotations

import random
import sqlite3
import time
from pathlib import Path
from typing import Any

from twisted.application.service import MultiService, Service
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.logger import Logger

from wireleap_relay import __version__
from wireleap_relay.config import Config
from wireleap_relay.contracts.service import ContractSettings, ContractsService
from wireleap_relay.contracts.submission import ContractSubmitter
from wireleap_relay.home import Home, Identity, write_durably
from wireleap_relay.tokens.admission import SharetokenAdmission
from wireleap_relay.tokens.service import SubmissionService, TokenStoreService
from wireleap_relay.tunnel.dial import Dialler
from wireleap_relay.tunnel.listener import ListenerService
from wireleap_relay.tunnel.opening import Doorway
from wireleap_relay.tunnel.policy import DialPolicy
from wireleap_relay.tunnel.registry import Registry
from wireleap_relay.tunnel.tls import ServerTLS
from wireleap_relay.upstream.service import UpstreamService
from wireleap_relay.usage.meters import Meters
from wireleap_relay.usage.service import UsageService
from wireleap_relay.wire.sharetoken import Sharetoken

_BOOKS = ("tokens", "usage")
_DATABASE = "sharetokens.db"


class Relay(MultiService):
    """All of a relay's services."""

    _log = Logger()

    def startService(self) -> None:
        """Start them all.

        :raises SystemExit: where one can't start; the log says why.
        """
        try:
            super().startService()
        except (CannotListenError, OSError, sqlite3.Error) as e:
            self._log.critical("The relay can't start: {why}", why=str(e))
            raise SystemExit(1) from None

    def stopService(self) -> Deferred[None]:
        """Stop them all, those that keep books last: tunnels and submissions under way still need them."""
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        Service.stopService(self)
        books = [part for part in self.services if part.name in _BOOKS]
        others = [part for part in self.services if part not in books]
        for parts in (others, books):
            await gatherResults([maybeDeferred(part.stopService) for part in parts], consumeErrors=True)


def make_relay(reactor: Any, home: Home, config: Config, identity: Identity) -> Relay:
    """Make a relay: a tree of services, each found by its name.

    ``upstream`` talks to contracts and directories, ``tokens`` keeps what the
    relay is paid with, ``submission`` hands it in, ``listener`` serves clients,
    ``contracts`` keeps the relay enrolled; ``usage`` measures, where the config
    has a ``network_usage.timeframe``. They start in this order.
    """
    relay = identity.key.public_key
    upstream = UpstreamService(reactor, identity.key)
    settings: dict[str, ContractSettings] = dict(config.contracts.items())
    contracts = ContractsService(reactor, relay, settings, upstream, __version__, random.random)
    meters = Meters()
    store = TokenStoreService(reactor, home.sharetokens / _DATABASE, time.time)
    submission = SubmissionService(
        reactor,
        store,
        ContractSubmitter(contracts.book, upstream),
        time.time,
        config.auto_submit_interval,
        _Archive(home.inside(config.archive_dir)).keep if config.archive_dir else None,
    )
    doorway = Doorway(
        relay,
        SharetokenAdmission(relay, contracts.book, store, meters, time.time),
        Dialler(reactor, DialPolicy(config.danger_zone.allow_loopback), config.timeout),
        Registry(reactor, relay),
        reactor,
        config.maxtime,
    )
    listener = ListenerService(
        reactor,
        interface=config.address.host,
        port=config.address.port,
        tls=ServerTLS(identity.certificate, identity.tls_key),
        doorway=doorway,
        drain_timeout=config.drain_timeout,
    )
    parent = Relay()
    parent.setName("relay")
    parts: dict[str, Service] = {
        "upstream": upstream,
        "tokens": store,
        "submission": submission,
        "listener": listener,
        "contracts": contracts,
    }
    measured = config.network_usage
    if measured.timeframe:
        parts["usage"] = UsageService(
            reactor,
            time.time,
            relay=relay,
            file=home.stats,
            archive=home.inside(measured.archive_dir) if measured.archive_dir else None,
            timeframe=measured.timeframe,
            write_interval=measured.write_interval,
            totals=meters.totals,
            active=lambda: {status.id for status in contracts.status() if status.id is not None},
        )
    for name, service in parts.items():
        service.setName(name)
        service.setServiceParent(parent)
    return parent


class _Archive:
    """Keeps accepted sharetokens as ``<contract id>/<signature>.json``, as the Go relay does."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def keep(self, token: Sharetoken) -> None:
        folder = self._folder / str(token.contract.public_key)
        folder.mkdir(parents=True, exist_ok=True)
        write_durably(folder / f"{token.signature}.json", token.to_json().encode(), 0o600)
