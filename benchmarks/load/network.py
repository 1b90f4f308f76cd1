"""A contract and its directory, and a servicekey: python -m load.network FILE.

Writes the servicekey into FILE, and prints the contract's endpoint; ends with standard input.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from twisted.internet import reactor as global_reactor
from twisted.internet.protocol import Protocol
from twisted.internet.stdio import StandardIO

from wireleap_relay.sandbox.network import SandboxNetwork
from wireleap_relay.wire.encoding import to_base64url
from wireleap_relay.wire.keys import SigningKey
from wireleap_relay.wire.structure import converter


class _UntilItEnds(Protocol):
    def connectionLost(self, reason: object = None) -> None:
        global_reactor.callLater(0, global_reactor.stop)  # type: ignore[attr-defined]


def main() -> None:
    """Serve."""
    network = SandboxNetwork(global_reactor, time.time)
    network.startService()
    key = SigningKey.generate()
    statement = converter.unstructure(network.contract.activate(key.public_key))
    Path(sys.argv[1]).write_text(
        json.dumps(
            {
                "private_key": to_base64url(key.seed + key.public_key.raw),
                "public_key": str(key.public_key),
                "contract": statement,
            }
        )
    )
    print(network.contract.endpoint, flush=True)
    StandardIO(_UntilItEnds())
    global_reactor.run()  # type: ignore[attr-defined]


if __name__ == "__main__":
    main()
