"""The command that explains whether something would be dialled."""

from __future__ import annotations

import socket
from argparse import ArgumentParser, Namespace

from wireleap_relay.cli.command import FAILED, OK, Command, CommandError, warn
from wireleap_relay.config import parse_config
from wireleap_relay.home import Home
from wireleap_relay.wire.address import Address
from wireleap_relay.wire.errors import WireError


def _policy(arguments: Namespace) -> int:
    # Nothing of the data plane is loaded before it is asked for.
    from wireleap_relay.boundaries import Refused
    from wireleap_relay.tunnel.dial import is_here
    from wireleap_relay.tunnel.policy import DialPolicy

    home: Home = arguments.home
    config, warnings = parse_config(home.read_config())
    warn(warnings)
    remote = _read(arguments.remote)
    policy = DialPolicy.from_config(config, is_here)
    refusals = set()
    for contract in config.contracts.values():
        try:
            policy.check_role(contract.role, remote.is_target)
        except Refused as e:
            refusals.add(e.description)
    if len(refusals) == len({contract.role for contract in config.contracts.values()}):
        print(f"{remote}: refused")
        print("\n".join(f"  {refusal}: that takes danger_zone.allow_targets" for refusal in sorted(refusals)))
        return FAILED
    decisions = [(host, policy.decide(host, remote.port, remote.is_target)) for host in _addresses(remote.host)]
    dials = any(decision.dials for _, decision in decisions)
    print(f"{remote}: {'dialled' if dials else 'refused'}")
    for host, decision in decisions:
        print(f"  {host}: {'accepted' if decision.dials else 'refused'} ({decision.why})")
    for refusal in sorted(refusals):
        print(f"  for some contracts only: {refusal}")
    return OK if dials else FAILED


def _read(text: str) -> Address:
    try:
        return Address.from_text(text if "://" in text else f"target://{text}")
    except WireError as e:
        raise CommandError(f"{text}: {e}") from None


def _addresses(host: str) -> list[str]:
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as e:
        raise CommandError(f"{host} can't be looked up: {e}") from None
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def _policy_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "remote",
        metavar="HOST:PORT",
        help="a target, as a client would ask for it; wireleap://HOST:PORT for a relay",
    )


POLICY = Command(
    "policy",
    "explain whether the relay dials a target",
    "Looks a target up and tells, for each of its addresses, whether this relay's config lets it be dialled, and which"
    " rule or setting decides. Exits with 1 where none of them is dialled.",
    _policy,
    _policy_arguments,
)
