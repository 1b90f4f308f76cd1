"""What Prometheus scrapes; made of one view.

No label names a client, a target or a token. Figures that could show what one
user does are coarse, for they are kept: bytes are rounded up to whole MiB,
counts of tunnels, connections, dials and tokens that wait to multiples of eight.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate
from typing import get_args

import attrs
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from wireleap_relay.admin.health import health
from wireleap_relay.admin.view import View
from wireleap_relay.contracts.machine import State
from wireleap_relay.tunnel.registry import DIAL_TIMES

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
NAMESPACE = "wireleap_relay_"

_MIB = 2**20
_FEW = 8


def exposition(view: View) -> bytes:
    """Write a view as Prometheus reads it."""
    registry = CollectorRegistry()
    registry.register(_Collector(view))
    return generate_latest(registry)


class _Collector:
    def __init__(self, view: View) -> None:
        self._view = view

    def collect(self) -> Iterator[Metric]:
        view = self._view
        yield from _relay(view)
        yield from _contracts(view)
        yield from _traffic(view)
        yield from _tunnels(view)
        yield from _tokens(view)
        yield from _processes(view)


def _relay(view: View) -> Iterator[Metric]:
    python = platform.python_version()
    yield _gauge("build_info", "What runs; always 1.", {(view.version, python): 1}, ("version", "python"))
    yield _gauge("start_time_seconds", "When the relay was started, in Unix seconds.", {(): view.started_at / 1000})
    trouble = bool(view.upgrade.trouble)
    yield _gauge("upgrade_trouble", "Whether an upgrade does not go on.", {(): trouble})
    yield _gauge("healthy", "Whether /api/health answers 200.", {(): health(view).healthy})


def _contracts(view: View) -> Iterator[Metric]:
    contracts = view.contracts
    one = ("contract",)
    yield _gauge("enrolled", "Whether the contract's directory lists the relay.", _each(view, "enrolled"), one)
    yield _gauge(
        "contract_state",
        "1 for the state that the contract is in.",
        {(status.url, state): state == status.state for status in contracts for state in get_args(State)},
        ("contract", "state"),
    )
    yield _gauge("missed_heartbeats", "Heartbeats in a row without an answer.", _each(view, "missed_heartbeats"), one)
    yield _gauge(
        "upgrade_wanted",
        "Whether the contract's directory asks for a newer version.",
        {(status.url,): status.upgrade is not None for status in contracts},
        one,
    )
    yield _gauge(
        "balance",
        "What the contract owes, in whole units of its currency.",
        {
            (url, earnings.balance.currency): earnings.balance.available
            for url, earnings in view.earnings.items()
            if earnings.balance is not None
        },
        ("contract", "currency"),
    )


def _each(view: View, field: str) -> dict[tuple[str, ...], float]:
    return {(status.url,): getattr(status, field) for status in view.contracts}


def _traffic(view: View) -> Iterator[Metric]:
    yield _counter(
        "traffic_bytes",
        "Payload of tunnels since the start, by where it came from.",
        {
            (view.url(contract), direction): _coarse(size, _MIB)
            for contract, carried in view.carried.items()
            for direction, size in (("from_clients", carried.from_clients), ("from_targets", carried.from_targets))
        },
        ("contract", "direction"),
    )
    if view.reading is None:
        return
    outlooks = {(status.url,): status.usage for status in view.contracts if status.usage is not None}
    if view.outlook is not None:
        outlooks[("",)] = view.outlook
    one = ("contract",)
    yield _gauge(
        "window_bytes",
        'Payload of tunnels in the present window; contract="" is all of them.',
        {key: _coarse(outlook.carried, _MIB) for key, outlook in outlooks.items()},
        one,
    )
    yield _gauge(
        "limit_bytes",
        "What may be carried per window, where there is a limit.",
        {key: outlook.limit for key, outlook in outlooks.items() if outlook.limit is not None},
        one,
    )
    yield _gauge(
        "forecast_bytes",
        "What will have been carried at the end of the window, at the pace of the last hour.",
        {key: _coarse(outlook.forecast, _MIB) for key, outlook in outlooks.items()},
        one,
    )
    yield _gauge("window_end_seconds", "When the window ends, in Unix seconds.", {(): view.reading.end / 1000})


def _tunnels(view: View) -> Iterator[Metric]:
    counts = view.plane.tunnels
    yield _gauge("connections", "Connections of clients.", {(): _coarse(view.plane.connections)})
    yield _gauge("tunnels_open", "Open tunnels.", {(): _coarse(counts.open)})
    yield _counter("tunnels_opened", "Tunnels that were opened.", {(): _coarse(counts.opened)})
    yield _counter("tunnels_refused", "Tunnels that were refused.", _by_name(counts.refused), ("reason",))
    yield _counter("dials", "Targets and next relays dialled.", _by_name(counts.dials), ("result",))
    yield _dial_times(counts.dial_times, counts.dial_seconds)
    offences = _by_name(counts.offences)
    yield _counter("connections_ended", "Connections that were ended or not let in.", offences, ("reason",))
    yield _counter("tls_handshakes", "TLS handshakes with clients.", _by_name(counts.handshakes), ("result",))


def _dial_times(times: Iterable[int], total: float) -> Metric:
    bounds = [*map(str, DIAL_TIMES), "+Inf"]
    buckets = [(bound, float(_coarse(count))) for bound, count in zip(bounds, accumulate(times), strict=True)]
    found = HistogramMetricFamily(NAMESPACE + "dial_seconds", "What dialling took, names looked up included.")
    found.add_metric([], buckets, sum_value=float(round(total)))
    return found


def _tokens(view: View) -> Iterator[Metric]:
    contracts, now = view.tokens.contracts, view.now / 1000
    yield _gauge(
        "tokens",
        "Sharetokens by what has become of them.",
        {
            (tokens.name, state): _coarse(count) if state == "held" else count
            for tokens in contracts
            for state, count in attrs.asdict(tokens.counts).items()
        },
        ("contract", "state"),
    )
    yield _counter(
        "tokens_received",
        "Sharetokens that were ever taken.",
        {(tokens.name,): _coarse(tokens.received) for tokens in contracts},
        ("contract",),
    )
    yield _gauge(
        "tokens_window_closes_in_seconds",
        "Until the first of the windows closes in which tokens are owed that were not taken yet.",
        {(tokens.name,): tokens.closing.closes - now for tokens in contracts if tokens.closing is not None},
        ("contract",),
    )
    yield _gauge(
        "tokens_window_open",
        "Whether tokens of that window may be handed in by now.",
        {(tokens.name,): tokens.closing.opens < now for tokens in contracts if tokens.closing is not None},
        ("contract",),
    )
    yield _gauge(
        "tokens_urgent",
        "Whether tokens are owed whose window is within a tenth of closing.",
        {(tokens.name,): tokens.is_urgent(now) for tokens in contracts},
        ("contract",),
    )
    yield _gauge("tokens_trouble", "Whether sharetokens can't be kept.", {(): bool(view.tokens.trouble)})


def _processes(view: View) -> Iterator[Metric]:
    processes = {(name,): process for name, process in view.processes().items()}
    one = ("process",)
    yield _gauge(
        "event_loop_lag_seconds",
        "How late the reactor was at the worst, in the last 10 to 20 seconds.",
        {key: process.lag for key, process in processes.items()},
        one,
    )
    yield _counter(
        "cpu_seconds",
        "Processor time.",
        {key: process.cpu_seconds for key, process in processes.items()},
        one,
    )
    yield _gauge("memory_bytes", "Resident memory.", {key: process.memory for key, process in processes.items()}, one)
    yield _gauge(
        "open_fds",
        "File descriptors in use.",
        {key: _coarse(process.descriptors) for key, process in processes.items()},
        one,
    )
    yield _gauge(
        "max_fds",
        "File descriptors that may be in use.",
        {key: process.most_descriptors for key, process in processes.items()},
        one,
    )
    yield _gauge(
        "worker_up",
        "Whether a worker is running.",
        {(str(worker.number),): worker.state == "running" for worker in view.plane.workers},
        ("worker",),
    )
    yield _counter(
        "worker_restarts",
        "How often a worker had to be replaced.",
        {(str(worker.number),): worker.restarts for worker in view.plane.workers},
        ("worker",),
    )
    yield _counter(
        "worker_out_of_memory",
        "How often a worker had to be replaced because it had no memory left.",
        {(str(worker.number),): worker.out_of_memory for worker in view.plane.workers},
        ("worker",),
    )


def _coarse(count: int, step: int = _FEW) -> int:
    """Round up: nothing stays nothing, and a counter never goes back."""
    return -(-count // step) * step


def _by_name(counts: Mapping[str, int]) -> dict[tuple[str, ...], float]:
    return {(name,): _coarse(count) for name, count in counts.items()}


def _gauge(
    name: str, text: str, values: Mapping[tuple[str, ...], float], labels: tuple[str, ...] = ()
) -> GaugeMetricFamily:
    found = GaugeMetricFamily(NAMESPACE + name, text, labels=labels)
    for key, value in values.items():
        found.add_metric(key, float(value))
    return found


def _counter(
    name: str, text: str, values: Mapping[tuple[str, ...], float], labels: tuple[str, ...] = ()
) -> CounterMetricFamily:
    found = CounterMetricFamily(NAMESPACE + name, text, labels=labels)
    for key, value in values.items():
        found.add_metric(key, float(value))
    return found
