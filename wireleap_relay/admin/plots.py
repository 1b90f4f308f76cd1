"""The page's drawings, as SVG; pure."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.web.template import Tag

from wireleap_relay.admin.history import LOOK_EVERY
from wireleap_relay.admin.view import View
from wireleap_relay.admin.words import day, rate, size
from wireleap_relay.contracts.limits import HARD_PERCENT

_WIDTH, _HEIGHT = 460, 150
_TOP, _BOTTOM = 16, 132


def _tag(name: str, *children: Tag | str, **attributes: object) -> Tag:
    return Tag(name, {key.rstrip("_").replace("_", "-"): str(value) for key, value in attributes.items()}, [*children])


def _drawing(what: str, *children: Tag) -> Tag:
    return _tag("svg", *children, viewBox=f"0 0 {_WIDTH} {_HEIGHT}", role="img", aria_label=what)


def _text(words: str, x: float, y: float, anchor: str = "start") -> Tag:
    return _tag("text", words, x=f"{x:.1f}", y=f"{y:.1f}", text_anchor=anchor)


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Tag:
    return _tag("line", x1=f"{x1:.1f}", y1=f"{y1:.1f}", x2=f"{x2:.1f}", y2=f"{y2:.1f}", class_=kind)


def _curve(points: Sequence[tuple[float, float]], kind: str) -> Tag:
    return _tag("polyline", points=" ".join(f"{x:.1f},{y:.1f}" for x, y in points), class_=f"curve {kind}")


def _frame(most: str) -> list[Tag]:
    return [_line(0, _TOP, _WIDTH, _TOP, "grid"), _line(0, _BOTTOM, _WIDTH, _BOTTOM, "grid"), _text(most, 0, 11)]


def _height(value: float, most: float) -> float:
    return _BOTTOM - (_BOTTOM - _TOP) * value / most


def traffic_now(view: View) -> Tag:
    """Draw both directions over the last quarter of an hour."""
    length = 900_000
    start = view.now - length
    rates = [rate for rate in view.rates if rate.at >= start]
    most = max([1024.0, *(max(each.from_clients, each.from_targets) for each in rates)])

    def curve(field: str, kind: str) -> Tag:
        return _curve(
            [((each.at - start) / length * _WIDTH, _height(getattr(each, field), most)) for each in rates], kind
        )

    return _drawing(
        "Traffic of the last quarter of an hour",
        *_frame(rate(most)),
        curve("from_clients", "a"),
        curve("from_targets", "b"),
        _text("15 minutes ago", 0, 147),
        _text("now", _WIDTH, 147, "end"),
    )


def traffic_in_window(view: View) -> Tag | None:
    """Draw how traffic has grown over the window, where it is going, and the limit; None where nothing is measured."""
    reading, outlook = view.reading, view.outlook
    if reading is None or outlook is None:
        return None
    length = max(1, reading.end - reading.start)
    limit = outlook.limit * HARD_PERCENT / 100 if outlook.limit is not None else None
    most = max(1024.0, outlook.carried, outlook.forecast, limit or 0) * 1.02

    def at(when: int, carried: float) -> tuple[float, float]:
        return min(1.0, (when - reading.start) / length) * _WIDTH, _height(min(carried, most), most)

    points = [at(point.at, point.carried) for point in view.points if point.at <= reading.now]
    here = at(reading.now, outlook.carried)
    parts = [
        *_frame(size(most)),
        _curve([*points, here], "a"),
        _curve([here, at(reading.end, outlook.forecast)], "a ahead"),
    ]
    if limit is not None:
        y = _height(limit, most)
        parts += [_line(0, y, _WIDTH, y, "limit"), _text(f"ends at {size(limit)}", _WIDTH, y + 12, "end")]
    return _drawing(
        "Traffic of this window, and its forecast",
        *parts,
        _text(day(reading.start), 0, 147),
        _text(day(reading.end), _WIDTH, 147, "end"),
    )


def bar(part: float, whole: float) -> Tag:
    """Draw how far a limit is used up."""
    share = min(1.0, part / whole)
    kind = "fill over" if share > HARD_PERCENT / 100 else "fill near" if share > 0.75 else "fill"
    return _tag(
        "svg",
        _tag("rect", width=100, height=6, rx=3, class_="track"),
        _tag("rect", width=f"{100 * share:.1f}", height=6, rx=3, class_=kind),
        viewBox="0 0 100 6",
        preserveAspectRatio="none",
        class_="bar",
        role="img",
        aria_label=f"{100 * share:.0f} %",
    )


def latest(view: View) -> tuple[int, int]:
    """Give the rates of the last ten seconds, from clients and from targets; nothing where they are older."""
    if not view.rates or view.now - view.rates[-1].at > 2 * LOOK_EVERY * 1000:
        return 0, 0
    return view.rates[-1].from_clients, view.rates[-1].from_targets
