"""What a relay tells a directory of itself (PROTOCOL: *API requests*)."""

from __future__ import annotations

from typing import Any, Literal

import attrs
from cattrs.gen import make_dict_structure_fn, override

from wireleap_relay.wire.address import Address
from wireleap_relay.wire.errors import WireError
from wireleap_relay.wire.keys import PublicKey
from wireleap_relay.wire.structure import converter
from wireleap_relay.wire.units import format_size, parse_size
from wireleap_relay.wire.versions import INTERFACES, Version

Role = Literal["fronting", "entropic", "backing"]


@attrs.frozen
class RelayEntry:
    """A relay in a directory's list.

    :ivar address: where clients and other relays reach it.
    :ivar versions: of its software (``software``) and its interfaces.
    :ivar key: ``user:password`` for a directory that asks for one.
    :ivar network_usage_limit: bytes per window, where the operator set a limit.
    """

    role: Role
    address: Address
    pubkey: PublicKey
    versions: dict[str, Version]
    key: str | None = attrs.field(default=None, repr=False)
    network_usage_limit: int | None = None

    @classmethod
    def of_this_software(
        cls, *, role: Role, address: Address, pubkey: PublicKey, software: str, key: str | None, limit: int | None
    ) -> RelayEntry:
        """Make the entry of a relay that runs this software."""
        versions = {"software": Version.from_text(software), **INTERFACES}
        return cls(role, address, pubkey, versions, key, limit)

    def to_fields(self) -> dict[str, Any]:
        """The entry as JSON data; what isn't set is left out."""
        fields: dict[str, Any] = {
            "role": self.role,
            "address": str(self.address),
            "pubkey": str(self.pubkey),
            "versions": {name: str(version) for name, version in self.versions.items()},
        }
        if self.key is not None:
            fields["key"] = self.key
        if self.network_usage_limit is not None:
            fields["network_usage_limit"] = format_size(self.network_usage_limit)
        return fields


def structure_size(value: Any, _: Any) -> int:
    """Read a data size written as text, for converters.

    :raises WireError: where it isn't one.
    """
    if type(value) is not str:
        raise WireError("expected text")
    return parse_size(value)


def _structure_limit(value: Any, kind: Any) -> int | None:
    return None if value is None else structure_size(value, kind)


_from_fields: Any = make_dict_structure_fn(
    RelayEntry, converter, network_usage_limit=override(struct_hook=_structure_limit)
)


def _structure(value: Any, _: Any) -> RelayEntry:
    if type(value) is not dict:
        raise WireError("expected a JSON object")
    entry: RelayEntry = _from_fields(value, RelayEntry)
    return entry


converter.register_structure_hook(RelayEntry, _structure)
converter.register_unstructure_hook(RelayEntry, RelayEntry.to_fields)
