"""Commands for the ledger of sharetokens: tokens, tokens audit, tokens export."""

from __future__ import annotations

import sqlite3
import time
from argparse import SUPPRESS, ArgumentParser, Namespace
from pathlib import Path
from typing import Any

import attrs

from wireleap_relay.cli.asking import json_argument, print_json, print_table, wants_json
from wireleap_relay.cli.command import FAILED, OK, Command, CommandError, complain
from wireleap_relay.daemon.state import look
from wireleap_relay.home import Home
from wireleap_relay.tokens.books import Audit, audit, damage, kept, read_ledger, reading
from wireleap_relay.tokens.ledger import STATES, ContractTokens, alarms
from wireleap_relay.tokens.takeover import export
from wireleap_relay.wire.units import format_duration_for_people


def _tokens(arguments: Namespace) -> int:
    path = _database(arguments.home)
    try:
        with reading(path) as db:
            code: int = arguments.what(arguments, db)
    except sqlite3.Error as e:
        raise CommandError(f"{path}: {e}") from None
    return code


def _database(home: Home) -> Path:
    path = home.token_database
    if not path.exists():
        raise CommandError(f"{path} is missing: this relay has not been started yet")
    return path


# tokens


def _show(arguments: Namespace, db: sqlite3.Connection) -> int:
    now, ledger = time.time(), read_ledger(db)
    told = alarms(now, "", ledger)
    if wants_json(arguments):
        print_json([_fields(each, now) for each in ledger])
        return OK
    if not ledger:
        print("No sharetokens yet.")
        return OK
    print_table("CONTRACT", "STATE", "TOKENS", "OLDEST", rows=[row for each in ledger for row in _rows(each, now)])
    print("\n".join(_summary(each, now) for each in ledger))
    complain("\n".join(told))
    return OK


def _fields(each: ContractTokens, now: float) -> dict[str, Any]:
    return {
        "contract": each.url or None,
        "id": str(each.contract),
        "received": each.received,
        "owed": each.counts.owed,
        "counts": attrs.asdict(each.counts),
        "oldest_seconds": {state: round(now - since) for state, since in each.oldest.items()},
        "first_closing": each.closing.closes if each.closing else None,
        "last_closing": each.last_closing,
        "urgent": each.is_urgent(now),
        "trouble": each.trouble or None,
    }


def _rows(each: ContractTokens, now: float) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for state in STATES:
        count, since = getattr(each.counts, state), each.oldest.get(state)
        age = f"for {_for_people(now - since)}" if since is not None else ""
        if count:
            rows.append(("" if rows else each.name, state, str(count), age))
    return rows


def _summary(each: ContractTokens, now: float) -> str:
    text = f"{each.name}: {each.counts.owed} of {each.received} sharetokens are owed"
    if each.closing is not None and each.last_closing is not None:
        first, last = _for_people(each.closing.closes - now), _for_people(each.last_closing - now)
        text += f"; their windows close in {first}" + (f" to {last}" if last != first else "")
    return text + (f"; last trouble: {each.trouble}" if each.trouble else "")


def _for_people(seconds: float) -> str:
    return format_duration_for_people(max(round(seconds), 0))


# tokens audit


def _audit(arguments: Namespace, db: sqlite3.Connection) -> int:
    damaged = damage(db)
    audits = [] if damaged else audit(db)
    well = not damaged and all(each.adds_up for each in audits)
    if wants_json(arguments):
        print_json({"adds_up": well, "damage": damaged or None, "contracts": [_audited(each) for each in audits]})
        return OK if well else FAILED
    if damaged:
        complain(
            f"the database is damaged: {damaged}. The relay sets it aside and salvages it when it meets the damage"
        )
        return FAILED
    for each in audits:
        counts = each.counts
        print(
            f"{each.url or each.contract}: {each.received} received = {counts.held} held + {counts.submitting} submitting"
            f" + {counts.submitted} submitted + {counts.refused} refused + {counts.expired} expired"
            + (f" + {each.missing} MISSING" if each.missing else "")
        )
        if counts != each.tallied:
            print(f"  but the ledger says: {attrs.asdict(each.tallied)}")
    print("It adds up." if well else "It does not add up.")
    return OK if well else FAILED


def _audited(each: Audit) -> dict[str, Any]:
    return {
        "contract": each.url or None,
        "id": str(each.contract),
        "received": each.received,
        "counted": attrs.asdict(each.counts),
        "forgotten": each.forgotten,
        "missing": each.missing,
        "adds_up": each.adds_up,
    }


# tokens export


def _export(arguments: Namespace, db: sqlite3.Connection) -> int:
    home: Home = arguments.home
    folder = Path(arguments.folder).absolute() if arguments.folder else home.sharetokens
    if folder == home.sharetokens and look(home).kind != "stopped":
        raise CommandError(
            "the relay runs, or may run: stop it, so that no tokens come in any more, or say which folder to write to"
        )
    written = export(kept(db), folder)
    print(
        f"{written['held']} sharetokens that are owed and {written['expired']} expired ones were written to {folder}."
    )
    if folder == home.sharetokens:
        print("The Go relay finds them there. When this one starts again, it takes them over, and knows them all.")
    return OK


def _arguments(parser: ArgumentParser) -> None:
    parser.set_defaults(what=_show)
    json_argument(parser)
    more = parser.add_subparsers(title="more", metavar="WHAT")
    for name, summary, details, what in (
        (
            "audit",
            "count every sharetoken, and see whether the ledger adds up",
            "Reads the whole database: whether the file is sound, and whether every sharetoken that was ever received is"
            " held, submitted, refused or expired. Exits with 1 where it does not add up.",
            _audit,
        ),
        (
            "export",
            "write sharetokens as the Go relay keeps them",
            "Writes those that are owed to FOLDER/<contract>/<signature>.json, and those that have expired to"
            " FOLDER/expired/.",
            _export,
        ),
    ):
        sub = more.add_parser(name, help=summary, description=details, allow_abbrev=False)
        sub.set_defaults(what=what)
        sub.add_argument("--home", metavar="DIR", default=SUPPRESS, help="the relay's home")
        if what is _audit:
            sub.add_argument("--json", action="store_true", default=SUPPRESS, help="print JSON, on a terminal, too")
        else:
            sub.add_argument("folder", metavar="FOLDER", nargs="?", help="[default: sharetokens/ in the home]")


TOKENS = Command(
    "tokens",
    "show how the sharetokens stand",
    "Lists how many sharetokens of each contract are in which state, for how long the oldest of them has been, what is"
    " owed, and when the windows to hand them in close. Works whether the relay runs or not.",
    _tokens,
    _arguments,
)
