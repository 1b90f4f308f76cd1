"""``top``: the relay at a glance, live in a terminal."""

from __future__ import annotations

import os
import select
import sys
import termios
import time
import tty
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live

from wireleap_relay.admin.words import printable
from wireleap_relay.cli.command import OK, Command, CommandError
from wireleap_relay.cli.screen import screen
from wireleap_relay.daemon.ask import Silent, ask
from wireleap_relay.home import Home

_PATHS = ("health", "contracts", "tokens", "usage", "workers", "events")
_WIDE = 160
_LEAVES = (b"q", b"Q", b"\x1b", b"\x03", b"\x04")


def _top(arguments: Namespace) -> int:
    console = Console(highlight=False, width=None if sys.stdout.isatty() else _WIDE)
    try:
        data = _ask(arguments.home)
    except Silent as e:
        raise CommandError(f"the relay does not say how it gets on: {e}") from None
    if arguments.once or not console.is_terminal:
        console.print(screen(data, _now()))
        return OK
    _watch(console, arguments.home, data, arguments.interval)
    return OK


def _ask(home: Home) -> dict[str, Any]:
    answers = ask(home, *(f"/api/{path}" for path in _PATHS))
    return {path: _printable(answer) for path, answer in zip(_PATHS, answers, strict=True)}


def _printable(data: Any) -> Any:
    """Take out what texts of contracts and directories might do to a terminal."""
    match data:
        case str():
            return printable(data)
        case list():
            return [_printable(each) for each in data]
        case dict():
            return {name: _printable(value) for name, value in data.items()}
        case _:
            return data


def _watch(console: Console, home: Home, data: dict[str, Any], interval: float) -> None:
    trouble = ""
    with _keys() as key_within, Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            live.update(_whole(data, trouble, interval), refresh=True)
            if key_within(interval) in _LEAVES:
                return
            try:
                data, trouble = _ask(home), ""
            except Silent as e:
                trouble = f"The relay does not say how it gets on: {e}"


def _whole(data: dict[str, Any], trouble: str, interval: float) -> RenderableType:
    return Group(screen(data, _now(), trouble), f"q leaves; every {interval:g} s")


@contextmanager
def _keys() -> Iterator[Callable[[float], bytes]]:
    """Give a function that waits for a key, so many seconds at most."""
    if not sys.stdin.isatty():
        yield _no_key
        return
    terminal = sys.stdin.fileno()
    before = termios.tcgetattr(terminal)

    def key_within(seconds: float) -> bytes:
        ready, _, _ = select.select([terminal], [], [], seconds)
        return os.read(terminal, 64) if ready else b""

    try:
        tty.setcbreak(terminal)
        yield key_within
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)


def _no_key(seconds: float) -> bytes:
    time.sleep(seconds)
    return b""


def _now() -> int:
    return round(time.time() * 1000)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0.5 <= seconds <= 3600:
        raise ArgumentTypeError("expected seconds from 0.5 to 3600")
    return seconds


def _top_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--interval", type=_seconds, default=2.0, metavar="SECONDS", help="between looks [2]")
    parser.add_argument("--once", action="store_true", help="print once; so it does wherever there is no terminal")


TOP = Command(
    "top",
    "watch the relay live",
    "Shows traffic, contracts, sharetokens, processes and the last events of a running relay, until you press q.",
    _top,
    _top_arguments,
)
