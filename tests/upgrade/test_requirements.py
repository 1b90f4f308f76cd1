"""What a release is made of."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import distribution
from pathlib import Path

from packaging.requirements import Requirement
from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).parents[2]


class Requirements(SynchronousTestCase):
    def test_all_that_the_relay_needs_is_locked(self) -> None:
        with (ROOT / "pyproject.toml").open("rb") as file:
            waiting = [Requirement(text) for text in tomllib.load(file)["project"]["dependencies"]]
        locked = set(re.findall(r"^([\w.-]+)==", (ROOT / "release" / "requirements.txt").read_text(), re.MULTILINE))
        needed: set[tuple[str, frozenset[str]]] = set()
        while waiting:
            wanted = waiting.pop()
            found = (wanted.name.lower().replace("_", "-"), frozenset(wanted.extras))
            if found in needed:
                continue
            needed.add(found)
            for text in distribution(wanted.name).requires or []:
                further = Requirement(text)
                extras = wanted.extras or {""}
                if further.marker is None or any(further.marker.evaluate({"extra": extra}) for extra in extras):
                    waiting.append(further)
        self.assertEqual({name for name, _ in needed}, locked, "see release/requirements.txt")
