"""Figures, side by side."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path

import attrs


@attrs.frozen
class Figure:
    """One relay's result in one workload.

    :ivar cost: processor time of the relay for a unit of work, in ``unit``.
    :ivar wall: what a client sees, in ``wall_unit``.
    :ivar memory: of all of the relay's processes at the end, in bytes.
    """

    workload: str
    relay: str
    cost: float
    unit: str
    wall: float
    wall_unit: str
    wall_p99: float = 0.0
    memory: int = 0


#: Units of which more is better.
_RATES = ("MB/CPU-s", "MB/s")


def median(figures: Sequence[Figure]) -> Figure:
    """Put the figures of several rounds together."""
    return attrs.evolve(
        figures[0],
        cost=statistics.median(figure.cost for figure in figures),
        wall=statistics.median(figure.wall for figure in figures),
        wall_p99=statistics.median(figure.wall_p99 for figure in figures),
        memory=figures[-1].memory,
    )


def advantage(ours: Sequence[Figure], theirs: Sequence[Figure], field: str) -> float:
    """Tell how many times better ours is, as the median of pairs that were measured one after the other."""
    unit = ours[0].unit if field == "cost" else ours[0].wall_unit
    ratios = []
    for one, other in zip(ours, theirs, strict=True):
        a, b = getattr(one, field), getattr(other, field)
        if a and b:
            ratios.append(a / b if unit in _RATES else b / a)
    return statistics.median(ratios) if ratios else 0.0


def table(results: Iterable[list[list[Figure]]]) -> str:
    """Lay results out: of each workload, for each relay (ours first), the figures of all rounds."""
    lines = [f"{'':<26} {'relay':<10} {'processor':>20} {'wall':>18} {'p99':>10} {'memory':>12}   ours is better by"]
    for of_relays in results:
        ours = of_relays[0]
        for figures in of_relays:
            middle = median(figures)
            name = middle.workload if figures is ours else ""
            p99 = f"{middle.wall_p99:.3g}" if middle.wall_p99 else ""
            line = (
                f"{name:<26} {middle.relay:<10} {_number(middle.cost)} {middle.unit:<11}"
                f" {_number(middle.wall)} {middle.wall_unit:<9} {p99:>10} {_growth(figures):>12}"
            )
            if figures is not ours:
                cost, wall = advantage(ours, figures, "cost"), advantage(ours, figures, "wall")
                line += f"   {cost:5.2f} x processor, {wall:5.2f} x wall"
            lines.append(line.rstrip())
    return "\n".join(lines)


def _growth(figures: Sequence[Figure]) -> str:
    first, last = figures[0].memory / 1e6, figures[-1].memory / 1e6
    return f"{last:.0f} MB" if round(first) == round(last) else f"{first:.0f}->{last:.0f} MB"


def _number(value: float) -> str:
    return f"{value:8.0f}" if value >= 100 else f"{value:8.3g}"


def save(file: Path, date: str, label: str, results: Iterable[list[list[Figure]]]) -> None:
    """Add a run to a history: a file with a line of JSON for each."""
    figures = [attrs.asdict(figure) for of_relays in results for rounds in of_relays for figure in rounds]
    with file.open("a") as history:
        history.write(json.dumps({"date": date, "label": label, "figures": figures}) + "\n")
