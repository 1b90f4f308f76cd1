"""Commands that prepare a relay: init, check-config, version."""

from __future__ import annotations

import datetime
from argparse import ArgumentParser, Namespace

from wireleap_relay import __version__
from wireleap_relay.cli.command import FAILED, OK, Command, complain, warn
from wireleap_relay.config import example_config
from wireleap_relay.daemon.state import look
from wireleap_relay.home import Home, write_durably
from wireleap_relay.inspection import examine
from wireleap_relay.wire.versions import INTERFACES


def _init(arguments: Namespace) -> int:
    home: Home = arguments.home
    now = datetime.datetime.now(datetime.UTC)
    if home.key_seed.exists():
        made = home.complete_identity(now)
        print(f"{home.key_seed.name} was there already: its key is kept, and what else belongs to it was made of it.")
    else:
        home.create_identity(now)
        made = [home.key_seed, home.key_pub, home.certificate, home.tls_key]
    if not home.config.exists() and not home.config_example.exists():
        write_durably(home.config_example, example_config().encode())
        made.append(home.config_example)
    print(f"This relay's public key is {home.load_key().public_key}")
    print(f"Made in {home.path}: {', '.join(file.name for file in made)}")
    if not home.config.exists():
        print(f"Next: copy {home.config_example.name} to config.json, edit it, and run `wireleap-relay check-config`.")
    print(f"Keep a copy of {home.key_seed.name} in a safe place: whoever has it is this relay.")
    return OK


def _check_config(arguments: Namespace) -> int:
    home: Home = arguments.home
    runs = look(home).kind == "running"
    found = examine(home, runs=runs)
    warn(found.warnings)
    if found.mistakes:
        complain("\n".join(found.mistakes))
        return FAILED
    print("OK")
    return OK


def _version(arguments: Namespace) -> int:
    print(__version__)
    if arguments.verbose:
        for name, version in INTERFACES.items():
            print(f"{name} interface version {version}")
    return OK


def _version_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("-v", "--verbose", action="store_true", help="also print the versions of the interfaces")


INIT = Command(
    "init",
    "make a relay's key, certificate and example config",
    "Makes the relay's identity in its home: key.seed and key.pub, relay-cert.pem and relay-key.pem, and a"
    " config.example.json where there is no config. What is there already is never overwritten: beside a key.seed"
    " that was restored from a copy, only what is missing is made.",
    _init,
)
CHECK_CONFIG = Command(
    "check-config",
    "look at the config and at all that a relay needs",
    "Looks at config.json, the relay's key and certificate, at who may read and write its files, and whether it could"
    " listen at its addresses. Prints OK, or everything that is wrong, a line each, and exits with 1. Warnings tell"
    " of what works and may not be meant.",
    _check_config,
)
VERSION = Command("version", "print the version", "Prints the version of this software.", _version, _version_arguments)
