"""Keeps the account of the relay's traffic on disk."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import attrs
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure

from wireleap_relay.boundaries import WallClock
from wireleap_relay.home import write_json_durably
from wireleap_relay.usage.recorder import ClosedWindow, Recorder
from wireleap_relay.usage.stats import Stats
from wireleap_relay.usage.window import Window
from wireleap_relay.wire.errors import WireError
from wireleap_relay.wire.keys import PublicKey

_LOOK_EVERY = 1.0


@attrs.frozen
class UsageStatus:
    """What was carried in the present window.

    :ivar carried: bytes by contract.
    :ivar trouble: why it can't be written right now; empty when it can.
    """

    window: Window
    carried: Mapping[PublicKey, int]
    trouble: str


class UsageService(Service):
    """Looks at the meters every second, and writes what they show every ``write_interval``."""

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        clock: WallClock,
        *,
        relay: PublicKey,
        file: Path,
        archive: Path | None,
        timeframe: float,
        write_interval: float,
        totals: Callable[[], Mapping[PublicKey, int]],
        active: Callable[[], Collection[PublicKey]],
    ) -> None:
        """Keep the account in a file.

        :param archive: the folder for the records of closed windows; None for nowhere.
        :param timeframe: of a window, in seconds.
        :param write_interval: in seconds.
        :param totals: gives each contract's bytes since the relay started.
        :param active: gives the contracts that are configured.
        """
        self._reactor = reactor
        self._clock = clock
        self._relay = relay
        self._file = file
        self._archive = archive
        self._timeframe = round(timeframe * 1000)
        self._totals = totals
        self._active = active
        self._recorder = Recorder(self._timeframe, self._now(), None)
        self._trouble = ""
        self._looking = LoopingCall(self._look)
        self._writing = LoopingCall(self.write)
        self._looking.clock = self._writing.clock = reactor
        self._write_interval = write_interval

    def startService(self) -> None:
        """Continue the account on disk; one that can't be read is set aside."""
        super().startService()
        self._recorder = Recorder(self._timeframe, self._now(), self._read())
        self._look()
        self._looking.start(_LOOK_EVERY, now=False)
        self._writing.start(self._write_interval, now=False)

    def stopService(self) -> Deferred[None]:
        """Write the last state."""
        super().stopService()
        self._looking.stop()
        self._writing.stop()
        return self.write()

    def status(self) -> UsageStatus:
        """Tell what was carried."""
        stats = self._recorder.stats()
        return UsageStatus(self._recorder.window, stats.carried, self._trouble)

    def write(self) -> Deferred[None]:
        """Write the present state; a disk that won't take it is told of, and tried again."""
        self._look()
        return self._in_thread(self._file, self._recorder.stats().to_fields())

    def _now(self) -> int:
        return round(self._clock() * 1000)

    def _look(self) -> None:
        closed = self._recorder.look(self._now(), self._totals())
        if closed is not None:
            self._close(closed)

    def _close(self, closed: ClosedWindow) -> None:
        self._log.info("A window of network usage has ended: {bytes} bytes", bytes=sum(closed.stats.carried.values()))
        self._in_thread(self._file, self._recorder.stats().to_fields())
        if self._archive is not None:
            record = closed.stats.to_record(self._relay, closed.end, self._active())
            self._in_thread(self._archive / f"{self._relay}-{closed.end}.json", record)

    def _in_thread(self, file: Path, data: dict[str, Any]) -> Deferred[None]:
        def work() -> None:
            file.parent.mkdir(parents=True, exist_ok=True)
            write_json_durably(file, data)

        written = deferToThreadPool(self._reactor, self._reactor.getThreadPool(), work)
        return written.addCallbacks(self._written, self._not_written)

    def _written(self, _: None) -> None:
        self._trouble = ""

    def _not_written(self, failure: Failure) -> None:
        failure.trap(OSError)
        if not self._trouble:
            self._log.error("Network usage can't be written: {why}", why=failure.getErrorMessage())
        self._trouble = failure.getErrorMessage()

    def _read(self) -> Stats | None:
        try:
            return Stats.from_json(self._file.read_bytes())
        except FileNotFoundError:
            return None
        except (WireError, OSError) as e:
            aside = self._file.with_name(f"{self._file.name}.damaged-{self._now()}")
            self._log.error(
                "{file} can't be read, and is now {aside}: {why}", file=self._file.name, aside=aside.name, why=str(e)
            )
            self._file.replace(aside)
            return None
