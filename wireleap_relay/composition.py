"""The composition root: joins the parts of a relay, and knows nothing else."""

from __future__ import annotations

import json
import os
import random
import socket
import time
from collections.abc import Sequence
from typing import Any

from twisted.application.service import Service

from wireleap_relay import __version__
from wireleap_relay.admin.rest import RestService
from wireleap_relay.admin.service import AdminService
from wireleap_relay.config import Config
from wireleap_relay.configvalues import RestAddress
from wireleap_relay.contracts.book import Book
from wireleap_relay.contracts.office import Office
from wireleap_relay.contracts.service import ContractsService
from wireleap_relay.contracts.submission import ContractSubmitter
from wireleap_relay.home import Home, Identity
from wireleap_relay.partsettings import archive, contract_settings, global_limit, usage_settings
from wireleap_relay.relay import Parts, Relay
from wireleap_relay.tokens.service import TokenStoreService
from wireleap_relay.tokens.submission import SubmissionService
from wireleap_relay.tunnel.tls import ServerTLS
from wireleap_relay.upgrade.download import Downloader
from wireleap_relay.upgrade.peer import Succession
from wireleap_relay.upgrade.release import this_build
from wireleap_relay.upgrade.service import UpgradeService
from wireleap_relay.upstream.service import UpstreamService
from wireleap_relay.usage.meters import Meters, totals_of
from wireleap_relay.usage.service import UsageService
from wireleap_relay.usage.stats import Stats
from wireleap_relay.wire.versions import Version
from wireleap_relay.workers.plane import Plane
from wireleap_relay.workers.service import PublicIdentity, WorkersService


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
        global_limit=global_limit(config),
        book=book,
    )
    contracts = ContractsService(office, contract_settings(config), __version__)
    submission = SubmissionService(
        reactor,
        store,
        ContractSubmitter(book, upstream, store.address_of),
        time.time,
        config.auto_submit_interval,
        archive(home, config),
    )
    usage = None
    if config.network_usage.measured:
        usage = UsageService(
            reactor,
            time.time,
            usage_settings(home, config.network_usage),
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
