"""A worker's process: ``python -m wireleap_relay.workers``, started by the daemon and by nobody else."""

from __future__ import annotations

import os
import signal
import socket
from typing import Any, cast

from twisted.internet.protocol import Factory
from twisted.logger import ILogObserver, globalLogBeginner

from wireleap_relay.collector import spare_what_stays
from wireleap_relay.ownprocess import end_without_memory, reckon_by_a_steady_clock
from wireleap_relay.workers.worker import CONTROL, Worker

#: Those are for the daemon, which tells its workers what is to be done.
_IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


def main() -> None:
    """Work until the daemon is gone."""
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    from twisted.internet import reactor as global_reactor

    reactor = cast("Any", global_reactor)
    reckon_by_a_steady_clock(reactor)
    end_without_memory(reactor)  # the daemon says why
    worker = Worker(reactor)
    globalLogBeginner.beginLoggingTo([cast("ILogObserver", worker.log)], redirectStandardIO=False)
    reactor.adoptStreamConnection(CONTROL, socket.AF_UNIX, Factory.forProtocol(lambda: worker))
    os.close(CONTROL)
    reactor.callWhenRunning(spare_what_stays)
    reactor.run(installSignalHandlers=False)


main()
