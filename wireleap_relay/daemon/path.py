"""Unix sockets in folders whose names are too long for the system."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import Self

_LONGEST = 107  # bytes: Linux's sockaddr_un, less the NUL at its end


class SocketPath:
    """How to name a socket to the system; a context manager.

    :ivar text: good until this is closed.
    """

    def __init__(self, path: Path) -> None:
        """Name a socket.

        :raises OSError: where its folder is not there.
        """
        self._folder: int | None = None
        self.text = str(path)
        if len(os.fsencode(path)) > _LONGEST:
            self._folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
            self.text = f"/proc/self/fd/{self._folder}/{path.name}"

    def close(self) -> None:
        """Need the name no longer."""
        folder, self._folder = self._folder, None
        if folder is not None:
            os.close(folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()
