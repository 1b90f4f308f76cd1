"""``wireleap-relay sandbox``: a contract, a directory, three relays and a client on this machine."""

from __future__ import annotations

import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_args

from rich.console import Console
from rich.live import Live
from rich.table import Table
from twisted.application.service import MultiService, Service
from twisted.internet.defer import CancelledError, Deferred, gatherResults, maybeDeferred
from twisted.internet.task import deferLater, react
from twisted.logger import ILogObserver, LogLevel, eventAsText, globalLogBeginner
from twisted.web.resource import Resource
from twisted.web.server import Request, Site
from zope.interface import implementer

from wireleap_relay.home import write_json_durably
from wireleap_relay.sandbox.circuit import Circuit
from wireleap_relay.sandbox.fetch import fetch
from wireleap_relay.sandbox.ledger import Account, Terms
from wireleap_relay.sandbox.network import SandboxNetwork
from wireleap_relay.sandbox.relays import RelayProcess
from wireleap_relay.sandbox.socks import SocksFactory
from wireleap_relay.sandbox.wallet import BoughtWallet
from wireleap_relay.wire.relayentry import Role
from wireleap_relay.wire.structure import converter

_LOOPBACK = "127.0.0.1"
_ROLES: tuple[Role, ...] = get_args(Role)
#: Short enough to see a servicekey settled while one watches.
_ONCE = Terms(duration=4.0, submission_window=4.0)
_STAYING = Terms(duration=60.0, submission_window=30.0)
_SOCKS_PORT = 13491
_NETWORK_PORT = 13480
_STARTUP = 30.0

_PAGE = b"""<!doctype html><title>It works</title>
<p>This page came through a fronting, an entropic and a backing relay, each paid with a sharetoken.</p>
"""


class SandboxFailed(Exception):
    """The sandbox could not do what it was asked; the text says why."""


class _Page(Resource):
    isLeaf = True

    def render_GET(self, request: Request) -> bytes:
        request.setHeader(b"content-type", b"text/html; charset=utf-8")
        return _PAGE


class Sandbox(MultiService):
    """The whole network.

    :ivar relays: in the order of a circuit.
    """

    network: SandboxNetwork
    relays: Sequence[RelayProcess] = ()
    wallet: BoughtWallet
    circuit: Circuit

    def __init__(self, reactor: Any, folder: Path, terms: Terms, network_port: int = 0) -> None:
        """Make homes in a folder."""
        super().__init__()
        self.setName("sandbox")
        self._reactor = reactor
        self.folder = folder
        self._terms = terms
        self.network = SandboxNetwork(reactor, time.time, terms=terms, port=network_port)
        self.network.setServiceParent(self)

    def stopService(self) -> Deferred[None]:
        """Stop the relays, and then the network: they tell its directory that they leave."""
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        await gatherResults([maybeDeferred(relay.disownServiceParent) for relay in self.relays], consumeErrors=True)
        await maybeDeferred(super().stopService)

    def start_relays(self) -> None:
        """Make and start a relay of each role."""
        submit_every = min(self._terms.submission_window / 4, 5.0)
        contract = self.network.contract.endpoint
        self.relays = [RelayProcess(self._reactor, self.folder / role, role, contract, submit_every) for role in _ROLES]
        for relay in self.relays:
            relay.setServiceParent(self)

    async def until_enrolled(self) -> None:
        """Wait for the directory to list every relay.

        :raises SandboxFailed: where one dies, or takes too long.
        """
        deadline = self._reactor.seconds() + _STARTUP
        while True:
            listed = self.network.directory.status()
            if all(relay.hop.pubkey in listed for relay in self.relays):
                return
            for relay in self.relays:
                if relay.died or self._reactor.seconds() > deadline:
                    what = "ended" if relay.died else "is not enrolled in time"
                    raise SandboxFailed(f"the {relay.role} relay {what}; it said:\n{relay.log.read_text()}")
            await deferLater(self._reactor, 0.05)

    async def open_wallet(self) -> None:
        """Buy a servicekey, and make a circuit that is paid with it."""
        contract = self.network.contract
        self.wallet = BoughtWallet(self._reactor, time.time, contract.endpoint, contract.issue)
        await self.wallet.buy()
        self.circuit = Circuit(self._reactor, [relay.hop for relay in self.relays], self.wallet)

    def account(self, relay: RelayProcess) -> Account:
        """Tell what the contract's books say of a relay."""
        return self.network.contract.status().accounts.get(relay.hop.pubkey, Account())


class _Story:
    """Tells what happens, step by step."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._start = time.monotonic()

    def step(self, text: str) -> None:
        self._console.print(
            f"[dim]{time.monotonic() - self._start:6.2f} s[/dim]  {text}", highlight=False, soft_wrap=True
        )


async def _once(reactor: Any, sandbox: Sandbox, url: str | None, console: Console) -> None:
    story = _Story(console)
    story.step(f"contract   {sandbox.network.contract.endpoint}")
    story.step(f"directory  {sandbox.network.directory.pointer.endpoint}")
    sandbox.start_relays()
    for relay in sandbox.relays:
        story.step(f"{relay.role:<10} {relay.hop.address} starts as process {relay.pid}")
    await sandbox.until_enrolled()
    story.step("all three relays are enrolled")
    if url is None:
        site = Site(_Page(), reactor=reactor)
        site.noisy = False
        port = reactor.listenTCP(0, site, interface=_LOOPBACK)
        _closing(sandbox, port)
        url = f"http://{_LOOPBACK}:{port.getHost().port}/"
    await sandbox.open_wallet()
    story.step("bought a servicekey; fetching through fronting -> entropic -> backing")
    try:
        page = await fetch(reactor, sandbox.circuit, url)
    except Exception as e:
        raise SandboxFailed(f"{url} could not be fetched: {e}") from e
    finally:
        sandbox.circuit.close()
    story.step(f"{url}: HTTP {page.status}, {len(page.body)} bytes in {page.seconds * 1000:.0f} ms")
    for index, (hop, seconds) in enumerate(zip(sandbox.circuit.hops, sandbox.circuit.times, strict=True)):
        story.step(f"  hop {index + 1}: {_ROLES[index]:<9} {hop.address} reached after {seconds * 1000:.0f} ms")
    left = sandbox.wallet.statement.settlement_close + 1 - time.time()
    story.step(f"the servicekey is settled in {left:.0f} s; meanwhile relays submit their sharetokens")
    told = dict.fromkeys(_ROLES, 0)
    deadline = reactor.seconds() + left + 5
    while sandbox.network.contract.status().settled < 1:
        for relay in sandbox.relays:
            count = sandbox.account(relay).awaiting
            if count > told[relay.role]:
                told[relay.role] = count
                story.step(f"  {relay.role:<9} has submitted {count} sharetoken{'s' * (count > 1)}")
        if reactor.seconds() > deadline:
            raise SandboxFailed("the contract settled nothing in time")
        await deferLater(reactor, 0.1)
    status = sandbox.network.contract.status()
    table = Table("relay", "sharetokens", "earned", title="Settled", title_justify="left")
    for relay in sandbox.relays:
        account = sandbox.account(relay)
        table.add_row(relay.role, str(account.settled), f"{float(account.earned):.2f} usd")
    table.add_row("contract's fee", "", f"{float(status.kept):.2f} usd")
    console.print(table)
    if any(not sandbox.account(relay).settled for relay in sandbox.relays):
        raise SandboxFailed("a relay was not paid")


async def _stay(reactor: Any, sandbox: Sandbox, console: Console) -> None:
    story = _Story(console)
    sandbox.start_relays()
    story.step("three relays start")
    await sandbox.until_enrolled()
    await sandbox.open_wallet()
    sandbox.wallet.keep_buying(_STAYING.duration / 2)
    door = reactor.listenTCP(_free_or(_SOCKS_PORT), SocksFactory(sandbox.circuit, reactor), interface=_LOOPBACK)
    _closing(sandbox, door)
    console.print(
        f"\nThe network is up. Try it:\n\n"
        f"    curl --socks5-hostname {_LOOPBACK}:{door.getHost().port} http://example.com/\n\n"
        f"Contract: {sandbox.network.contract.endpoint}   Ctrl-C ends it.\n",
        highlight=False,
    )
    try:
        with Live(_table(sandbox), console=console, auto_refresh=False, transient=not console.is_terminal) as live:
            while True:
                await deferLater(reactor, 1.0)
                if console.is_terminal:
                    live.update(_table(sandbox), refresh=True)
    finally:
        sandbox.wallet.stop()
        sandbox.circuit.close()
        story.step("stopping")


def _table(sandbox: Sandbox) -> Table:
    table = Table("relay", "address", "enrolled", "sharetokens awaiting", "settled", "earned")
    listed = sandbox.network.directory.status()
    for relay in sandbox.relays:
        account = sandbox.account(relay)
        table.add_row(
            relay.role,
            str(relay.hop.address),
            "yes" if relay.hop.pubkey in listed else "no",
            str(account.awaiting),
            str(account.settled),
            f"{float(account.earned):.2f} usd",
        )
    return table


async def _network_only(sandbox: Sandbox, console: Console) -> None:
    contract = sandbox.network.contract
    file = sandbox.folder / "accesskey.json"
    write_json_durably(file, converter.unstructure(contract.access_key(100)), 0o600)
    console.print(
        f"contract   {contract.endpoint}  (public key {contract.id})\n"
        f"directory  {sandbox.network.directory.pointer.endpoint}\n"
        f"accesskey  file://{file}\nCtrl-C ends it.",
        highlight=False,
    )
    await Deferred()


async def _on_interrupt(reactor: Any, stop: Callable[[], None]) -> None:
    """Let Ctrl-C and SIGTERM stop what was started, instead of the reactor alone."""
    # As it begins to run, the reactor takes the signals for itself.
    await deferLater(reactor, 0)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: reactor.callFromThread(stop))


def _closing(sandbox: Sandbox, port: Any) -> None:
    closer = Service()
    closer.stopService = port.stopListening  # type: ignore[method-assign]
    closer.setServiceParent(sandbox)


def _free_or(port: int) -> int:
    """Give the port if nobody has it, else any."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_LOOPBACK, port))
        except OSError:
            return 0
        return port


def run(*, once: bool, url: str | None, network_only: bool) -> int:
    """Run the sandbox.

    :returns: the exit code.
    """
    console = Console()
    outcome = [0]

    async def main(reactor: Any) -> None:
        with tempfile.TemporaryDirectory(prefix="wireleap-sandbox-") as folder:
            terms = _ONCE if once else Terms() if network_only else _STAYING
            sandbox = Sandbox(reactor, Path(folder), terms, _free_or(_NETWORK_PORT) if network_only else 0)
            sandbox.startService()
            await _on_interrupt(reactor, lambda: work.cancel())
            if network_only:
                work = Deferred.fromCoroutine(_network_only(sandbox, console))
            elif once:
                work = Deferred.fromCoroutine(_once(reactor, sandbox, url, console))
            else:
                work = Deferred.fromCoroutine(_stay(reactor, sandbox, console))
            try:
                await work
            except CancelledError:
                outcome[0] = 130 if once else 0
            except SandboxFailed as e:
                Console(stderr=True).print(f"wireleap-relay: {e}", highlight=False, markup=False)
                outcome[0] = 1
            finally:
                await maybeDeferred(sandbox.stopService)

    @implementer(ILogObserver)
    def observe(event: Any) -> None:
        if event.get("log_level", LogLevel.info) >= LogLevel.error:
            sys.stderr.write(eventAsText(event, includeTimestamp=False, includeSystem=False) + "\n")

    globalLogBeginner.beginLoggingTo([observe], redirectStandardIO=False)
    try:
        react(lambda reactor: Deferred.fromCoroutine(main(reactor)))
    except SystemExit as e:
        if e.code:
            return 1
    return outcome[0]
