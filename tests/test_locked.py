"""What is installed is what was locked: every dependency has a version and hashes in release/requirements*.txt."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from twisted.trial.unittest import SynchronousTestCase

_ROOT = Path(__file__).parents[1]
_LOCKED = re.compile(
    r"^([A-Za-z0-9._-]+)==(\S+)(?: ;[^\\\n]*)? \\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", re.M
)


def locked(name: str) -> dict[str, str]:
    """Read a file of locked versions."""
    return {
        canonicalize_name(found[1]): found[2]
        for found in _LOCKED.finditer((_ROOT / "release" / f"requirements{name}.txt").read_text())
    }


class LockedTests(SynchronousTestCase):
    def assert_locked(self, wanted: list[str], versions: dict[str, str]) -> None:
        for text in wanted:
            requirement = Requirement(text)
            version = versions.get(canonicalize_name(requirement.name))
            self.assertIsNotNone(version, f"{requirement.name} is not locked: run make lock")
            assert version is not None
            self.assertIn(version, requirement.specifier, f"{requirement.name}: run make lock")

    def test_every_dependency_is(self) -> None:
        project = tomllib.loads((_ROOT / "pyproject.toml").read_text())
        self.assert_locked(project["project"]["dependencies"], locked(""))
        self.assert_locked(project["build-system"]["requires"], locked("-build"))
        self.assert_locked(project["project"]["optional-dependencies"]["tests"], locked("-tests"))

    def test_the_files_agree(self) -> None:
        release = locked("")
        self.assertGreater(len(release), 20)
        for other in (locked("-build"), locked("-tests")):
            for name in release.keys() & other.keys():
                self.assertEqual(release[name], other[name], name)
