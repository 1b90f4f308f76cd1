"""What a daemon does about itself before it faces strangers."""

from __future__ import annotations

import contextlib
import os
import pwd
import resource
from pathlib import Path

import attrs

from wireleap_relay.home import Home, HomeError

#: Not 0: Linux ignores that where a program collects core dumps (core(5)).
_NO_CORE = 1
_FOR_US_ALONE = 0o077


@attrs.frozen
class Account:
    """A user of the machine."""

    name: str
    uid: int
    gid: int


def harden() -> None:
    """Have no core dumps, and files that are ours alone unless they say otherwise."""
    resource.setrlimit(resource.RLIMIT_CORE, (_NO_CORE, _NO_CORE))
    os.umask(_FOR_US_ALONE)


def account_for(user: str | None, home: Home) -> Account | None:
    """Tell whose rights a daemon is to run with; None for those that it has.

    :param user: a name, out of the config.
    :raises HomeError: where there is no such user, where the home is not
        theirs, or where only root could become them.
    """
    if user is None:
        return None
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        raise HomeError(f"config.json: user: this machine knows no user {user}") from None
    if os.geteuid() == entry.pw_uid:
        return None
    if os.geteuid():
        raise HomeError(f"config.json: user: only root can become {user}: start the relay as {user}, or leave it out")
    if home.path.stat().st_uid != entry.pw_uid:
        raise HomeError(f"{home.path} has to belong to {user}: chown -R {user} {home.path}")
    return Account(user, entry.pw_uid, entry.pw_gid)


def hand_over(account: Account, *files: Path) -> None:
    """Give files to somebody that were opened before becoming them."""
    for file in files:
        with contextlib.suppress(FileNotFoundError):
            os.chown(file, account.uid, account.gid)
