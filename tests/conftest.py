"""What pytest needs to run trial's tests as trial does."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``mktemp`` of trial's tests makes its files in the present folder."""
    monkeypatch.chdir(tmp_path)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put pytest-twisted's tests last: once its reactor runs, trial's can't start it."""
    items.sort(key=lambda item: item.path.name == "test_network.py")
