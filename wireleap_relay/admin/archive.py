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
    files = {file: file.stem.removeprefix(prefix) for file in folder.glob(f"{prefix}*.json")}
    ends = {file: int(end) for file, end in files.items() if end.isascii() and end.isdigit()}
    found: list[dict[str, Any]] = []
    for newest in sorted(ends, key=ends.__getitem__, reverse=True)[:MOST]:
        try:
            record = read_json(newest.read_bytes())
        except (WireError, OSError):
            continue
        if isinstance(record, dict):
            found.append(record)
    return found
