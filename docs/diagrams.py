"""Draws the state machines into ``docs/machines.md``, from the machines themselves.

python docs/diagrams.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from wireleap_relay.contracts import machine as contract
from wireleap_relay.upgrade import machine as upgrade

MACHINES = {
    "One contract": ("wireleap_relay/contracts/machine.py", contract.enrollment),
    "One upgrade": ("wireleap_relay/upgrade/machine.py", upgrade.upgrade),
}
FILE = Path(__file__).with_name("machines.md")


def draw(machine: Any) -> str:
    """Draw a machine of Automat's as a Mermaid state diagram; what changes and asks for nothing is left out."""
    automaton = machine.__automat_automaton__
    arrows = []
    for old, happens, new, outputs in automaton.allTransitions():
        does = [output.method.__name__.strip("_").replace("_", " ") for output in outputs]
        if old is new and does == ["returns(None)"]:
            continue
        arrows.append(f"    {_id(old)} --> {_id(new)}: {happens.replace('_', ' ')} / {', '.join(does)}")
    names = {f'    state "{state.name}" as {_id(state)}' for state in automaton.states()}
    start = f"    [*] --> {_id(automaton.initialState)}"
    return "\n".join(["stateDiagram-v2", *sorted(names), start, *sorted(arrows)])


def page() -> str:
    """Give the whole page."""
    parts = ["# State machines\n", "Made by `python docs/diagrams.py`. An arrow says what happens / what is done.\n"]
    for title, (file, machine) in MACHINES.items():
        parts.append(f"## {title}\n\n`{file}`\n\n```mermaid\n{draw(machine)}\n```\n")
    return "\n".join(parts)


def _id(state: Any) -> str:
    return str(state.name).replace(" ", "_").replace("-", "_")


if __name__ == "__main__":
    FILE.write_text(page(), encoding="utf-8")
