"""What changes in ``config.json`` from one version to another, as data (PROTOCOL: *Upgrades*)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import attrs

from wireleap_relay.home import Home, HomeError, write_json_durably
from wireleap_relay.wire.encoding import read_json
from wireleap_relay.wire.errors import WireError
from wireleap_relay.wire.versions import Version

#: A config as JSON data.
Fields = dict[str, Any]


@attrs.frozen
class Migration:
    """One change.

    :ivar version: the first one that wants it.
    :ivar change: gives the config as it is to be; it leaves the one it is given alone, and what it does not know.
    """

    version: Version
    name: str
    change: Callable[[Fields], Fields]


def _rename_update_channel(config: Fields) -> Fields:
    contracts = config.get("contracts")
    if not isinstance(contracts, dict):
        return config
    return {**config, "contracts": {url: _renamed(fields) for url, fields in contracts.items()}}


def _renamed(contract: Any) -> Any:
    if not isinstance(contract, dict) or "update_channel" not in contract:
        return contract
    if contract.get("upgrade_channel"):
        return {key: value for key, value in contract.items() if key != "update_channel"}
    left = {key: value for key, value in contract.items() if key != "upgrade_channel"}
    return {"upgrade_channel" if key == "update_channel" else key: value for key, value in left.items()}


#: In the order of their versions.
MIGRATIONS: Sequence[Migration] = (
    Migration(Version(0, 7, 0), "update_channel is called upgrade_channel", _rename_update_channel),
)


def migrate(config: Fields, old: Version, migrations: Sequence[Migration] = MIGRATIONS) -> tuple[Fields, list[str]]:
    """Bring a config up from a version.

    :returns: it, and the names of the migrations that changed it.
    """
    names: list[str] = []
    for migration in migrations:
        if migration.version > old:
            changed = migration.change(config)
            if changed != config:
                names.append(migration.name)
            config = changed
    return config, names


def migrate_home(home: Home, old: Version, migrations: Sequence[Migration] = MIGRATIONS) -> list[str]:
    """Write ``config.json.next`` out of ``config.json``. It blocks.

    :returns: the names of the migrations that changed it.
    :raises HomeError: where one can't be read or the other can't be written.
    """
    try:
        config = read_json(home.config.read_bytes())
        if not isinstance(config, dict):
            raise WireError("expected a JSON object")
        migrated, names = migrate(config, old, migrations)
        write_json_durably(home.next(home.config), migrated, home.config.stat().st_mode & 0o777)
    except WireError as e:
        raise HomeError(f"{home.config}: {e}") from None
    except OSError as e:
        raise HomeError(f"{e.filename2 or e.filename or home.next(home.config)}: {e.strerror}") from None
    return names
