"""What a daemon is given by whoever starts it: sockets that listen already, and files that it may open."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
from collections.abc import Mapping
from pathlib import Path

_FIRST = 3
#: What fewer open files than this are worth a warning: a tunnel takes two.
FEW_FILES = 4096


def first_environment() -> dict[str, str]:
    """Give the environment that this process was started with; Twisted takes out of it what is systemd's."""
    variables = Path("/proc/self/environ").read_bytes().split(b"\0")
    return dict(os.fsdecode(each).split("=", 1) for each in variables if b"=" in each)


def activated_sockets(environment: Mapping[str, str]) -> list[socket.socket]:
    """Take the sockets that systemd has for this process (sd_listen_fds(3)), and keep others from doing so.

    :raises OSError: where what was handed over is no socket that listens.
    """
    count = environment.get("LISTEN_FDS", "")
    if environment.get("LISTEN_PID") != str(os.getpid()) or not count.isdigit():
        return []
    taken = []
    for descriptor in range(_FIRST, _FIRST + int(count)):
        os.set_inheritable(descriptor, False)
        each = socket.socket(fileno=descriptor)
        if each.type != socket.SOCK_STREAM or not each.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            raise OSError(f"the socket handed over as file descriptor {descriptor} does not listen for connections")
        each.setblocking(False)
        taken.append(each)
    return taken


def raise_open_files() -> int:
    """Let this process and its children have as many open files as they may.

    :returns: how many that is.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(OSError, ValueError):  # then it stays what it is, and that is what is told
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
