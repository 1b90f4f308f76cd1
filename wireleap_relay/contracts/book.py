"""Which contracts are known, and which take tunnels right now."""

from __future__ import annotations

from wireleap_relay.boundaries import BadAnswer, Contract, Refused
from wireleap_relay.wire.keys import PublicKey


class Book:
    """Contracts by their public keys; see :class:`wireleap_relay.boundaries.ContractBook`."""

    def __init__(self) -> None:
        """Know none yet."""
        self._contracts: dict[PublicKey, Contract] = {}
        self._open: set[str] = set()
        self._why: dict[str, str] = {}

    def enter(self, contract: Contract) -> None:
        """Note what a contract says of itself; it takes no tunnels yet.

        :raises BadAnswer: where this URL had another key before, and where
            another URL has this key.
        """
        for known in self._contracts.values():
            if known.url == contract.url and known.id != contract.id:
                raise BadAnswer(f"the contract's public key was {known.id} before, and is {contract.id} now")
            if known.url != contract.url and known.id == contract.id:
                raise BadAnswer(f"the contract has the public key of {known.url}")
        self._contracts[contract.id] = contract

    def open(self, url: str) -> None:
        """Let the contract at a URL take tunnels."""
        self._open.add(url)

    def close(self, url: str) -> None:
        """Let it take none."""
        self._open.discard(url)

    def explain(self, url: str, why: str) -> None:
        """Note what clients are told while the contract at a URL takes no tunnels; empty for nothing in particular."""
        self._why[url] = why

    def known(self, contract: PublicKey) -> Contract | None:
        """Give a contract, whether it takes tunnels or not."""
        return self._contracts.get(contract)

    def accepting(self, contract: PublicKey) -> Contract:
        """Give the contract that takes new tunnels under this public key.

        :raises Refused: with 400, where it is unknown or not enrolled.
        """
        known = self._contracts.get(contract)
        if known is None:
            raise Refused(400, "the relay does not serve this contract")
        if known.url not in self._open:
            why = self._why.get(known.url) or "the relay takes no tunnels for this contract at the moment"
            raise Refused(400, why)
        return known
