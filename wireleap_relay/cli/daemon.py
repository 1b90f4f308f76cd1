"""Commands that run the relay."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace

from wireleap_relay.cli.command import Command, CommandError, warn
from wireleap_relay.home import Home
from wireleap_relay.tap import load


def _start(arguments: Namespace) -> int:
    home: Home = arguments.home
    _, _, warnings = load(home)
    warn(warnings)
    if not arguments.fg:
        raise CommandError("running detached is not there yet: use `start --fg` under a supervisor such as systemd")
    return _run_twistd(["--nodaemon", f"--pidfile={home.pid}", "wireleap-relay", f"--home={home.path}"])


def _run_twistd(arguments: list[str]) -> int:
    """Become twistd."""
    from twisted.scripts import twistd

    sys.argv[1:] = arguments
    twistd.run()
    return 0


def _start_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--fg", action="store_true", help="stay in the foreground and log to the terminal")


START = Command(
    "start",
    "run the relay",
    "Runs the relay out of its home until it is told to stop: Ctrl-C or SIGTERM lets open tunnels finish for"
    " `drain_timeout`; a second signal ends it at once.",
    _start,
    _start_arguments,
)
