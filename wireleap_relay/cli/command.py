"""What every command is made of."""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterable
from typing import TextIO

import attrs

OK, FAILED, MISUSED = 0, 1, 2
#: Of `status`: whether the relay runs can't be told.
UNKNOWN = 2


def _no_arguments(_: ArgumentParser) -> None:
    pass


@attrs.frozen
class Command:
    """One command.

    :ivar summary: a line for the list of commands.
    :ivar details: what its own ``--help`` explains.
    :ivar run: does it, and gives the exit code.
    :ivar hidden: whether it is for this software's own use, and not listed.
    """

    name: str
    summary: str
    details: str
    run: Callable[[Namespace], int]
    add_arguments: Callable[[ArgumentParser], None] = _no_arguments
    hidden: bool = False


class CommandError(Exception):
    """A command failed; the text is what the operator reads."""


def complain(text: str) -> None:
    """Write to standard error, each line under the command's name."""
    for line in text.splitlines():
        print(f"wireleap-relay: {line}", file=sys.stderr)


def warn(warnings: Iterable[str]) -> None:
    """Tell of what does not keep a command from its work."""
    for warning in warnings:
        complain(f"warning: {warning}")


def is_for_people(out: TextIO) -> bool:
    """Tell whether somebody reads along: only then there may be colours and progress."""
    return out.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
