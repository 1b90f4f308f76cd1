"""What a daemon tells whoever has started it, as sd_notify(3) has it: systemd, or our own `start`."""

from __future__ import annotations

import contextlib
import socket
import tempfile
from collections.abc import MutableMapping
from pathlib import Path
from typing import Self

_VARIABLE = "NOTIFY_SOCKET"
_LONGEST = 4096
#: Our own field: clients are accepted, whether or not a contract takes the relay.
LISTENING = "X_WIRELEAP_LISTENING"


class Notifier:
    """The daemon's end."""

    def __init__(self, address: str | None) -> None:
        """Tell the socket at an address; ``@`` stands for an abstract one, None for nobody."""
        self._address = "\0" + address[1:] if address and address.startswith("@") else address

    @classmethod
    def from_environment(cls, environment: MutableMapping[str, str]) -> Self:
        """Make one, and keep processes started later from talking in this one's name."""
        return cls(environment.pop(_VARIABLE, None))

    @property
    def is_heard(self) -> bool:
        """Whether anybody asked to be told."""
        return bool(self._address)

    def mute(self) -> None:
        """Tell nobody anything any more."""
        self._address = None

    def tell(self, **fields: object) -> None:
        """Send fields such as ``READY=1``; whoever is gone or too slow misses it."""
        if not self._address:
            return
        message = "".join(f"{name}={str(value).replace(chr(10), ' ')}\n" for name, value in fields.items())
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
            out.setblocking(False)
            out.sendto(message.encode()[:_LONGEST], self._address)


class NotifySocket:
    """The starter's end; a context manager.

    :ivar environment: what the daemon has to have in its environment.
    """

    def __enter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory(prefix="wireleap-relay-")
        path = str(Path(self._folder.name, "notify"))
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(path)
        self.environment = {_VARIABLE: path}
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
        self._folder.cleanup()

    def receive(self, timeout: float) -> dict[str, str]:
        """Wait for a message.

        :param timeout: in seconds.
        :returns: its fields; none where nothing came.
        """
        self._socket.settimeout(timeout)
        try:
            text = self._socket.recv(_LONGEST).decode("utf-8", "replace")
        except TimeoutError:
            return {}
        return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)

    def fileno(self) -> int:
        """Give what can be waited for."""
        return self._socket.fileno()
