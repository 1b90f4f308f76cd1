"""Which version may follow which, and which one is skipped (PROTOCOL: *Upgrades*)."""

from __future__ import annotations

import json
from pathlib import Path

from wireleap_relay.home import write_durably
from wireleap_relay.wire.directoryinfo import DirectoryInfo
from wireleap_relay.wire.encoding import read_json
from wireleap_relay.wire.errors import WireError
from wireleap_relay.wire.versions import Version

#: What a copy that is no release says.
NOT_A_RELEASE = "this copy was not installed from a release: upgrade it with pip"


class Unwanted(Exception):
    """A version is not to be installed; the text says why."""


def latest(directory: DirectoryInfo, channel: str) -> Version:
    """Give the latest version on a channel.

    :raises Unwanted: where the directory has no such channel for relays.
    """
    for channels in (directory.upgrade_channels.relay, directory.update_channels):
        if channel in channels:
            return channels[channel]
    raise Unwanted(f"the directory has no upgrade channel {channel!r} for relays")


def check_newer(wanted: Version, ours: Version) -> None:
    """See that an upgrade goes up.

    :raises Unwanted: where it doesn't.
    """
    if wanted == ours:
        raise Unwanted(f"version {ours} is what runs already")
    if wanted < ours:
        raise Unwanted(f"version {wanted} is older than {ours}, which runs: upgrades never go back")


def read_skipped(file: Path) -> Version | None:
    """Give the version that is not to be tried again by itself; None for none. It blocks.

    :raises Unwanted: where the file can't be read: it may say anything.
    """
    try:
        text = file.read_text("utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as e:
        raise Unwanted(f"{file.name} can't be read: {getattr(e, 'strerror', None) or 'expected text'}") from None
    try:
        value = read_json(text)
        return Version.from_text(value if isinstance(value, str) else "")
    except WireError as e:
        raise Unwanted(f'{file.name}: expected a version in quotes, such as "0.7.0": {e}') from None


def write_skipped(file: Path, version: Version) -> None:
    """Have a version not tried again by itself. It blocks.

    :raises OSError: where the disk won't do.
    """
    write_durably(file, json.dumps(str(version)).encode())
