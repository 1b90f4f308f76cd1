"""Which contracts are known, and which take tunnels right now."""

from __future__ import annotations

from collections.abc import Callable

from wireleap_relay.boundaries import BadAnswer, Contract, Refused, Standing
from wireleap_relay.wire.keys import PublicKey


class Book:
    """Contracts by their public keys; see :class:`wireleap_relay.boundaries.ContractBook`."""

    def __init__(self) -> None:
        """Know none yet."""
        self._contracts: dict[PublicKey, Contract] = {}
        self._open: set[str] = set()
        self._why: dict[str, str] = {}
        self._readers: list[Callable[[], None]] = []

    def read_on(self, reader: Callable[[], None]) -> None:
        """Tell somebody whenever the book changes."""
        self._readers.append(reader)

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
        self._changed()

    def open(self, url: str) -> None:
        """Let the contract at a URL take tunnels."""
        self._open.add(url)
        self._changed()

    def close(self, url: str) -> None:
        """Let it take none."""
        self._open.discard(url)
        self._changed()

    def explain(self, url: str, why: str) -> None:
        """Note what clients are told while the contract at a URL takes no tunnels; empty for nothing in particular."""
        self._why[url] = why
        self._changed()

    def known(self, contract: PublicKey) -> Contract | None:
        """Give a contract, whether it takes tunnels or not."""
        return self._contracts.get(contract)

    def accepting(self, contract: PublicKey) -> Contract:
        """Give the contract that takes new tunnels under this public key.

        :raises Refused: with 400, where it is unknown or not enrolled.
        """
        known = self._contracts.get(contract)
        return accepting(self._standing(known) if known is not None else None)

    def standings(self) -> list[Standing]:
        """Give all contracts, and how they stand."""
        return [self._standing(contract) for contract in self._contracts.values()]

    def _standing(self, contract: Contract) -> Standing:
        if contract.url in self._open:
            return Standing(contract)
        why = self._why.get(contract.url) or "the relay takes no tunnels for this contract at the moment"
        return Standing(contract, why)

    def _changed(self) -> None:
        for reader in self._readers:
            reader()


class Copy:
    """What a book said when it was last read aloud; see :class:`wireleap_relay.boundaries.ContractBook`."""

    def __init__(self) -> None:
        """Know nothing yet."""
        self._standings: dict[PublicKey, Standing] = {}

    def read(self, standings: list[Standing]) -> None:
        """Take over what the book says."""
        self._standings = {standing.contract.id: standing for standing in standings}

    def accepting(self, contract: PublicKey) -> Contract:
        """Give the contract that takes new tunnels under this public key.

        :raises Refused: with 400, where it is unknown or not enrolled.
        """
        return accepting(self._standings.get(contract))


def accepting(standing: Standing | None) -> Contract:
    """Give a contract that takes new tunnels.

    :raises Refused: with 400, where it doesn't.
    """
    if standing is None:
        raise Refused(400, "the relay does not serve this contract", "contract")
    if standing.refusal:
        raise Refused(400, standing.refusal, "contract")
    return standing.contract
