"""``twistd wireleap-relay``: options, and the service they make."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from twisted.application.service import IService
from twisted.logger import Logger
from twisted.python import usage

from wireleap_relay.config import Config, ConfigError, parse_config
from wireleap_relay.daemon.lock import HomeLock
from wireleap_relay.daemon.notify import Notifier
from wireleap_relay.home import Home, HomeError, Identity, find_home
from wireleap_relay.readiness import ReadinessService
from wireleap_relay.relay import make_relay
from wireleap_relay.signals import SignalService


class Options(usage.Options):
    """What twistd shows under ``--help``."""

    synopsis = "[options]"
    longdesc = (
        "Runs a Wireleap relay out of its home: a folder with config.json, the relay's key and certificate, and all"
        " that it keeps. `wireleap-relay init` makes one, `wireleap-relay check-config` looks at it, and"
        " `wireleap-relay help` tells of the rest."
    )
    optParameters = (
        (
            "home",
            None,
            None,
            "The relay's home [default: $WIRELEAP_RELAY_HOME, else the folder of a release file, else this folder]",
        ),
    )

    home: Home
    config: Config
    identity: Identity
    warnings: list[str]
    lock: HomeLock

    def postOptions(self) -> None:
        """Read the home: here, for twistd shows what is wrong in plain words only while it reads options.

        :raises twisted.python.usage.UsageError: where the home or its config can't be used.
        """
        try:
            self.home = find_home(self["home"], os.environ, Path(sys.argv[0]))
            self.config, self.identity, self.warnings = load(self.home)
            self.lock = HomeLock.take(self.home, os.environ)
        except (HomeError, ConfigError) as e:
            raise usage.UsageError(str(e)) from None
        if self.parent is not None and self.parent["pidfile"] in ("twistd.pid", str(self.home.pid)):
            # The lock decides who may run, and goes with its process whatever becomes of that.
            self.parent["pidfile"] = ""


def load(home: Home) -> tuple[Config, Identity, list[str]]:
    """Read what a relay needs out of its home.

    :returns: its config, its identity, and warnings about the config.
    :raises HomeError: where a file is missing or broken.
    :raises ConfigError: where the config is wrong.
    """
    config, warnings = parse_config(home.read_config())
    return config, home.load_identity(), warnings


def makeService(options: Options) -> IService:
    """Make the relay's services."""
    from twisted.internet import reactor

    log = Logger("wireleap_relay")
    for warning in options.warnings:
        log.warn("{warning}", warning=warning)
    relay = make_relay(reactor, options.home, options.config, options.identity)
    readiness = ReadinessService(reactor, relay, options.lock, Notifier.from_environment(os.environ), dict(os.environ))
    readiness.setServiceParent(relay)
    SignalService(reactor, relay, readiness.reload).setServiceParent(relay)
    return relay
