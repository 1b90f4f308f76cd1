"""Answers the command's questions at a socket in the home: what the REST API shows, and what only the command asks."""

from __future__ import annotations

import os
from typing import Any

from wireleap_relay import __version__
from wireleap_relay.admin.listening import ListeningService
from wireleap_relay.admin.rest import Answer, json_answer, make_site
from wireleap_relay.configvalues import RestAddress
from wireleap_relay.daemon.path import SocketPath
from wireleap_relay.home import Home
from wireleap_relay.relay import Relay

#: What only the command asks for.
PATH = "/control"
_OURS_ALONE = 0o600


def make_control(reactor: Any, home: Home, relay: Relay) -> ListeningService:
    """Make the service, to be started once the home is ours; its socket stays as long as the process."""

    def control() -> Answer:
        reloaded = relay.reloaded
        return json_answer(
            {
                "pid": os.getpid(),
                "version": __version__,
                "stopping": not relay.running,
                "sentence": relay.sentence(),
                "drain_timeout": relay.config.drain_timeout,
                "reload": {"number": reloaded.number, "trouble": reloaded.trouble, "kept": list(reloaded.kept)},
            }
        )

    pages = {PATH: control, **relay.pages(reactor)}
    # The name is needed as long as the socket, and that as long as the process.
    address = RestAddress(path=SocketPath(home.control).text)
    return ListeningService(
        reactor, f"The socket {home.control.name}", address, _OURS_ALONE, make_site(reactor, pages), aloud=False
    )
