"""Tells whether a home's daemon runs."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Literal

import attrs

from wireleap_relay.daemon.lock import read_pid
from wireleap_relay.home import Home


@attrs.frozen
class DaemonState:
    """What can be told of a home's daemon from outside.

    :ivar kind: whether it runs.
    :ivar pid: of its process, where it runs and has said so.
    :ivar ours: whether it is this software's; else it is another relay's, and none of ours to kill.
    :ivar why: what is odd, for an operator to read; empty where nothing is.
    """

    kind: Literal["running", "stopped", "unknown"]
    pid: int | None = None
    ours: bool = True
    why: str = ""


def look(home: Home) -> DaemonState:
    """Tell whether a home's daemon runs."""
    try:
        descriptor = os.open(home.lock, os.O_RDONLY)
    except FileNotFoundError:
        return _by_pid_file(home)
    except OSError as e:
        return DaemonState("unknown", why=f"{home.lock}: {e.strerror}")
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return _by_pid_file(home)
    except BlockingIOError:
        return DaemonState("running", read_pid(descriptor))
    finally:
        os.close(descriptor)


def _by_pid_file(home: Home) -> DaemonState:
    """Judge by what the Go relay leaves, too: it knows no lock."""
    try:
        text = home.pid.read_bytes()[:20].strip()
    except FileNotFoundError:
        return DaemonState("stopped")
    except OSError as e:
        return DaemonState("unknown", why=f"{home.pid}: {e.strerror}")
    if not text.isdigit() or not int(text):
        return DaemonState("stopped", why=f"{home.pid.name} holds no process id, and is left over")
    pid = int(text)
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return DaemonState("stopped", why=f"{home.pid.name} is left over: there is no process {pid}")
    except PermissionError:
        pass  # somebody's: whose, the next lines tell
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError as e:
        return DaemonState("unknown", pid, why=f"process {pid} can't be looked at: {e.strerror}")
    name = Path(os.fsdecode(words[0])).name or "another program"
    # A relay of this software is a Python process, and has its own home's lock.
    if name.startswith("wireleap-relay"):
        return DaemonState("running", pid, ours=False, why=f"process {pid} is another version's relay")
    return DaemonState("stopped", why=f"{home.pid.name} is left over: process {pid} is {name} now")
