"""Version numbers of software and interfaces (PROTOCOL: *Parties*)."""

from __future__ import annotations

import re
from typing import Any

import attrs

from wireleap_relay.wire.errors import WireError
from wireleap_relay.wire.structure import converter

_SEMVER = re.compile(r"v?(\d{1,9})\.(\d{1,9})\.(\d{1,9})(?:[-+][0-9A-Za-z.+-]{1,64})?", re.ASCII)


@attrs.frozen(order=True)
class Version:
    """MAJOR.MINOR.PATCH (semver 2.0); a pre-release or build suffix is read and left out."""

    major: int
    minor: int
    patch: int

    @classmethod
    def from_text(cls, text: str) -> Version:
        """Read a version.

        :raises WireError: where it isn't one.
        """
        match = _SEMVER.fullmatch(text)
        if match is None:
            raise WireError('expected a version such as "0.2.0"')
        major, minor, patch = map(int, match.groups())
        return cls(major, minor, patch)

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.patch}"

    def compatible_with(self, other: Version) -> bool:
        """Tell whether two interface versions work together: an equal MAJOR and MINOR."""
        return (self.major, self.minor) == (other.major, other.minor)


def _structure(value: Any, _: Any) -> Version:
    if type(value) is not str:
        raise WireError("expected text")
    return Version.from_text(value)


converter.register_structure_hook(Version, _structure)
converter.register_unstructure_hook(Version, str)

CLIENT_RELAY = Version(0, 2, 0)
RELAY_RELAY = Version(0, 2, 0)
RELAY_DIR = Version(0, 2, 0)
RELAY_CONTRACT = Version(0, 1, 0)

#: The interfaces this relay speaks, by the names they have in a relay entry.
INTERFACES = {
    "client-relay": CLIENT_RELAY,
    "relay-relay": RELAY_RELAY,
    "relay-dir": RELAY_DIR,
    "relay-contract": RELAY_CONTRACT,
}
