"""What the network's reference implementation reads and writes: the files in ``tests/vectors``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

_FOLDER = Path(__file__).with_name("vectors")


def load(name: str) -> dict[str, Any]:
    """Read one file of vectors, by its name without ``.json``."""
    data: dict[str, Any] = json.loads((_FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return data


DURATIONS = load("durations")
DATASIZES = load("datasizes")
STATUSES: list[str] = load("statuses")["statuses"]
SHARETOKENS: list[dict[str, Any]] = load("sharetokens")["sharetokens"]
PROOF_OF_FUNDING: dict[str, Any] = load("sharetokens")["proof_of_funding"]
PAYLOADS: list[str] = [vector["wl_payload"] for vector in SHARETOKENS if "wl_payload" in vector]
