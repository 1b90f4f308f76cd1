"""Looks at a home before a relay runs out of it: what can't work, and what is odd."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path

import attrs

from wireleap_relay.config import Config, ConfigError, parse_config
from wireleap_relay.configvalues import ListenAddress
from wireleap_relay.home import Home, HomeError, Identity
from wireleap_relay.wire.encoding import read_json
from wireleap_relay.wire.errors import WireError
from wireleap_relay.wire.jsontext import below
from wireleap_relay.wire.units import format_size

_PRIVILEGED = 1024


@attrs.define
class Findings:
    """What was found.

    :ivar mistakes: what keeps a relay from running as it should.
    :ivar warnings: what an operator should know of.
    """

    mistakes: list[str] = attrs.field(factory=list)
    warnings: list[str] = attrs.field(factory=list)


def load(home: Home) -> tuple[Config, Identity, list[str]]:
    """Read what a relay needs out of its home.

    :returns: its config, its identity, and warnings about the config.
    :raises HomeError: where a file is missing or broken.
    :raises ConfigError: where the config is wrong.
    """
    config, warnings = parse_config(home.read_config())
    return config, home.load_identity(), warnings


def examine(home: Home, *, runs: bool) -> Findings:
    """Look at all of a home.

    :param runs: whether a relay runs out of it, which has bound its addresses then.
    """
    found = Findings()
    config = None
    try:
        config, found.warnings = parse_config(home.read_config())
    except ConfigError as e:
        found.mistakes += [f"{home.config.name}: {mistake}" for mistake in e.mistakes]
        found.warnings += e.warnings
    except HomeError as e:
        found.mistakes.append(str(e))
    try:
        identity = home.load_identity()
    except HomeError as e:
        found.mistakes.append(str(e))
    else:
        found.mistakes += _other_identity(home, identity)
    found.mistakes += _unwritable(home, config)
    found.warnings += exposed(home, config)
    if config is not None:
        found.warnings += inconsistent(config)
        if not runs:
            found.mistakes += _unbindable(config)
    return found


def _other_identity(home: Home, identity: Identity) -> Iterator[str]:
    key = identity.key
    try:
        public = read_json(home.key_pub.read_bytes())
    except (OSError, WireError):
        public = None
    if public != str(key.public_key):
        yield f"{home.key_pub} is not the public key of {home.key_seed.name}: it has to be {key.public_key}"


def _unwritable(home: Home, config: Config | None) -> Iterator[str]:
    folders = [home.path, home.sharetokens]
    if config is not None:
        folders += [home.inside(name) for name in (config.archive_dir, config.network_usage.archive_dir) if name]
    for folder in dict.fromkeys(folders):
        if folder.exists() and not folder.is_dir():
            yield f"{folder}: expected a folder"
            continue
        there = next(place for place in (folder, *folder.parents) if place.exists())
        if not os.access(there, os.W_OK | os.X_OK):
            what = "" if there == folder else f", so {folder} can't be made"
            yield f"{there} can't be written by {_user()}{what}"
    for file in (home.log, home.stats, home.pid, home.lock):
        if file.exists() and not os.access(file, os.W_OK):
            yield f"{file} can't be written by {_user()}"


def _user() -> str:
    return f"the user with id {os.geteuid()}"


def exposed(home: Home, config: Config | None) -> Iterator[str]:
    """Find secrets that others may read, and a home that they may write."""
    secrets = [home.key_seed, home.tls_key]
    if config is not None and any(contract.key for contract in config.contracts.values()):
        secrets.append(home.config)
    for file in secrets:
        mode = _mode(file)
        if mode & (stat.S_IROTH | stat.S_IWOTH | stat.S_IWGRP) or (file != home.config and mode & stat.S_IRGRP):
            yield f"{file} may be read by other users, with what is secret in it: chmod 600 {file}"
    if _mode(home.path) & stat.S_IWOTH and not _mode(home.path) & stat.S_ISVTX:
        yield f"{home.path} may be written by any user: chmod o-w {home.path}"


def _mode(path: Path) -> int:
    with suppress(OSError):
        return path.stat().st_mode
    return 0


def inconsistent(config: Config) -> Iterator[str]:
    """Find values that don't go together."""
    usage = config.network_usage
    limits = {url: contract.network_usage_limit for url, contract in config.contracts.items()}
    everything = usage.global_limit
    if everything is not None:
        for url, limit in limits.items():
            if limit is not None and limit > everything:
                path = below(below("contracts", url), "network_usage_limit")
                yield f"{path}: is never reached: network_usage.global_limit is {format_size(everything)}"
        named = [limit for limit in limits.values() if limit is not None]
        if len(named) == len(limits) > 1 and everything < sum(named) and max(named) <= everything:
            yield (
                f"network_usage.global_limit: is less than the contracts' limits together, which are"
                f" {format_size(sum(named))}"
            )
    if usage.timeframe and usage.write_interval > usage.timeframe:
        yield "network_usage.write_interval: is longer than network_usage.timeframe"
    for url, contract in config.contracts.items():
        with suppress(ValueError):
            if not ip_address(contract.address.host).is_global and not config.danger_zone.allow_loopback:
                path = below(below("contracts", url), "address")
                yield f"{path}: {contract.address.host} can't be reached from the internet"


def _unbindable(config: Config) -> Iterator[str]:
    rest = config.rest_api.address
    wanted = {"address": config.address}
    if rest is not None:
        wanted["rest_api.address"] = rest.tcp or ListenAddress("", 0, rest.path or "")
    held: list[socket.socket] = []
    try:
        for path, address in wanted.items():
            if address.path:
                yield from _no_place(path, Path(address.path))
                continue
            try:
                held.append(_bind(address))
            except OSError as e:
                yield f"config.json: {path}: {address} can't be listened at: {_why(e, address.port)}"
    finally:
        for each in held:
            each.close()


def _bind(address: ListenAddress) -> socket.socket:
    host = address.host or ""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, address.port))
        bound.listen(1)
    except OSError:
        bound.close()
        raise
    return bound


def _why(error: OSError, port: int) -> str:
    why = error.strerror or str(error)
    if isinstance(error, PermissionError) and port < _PRIVILEGED:
        why += ": ports below 1024 take CAP_NET_BIND_SERVICE, or a socket unit of systemd"
    return why


def _no_place(path: str, file: Path) -> Iterator[str]:
    if not file.parent.is_dir():
        yield f"config.json: {path}: there is no folder {file.parent}"
    elif not os.access(file.parent, os.W_OK | os.X_OK):
        yield f"config.json: {path}: {file.parent} can't be written by {_user()}"
    elif file.exists() and not file.is_socket():
        yield f"config.json: {path}: {file} is no socket"
