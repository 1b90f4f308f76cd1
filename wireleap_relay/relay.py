"""All of a relay's services as one, and what becomes of them: start, stop, reload, keeper or not."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import attrs
from twisted.application.service import MultiService, Service
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.logger import Logger

from wireleap_relay.admin.pages import make_pages
from wireleap_relay.admin.rest import Page
from wireleap_relay.admin.service import AdminService
from wireleap_relay.admin.snapshot import api_status
from wireleap_relay.config import Config, ConfigError, parse_config
from wireleap_relay.contracts.service import ContractsService
from wireleap_relay.home import Home, HomeError
from wireleap_relay.partsettings import archive, contract_settings, global_limit, usage_settings
from wireleap_relay.reload import applicable
from wireleap_relay.tokens.service import TokenStoreService
from wireleap_relay.tokens.submission import SubmissionService
from wireleap_relay.upgrade.service import UpgradeService
from wireleap_relay.usage.meters import Meters
from wireleap_relay.usage.service import UsageService
from wireleap_relay.wire.keys import PublicKey
from wireleap_relay.workers.plane import DataPlane

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
        parts.submission.apply(config.auto_submit_interval, archive(self._home, config))
        if parts.usage is not None:
            parts.usage.apply(usage_settings(self._home, config.network_usage))
        parts.upgrades.automatic = config.auto_upgrade
        parts.contracts.apply(contract_settings(config), global_limit(config), config.drain_timeout)
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
            reactor, self._admin.view, lambda: usage_settings(self._home, self.config.network_usage).archive
        )
