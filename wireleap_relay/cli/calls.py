"""What `doctor` finds by asking others: contracts, directories, name servers, and the relay from outside."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterator
from email.utils import parsedate_to_datetime
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as TooLate
from twisted.internet.threads import deferToThreadPool
from twisted.python.failure import Failure
from twisted.web.client import Agent, BrowserLikePolicyForHTTPS

from wireleap_relay.boundaries import UpstreamFailed
from wireleap_relay.cli.findings import Finding
from wireleap_relay.config import Config, ContractConfig
from wireleap_relay.tunnel.nameserver import Family, LookupFailed
from wireleap_relay.tunnel.probe import NotReached, probe
from wireleap_relay.tunnel.resolver import Resolver
from wireleap_relay.upstream.client import Request, SignedClient, read_answer
from wireleap_relay.upstream.directory import HttpDirectory
from wireleap_relay.upstream.retry import RetryPolicy
from wireleap_relay.webclient import make_pool
from wireleap_relay.wire.address import Address
from wireleap_relay.wire.contractinfo import ContractInfo
from wireleap_relay.wire.endpoint import Endpoint, join
from wireleap_relay.wire.keys import SigningKey

_FAMILIES: tuple[Family, ...] = ("4", "6")
#: Seconds for each answer.
_PATIENCE = 3.0
_CLOCK_OFF, _CLOCK_WRONG = 2.5, 30.0
_NTP = "set it, and keep it right with chrony or systemd-timesyncd"
_FROM_HERE = (
    "open it in the firewall, and look at what stands in between; from here it may be out of reach all the same"
)


class Calls:
    """Asks everybody once."""

    def __init__(self, reactor: Any, config: Config, key: SigningKey, runs: bool) -> None:
        """Ask in a relay's name.

        :param runs: whether it runs, and so can be called.
        """
        self._reactor = reactor
        self._config = config
        self._key = key
        self._runs = runs
        agent = Agent(reactor, BrowserLikePolicyForHTTPS(), connectTimeout=_PATIENCE, pool=make_pool(reactor))
        self._client = SignedClient(agent, reactor, key, timeout=_PATIENCE, policy=RetryPolicy(tries=1))
        self._resolver = Resolver(reactor)

    def all(self) -> Iterator[AsyncIterator[Finding]]:
        """Give all questions; they may be asked at the same time."""
        hosts = [urlsplit(url).hostname or "" for url in self._config.contracts]
        hosts += [contract.address.host for contract in self._config.contracts.values()]
        yield self._names(list(dict.fromkeys(filter(_is_name, hosts))))
        for url, contract in self._config.contracts.items():
            yield self._contract(url, contract)
        if self._runs:
            for address in dict.fromkeys(contract.address for contract in self._config.contracts.values()):
                yield self._way(address)

    async def close(self) -> None:
        """Ask no more."""
        self._resolver.stopService()

    async def _names(self, hosts: list[str]) -> AsyncIterator[Finding]:
        begin = self._reactor.seconds()
        asked = {(host, family): self._look_up(host, family) for host in hosts for family in _FAMILIES}
        trouble = False
        for host in hosts:
            outcomes = [await asked[host, family] for family in _FAMILIES]
            if not any(isinstance(outcome, tuple) and outcome for outcome in outcomes):
                trouble = True
                why = next((f": {outcome}" for outcome in outcomes if isinstance(outcome, str)), "")
                yield Finding(
                    "fail", "names", f"{host} has no address{why}", "look at /etc/resolv.conf, and at the name"
                )
        if hosts and not trouble:
            took = (self._reactor.seconds() - begin) * 1000
            yield Finding("ok", "names", f"{' and '.join(hosts)}: looked up in {took:.0f} ms")

    def _look_up(self, host: str, family: Family) -> Deferred[tuple[str, ...] | str]:
        """Find a name's addresses, or why they can't be had."""

        def failed(failure: Failure) -> str:
            failure.trap(LookupFailed, TooLate)
            return "no name server has answered in time" if failure.check(TooLate) else failure.getErrorMessage()

        found: Deferred[tuple[str, ...] | str] = Deferred()
        self._resolver.look_up(host, family).addTimeout(_PATIENCE, self._reactor).addErrback(failed).chainDeferred(
            found
        )
        return found

    async def _contract(self, url: Endpoint, contract: ContractConfig) -> AsyncIterator[Finding]:
        asked = time.time()
        try:
            reply = await self._client.call(Request("GET", join(url, "/info")))
            answered = time.time()
            info = read_answer(reply, ContractInfo)
        except UpstreamFailed as e:
            yield Finding(
                "fail", "contract", f"{url} does not answer as it should: {e}", "see whether the URL is right"
            )
            return
        version = f", version {info.version}" if info.version is not None else ""
        took = (answered - asked) * 1000
        yield Finding("ok", "contract", f"{url} has answered in {took:.0f} ms; its key is {info.pubkey}{version}")
        for finding in _clock(url, reply.header("Date"), (asked + answered) / 2):
            yield finding
        directory = HttpDirectory(self._client, self._reactor, info.directory, self._in_thread)
        try:
            known = await directory.info()
            relays = await directory.relays()
        except UpstreamFailed as e:
            yield Finding("fail", "directory", f"{info.directory.endpoint} does not answer as it should: {e}")
            return
        version = f", version {known.version}" if known.version else ""
        yield Finding("ok", "directory", f"{info.directory.endpoint} lists {len(relays)} relays{version}")
        listed = [entry for entry in relays.values() if entry.pubkey == self._key.public_key]
        if not listed:
            todo = "`wireleap-relay status` tells why" if self._runs else "it is listed while it runs"
            yield Finding("warn", "directory", "this relay is not listed there", todo)
        elif any(entry.address != contract.address or entry.role != contract.role for entry in listed):
            [entry] = listed[:1]
            yield Finding(
                "warn",
                "directory",
                f"this relay is listed there as {entry.role} at {entry.address}, which is not what the config says",
                "does another relay run with this key?" if self._runs else "it was stopped without a farewell",
            )
        else:
            yield Finding("ok", "directory", f"this relay is listed there as {contract.role} at {contract.address}")

    async def _way(self, address: Address) -> AsyncIterator[Finding]:
        try:
            way = await probe(self._reactor, address, self._key.public_key, _PATIENCE)
        except NotReached as e:
            yield Finding("fail", "address", str(e), _FROM_HERE)
            return
        yield Finding("ok", "address", f"{address} has answered a PING from here in {way.seconds * 1000:.0f} ms")
        if not way.tells_errors:
            yield Finding(
                "warn",
                "address",
                "the web server in between drops trailers, so clients do not learn why a tunnel ends",
                "see its documentation for gRPC, which needs them as well",
            )

    def _in_thread(self, work: Callable[[], str]) -> Deferred[str]:
        return deferToThreadPool(self._reactor, self._reactor.getThreadPool(), work)


def _is_name(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return bool(host)
    return False


def _clock(url: str, date: str, ours: float) -> Iterator[Finding]:
    try:
        theirs = parsedate_to_datetime(date).timestamp() + 0.5  # it leaves out the fraction of the second
    except ValueError:
        yield Finding("warn", "clock", f"{url} does not tell the time, so this machine's can't be compared")
        return
    off = ours - theirs
    what = f"this machine's clock is {abs(off):.1f} s {'ahead of' if off > 0 else 'behind'} that of {url}"
    if abs(off) <= _CLOCK_OFF:
        yield Finding("ok", "clock", what)
    else:
        yield Finding("fail" if abs(off) > _CLOCK_WRONG else "warn", "clock", what, _NTP)
