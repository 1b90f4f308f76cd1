"""What there is to play with in the manhole: figures and states, and never an address of a client or a target."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from wireleap_relay.admin import snapshot
from wireleap_relay.admin.view import View
from wireleap_relay.admin.words import percent, printable, size, span

_HELP = """\
This is Python, inside the relay's process. Names without brackets show how things stand:

  relay       the relay; relay.status(), relay.health(), relay.reload(), relay.report()
  contracts   states, limits and what is owed; contracts() gives the values
  tokens      the ledger of sharetokens; tokens() gives the values
  usage       what was carried in this window; usage() gives the values
  tunnels()   how many there are, and what became of the others: counts only
  help()      this; help(x) explains x

Control-D leaves."""


class Controlled(Protocol):
    """A relay that can be told something."""

    def reload(self) -> bool:
        """Read the config again."""

    def report(self) -> object:
        """Log the status, and write the usage of the network."""


class Shown:
    """Shows how something stands whenever it is looked at; called, it gives the values."""

    def __init__(self, about: str, read: Callable[[], Any], write: Callable[[], str]) -> None:
        """Show something."""
        self.__doc__ = about
        self._read = read
        self._write = write

    def __call__(self) -> Any:
        """Give the values."""
        return self._read()

    def __repr__(self) -> str:
        return printable(self._write())


class RelayHandle:
    """The relay: status() and health() tell how it is, reload() reads its config again, report() logs its status."""

    def __init__(self, relay: Controlled, view: Callable[[], View]) -> None:
        """Hold a relay."""
        self._relay = relay
        self._view = view

    def __repr__(self) -> str:
        view = self._view()
        health = snapshot.api_health(view)
        lines = [
            f"relay {view.relay}, version {view.version}, up for {span((view.now - view.started_at) / 1000)}",
            "healthy" if health["healthy"] else "not healthy",
            *(f"  {line}" for line in [*health["reasons"], *health["warnings"]]),
        ]
        return printable("\n".join(lines))

    def status(self) -> dict[str, Any]:
        """Give what /api/status shows."""
        return snapshot.api_status(self._view())

    def health(self) -> dict[str, Any]:
        """Give what /api/health shows."""
        return snapshot.api_health(self._view())

    def reload(self) -> bool:
        """Read the config again, as SIGUSR1 does; the log says what was wrong with it."""
        return self._relay.reload()

    def report(self) -> object:
        """Log the status and write stats.json, as SIGUSR2 does."""
        return self._relay.report()


class Help:
    """Explains the names, or one thing."""

    def __call__(self, about: object = None) -> None:
        """Explain."""
        print(self if about is None else (getattr(about, "__doc__", None) or "There is nothing to say about that."))  # noqa: T201

    def __repr__(self) -> str:
        return _HELP


def make_namespace(relay: Controlled, view: Callable[[], View]) -> dict[str, object]:
    """Make the names that a manhole begins with."""
    return {
        "relay": RelayHandle(relay, view),
        "contracts": Shown("The contracts.", lambda: view().contracts, lambda: _contracts(view())),
        "tokens": Shown("The ledger of sharetokens.", lambda: view().tokens, lambda: _tokens(view())),
        "usage": Shown(
            "What was carried in this window.", lambda: (view().reading, view().outlook), lambda: _usage(view())
        ),
        "tunnels": Shown("Counts of tunnels.", lambda: _Tunnels(view()), lambda: _tunnels(view())),
        "help": Help(),
    }


class _Tunnels(dict[str, Any]):
    """What /api/workers says of tunnels, shown as a table."""

    def __init__(self, view: View) -> None:
        super().__init__(snapshot.api_workers(view)["tunnels"])
        self._text = _tunnels(view)

    def __repr__(self) -> str:
        return self._text


def _contracts(view: View) -> str:
    lines = []
    for status in view.contracts:
        usage = ""
        if status.usage is not None:
            usage = f"  {size(status.usage.carried)}"
            if status.limit is not None:
                usage += f" of {size(status.limit)} ({percent(status.usage.carried, status.limit)})"
        earnings = view.earnings.get(status.url)
        balance = earnings.balance if earnings is not None else None
        owed = f"  owes {balance.available} {balance.currency}" if balance is not None else ""
        trouble = f"  {status.trouble}" if status.trouble else ""
        lines.append(f"{status.url}  {status.role}  {status.state}{usage}{owed}{trouble}")
    return "\n".join(lines) or "none"


def _tokens(view: View) -> str:
    lines = []
    for tokens in view.tokens.contracts:
        counts = tokens.counts
        closes = f"; closes in {span(tokens.closing.closes - view.now / 1000)}" if tokens.closing is not None else ""
        lines.append(
            f"{tokens.name}  held {counts.held}, being handed in {counts.submitting}, taken {counts.submitted},"
            f" refused {counts.refused}, expired {counts.expired}{closes}"
        )
    return "\n".join([*lines, *view.tokens.alarms]) or "none yet"


def _usage(view: View) -> str:
    if view.reading is None or view.outlook is None:
        return "nothing is measured: set network_usage.timeframe for that"
    left = span((view.reading.end - view.reading.now) / 1000)
    limit = f" of {size(view.outlook.limit)}" if view.outlook.limit is not None else ""
    lines = [f"{size(view.outlook.carried)}{limit}, {size(view.outlook.forecast)} at the end in {left}"]
    lines += [f"  {view.url(contract)}  {size(carried)}" for contract, carried in view.reading.carried.items()]
    return "\n".join(lines)


def _tunnels(view: View) -> str:
    counts: Mapping[str, Any] = snapshot.api_workers(view)["tunnels"]
    return "\n".join(f"{name}  {json.dumps(value)}" for name, value in counts.items())
