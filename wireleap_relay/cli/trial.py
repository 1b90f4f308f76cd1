"""The command that shows a whole network on this machine."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from wireleap_relay.cli.command import Command


def _sandbox(arguments: Namespace) -> int:
    # The sandbox is for trying things out: nothing of it is loaded before it is asked for.
    from wireleap_relay.sandbox.main import run

    return run(once=arguments.once is not None, url=arguments.once or None, network_only=arguments.network_only)


def _sandbox_arguments(parser: ArgumentParser) -> None:
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--once",
        nargs="?",
        const="",
        metavar="URL",
        help="fetch a page [default: one of its own], tell how it went, and exit",
    )
    what.add_argument("--network-only", action="store_true", help="run the contract and the directory alone")


SANDBOX = Command(
    "sandbox",
    "try a whole network on this machine",
    "Starts a contract, a directory, three relays and a client on loopback, each relay with a home of its own,"
    " and stays until Ctrl-C; the client has a SOCKS5 door for any program. With --once it fetches a page through"
    " all three relays, shows what each of them did and earned, and exits.",
    _sandbox,
    _sandbox_arguments,
)
