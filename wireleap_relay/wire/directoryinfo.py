"""What a directory says of itself (PROTOCOL: *API requests*, ``GET /info`` of a directory)."""

from __future__ import annotations

import attrs

from wireleap_relay.wire.apifields import write_without_defaults
from wireleap_relay.wire.endpoint import Endpoint
from wireleap_relay.wire.keys import PublicKey
from wireleap_relay.wire.relayentry import Role
from wireleap_relay.wire.structure import read
from wireleap_relay.wire.versions import Version


@attrs.frozen
class RoleInfo:
    """The relays of one role.

    :ivar restricted: whether enrolling takes a key.
    """

    count: int = 0
    restricted: bool = False


@attrs.frozen
class UpgradeChannels:
    """The latest versions of the network's software, by channel."""

    relay: dict[str, Version] = attrs.field(factory=dict)
    client: dict[str, Version] = attrs.field(factory=dict)


@attrs.frozen
class DirectoryInfo:
    """A directory's ``/info``; only what a relay can't do without has to be there.

    :ivar update_channels: an older name of the relays' ``upgrade_channels``.
    """

    public_key: PublicKey
    endpoint: Endpoint | None = None
    version: str = ""
    enrollment: dict[Role, RoleInfo] = attrs.field(factory=dict)
    update_channels: dict[str, Version] = attrs.field(factory=dict)
    upgrade_channels: UpgradeChannels = UpgradeChannels()

    @classmethod
    def from_json(cls, text: str | bytes) -> DirectoryInfo:
        """Read an answer.

        :raises WireError: naming each field that is missing or mistyped.
        """
        return read(text, cls)


write_without_defaults(UpgradeChannels, DirectoryInfo)
