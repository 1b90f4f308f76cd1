"""The command that tells how the relay gets on."""

from __future__ import annotations

import json
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from typing import Any

from wireleap_relay.admin.words import printable, size
from wireleap_relay.cli.command import FAILED, OK, UNKNOWN, Command, complain, is_for_people
from wireleap_relay.cli.words import columns, duration, until
from wireleap_relay.daemon.ask import Silent, ask
from wireleap_relay.daemon.state import look
from wireleap_relay.home import Home

_PATHS = ("/control", "/api/status", "/api/health", "/api/contracts", "/api/tokens", "/api/usage", "/api/workers")
#: For plots: too much to read.
_LEFT_OUT = ("rates", "points", "archive")
_COLOURS = {"enrolled": "32", "enrolling": "33", "waiting": "33"}


def _status(arguments: Namespace) -> int:
    home: Home = arguments.home
    state = look(home)
    found: dict[str, Any] = {}
    silence = ""
    if state.kind == "running" and state.ours:
        try:
            found = _ask(home)
        except Silent as e:
            # One that is just being started has no voice yet.
            silence = f"the relay does not say how it gets on: {e}" if state.pid is not None else ""
    if arguments.json:
        data = {"state": state.kind, "pid": state.pid, "note": state.why or silence, **found}
        print(json.dumps(data, indent=4))
    else:
        for note in filter(None, (state.why, silence)):
            complain(note)
        if state.kind == "running":
            who = f"as process {state.pid}" if state.pid is not None else "since this moment"
            print(f"The relay runs {who}.")
        else:
            print(
                "The relay is not running." if state.kind == "stopped" else "It can't be told whether the relay runs."
            )
        for line in _report(found, is_for_people(sys.stdout)) if found else ():
            print(line)
    if silence:
        return UNKNOWN
    return {"running": OK, "stopped": FAILED, "unknown": UNKNOWN}[state.kind]


def _ask(home: Home) -> dict[str, Any]:
    answers = dict(zip(_PATHS, ask(home, *_PATHS), strict=True))
    usage = answers["/api/usage"]
    for part in (usage, usage["window"] or {}):
        for name in _LEFT_OUT:
            part.pop(name, None)
    return {path.rpartition("/")[2]: data for path, data in answers.items()}


def _report(found: dict[str, Any], colours: bool) -> Iterator[str]:
    """Write lines for people."""
    now = time.time() * 1000
    health, workers, control = found["health"], found["workers"], found["control"]
    doing = "stopping, since" if control["stopping"] else "up for"
    yield f"  version   {control['version']}, {doing} {duration((now - health['started_at']) / 1000)}"
    yield f"  identity  {health['id']}"
    tunnels = workers["tunnels"]
    refused = sum(tunnels["refused"].values())
    yield (
        f"  clients   {workers['connections']} connections, {tunnels['open']} tunnels;"
        f" {tunnels['opened']} opened and {refused} refused so far"
    )
    yield f"  traffic   {_window(found['usage']['window'], now)}"
    yield ""
    yield from columns(_contracts(found, now), _colour if colours else None)
    if workers["workers"]:
        yield ""
        yield from columns(_workers(workers["workers"]))
    for mark, sentences in (("fail", health["reasons"]), ("warn", health["warnings"])):
        for sentence in sentences:
            yield f"{mark}: {printable(sentence)}"


def _window(window: dict[str, Any] | None, now: float) -> str:
    if window is None or window["total"] is None:
        return "is not measured: set network_usage.timeframe"
    ends = f"this window ends in {duration((window['end'] - now) / 1000)}"
    return f"{_outlook(window['total'], now)}; {ends}"


def _outlook(outlook: dict[str, Any] | None, now: float) -> str:
    if outlook is None:
        return "-"
    of = f" of {size(outlook['limit'])}" if outlook["limit"] is not None else ""
    ahead = f", {size(outlook['forecast'])} expected"
    if outlook["reached_at"] is not None:
        ahead = ", limit reached" + (f" in {until(outlook['reached_at'], now)}" if outlook["reached_at"] > now else "")
    return f"{size(outlook['carried'])}{of}{ahead}"


def _contracts(found: dict[str, Any], now: float) -> list[list[str]]:
    rows = [["contract", "role", "state", "traffic", "tokens"]]
    counts = {ledger["id"]: ledger for ledger in found["tokens"]["contracts"]}
    for contract in found["contracts"]["contracts"]:
        state = contract["state"]
        if contract["next_try"] is not None:
            state += f" {contract['next_try']:.0f} s"
        rows.append(
            [
                contract["url"],
                contract["role"],
                state,
                _outlook(contract["usage"], now),
                _tokens(counts.get(contract["id"])),
            ]
        )
    return rows


def _tokens(ledger: dict[str, Any] | None) -> str:
    if ledger is None:
        return "none"
    states = ("held", "submitting", "submitted", "refused", "expired")
    said = [f"{ledger[state]} {state}" for state in states if ledger.get(state)]
    return ", ".join(said) or "none"


def _workers(workers: list[dict[str, Any]]) -> list[list[str]]:
    return [["worker", "process", "state", "connections", "tunnels", "memory", "restarts"]] + [
        [
            str(worker["number"]),
            str(worker["pid"] or "-"),
            worker["state"],
            str(worker["connections"]),
            str(worker["tunnels"]),
            size(worker["process"]["memory"]),
            str(worker["restarts"]),
        ]
        for worker in workers
    ]


def _colour(row: int, column: int, padded: str) -> str:
    if row == 0:
        return f"\x1b[1m{padded}\x1b[0m"
    if column != 2:
        return padded
    return f"\x1b[{_COLOURS.get(padded.strip(), '31')}m{padded}\x1b[0m"


def _status_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print all there is to know, as JSON")


STATUS = Command(
    "status",
    "tell how the relay gets on",
    "Tells whether the relay runs, and how it gets on: its clients, contracts, traffic and limits, sharetokens and"
    " workers. Exits with 0 if it runs, with 1 if not, and with 2 if that can't be told or it gives no answer.",
    _status,
    _status_arguments,
)
