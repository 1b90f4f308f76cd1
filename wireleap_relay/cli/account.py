"""Commands for a relay's money: balance, withdraw."""

from __future__ import annotations

import secrets
import sys
import time
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

import attrs
from twisted.internet.defer import Deferred, gatherResults

from wireleap_relay.boundaries import ApiError, ContractApi, Unreachable, Upstream, UpstreamFailed
from wireleap_relay.cli.asking import ask, json_argument, print_json, print_table, wants_json
from wireleap_relay.cli.command import FAILED, OK, Command, CommandError, warn
from wireleap_relay.config import parse_config
from wireleap_relay.home import Home, write_durably
from wireleap_relay.wire.contractinfo import ContractInfo
from wireleap_relay.wire.encoding import write_json
from wireleap_relay.wire.endpoint import Endpoint, parse_endpoint
from wireleap_relay.wire.errors import WireError
from wireleap_relay.wire.payout import PayoutBalance, Withdrawal, WithdrawalRequest
from wireleap_relay.wire.structure import converter, read

#: A contract that answers with those has not decided: it may, or may not, have begun to pay.
_UNDECIDED = frozenset({408, 429})


# Balance


def _balance(arguments: Namespace) -> int:
    home: Home = arguments.home
    key = home.load_key()
    contracts = [_contract(arguments.contract)] if arguments.contract else _configured(home)

    async def questions(upstream: Upstream) -> int:
        asked = [Deferred.fromCoroutine(_account(upstream, contract)) for contract in contracts]
        accounts = await gatherResults(asked)
        if wants_json(arguments):
            print_json(*accounts)
        else:
            headings = ("CONTRACT", "AVAILABLE", "PENDING", "TOKENS", "LAST WITHDRAWAL")
            print_table(*headings, rows=[_row(account) for account in accounts])
        return FAILED if any("error" in account for account in accounts) else OK

    return ask(key, questions)


def _configured(home: Home) -> list[Endpoint]:
    config, warnings = parse_config(home.read_config())
    warn(warnings)
    return [parse_endpoint(url) for url in config.contracts]


def _contract(text: str) -> Endpoint:
    try:
        return parse_endpoint(text)
    except WireError as e:
        raise CommandError(f"--contract {text}: {e}") from None


async def _account(upstream: Upstream, contract: Endpoint) -> dict[str, Any]:
    api = upstream.contract(contract)
    try:
        balance, tokens, withdrawal = await api.balance(), await api.tokens(), await api.last_withdrawal()
    except UpstreamFailed as e:
        return {"contract": contract, "error": str(e)}
    return {
        "contract": contract,
        "balance": converter.unstructure(balance),
        "tokens": tokens,
        "withdrawal": converter.unstructure(withdrawal),
    }


def _row(account: dict[str, Any]) -> tuple[str, ...]:
    if "error" in account:
        return (account["contract"], "", "", "", account["error"])
    balance, tokens, last = account["balance"], account["tokens"], account["withdrawal"]
    counted = tokens.get("count", tokens) if isinstance(tokens, dict) else tokens
    withdrawal = f"{last['amount']} to {last['destination']}: {last['state']}" if last else "none"
    return (
        account["contract"],
        f"{balance['available']} {balance['currency']}",
        str(balance.get("pending", 0)),
        str(counted),
        withdrawal,
    )


# Withdraw


@attrs.frozen
class _Asked:
    """A withdrawal that was asked for and has no answer yet, as it is kept on disk.

    :ivar before: the id of the withdrawal that was the last one then; empty for none.
    :ivar asked_at: Unix seconds.
    """

    idempotency_key: str
    request: WithdrawalRequest
    before: str
    asked_at: int

    def is_answered_by(self, last: Withdrawal | None) -> bool:
        """Tell whether that is what the contract has made of it."""
        asked = (self.request.amount, self.request.type, self.request.destination)
        return last is not None and last.id != self.before and (last.amount, last.type, last.destination) == asked


def _withdraw(arguments: Namespace) -> int:
    home: Home = arguments.home
    contract = _contract(arguments.contract)
    if arguments.amount <= 0:
        raise CommandError(f"--amount {arguments.amount}: expected a whole number above 0")
    if not arguments.destination.strip() or not arguments.destination.isprintable():
        raise CommandError("--destination: expected a text that the contract's payment system can pay to")
    key = home.load_key()

    async def questions(upstream: Upstream) -> int:
        try:
            return await _withdraw_from(upstream.contract(contract), contract, arguments)
        except UpstreamFailed as e:
            raise CommandError(f"{contract}: {e}; nothing was asked for") from None

    return ask(key, questions)


async def _withdraw_from(api: ContractApi, contract: Endpoint, arguments: Namespace) -> int:
    info = await api.info()
    file = arguments.home.withdrawal(str(info.pubkey))
    asked = _read(file)
    if asked is not None:
        _check_same(asked, arguments, file)
        print(f"This was asked for on {_day(asked.asked_at)}, and no answer came: asking again.", file=sys.stderr)
    else:
        asked = await _make(api, contract, info, arguments, file)
    return await _ask_for(api, asked, file)


def _read(file: Path) -> _Asked | None:
    try:
        return read(file.read_bytes(), _Asked)
    except FileNotFoundError:
        return None
    except WireError as e:
        raise CommandError(f"{file} is damaged ({e}): see with `balance` whether it was paid, then remove it") from None


def _check_same(asked: _Asked, arguments: Namespace, file: Path) -> None:
    request = asked.request
    if (request.amount, request.destination) != (arguments.amount, arguments.destination):
        raise CommandError(
            f"a withdrawal of {request.amount} to {request.destination} was asked for on {_day(asked.asked_at)}, and"
            f" whether the contract has begun to pay is not known. Run `withdraw` with that amount and destination"
            f" again first: it can't be paid twice. (It is kept in {file.name}.)"
        )


async def _make(api: ContractApi, contract: Endpoint, info: ContractInfo, arguments: Namespace, file: Path) -> _Asked:
    """Look whether it can be, have it confirmed, and keep it on disk."""
    payout = info.payout
    if not payout.type:
        raise CommandError(f"{contract} names no type of payout")
    least, most = payout.min_withdrawal, payout.max_withdrawal
    if (least is not None and arguments.amount < least) or (most is not None and arguments.amount > most):
        limits = [f"from {least}"] * (least is not None) + [f"up to {most}"] * (most is not None)
        raise CommandError(f"--amount {arguments.amount}: {contract} pays {' '.join(limits)} at a time")
    balance, before = await api.balance(), await api.last_withdrawal()
    if arguments.amount > balance.available:
        raise CommandError(
            f"--amount {arguments.amount}: {contract} owes {balance.available} {balance.currency} to this relay"
        )
    if sys.stdin.isatty() and not arguments.yes and not _confirmed(contract, balance, payout.type, arguments):
        raise CommandError("nothing was asked for")
    request = WithdrawalRequest(arguments.amount, payout.type, arguments.destination)
    asked = _Asked(secrets.token_hex(16), request, before.id if before is not None else "", round(time.time()))
    try:
        write_durably(file, write_json(converter.unstructure(asked)).encode(), 0o600, replace=False)
    except FileExistsError:
        raise CommandError(f"another `withdraw` is under way: {file.name} is there") from None
    return asked


def _confirmed(contract: Endpoint, balance: PayoutBalance, kind: str, arguments: Namespace) -> bool:
    question = (
        f"Withdraw {arguments.amount} of {balance.available} {balance.currency} from {contract}"
        f" to {arguments.destination} ({kind})? [y/N] "
    )
    print(question, end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


async def _ask_for(api: ContractApi, asked: _Asked, file: Path) -> int:
    try:
        last = await api.last_withdrawal()
        withdrawal = last if asked.is_answered_by(last) else None
        if withdrawal is None:
            withdrawal = await api.withdraw(asked.request, asked.idempotency_key)
    except UpstreamFailed as e:
        if _is_refusal(e):
            _forget(file)
            raise CommandError(f"the contract does not pay: {e}") from None
        withdrawal = await _what_became_of(api, asked, file, e)
    _forget(file)
    print(write_json(converter.unstructure(withdrawal)))
    return OK


def _is_refusal(failure: UpstreamFailed) -> bool:
    return isinstance(failure, ApiError) and failure.code < 500 and failure.code not in _UNDECIDED


async def _what_became_of(api: ContractApi, asked: _Asked, file: Path, failure: UpstreamFailed) -> Withdrawal:
    """Find out whether a contract has begun to pay that did not say so."""
    try:
        last = await api.last_withdrawal()
    except UpstreamFailed:
        last = None
    else:
        if last is not None and asked.is_answered_by(last):
            return last
        if not isinstance(failure, Unreachable):
            # It has answered, and would give that answer again to the same key.
            _forget(file)
            raise CommandError(f"the contract does not pay: {failure}; it knows of no such withdrawal") from None
    raise CommandError(
        f"{failure}. Whether the contract has begun to pay is not known: run the same command again. It goes under the"
        " same idempotency key then, and can't be paid twice."
    )


def _forget(file: Path) -> None:
    file.unlink()


def _day(when: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(when))


def _balance_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--contract", metavar="URL", help="of this contract alone [default: all in the config]")
    json_argument(parser)


def _withdraw_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--contract", metavar="URL", required=True, help="that owes the money")
    parser.add_argument("--destination", metavar="TEXT", required=True, help="where to, in its payment system's terms")
    parser.add_argument("--amount", metavar="INT", type=int, required=True, help="whole units of its currency")
    parser.add_argument("--yes", action="store_true", help="don't ask for confirmation")


BALANCE = Command(
    "balance",
    "show what contracts owe to the relay",
    "Asks every contract in the config what it owes, how many sharetokens await settlement there, and how the last"
    " withdrawal stands. Prints a table on a terminal, else a JSON object for each contract; where one does not answer,"
    " it says why, and exits with 1.",
    _balance,
    _balance_arguments,
)
WITHDRAW = Command(
    "withdraw",
    "have a contract pay",
    "Asks a contract to pay out of the relay's balance, and prints its answer. On a terminal you are asked first. Until"
    " the answer is known the request is kept on disk: if none comes, run the same command again, and it is not paid"
    " twice.",
    _withdraw,
    _withdraw_arguments,
)
