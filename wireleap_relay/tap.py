"""``twistd wireleap-relay``: options, and the service they make."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path
from typing import Any, cast

from twisted.application.service import IService
from twisted.logger import Logger
from twisted.python import usage

from wireleap_relay import __version__, logs
from wireleap_relay.collector import spare_what_stays
from wireleap_relay.composition import make_relay
from wireleap_relay.config import Config, ConfigError
from wireleap_relay.control import make_control
from wireleap_relay.daemon.hardening import account_for, hand_over, harden
from wireleap_relay.daemon.lock import HomeLock
from wireleap_relay.daemon.notify import Notifier
from wireleap_relay.daemon.resources import FEW_FILES, activated_sockets, first_environment, raise_open_files
from wireleap_relay.home import SUCCEEDS_VARIABLE, Home, HomeError, Identity, find_home
from wireleap_relay.inspection import exposed, load
from wireleap_relay.ownprocess import end_without_memory, reckon_by_a_steady_clock
from wireleap_relay.readiness import ReadinessService
from wireleap_relay.signals import SignalService
from wireleap_relay.succession import RelayIncumbent
from wireleap_relay.tunnel.sockets import accept_from
from wireleap_relay.upgrade.handover import HandoverService
from wireleap_relay.upgrade.peer import PeerFailed, Succession, succeed
from wireleap_relay.upgrade.record import Busy, read_record
from wireleap_relay.upgrade.work import take_up
from wireleap_relay.wire.address import join_host_port


class Options(usage.Options):
    """What twistd shows under ``--help``."""

    synopsis = "[options]"
    longdesc = (
        "Runs a Wireleap relay out of its home: a folder with config.json, the relay's key and certificate, and all"
        " that it keeps. `wireleap-relay init` makes one, `wireleap-relay check-config` looks at it, and"
        " `wireleap-relay help` tells of the rest, which works with a relay that twistd runs, too. Of twistd's own"
        " options, --logfile and --pidfile are the home's wireleap-relay.log and wireleap-relay.pid where they are"
        " left out, and --nodaemon logs to the terminal; `log` in config.json has the form and the level. SIGUSR1"
        " reads the config again, SIGUSR2 writes the status into the log, SIGHUP begins a new log file, SIGTERM lets"
        " open tunnels finish."
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
    log: logs.RelayLog | None
    activated: list[socket.socket]
    succession: Succession | None

    def postOptions(self) -> None:
        """Read the home: here, for twistd shows what is wrong in plain words only while it reads options.

        :raises twisted.python.usage.UsageError: where the home or its config can't be used.
        """
        try:
            self.home = find_home(self["home"], os.environ, Path(sys.argv[0]))
            self.lock = HomeLock.take(self.home, os.environ)
            if self.lock.held:
                self._take_up()
            self.config, self.identity, self.warnings = load(self.home)
            self.warnings += exposed(self.home, self.config)
            account = account_for(self.config.user, self.home)
            self.activated = activated_sockets(first_environment())
            self.succession = self._succeed()
        except (HomeError, ConfigError, Busy, OSError) as e:
            raise usage.UsageError(str(e)) from None
        self.log = None
        if self.parent is None:
            return
        if not (self.parent["logger"] or self.parent["syslog"]):
            self.log = self._open_log(self.parent)
            self.parent["logger"] = logs.as_of_this_process(self.log)
        if self.parent["pidfile"] in ("twistd.pid", str(self.home.pid)):
            # The lock decides who may run, and goes with its process whatever becomes of that.
            self.parent["pidfile"] = ""
        if account is not None:
            # twistd becomes them between binding addresses and all else.
            self.parent["uid"], self.parent["gid"] = account.uid, account.gid
            hand_over(account, self.home.lock, self.home.log)

    def _take_up(self) -> None:
        """Finish or undo an upgrade that was under way when all of the relay went down."""
        if read_record(self.home).is_done or SUCCEEDS_VARIABLE in os.environ:
            return
        record = take_up(self.home)
        if record.state != "committed":
            return
        # The program is another one by now.
        words = [place for place, word in enumerate(sys.orig_argv) if os.path.realpath(word) == str(self.home.program)]
        if not words:
            raise HomeError(f"the upgrade to version {record.version} was finished: start the relay again")
        os.execv(self.home.program, [str(self.home.program), *sys.orig_argv[words[0] + 1 :]])  # noqa: S606

    def _succeed(self) -> Succession | None:
        """Take over what the daemon has whose place this one is about to take, where there is one."""
        predecessor = os.environ.get(SUCCEEDS_VARIABLE, "")
        if not predecessor.isdigit():
            return None
        try:
            return succeed(self.home, int(predecessor))
        except PeerFailed as e:
            raise HomeError(f"the relay that runs does not hand over: {e}") from None

    def _open_log(self, twistd: usage.Options) -> logs.RelayLog:
        named = twistd["logfile"]
        path = None
        if named != "-" and (named or not twistd["nodaemon"]):
            path = Path(named).absolute() if named else self.home.log
        try:
            return logs.RelayLog(path, self.config.log, os.environ)
        except OSError as e:
            raise usage.UsageError(f"{path} can't be written: {e.strerror}") from None


def _name(listening: socket.socket) -> str:
    name = listening.getsockname()
    return str(name) if listening.family == socket.AF_UNIX else join_host_port(name[0], name[1])


def makeService(options: Options) -> IService:
    """Make the relay's services."""
    from twisted.internet import reactor as global_reactor

    harden()
    reactor = cast("Any", global_reactor)
    reckon_by_a_steady_clock(reactor)
    log = Logger("wireleap_relay")
    end_without_memory(
        reactor, lambda: log.critical("There is no memory left: the relay ends, and has to be started again")
    )
    log.info("wireleap-relay {version} starts, out of {home}", version=__version__, home=options.home.path)
    for warning in options.warnings:
        log.warn("{warning}", warning=warning)
    files = raise_open_files()
    if files < FEW_FILES:
        log.warn(
            "No more than {files} files may be open, and a tunnel takes two: raise the limit, with LimitNOFILE= in"
            " systemd's unit or `ulimit -n`",
            files=files,
        )
    for each in options.activated:
        log.info("Clients come in at {address}, by a socket that was handed over", address=_name(each))
    succession = options.succession
    relay = make_relay(reactor, options.home, options.config, options.identity, options.activated, succession)
    reactor.callWhenRunning(spare_what_stays)
    environment = dict(os.environ)
    readiness = ReadinessService(
        reactor,
        options.home,
        relay,
        options.lock,
        Notifier.from_environment(os.environ),
        make_control(reactor, options.home, relay),
        environment,
    )
    readiness.setServiceParent(relay)
    incumbent = RelayIncumbent(reactor, relay, readiness, succession)
    handover = HandoverService(reactor, options.home, incumbent, accept_from, succession.link if succession else None)
    handover.setServiceParent(relay)

    def reload() -> None:
        readiness.reload()
        if options.log is not None:
            options.log.apply(relay.config.log)

    def hang_up() -> None:
        if options.log is not None:
            options.log.reopen()
            log.info("The log goes on in this file")

    ends_with_terminal = options.log is not None and options.log.ends_with_terminal
    SignalService(reactor, relay, reload, None if ends_with_terminal else hang_up).setServiceParent(relay)
    return relay
