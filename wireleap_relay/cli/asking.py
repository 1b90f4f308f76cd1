"""What commands have in common that ask somebody over the network, or show figures."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Awaitable, Callable
from typing import Any

from rich.console import Console
from rich.table import Table
from twisted.internet.defer import Deferred
from twisted.internet.task import react

from wireleap_relay.boundaries import Upstream
from wireleap_relay.cli.command import FAILED, CommandError
from wireleap_relay.upstream.retry import RetryPolicy
from wireleap_relay.upstream.service import UpstreamService
from wireleap_relay.wire.keys import SigningKey

#: Somebody is waiting: once more, and soon.
_RETRIES = RetryPolicy(tries=2, interval=1.0)


def ask(key: SigningKey, questions: Callable[[Upstream], Awaitable[int]]) -> int:
    """Run the reactor for as long as questions are asked in a relay's name.

    :returns: the exit code that the questions came to.
    :raises CommandError: as they do.
    """
    outcome = [FAILED]
    problems: list[CommandError] = []

    async def main(reactor: Any) -> None:
        upstream = UpstreamService(reactor, key, policy=_RETRIES)
        upstream.startService()
        try:
            outcome[0] = await questions(upstream)
        except CommandError as e:
            problems.append(e)
        finally:
            await upstream.stopService()

    try:
        react(lambda reactor: Deferred.fromCoroutine(main(reactor)))
    except SystemExit as e:
        if e.code:
            return FAILED
    if problems:
        raise problems[0]
    return outcome[0]


def json_argument(parser: ArgumentParser) -> None:
    """Let figures be had as JSON."""
    parser.add_argument("--json", action="store_true", help="print JSON, on a terminal, too")


def wants_json(arguments: Namespace) -> bool:
    """Tell whether a program is going to read it."""
    return arguments.json or not sys.stdout.isatty()


def print_json(*values: Any) -> None:
    """Print JSON, indented by four as the Go relay does."""
    for value in values:
        print(json.dumps(value, indent=4))


def print_table(*headings: str, rows: list[tuple[str, ...]]) -> None:
    """Print a table; figures stand at the right."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for number, heading in enumerate(headings):
        figures = all(row[number][:1].isdigit() for row in rows)
        table.add_column(heading, justify="right" if figures else "left", no_wrap=not number)
    for row in rows:
        table.add_row(*row)
    Console(highlight=False, soft_wrap=True).print(table)
