"""A history of runs as a picture."""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from html import escape
from pathlib import Path
from typing import Any

_WIDTH, _HEIGHT, _LEFT, _GAP = 360, 120, 60, 60
_COLUMNS = 3
_COLOURS = ("#1b6ca8", "#c0392b", "#7f8c8d", "#27ae60")


def plot(history: Path) -> str:
    """Draw the processor cost of each workload over the runs in a history, a line for each relay, as SVG.

    Lines of the history that have the same label are one run.
    """
    labelled: dict[str, list[dict[str, Any]]] = {}
    for line in history.read_text().splitlines():
        part = json.loads(line)
        labelled.setdefault(part["label"] or part["date"], []).extend(part["figures"])
    runs = list(labelled.values())
    series: dict[tuple[str, str], dict[str, list[tuple[int, float]]]] = defaultdict(lambda: defaultdict(list))
    for number, run in enumerate(runs):
        found: dict[tuple[str, str, str], list[float]] = defaultdict(list)
        for figure in run:
            by_wall = not figure["cost"]
            value, unit = (figure["wall"], figure["wall_unit"]) if by_wall else (figure["cost"], figure["unit"])
            found[figure["workload"], unit, figure["relay"]].append(value)
        for (workload, unit, relay), values in found.items():
            series[workload, unit][relay].append((number, statistics.median(values)))
    relays = sorted({relay for lines in series.values() for relay in lines})
    colours = {relay: _COLOURS[i % len(_COLOURS)] for i, relay in enumerate(relays)}
    parts = []
    for index, ((workload, unit), lines) in enumerate(series.items()):
        x = index % _COLUMNS * (_WIDTH + _LEFT) + _LEFT
        y = index // _COLUMNS * (_HEIGHT + _GAP) + _GAP
        parts.append(
            f'<g transform="translate({x},{y})">{_panel(f"{workload}, {unit}", lines, colours, len(runs))}</g>'
        )
    for i, relay in enumerate(relays):
        parts.append(
            f'<text x="{_LEFT + 140 * i}" y="20" fill="{colours[relay]}" font-size="14">{escape(relay)}</text>'
        )
    rows = -(-len(series) // _COLUMNS)
    width, height = _COLUMNS * (_WIDTH + _LEFT) + 20, rows * (_HEIGHT + _GAP) + _GAP
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif">'
        f'<rect width="100%" height="100%" fill="white"/>{"".join(parts)}</svg>\n'
    )


def _panel(title: str, lines: dict[str, list[tuple[int, float]]], colours: dict[str, str], runs: int) -> str:
    most = max(value for points in lines.values() for _, value in points) or 1.0
    parts = [
        f'<text y="-8" font-size="12">{escape(title)}</text>',
        f'<path d="M0 0V{_HEIGHT}H{_WIDTH}" fill="none" stroke="#999"/>',
        f'<text x="-6" y="10" font-size="10" text-anchor="end">{most:.3g}</text>',
        f'<text x="-6" y="{_HEIGHT}" font-size="10" text-anchor="end">0</text>',
    ]
    for relay, points in lines.items():
        at = [(_WIDTH * (n + 0.5) / runs, _HEIGHT * (1 - value / most)) for n, value in points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in at)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colours[relay]}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colours[relay]}"/>' for x, y in at]
    return "".join(parts)
