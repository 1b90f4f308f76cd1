"""The composition root: joins the parts of a relay, and knows nothing else."""

from __future__ import annotations

import json
import os
import random
import socket
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import attrs
from twisted.application.service import MultiService, Service
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.logger import Logger

from wireleap_relay import __version__
from wireleap_relay.admin.pages import make_pages
from wireleap_relay.admin.rest import Page, RestService
from wireleap_relay.admin.service import AdminService
from wireleap_relay.admin.snapshot import api_status
from wireleap_relay.config import Config, ConfigError, NetworkUsage, parse_config
from wireleap_relay.configvalues import RestAddress
from wireleap_relay.contracts.book import Book
from wireleap_relay.contracts.limits import GlobalLimit
from wireleap_relay.contracts.office import Office
from wireleap_relay.contracts.service import ContractSettings, ContractsService
from wireleap_relay.contracts.submission import ContractSubmitter
from wireleap_relay.home import Home, HomeError, Identity
from wireleap_relay.reload import applicable
from wireleap_relay.tokens.archive import Archive
from wireleap_relay.tokens.service import TokenStoreService
from wireleap_relay.tokens.submission import SubmissionService
from wireleap_relay.tunnel.tls import ServerTLS
from wireleap_relay.upgrade.download import Downloader
from wireleap_relay.upgrade.peer import Succession
from wireleap_relay.upgrade.release import this_build
from wireleap_relay.upgrade.service import UpgradeService
from wireleap_relay.upstream.service import UpstreamService
from wireleap_relay.usage.meters import Meters, totals_of
from wireleap_relay.usage.service import UsageService, UsageSettings
from wireleap_relay.usage.stats import Stats
from wireleap_relay.usage.window import CalendarFrame, TimeFrame
from wireleap_relay.wire.keys import PublicKey
from wireleap_relay.wire.versions import Version
from wireleap_relay.workers.plane import DataPlane, Plane
from wireleap_relay.workers.service import PublicIdentity, WorkersService

_BOOKS = ("tokens", "usage", "handover")
#: What only one of two daemons does that run for the same relay; see :meth:`Relay.keep`.
_KEEPERS = ("admin", "submission", "manhole")


@attrs.frozen
class Parts:
    """What a relay can change under way, and what is watched.

    :ivar relay: its public key.
    :ivar usage: None where nothing is measured.
    :ivar meters: of what this process carries.
    :ivar elsewhere: of what another daemon carries for the same relay, while one takes the other's place.
    """

    relay: PublicKey
    contracts: ContractsService
    tokens: TokenStoreService
    submission: SubmissionService
    plane: DataPlane
    usage: UsageService | None
    meters: Meters
    elsewhere: Meters
    upgrades: UpgradeService


@attrs.frozen
class Reload:
    """What became of reading the config again.

    :ivar number: how many times that was done.
    :ivar trouble: why it could not be used; empty where it could.
    :ivar kept: paths of what keeps its old value until a restart.
    """

    number: int = 0
    trouble: str = ""
    kept: tuple[str, ...] = ()


class Relay(MultiService):
    """All of a relay's services.

    :ivar config: what it goes by at present.
    :ivar reloaded: when it was last told to read another.
    """

    _log = Logger()

    def __init__(self, home: Home, config: Config, parts: Parts, admin: AdminService, *, keeps: bool = True) -> None:
        """Begin with a config out of a home.

        :param keeps: whether it is the keeper from the beginning; see :meth:`keep`.
        """
        super().__init__()
        self.setName("relay")
        self.config = config
        self.reloaded = Reload()
        self.parts = parts
        self._home = home
        self._admin = admin
        self._keeps = keeps
        self._leaves = False

    def privilegedStartService(self) -> None:
        """Let them do what takes rights that are given up then.

        :raises SystemExit: where one can't; the log says why.
        """
        with self._or_exit():
            super().privilegedStartService()

    def startService(self) -> None:
        """Start them all.

        :raises SystemExit: where one can't start; the log says why.
        """
        with self._or_exit():
            Service.startService(self)
            for part in self.services:
                if self._keeps or part.name not in _KEEPERS:
                    part.startService()

    @contextmanager
    def _or_exit(self) -> Iterator[None]:
        try:
            yield
        except (CannotListenError, OSError, sqlite3.Error) as e:
            self._log.critical("The relay can't start: {why}", why=str(e))
            raise SystemExit(1) from None

    def stopService(self) -> Deferred[None]:
        """Stop them all, those that keep books last: tunnels and submissions under way still need them."""
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        Service.stopService(self)
        running = [part for part in self.services if part.running]
        books = [part for part in running if part.name in _BOOKS]
        others = [part for part in running if part not in books]
        # Where another daemon goes on, its contracts accept tunnels until the last connection here knows of it.
        first = [part for part in others if part.name == "plane" and self._leaves]
        for parts in (first, [part for part in others if part not in first], books):
            await gatherResults([maybeDeferred(part.stopService) for part in parts], consumeErrors=True)

    async def keep(self, keeps: bool) -> None:
        """Keep the relay's books, and show it, or leave that to another daemon that serves in its name.

        The keeper writes ``stats.json``, hands sharetokens in, and answers its operator.
        """
        self._keeps = keeps
        if keeps:
            self._home = attrs.evolve(self._home, upgrading=False)
        if self.parts.usage is not None:
            await self.parts.usage.keep(keeps)
        for part in self.services:
            if part.name in _KEEPERS and part.running != keeps:
                try:
                    await maybeDeferred(part.startService if keeps else part.stopService)
                except (CannotListenError, OSError) as e:
                    self._log.error("The {part} can't start: {why}", part=part.name, why=str(e))

    def leave(self) -> None:
        """Have the end be no farewell: another daemon goes on serving in this relay's name."""
        self._leaves = True
        self.parts.contracts.leave()
        if self.parts.plane.listening is not None:
            self.parts.plane.listening.hand_on()

    def is_up(self) -> bool:
        """Whether all workers work, and enrolling has been tried with every contract."""
        return all(worker.state == "running" for worker in self.parts.plane.status().workers) and all(
            status.state not in ("waiting", "enrolling") for status in self.parts.contracts.status()
        )

    def hurry(self) -> None:
        """Stop without waiting for tunnels or for directories."""
        self.parts.plane.hurry()
        self.parts.contracts.hurry()

    def reload(self) -> bool:
        """Read the config again and go by it: by all of it that can change under way, or, where it is wrong, by none.

        :returns: whether it could be used; the log says what was wrong.
        """
        try:
            source = self._home.read_config()
            wanted, warnings = parse_config(source)
        except (HomeError, ConfigError) as e:
            self._log.error("The config is not used, and nothing has changed: {why}", why=str(e))
            self.reloaded = Reload(self.reloaded.number + 1, str(e))
            return False
        for warning in warnings:
            self._log.warn("{warning}", warning=warning)
        config, kept = applicable(self.config, wanted)
        for path in kept:
            self._log.warn("{path} can't change while the relay runs: restart it for that", path=path)
        parts = self.parts
        parts.plane.apply(config, source)
        parts.submission.apply(config.auto_submit_interval, _archive(self._home, config))
        if parts.usage is not None:
            parts.usage.apply(_usage_settings(self._home, config.network_usage))
        parts.upgrades.automatic = config.auto_upgrade
        parts.contracts.apply(_contracts(config), _global_limit(config), config.drain_timeout)
        self.config = config
        self.reloaded = Reload(self.reloaded.number + 1, kept=tuple(kept))
        self._log.info("The config has been read again")
        return True

    def report(self) -> Deferred[None]:
        """Log the status, and write the usage of the network.

        :returns: fires when it is written.
        """
        self._log.info("Status: {status}", status=self.api_status())
        return self.parts.usage.write() if self.parts.usage is not None else maybeDeferred(lambda: None)

    def sentence(self) -> str:
        """Say in a few words how it gets on."""
        contracts = self.parts.contracts.status()
        enrolled = sum(status.enrolled for status in contracts)
        if len(contracts) == 1:
            [only] = contracts
            standing = only.state + (f": {only.trouble}" if only.trouble else "")
        else:
            standing = f"enrolled with {enrolled} of {len(contracts)} contracts"
        return f"{standing[0].upper()}{standing[1:]}; {self.parts.plane.status().tunnels.open} tunnels"

    def api_status(self) -> dict[str, Any]:
        """Give the JSON data of ``/api/status`` (PROTOCOL: *REST API*)."""
        return api_status(self._admin.view())

    def pages(self, reactor: Any) -> Mapping[str, Page]:
        """Give what it shows of itself over HTTP."""
        return make_pages(
            reactor, self._admin.view, lambda: _usage_settings(self._home, self.config.network_usage).archive
        )


def make_relay(
    reactor: Any,
    home: Home,
    config: Config,
    identity: Identity,
    activated: Sequence[socket.socket] = (),
    succession: Succession | None = None,
) -> Relay:
    """Make a relay: a tree of services, each found by its name.

    ``upgrades`` changes the version, ``admin`` shows all of it to the operator, ``upstream`` talks to contracts
    and directories, ``tokens`` keeps what the relay is paid with, ``submission`` hands it in, ``plane`` serves clients,
    ``usage`` measures, where the config has a ``network_usage.timeframe`` or
    ``network_usage.start``; ``manhole`` lets an operator in, where the config
    has a ``manhole.address``; ``contracts`` keeps the relay enrolled. They start
    in this order.

    :param activated: sockets that listen already, to serve clients at instead of the config's address.
    :param succession: what was handed over by a daemon whose place this one is about to take: it does not accept
        connections, and keeps no books, before it is told to.
    """
    relay = identity.key.public_key
    upstream = UpstreamService(reactor, identity.key)
    meters, elsewhere, book = Meters(), Meters(), Book()
    store = TokenStoreService(reactor, home.token_database, time.time, relay)
    book.read_on(lambda: store.remember({standing.contract.id: standing.contract.url for standing in book.standings()}))
    plane = _make_plane(reactor, home, config, identity, activated, succession, book=book, store=store, usage=meters)
    upgrades = UpgradeService(
        *(reactor, home, this_build(), Version.from_text(__version__)),
        automatic=config.auto_upgrade,
        downloader=Downloader(reactor),
    )
    office = Office(
        clock=reactor,
        relay=relay,
        upstream=upstream,
        tunnels=plane,
        upgrades=upgrades,
        chance=random.random,
        drain_timeout=config.drain_timeout,
        global_limit=_global_limit(config),
        book=book,
    )
    contracts = ContractsService(office, _contracts(config), __version__)
    submission = SubmissionService(
        reactor,
        store,
        ContractSubmitter(book, upstream, store.address_of),
        time.time,
        config.auto_submit_interval,
        _archive(home, config),
    )
    usage = None
    if config.network_usage.measured:
        usage = UsageService(
            reactor,
            time.time,
            _usage_settings(home, config.network_usage),
            relay=relay,
            file=home.stats,
            totals=lambda: totals_of(meters, elsewhere),
            active=lambda: {status.id for status in contracts.status() if status.id is not None},
            seen=contracts.usage_seen,
            account=_account(succession),
            keeps=succession is None,
        )
    parts = Parts(relay, contracts, store, submission, plane, usage, meters, elsewhere, upgrades)
    admin = AdminService(reactor, parts, upstream, time.time)
    parent = Relay(home, config, parts, admin, keeps=succession is None)
    if config.rest_api.address is not None:
        _make_rest(reactor, parent).setServiceParent(admin)
    named: dict[str, Service | None] = {
        "upgrades": upgrades,
        "admin": admin,
        "upstream": upstream,
        "tokens": store,
        "submission": submission,
        "plane": plane,
        "usage": usage,
        "contracts": contracts,
        "manhole": _make_manhole(reactor, home, parent, admin),
    }
    for name, service in named.items():
        if service is not None:
            service.setName(name)
            service.setServiceParent(parent)
    return parent


def _make_plane(
    reactor: Any,
    home: Home,
    config: Config,
    identity: Identity,
    activated: Sequence[socket.socket],
    succession: Succession | None,
    *,
    book: Book,
    store: TokenStoreService,
    usage: Meters,
) -> Plane | WorkersService:
    relay = identity.key.public_key
    cores = len(os.sched_getaffinity(0))
    count = config.workers if config.workers is not None else cores if cores > 1 else 0
    inherited = activated
    if succession is not None and succession.address == str(config.address):
        inherited = succession.sockets
    accepts = succession is None
    if not count:
        tls = ServerTLS(identity.certificate, identity.tls_key)
        return Plane(
            *(reactor, config, relay, tls), book=book, store=store, usage=usage, inherited=inherited, accepts=accepts
        )
    known_by = PublicIdentity(relay, identity.certificate, identity.tls_key)
    source = home.read_config()
    return WorkersService(
        *(reactor, count, config, source, known_by),
        book=book,
        store=store,
        usage=usage,
        inherited=inherited,
        accepts=accepts,
    )


def _make_rest(reactor: Any, relay: Relay) -> Service:
    api = relay.config.rest_api
    return RestService(reactor, api.address or RestAddress(), api.socket_umask, relay.pages(reactor))


def _make_manhole(reactor: Any, home: Home, relay: Relay, admin: AdminService) -> Service | None:
    manhole = relay.config.manhole
    if manhole.address is None:
        return None
    # SSH takes its time to be imported.
    from wireleap_relay.admin.manhole import ManholeService
    from wireleap_relay.admin.namespace import make_namespace

    return ManholeService(
        reactor,
        manhole.address,
        host_key=home.manhole_key,
        authorized_keys=home.inside(manhole.authorized_keys or ""),
        namespace=make_namespace(relay, admin.view),
    )


def _account(succession: Succession | None) -> Stats | None:
    return Stats.from_json(json.dumps(succession.account)) if succession and succession.account else None


# What the parts are told out of the config


def _contracts(config: Config) -> dict[str, ContractSettings]:
    return dict(config.contracts.items())


def _global_limit(config: Config) -> GlobalLimit:
    return GlobalLimit(config.network_usage.global_limit, config.network_usage.global_soft)


def _usage_settings(home: Home, usage: NetworkUsage) -> UsageSettings:
    frame = CalendarFrame(usage.start) if usage.start else TimeFrame(round((usage.timeframe or 0) * 1000))
    return UsageSettings(frame, home.inside(usage.archive_dir) if usage.archive_dir else None, usage.write_interval)


def _archive(home: Home, config: Config) -> Archive | None:
    return Archive(home.inside(config.archive_dir)) if config.archive_dir else None
