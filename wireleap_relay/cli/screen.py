"""What ``top`` shows, made of the REST API's data."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from wireleap_relay.admin.words import moment, percent, rate, size, span

_BARS = "▁▂▃▄▅▆▇█"
_SHOWN_RATES = 48
_SHOWN_EVENTS = 10
_FRESH = 25_000
_COLOURS = {"enrolled": "green", "backing off": "red", "withdrawn": "red", "running": "green", "gone": "red"}
_LEVELS = {"warn": "yellow", "error": "red", "critical": "bold red"}


def screen(data: dict[str, Any], now: int, trouble: str = "") -> RenderableType:
    """Show a relay.

    :param data: answers of the REST API, by their paths below ``/api/``.
    :param now: Unix milliseconds.
    :param trouble: why the data is old; empty where it isn't.
    """
    parts: list[RenderableType] = [_head(data["health"], now)]
    if trouble:
        parts.append(Text(trouble, "bold red"))
    parts += [
        *_traffic(data["usage"], data["workers"], now),
        _contracts(data["contracts"]["contracts"], now),
        _tokens(data["tokens"], now),
        _processes(data["workers"]),
        *_events(data["events"]["events"]),
    ]
    return Group(*parts)


def _head(health: dict[str, Any], now: int) -> RenderableType:
    state = Text("healthy", "green") if health["healthy"] else Text("not healthy", "bold red")
    up = span((now - health["started_at"]) / 1000)
    lines = [Text.assemble((f"wireleap-relay {health['version']}", "bold"), "  ", state, f"  up for {up}")]
    lines.append(Text(health["id"], "dim"))
    lines += [Text(f"! {reason}", "red") for reason in health["reasons"]]
    lines += [Text(f"! {warning}", "yellow") for warning in health["warnings"]]
    return Group(*lines)


def _traffic(usage: dict[str, Any], workers: dict[str, Any], now: int) -> list[RenderableType]:
    rates = usage["rates"]
    fresh = rates and now - rates[-1][0] < _FRESH
    lines: list[RenderableType] = [Text()]
    for column, name, colour in ((1, "from clients", "blue"), (2, "from targets", "magenta")):
        latest = rate(rates[-1][column] if fresh else 0)
        lines.append(Text.assemble(f"{name} {latest:>11}  ", (_bars([each[column] for each in rates]), colour)))
    tunnels = workers["tunnels"]
    lines.append(
        Text(
            f"{tunnels['open']} tunnels open on {workers['connections']} connections, {tunnels['opened']} opened,"
            f" {sum(tunnels['refused'].values())} refused; {sum(tunnels['offences'].values())} connections ended"
        )
    )
    window = usage["window"]
    if window is not None and window["total"] is not None:
        total = window["total"]
        limit = f" of {size(total['limit'])}" if total["limit"] is not None else ""
        left = span((window["end"] - now) / 1000)
        lines.append(
            Text(f"{size(total['carried'])}{limit} in this window; {size(total['forecast'])} at its end in {left}")
        )
    return lines


def _bars(values: Sequence[int]) -> str:
    shown = values[-_SHOWN_RATES:]
    most = max([1024, *shown])
    return "".join(_BARS[min(len(_BARS) - 1, value * len(_BARS) // most)] for value in shown)


def _table(*heads: str) -> Table:
    """Make a table; heads that begin with ``#`` are of columns with figures."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold", title_justify="left")
    for number, head in enumerate(heads):
        justify: Literal["left", "right"] = "right" if head.startswith("#") else "left"
        # In a narrow terminal the first column, with the longest names, gives way.
        table.add_column(head.lstrip("#"), justify=justify, no_wrap=number > 0, overflow="ellipsis")
    return table


def _row(table: Table, *cells: str | Text) -> None:
    table.add_row(*(cell if isinstance(cell, Text) else Text(cell) for cell in cells))


def _contracts(contracts: Iterable[dict[str, Any]], now: int) -> RenderableType:
    table = _table("\nCONTRACT", "\nROLE", "\nSTATE", "#\nWINDOW", "#\nLIMIT", "#\nUSED", "#\nFORECAST", "#\nOWED")
    for contract in contracts:
        usage, balance = contract["usage"], contract["balance"]
        limit = contract["limit"]
        forecast = "-"
        if usage is not None:
            reached = usage["reached_at"]
            forecast = f"full in {span((reached - now) / 1000)}" if reached is not None else size(usage["forecast"])
        _row(
            table,
            contract["url"],
            contract["role"],
            Text(contract["state"], _COLOURS.get(contract["state"], "yellow")),
            size(usage["carried"]) if usage is not None else "-",
            size(limit) if limit is not None else "-",
            percent(usage["carried"], limit) if usage is not None and limit is not None else "-",
            forecast,
            f"{balance['available']} {balance['currency']}" if balance is not None else "-",
        )
    return table


def _tokens(tokens: dict[str, Any], now: int) -> RenderableType:
    table = _table("\nSHARETOKENS", "#\nHELD", "#\nHANDING IN", "#\nTAKEN", "#\nREFUSED", "#\nEXPIRED", "\nWINDOW")
    for each in tokens["contracts"]:
        window = each["window"]
        words = ""
        if window is not None:
            opens, closes = ((window[key] - now) / 1000 for key in ("opens", "closes"))
            words = f"opens in {span(opens)}" if opens > 0 else f"closes in {span(closes)}"
        counts = (str(each[state]) for state in ("held", "submitting", "submitted", "refused", "expired"))
        _row(table, each["contract"], *counts, words)
    return table


def _processes(workers: dict[str, Any]) -> RenderableType:
    table = _table(
        "\nPROCESS", "\nSTATE", "#\nCONNS", "#\nTUNNELS", "#\nCPU", "#\nMEMORY", "#\nFILES", "#\nLATE BY", "#\nRESTARTS"
    )
    daemon = {"state": "running", "process": workers["daemon"], "connections": "-", "tunnels": "-", "restarts": "-"}
    for name, each in [("daemon", daemon), *((f"worker {each['number']}", each) for each in workers["workers"])]:
        process = each["process"]
        _row(
            table,
            name,
            Text(each["state"], _COLOURS.get(each["state"], "yellow")),
            str(each["connections"]),
            str(each["tunnels"]),
            span(process["cpu_seconds"]),
            size(process["memory"]),
            str(process["descriptors"]),
            f"{process['lag'] * 1000:.0f} ms",
            str(each["restarts"]),
        )
    return table


def _events(events: Sequence[dict[str, Any]]) -> list[RenderableType]:
    lines: list[RenderableType] = [Text("\nRECENT EVENTS", "bold")]
    for event in events[:_SHOWN_EVENTS]:
        line = Text.assemble((moment(event["at"]), "dim"), "  ", (event["text"], _LEVELS.get(event["level"], "")))
        line.no_wrap, line.overflow = True, "ellipsis"
        lines.append(line)
    return lines
