"""The command that looks for what keeps a relay from earning."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import AsyncIterator, Iterable
from contextlib import suppress
from typing import Any

from wireleap_relay.cli.command import FAILED, OK, Command, is_for_people
from wireleap_relay.cli.findings import Finding, local_findings
from wireleap_relay.config import Config, ConfigError
from wireleap_relay.daemon.state import look
from wireleap_relay.home import Home, HomeError
from wireleap_relay.inspection import load
from wireleap_relay.wire.keys import SigningKey

_COLOURS = {"ok": "32", "warn": "33", "fail": "31"}


def _doctor(arguments: Namespace) -> int:
    home: Home = arguments.home
    teller = _Teller(arguments.json)
    state = look(home)
    config = None
    with suppress(ConfigError, HomeError):  # that is one of the findings
        config, identity, _ = load(home)
    teller.tell(local_findings(home, config, state))
    if config is not None:
        _ask_others(config, identity.key, state.kind == "running", teller)
    return teller.end()


class _Teller:
    """Shows findings as they come."""

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json
        self._colours = is_for_people(sys.stdout)
        self._findings: list[Finding] = []

    def tell(self, findings: Iterable[Finding]) -> None:
        for finding in findings:
            self._findings.append(finding)
            if not self._as_json:
                print(self._line(finding), flush=True)

    def _line(self, finding: Finding) -> str:
        mark = f"{finding.level:4}"
        if self._colours:
            mark = f"\x1b[{_COLOURS[finding.level]}m{mark}\x1b[0m"
        return f"{mark}  {finding.about:10}  {finding.what}" + (f": {finding.todo}" if finding.todo else "")

    def end(self) -> int:
        if self._as_json:
            fields = ("level", "about", "what", "todo")
            print(json.dumps([{name: getattr(each, name) for name in fields} for each in self._findings], indent=4))
        return FAILED if any(finding.level == "fail" for finding in self._findings) else OK


def _ask_others(config: Config, key: SigningKey, runs: bool, teller: _Teller) -> None:
    """Ask contracts, directories and the relay itself, all at once, and tell in the order of the config."""
    # Nothing of that is loaded before it is needed.
    from twisted.internet.defer import Deferred
    from twisted.internet.task import react

    from wireleap_relay.cli.calls import Calls

    async def collect(found: AsyncIterator[Finding]) -> list[Finding]:
        return [finding async for finding in found]

    async def main(reactor: Any) -> None:
        calls = Calls(reactor, config, key, runs)
        going = [Deferred.fromCoroutine(collect(found)) for found in calls.all()]
        for each in going:
            teller.tell(await each)
        await calls.close()

    try:
        react(lambda reactor: Deferred.fromCoroutine(main(reactor)))
    except SystemExit as e:
        if e.code:
            raise


def _doctor_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")


DOCTOR = Command(
    "doctor",
    "find out what keeps the relay from earning",
    "Looks at the home and the machine, asks contracts and directories, looks names up, and calls the relay at its"
    " published address, as a client would. A line for each finding: ok, warn or fail, and what to do. Exits with 1"
    " where something fails.",
    _doctor,
    _doctor_arguments,
)
