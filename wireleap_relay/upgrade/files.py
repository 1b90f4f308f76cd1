"""Moves a release's files into their places, and back (PROTOCOL: *Upgrades*).

Each step may be broken off anywhere and done again: at every moment there is a
``wireleap-relay`` and a ``config.json`` in the home, each of them whole. All of
it blocks.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from wireleap_relay.home import Home, HomeError, sync_folder

_PROGRAM_MODE = 0o755


def stage(home: Home, fetched: Path) -> None:
    """Move a verified file to where it can run.

    :raises HomeError: where the disk won't do.
    """
    with _in(home):
        # On disk before its name is: a power cut must not leave the name on a hole.
        descriptor = os.open(fetched, os.O_RDONLY)
        try:
            os.fchmod(descriptor, _PROGRAM_MODE)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        fetched.replace(home.next(home.program))
        sync_folder(home.path)


def clear_quarantine(home: Home) -> None:
    """Remove what was fetched, and where it waited."""
    shutil.rmtree(home.quarantine, ignore_errors=True)


def put_in_place(home: Home) -> None:
    """Make the new files the present ones, and the present ones the previous.

    :raises HomeError: where the disk won't do.
    """
    with _in(home):
        for file in _pair(home):
            _replace(file, home.next(file), home.previous(file))
    clear_quarantine(home)


def remove_next(home: Home) -> None:
    """Remove the new files.

    :raises HomeError: where the disk won't do.
    """
    with _in(home):
        # The config first: without a program beside it, it means nothing.
        for file in reversed(_pair(home)):
            home.next(file).unlink(missing_ok=True)
        sync_folder(home.path)
    clear_quarantine(home)


def can_go_back(home: Home) -> bool:
    """Tell whether there is a previous version."""
    return home.previous(home.program).is_file()


def put_back(home: Home) -> None:
    """Make the previous files the present ones; those are gone then.

    :raises HomeError: where the disk won't do.
    """
    with _in(home):
        for file in reversed(_pair(home)):
            with contextlib.suppress(FileNotFoundError):
                home.previous(file).replace(file)
            sync_folder(home.path)


def sum_of_config(home: Home) -> str:
    """Give the SHA-512 sum of the config, in hex.

    :raises HomeError: where it can't be read.
    """
    return hashlib.sha512(home.read_config()).hexdigest()


def _pair(home: Home) -> tuple[Path, Path]:
    return home.program, home.config


def _replace(file: Path, new: Path, old: Path) -> None:
    """Put a new file in the place of one that is kept under another name."""
    if not new.exists():
        return  # done before
    # A second name for the present file, not another place: it must never be missing.
    old.unlink(missing_ok=True)
    old.hardlink_to(file)
    new.replace(file)
    sync_folder(file.parent)


@contextlib.contextmanager
def _in(home: Home) -> Iterator[None]:
    try:
        yield
    except OSError as e:
        raise HomeError(f"{e.filename2 or e.filename or home.path}: {e.strerror}") from None
