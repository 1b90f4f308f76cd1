"""Where sharetokens go that contracts have accepted (PROTOCOL: *The relay's directory on disk*)."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import attrs

from wireleap_relay.home import write_durably
from wireleap_relay.wire.sharetoken import Sharetoken


@attrs.frozen
class Archive:
    """A folder that has a file ``<contract id>/<signature>.json`` for each token."""

    folder: Path

    def keep(self, tokens: Iterable[Sharetoken]) -> None:
        """Write tokens, durably; what is there already is written again.

        :raises OSError: where the disk won't do.
        """
        for token in tokens:
            folder = self.folder / str(token.contract.public_key)
            folder.mkdir(parents=True, exist_ok=True)
            write_durably(folder / f"{token.signature}.json", token.to_json().encode(), 0o600)
