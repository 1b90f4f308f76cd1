"""Runs in every process of a relay that is soaked: sets its clock and its name server, and tells what can't be seen from outside.

SOAK holds ``clock``, with seconds that this machine's clock is wrong by, perhaps ``nameserver``, with the port of one on
loopback that is asked instead of this machine's, and gets a file for each process.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from pathlib import Path

_folder = Path(os.environ["SOAK"])
_real = time.time
_known = [0.0, 0.0]


def _time() -> float:
    now = time.monotonic()
    if now - _known[0] > 0.05:
        try:
            _known[:] = now, float((_folder / "clock").read_text() or 0)
        except (OSError, ValueError):
            _known[0] = now
    return _real() + _known[1]


def _tell() -> None:
    while True:
        time.sleep(1.0)
        reactor = sys.modules.get("twisted.internet.reactor")
        if reactor is None:
            continue
        try:
            calls = len(reactor.getDelayedCalls())  # type: ignore[attr-defined]
            (_folder / f"{os.getpid()}.json").write_text(json.dumps({"delayed_calls": calls}))
        except (OSError, RuntimeError, MemoryError):
            continue  # the list changed meanwhile, or this is what is being tried


def _ask(port: int) -> None:
    from wireleap_relay.tunnel.resolver import Resolver

    # Without a resolv.conf it is the one on loopback.
    Resolver.__init__.__defaults__ = (_folder / "resolv.conf", Path("/etc/hosts"), port)


time.time = _time
if (_folder / "nameserver").exists():
    _ask(int((_folder / "nameserver").read_text()))
threading.Thread(target=_tell, name="soak", daemon=True).start()
