"""The status page: one document, with nothing from elsewhere.

Its figures are written here, so they need no JavaScript; with it they are
fetched anew every five seconds.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Iterator
from html import escape
from importlib.resources import files

from twisted.internet.defer import Deferred
from twisted.web.template import Tag, flattenString, tags

from wireleap_relay.admin.health import Health, health
from wireleap_relay.admin.plots import bar, latest, traffic_in_window, traffic_now
from wireleap_relay.admin.rest import Answer
from wireleap_relay.admin.view import View
from wireleap_relay.admin.words import moment, percent, rate, size, span
from wireleap_relay.contracts.limits import Outlook
from wireleap_relay.contracts.service import ContractStatus
from wireleap_relay.tokens.ledger import ContractTokens

_Cell = Tag | str

_STYLE = files("wireleap_relay.admin").joinpath("page.css").read_text()
_SCRIPT = files("wireleap_relay.admin").joinpath("page.js").read_text()


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


_POLICY = "; ".join(
    (
        "default-src 'none'",
        f"style-src {_hash(_STYLE)}",
        f"script-src {_hash(_SCRIPT)}",
        "connect-src 'self'",
        "img-src data:",
        "frame-ancestors 'none'",
        "base-uri 'none'",
        "form-action 'none'",
    )
)
_HEAD = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title} - wireleap-relay</title>
<link rel="icon" href="data:,">
<style>{style}</style>
<noscript><meta http-equiv="refresh" content="30"></noscript>
</head>
<body>
"""
_FOOT = """
<script>{script}</script>
</body>
</html>
"""
_HEADERS = {"Content-Security-Policy": _POLICY, "Referrer-Policy": "no-referrer"}


def page_answer(view: View) -> Deferred[Answer]:
    """Answer with the page."""
    found = health(view)
    head = _HEAD.format(title=escape(_state(found)[0]), style=_STYLE)
    written: Deferred[bytes] = flattenString(None, [_header(view), _main(view, found)])

    def answer(body: bytes) -> Answer:
        page = head.encode() + body + _FOOT.format(script=_SCRIPT).encode()
        return Answer(page, content_type="text/html; charset=utf-8", headers=_HEADERS)

    return written.addCallback(answer)


def _state(found: Health) -> tuple[str, str]:
    if not found.healthy:
        return "not healthy", "bad"
    return ("healthy, with warnings", "warn") if found.warnings else ("healthy", "good")


def _header(view: View) -> Tag:
    return tags.header(
        tags.h1("wireleap-relay ", view.version),
        tags.p("Key ", tags.code(str(view.relay)), class_="dim"),
    )


def _main(view: View, found: Health) -> Tag:
    words, kind = _state(found)
    return Tag("main")(
        tags.p(
            tags.span(words, class_=f"badge {kind}", id="state"),
            f" up for {span((view.now - view.started_at) / 1000)}; figures of {moment(view.now)}",
        ),
        _list(found.reasons, "bad"),
        _list(found.warnings, "warn"),
        _figures(view),
        _contracts(view),
        _traffic(view),
        tags.div(_section("Sharetokens", _tokens(view)), _section("Tunnels", _tunnels(view)), class_="pair"),
        _section("Processes", _processes(view)),
        _section("Recent events", _events(view)),
    )


def _list(lines: Iterable[str], kind: str) -> Tag:
    items = [tags.li(line) for line in lines]
    return tags.ul(*items, class_=kind) if items else Tag("")


def _section(title: str, *content: Tag) -> Tag:
    return tags.section(tags.h2(title), *content)


def _table(heads: Iterable[str], rows: Iterable[Iterable[_Cell]], nothing: str) -> Tag:
    """Make a table; heads that begin with ``#`` are of columns with figures."""
    names = list(heads)
    kinds = ["n" if name.startswith("#") else "" for name in names]
    lines = [tags.tr(*(tags.td(cell, class_=kind) for cell, kind in zip(row, kinds, strict=True))) for row in rows]
    if not lines:
        return tags.p(nothing, class_="dim")
    head = tags.tr(*(tags.th(name.lstrip("#"), class_=kind) for name, kind in zip(names, kinds, strict=True)))
    return tags.table(tags.thead(head), tags.tbody(*lines))


# What it shows


def _figures(view: View) -> Tag:
    from_clients, from_targets = latest(view)
    tunnels = view.plane.tunnels
    owing = sum(tokens.counts.owed for tokens in view.tokens.contracts)
    submitted = sum(tokens.counts.submitted for tokens in view.tokens.contracts)
    owed = [
        f"{earnings.balance.available} {earnings.balance.currency}"
        for earnings in view.earnings.values()
        if earnings.balance is not None
    ]
    figures: list[tuple[str, str, str]] = [
        ("From clients", rate(from_clients), "over ten seconds"),
        ("From targets", rate(from_targets), "over ten seconds"),
        ("Open tunnels", str(tunnels.open), f"{tunnels.opened} opened so far"),
        ("Connections", str(view.plane.connections), f"to {view.listens_at}" if view.listens_at else "does not listen"),
        ("Sharetokens held", str(owing), f"{submitted} taken by contracts"),
        ("Owed", ", ".join(owed) or "-", "as contracts say"),
    ]
    if view.outlook is not None:
        figures.insert(2, ("This window", size(view.outlook.carried), _against(view.outlook)))
    return tags.dl(
        *(tags.div(tags.dt(name), tags.dd(figure, tags.small(more))) for name, figure, more in figures),
        class_="figures",
    )


def _against(outlook: Outlook) -> str:
    return f"of {size(outlook.limit)}" if outlook.limit is not None else "without a limit"


def _contracts(view: View) -> Tag:
    return _section(
        "Contracts",
        _table(
            ("Contract", "State", "This window", "Forecast", "#Owed"),
            (
                (_contract(status), _standing(status), _used(status), _ahead(view, status), _owed(view, status))
                for status in view.contracts
            ),
            "None.",
        ),
    )


def _contract(status: ContractStatus) -> Tag:
    return tags.div(status.url, tags.p(f"{status.role} at {status.address}", class_="dim"))


def _standing(status: ContractStatus) -> Tag:
    kind = "bad" if status.state in ("backing off", "withdrawn") else "warn"
    if status.enrolled and not status.degraded:
        kind = "good"
    parts: list[Tag] = [tags.span(status.state, class_=f"badge {kind}")]
    if status.trouble:
        parts.append(tags.p(status.trouble, class_="dim"))
    if status.next_try is not None:
        parts.append(tags.p(f"next try in {span(status.next_try)}", class_="dim"))
    if status.upgrade is not None:
        parts.append(tags.p(f"its directory asks for version {status.upgrade}", class_="warn"))
    return tags.div(*parts)


def _used(status: ContractStatus) -> Tag:
    usage = status.usage
    if usage is None:
        return tags.span("not measured", class_="dim")
    if usage.limit is None:
        return tags.div(size(usage.carried), tags.p("without a limit", class_="dim"))
    share = percent(usage.carried, usage.limit)
    return tags.div(f"{size(usage.carried)} of {size(usage.limit)} ({share})", bar(usage.carried, usage.limit))


def _ahead(view: View, status: ContractStatus) -> Tag:
    usage = status.usage
    if usage is None:
        return tags.span("-", class_="dim")
    if usage.reached_at is None:
        return tags.div(size(usage.forecast), tags.p("at the end of the window", class_="dim"))
    when = span((usage.reached_at - view.now) / 1000)
    return tags.div("limit reached" if usage.reached_at <= view.now else f"limit reached in {when}", class_="warn")


def _owed(view: View, status: ContractStatus) -> str:
    earnings = view.earnings.get(status.url)
    if earnings is None or earnings.balance is None:
        return "-"
    return f"{earnings.balance.available} {earnings.balance.currency}"


def _traffic(view: View) -> Tag:
    window = traffic_in_window(view)
    now = _section(
        "Traffic now",
        tags.p(tags.span("from clients", class_="a"), ", ", tags.span("from targets", class_="b")),
        traffic_now(view),
    )
    ahead = tags.p(tags.span("carried", class_="a"), " and forecast (dashed)")
    nothing = tags.p("Nothing is measured: set network_usage.timeframe for that.", class_="dim")
    return tags.div(
        now, _section("Traffic in this window", *((ahead, window) if window else (nothing,))), class_="pair"
    )


def _tokens(view: View) -> Tag:
    return _table(
        ("Contract", "#Held", "#Handing in", "#Taken", "#Refused", "#Expired"),
        (
            (
                tags.div(tokens.name, *_window(view, tokens)),
                *map(str, (counts.held, counts.submitting, counts.submitted, counts.refused, counts.expired)),
            )
            for tokens in view.tokens.contracts
            for counts in (tokens.counts,)
        ),
        "None yet.",
    )


def _window(view: View, tokens: ContractTokens) -> Iterator[Tag]:
    now = view.now / 1000
    if tokens.closing is not None:
        opens, closes = tokens.closing.opens - now, tokens.closing.closes - now
        words = f"its window opens in {span(opens)}" if opens > 0 else f"its window closes in {span(closes)}"
        yield tags.p(words, class_="warn" if tokens.is_urgent(now) else "dim")
    if tokens.trouble:
        yield tags.p(tokens.trouble, class_="warn")


def _tunnels(view: View) -> Tag:
    tunnels = view.plane.tunnels
    counts = [
        *((f"refused: {reason}", count) for reason, count in sorted(tunnels.refused.items())),
        *((f"dialled: {result}", count) for result, count in sorted(tunnels.dials.items())),
        *((f"TLS handshakes {result}", count) for result, count in sorted(tunnels.handshakes.items())),
        *((f"connections ended: {kind.replace('_', ' ')}", count) for kind, count in sorted(tunnels.offences.items())),
    ]
    return _table(("Since the start", "#Count"), ((name, str(count)) for name, count in counts), "None yet.")


def _processes(view: View) -> Tag:
    def rows() -> Iterator[tuple[str, ...]]:
        for name, process in view.processes().items():
            worker = next((each for each in view.plane.workers if name == f"worker {each.number}"), None)
            yield (
                name,
                worker.state if worker is not None else "running",
                str(worker.connections) if worker is not None else "-",
                str(worker.tunnels) if worker is not None else "-",
                span(process.cpu_seconds),
                size(process.memory),
                f"{process.descriptors} of {process.most_descriptors}",
                f"{process.lag * 1000:.0f} ms",
                str(worker.restarts) if worker is not None else "-",
            )

    heads = ("Process", "State", "#Connections", "#Tunnels", "#CPU", "#Memory", "#Files", "#Late by", "#Restarts")
    return _table(heads, rows(), "None.")


def _events(view: View) -> Tag:
    return tags.ul(
        *(
            tags.li(tags.time(moment(event.at), class_="dim"), tags.span(event.text, class_=event.level))
            for event in view.events[:20]
        ),
        class_="events",
    )
