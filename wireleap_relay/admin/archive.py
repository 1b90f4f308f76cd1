"""The records of windows that have closed (PROTOCOL: *The relay's directory on disk*)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from wireleap_relay.wire.encoding import read_json
from wireleap_relay.wire.errors import WireError

MOST = 100


def read_archive(folder: Path, relay: str) -> list[dict[str, Any]]:
    """Read the newest records of a relay, newest first; what isn't one is passed over. Blocks.

    :raises OSError: where the folder can't be read.
    """
    if not folder.is_dir():
        return []
    prefix = f"{relay}-"
    ends = sorted(
        (int(end) for file in folder.glob(f"{prefix}*.json") if (end := file.stem.removeprefix(prefix)).isdigit()),
        reverse=True,
    )
    found: list[dict[str, Any]] = []
    for newest in ends[:MOST]:
        try:
            record = read_json((folder / f"{prefix}{newest}.json").read_bytes().decode())
        except (WireError, UnicodeDecodeError):
            continue
        if isinstance(record, dict):
            found.append(record)
    return found
