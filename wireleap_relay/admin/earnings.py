"""What contracts owe to the relay, asked for now and then."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
from twisted.application.service import Service
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from wireleap_relay.boundaries import Upstream, UpstreamFailed, WallClock
from wireleap_relay.contracts.service import ContractStatus
from wireleap_relay.wire.endpoint import Endpoint
from wireleap_relay.wire.payout import PayoutBalance

_LOOK_EVERY = 1.0
#: Seconds between questions to one contract.
_ASK_EVERY = 900.0


@attrs.frozen
class Earnings:
    """What one contract owes.

    :ivar balance: as last heard; None where it never answered.
    :ivar asked_at: Unix milliseconds of that answer; 0 where there was none.
    :ivar trouble: why the last question got no answer; empty where it did.
    """

    balance: PayoutBalance | None = None
    asked_at: int = 0
    trouble: str = ""


class EarningsService(Service):
    """Asks every contract that is known for its balance, at once and then every quarter of an hour."""

    _log = Logger()

    def __init__(
        self, reactor: Any, upstream: Upstream, clock: WallClock, contracts: Callable[[], tuple[ContractStatus, ...]]
    ) -> None:
        """Ask about some contracts."""
        self.setName("earnings")
        self._reactor = reactor
        self._upstream = upstream
        self._clock = clock
        self._contracts = contracts
        self._earnings: dict[str, Earnings] = {}
        self._due: dict[str, float] = {}
        self._asking: dict[str, Deferred[None]] = {}
        self._looking = LoopingCall(self._look)
        self._looking.clock = reactor

    def startService(self) -> None:
        """Begin to ask."""
        super().startService()
        self._looking.start(_LOOK_EVERY, now=False)

    def stopService(self) -> Deferred[Any]:
        """Give up the questions under way."""
        super().stopService()
        self._looking.stop()
        asking = list(self._asking.values())
        for question in asking:
            question.cancel()
        return gatherResults(asking, consumeErrors=True)

    def status(self) -> dict[str, Earnings]:
        """Give what each contract owes, by its URL."""
        served = (contract.url for contract in self._contracts())
        return {url: self._earnings[url] for url in served if url in self._earnings}

    def _look(self) -> None:
        now = self._reactor.seconds()
        for contract in self._contracts():
            is_due = self._due.get(contract.url, now) <= now and contract.url not in self._asking
            if contract.id is not None and is_due:
                self._due[contract.url] = now + _ASK_EVERY
                self._ask(contract.url)

    def _ask(self, url: str) -> None:
        asking = Deferred.fromCoroutine(self._upstream.contract(Endpoint(url)).balance())
        self._asking[url] = told = asking.addCallbacks(
            self._answered, self._failed, callbackArgs=(url,), errbackArgs=(url,)
        )
        told.addBoth(self._asked, url)

    def _answered(self, balance: PayoutBalance, url: str) -> None:
        self._earnings[url] = Earnings(balance, round(self._clock() * 1000))

    def _asked(self, _: object, url: str) -> None:
        del self._asking[url]

    def _failed(self, failure: Failure, url: str) -> None:
        before = self._earnings.get(url, Earnings())
        why = failure.getErrorMessage() if failure.check(UpstreamFailed) else "no answer"
        self._earnings[url] = attrs.evolve(before, trouble=why)
