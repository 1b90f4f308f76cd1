"""A view as of a busy relay, to be shown in every way there is."""

from __future__ import annotations

from wireleap_relay.admin.earnings import Earnings
from wireleap_relay.admin.events import Event
from wireleap_relay.admin.history import Point, Rate
from wireleap_relay.admin.view import Carried, View
from wireleap_relay.boundaries import UsageReading
from wireleap_relay.contracts.limits import outlook
from wireleap_relay.contracts.service import ContractStatus
from wireleap_relay.tokens.ledger import ContractTokens, TokenCounts, TokensStatus, Window
from wireleap_relay.tunnel.registry import TunnelCounts
from wireleap_relay.upgrade.record import Record
from wireleap_relay.upgrade.service import UpgradeStatus
from wireleap_relay.wire.address import Address
from wireleap_relay.wire.keys import PublicKey
from wireleap_relay.wire.payout import PayoutBalance
from wireleap_relay.workers.health import ProcessStatus
from wireleap_relay.workers.plane import PlaneStatus, WorkerStatus

CONTRACT = "https://contract.example"
ID = PublicKey(bytes(range(32)))
NOW = 1_700_000_000_000
DAY = 86_400_000


def make_view(
    *,
    carried: tuple[int, int] = (3 * 2**30, 5 * 2**30),
    open: int = 17,  # noqa: A002
    opened: int = 1234,
    held: int = 40,
    refused: int = 0,
    measured: bool = True,
    workers: int = 2,
) -> View:
    """Make a view in the middle of a window of two days."""
    total = sum(carried)
    reading = UsageReading(NOW, NOW - DAY, NOW + DAY, {ID: total}, {ID: 90_000.0})
    limit = 40 * 2**30
    status = ContractStatus(
        CONTRACT,
        ID,
        Address.from_text("wireleap://relay.example:13490"),
        "backing",
        "enrolled",
        "",
        None,
        limit=limit,
        usage=outlook(total, 90_000.0, limit, reading) if measured else None,
    )
    process = ProcessStatus(12.5, 90 * 2**20, 60, 1024, 0.003)
    tunnels = TunnelCounts(
        open,
        opened,
        {"token": 3, "policy": 1},
        {"connected": 20, "unreachable": 2},
        (9, 0, 0, 0, 8, 0, 0, 0, 0, 0, 5),
        9.2,
        {"done": 100, "failed": 4},
        {"slow_handshake": 3},
    )
    window = Window(NOW // 1000 + 3600, NOW // 1000 + 2 * 3600)
    counts = TokenCounts(held, 5, 900, refused, 2)
    tokens = ContractTokens(ID, CONTRACT, 947, counts, {"held": NOW / 1000 - 600}, window, window.closes)
    return View(
        now=NOW,
        started_at=NOW - DAY // 2,
        version="0.7.0",
        relay=ID,
        running=True,
        contracts=(status,),
        reading=reading if measured else None,
        outlook=outlook(total, 90_000.0, None, reading) if measured else None,
        usage_trouble="",
        tokens=TokensStatus("", (tokens,)),
        earnings={CONTRACT: Earnings(PayoutBalance("USD", 12, 3), NOW - 60_000)},
        plane=PlaneStatus(
            13490,
            9,
            tunnels,
            tuple(
                WorkerStatus(number, "running", 4000 + number, number, 0, 4, 8, process) for number in range(workers)
            ),
        ),
        listens_at="0.0.0.0:13490",
        process=process,
        carried={ID: Carried(*carried)},
        rates=tuple(Rate(NOW - (90 - i) * 10_000, 40_000 + 300 * i, 250_000 - 900 * i) for i in range(90)),
        points=tuple(Point(NOW - DAY + i * DAY // 100, total * i * i // 10_000) for i in range(100))
        if measured
        else (),
        upgrade=UpgradeStatus(True, Record("committed", "0.7.0", "0.6.1"), ""),
        events=(Event(NOW - 1000, "warn", "Not enrolled with <b>https://other.example</b>: no answer"),),
    )
