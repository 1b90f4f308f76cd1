"""What `doctor` finds on this machine."""

from __future__ import annotations

import datetime
import os
import resource
from collections.abc import Iterator
from typing import Any, Literal

import attrs

from wireleap_relay.admin.words import size
from wireleap_relay.config import Config
from wireleap_relay.daemon.ask import Silent, ask
from wireleap_relay.daemon.resources import FEW_FILES
from wireleap_relay.daemon.state import DaemonState
from wireleap_relay.home import Home, HomeError
from wireleap_relay.inspection import examine

_LITTLE, _TOO_LITTLE = 1 << 30, 100 << 20  # bytes of disk
_FEW_FAILING = 512
#: What hosters and other networks filter, and why.
_FILTERED = {
    **dict.fromkeys((25, 465, 587), "mail"),
    **dict.fromkeys((135, 137, 138, 139, 445), "Windows' file sharing"),
    **dict.fromkeys((19, 53, 111, 123, 161, 389, 1900, 11211), "amplification"),
    **dict.fromkeys((23, 2323, 3389, 5900), "logins from afar"),
    **dict.fromkeys(range(6660, 6670), "IRC"),
}
#: From where nothing else is let out, these two still are.
_EVERYWHERE = (80, 443)


@attrs.frozen
class Finding:
    """One line of `doctor`.

    :ivar todo: what to do about it; empty where nothing has to be done.
    """

    level: Literal["ok", "warn", "fail"]
    about: str
    what: str
    todo: str = ""


def local_findings(home: Home, config: Config | None, state: DaemonState) -> Iterator[Finding]:
    """Look at the home and at this machine."""
    yield from _home(home, state)
    yield from _identity(home)
    answers, silence = _ask(home, state)
    yield from _daemon(state, answers, silence)
    yield from _open_files(answers)
    yield from _disk(home)
    if config is not None:
        yield from _ports(config)


def _home(home: Home, state: DaemonState) -> Iterator[Finding]:
    found = examine(home, runs=state.kind == "running")
    for mistake in found.mistakes:
        yield Finding("fail", "home", mistake)
    for warning in found.warnings:
        yield Finding("warn", "home", warning)
    if not found.mistakes and not found.warnings:
        yield Finding("ok", "home", f"{home.path}: config, files and permissions are in order")


def _identity(home: Home) -> Iterator[Finding]:
    try:
        identity = home.load_identity()
    except HomeError:
        return  # told already
    now = datetime.datetime.now(datetime.UTC)
    certificate = identity.certificate
    if now < certificate.not_valid_before_utc:
        yield Finding(
            "fail",
            "key",
            f"the certificate is not valid before {certificate.not_valid_before_utc}",
            "look at the clock",
        )
    elif now > certificate.not_valid_after_utc:
        yield Finding(
            "fail",
            "key",
            f"the certificate was valid until {certificate.not_valid_after_utc}",
            f"move {home.certificate.name} and {home.tls_key.name} away, and run `wireleap-relay init`",
        )
    else:
        until = f"{certificate.not_valid_after_utc:%Y-%m-%d}"
        yield Finding("ok", "key", f"{identity.key.public_key}; the certificate is valid until {until}")


def _ask(home: Home, state: DaemonState) -> tuple[dict[str, Any], str]:
    if state.kind != "running" or not state.ours:
        return {}, ""
    try:
        health, workers = ask(home, "/api/health", "/api/workers")
    except Silent as e:
        return {}, str(e)
    return {"health": health, "workers": workers}, ""


def _daemon(state: DaemonState, answers: dict[str, Any], silence: str) -> Iterator[Finding]:
    if state.kind == "unknown":
        yield Finding("warn", "daemon", f"it can't be told whether it runs: {state.why}", "run this as its own user")
    elif state.kind == "stopped":
        yield Finding("warn", "daemon", "the relay is not running", "wireleap-relay start")
    elif not state.ours:
        yield Finding("ok", "daemon", state.why)
    elif silence:
        yield Finding("fail", "daemon", f"process {state.pid} does not say how it gets on: {silence}", "restart it")
    else:
        health = answers["health"]
        for reason in health["reasons"]:
            yield Finding("fail", "daemon", reason)
        for warning in health["warnings"]:
            yield Finding("warn", "daemon", warning)
        if health["healthy"] and not health["warnings"]:
            yield Finding("ok", "daemon", f"process {state.pid}, version {health['version']}, is well")


def _open_files(answers: dict[str, Any]) -> Iterator[Finding]:
    if answers:
        most, whose = answers["workers"]["daemon"]["most_descriptors"], "the relay"
    else:
        most, whose = resource.getrlimit(resource.RLIMIT_NOFILE)[1], "a relay started here"
    what = f"{whose} may have {most} open files, two for each tunnel"
    todo = "raise LimitNOFILE= in systemd's unit, or `ulimit -Hn`"
    if most < FEW_FILES:
        yield Finding("fail" if most < _FEW_FAILING else "warn", "files", what, todo)
    else:
        yield Finding("ok", "files", what)


def _disk(home: Home) -> Iterator[Finding]:
    try:
        found = os.statvfs(home.path)
    except OSError:
        return  # told already
    free = found.f_bavail * found.f_frsize
    what = f"{size(free)} are free where {home.path} is"
    if free < _LITTLE:
        yield Finding(
            "fail" if free < _TOO_LITTLE else "warn", "disk", what, "make room: sharetokens are kept here, or refused"
        )
    elif found.f_files and found.f_favail < 1000:
        yield Finding("warn", "disk", f"{found.f_favail} more files may be made where {home.path} is", "make room")
    else:
        yield Finding("ok", "disk", what)


def _ports(config: Config) -> Iterator[Finding]:
    ports = {contract.address.port for contract in config.contracts.values()}
    for port in sorted(ports):
        if port in _FILTERED:
            yield Finding(
                "warn",
                "port",
                f"many networks filter port {port}, because of {_FILTERED[port]}",
                "publish another; 443 is let through nearly everywhere",
            )
        elif port in _EVERYWHERE:
            yield Finding("ok", "port", f"port {port} is let through nearly everywhere")
        else:
            yield Finding(
                "ok", "port", f"port {port} is seldom filtered; from behind strict firewalls only 443 is reached"
            )
