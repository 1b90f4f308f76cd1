"""A client's servicekey: bought from the sandbox's contract over HTTP, as any client would."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from typing import Any

import treq
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from wireleap_relay.boundaries import WallClock
from wireleap_relay.wire.endpoint import Endpoint, join
from wireleap_relay.wire.funding import Activation, ProofOfFunding
from wireleap_relay.wire.keys import PublicKey, SigningKey
from wireleap_relay.wire.sharetoken import ContractStatement, Sharetoken
from wireleap_relay.wire.structure import converter, read


class NoServicekey(Exception):
    """The contract did not sell a servicekey; the text is its answer."""


class BoughtWallet:
    """Pays with servicekeys that it buys in time."""

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        clock: WallClock,
        endpoint: Endpoint,
        issue: Callable[[], ProofOfFunding],
    ) -> None:
        """Buy at a contract.

        :param issue: gives a proof of funding for each servicekey.
        """
        self._clock = clock
        self._endpoint = endpoint
        self._issue = issue
        self._key: SigningKey | None = None
        self._statement: ContractStatement | None = None
        self._renewal = LoopingCall(self._renew)
        self._renewal.clock = reactor

    async def buy(self) -> None:
        """Buy a servicekey, and use it from now on.

        :raises NoServicekey: where the contract does not sell one.
        """
        key = SigningKey.generate()
        body = json.dumps(converter.unstructure(Activation(key.public_key, self._issue()))).encode()
        headers: dict[bytes | str, bytes | str] = {
            "Content-Type": "application/json",
            "Idempotency-Key": secrets.token_hex(16),
        }
        response = await treq.post(
            join(self._endpoint, "/servicekey/activate"), body, headers=headers, persistent=False
        )
        answer = await treq.content(response)
        if response.code != 200:
            raise NoServicekey(answer.decode("utf-8", "replace"))
        self._key, self._statement = key, read(answer, ContractStatement)

    def keep_buying(self, interval: float) -> None:
        """Buy a new one every so many seconds."""
        self._renewal.start(interval, now=False)

    def stop(self) -> None:
        """Buy no more."""
        if self._renewal.running:
            self._renewal.stop()

    def token(self, relay: PublicKey) -> Sharetoken:
        """Make a fresh sharetoken for a relay."""
        if self._key is None or self._statement is None:
            raise NoServicekey("none was bought yet")
        return Sharetoken.sign(self._key, self._statement, relay, int(self._clock()))

    @property
    def statement(self) -> ContractStatement:
        """What the contract says of the present servicekey."""
        if self._statement is None:
            raise NoServicekey("none was bought yet")
        return self._statement

    def _renew(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self.buy()).addErrback(self._not_renewed)

    def _not_renewed(self, failure: Failure) -> None:
        self._log.warn("No new servicekey: {why}", why=failure.getErrorMessage())
