"""Keeps the account of the relay's traffic on disk."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import attrs
from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredLock, succeed
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure

from wireleap_relay.boundaries import UsageReading, WallClock
from wireleap_relay.home import write_json_durably
from wireleap_relay.ownprocess import Steady
from wireleap_relay.usage.pace import Pace
from wireleap_relay.usage.recorder import ClosedWindow, Recorder
from wireleap_relay.usage.stats import Stats
from wireleap_relay.usage.window import Frame
from wireleap_relay.wire.errors import WireError
from wireleap_relay.wire.keys import PublicKey

_LOOK_EVERY = 0.25


@attrs.frozen
class UsageSettings:
    """How to measure.

    :ivar archive: the folder for the records of closed windows; None for nowhere.
    :ivar write_interval: in seconds.
    """

    frame: Frame
    archive: Path | None = None
    write_interval: float = 60.0


@attrs.frozen
class UsageStatus:
    """What was carried in the present window.

    :ivar trouble: why it can't be written right now; empty when it can.
    """

    reading: UsageReading
    trouble: str


class UsageService(Service):
    """Looks at the meters four times a second, and writes what they show every ``write_interval``."""

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        clock: WallClock,
        settings: UsageSettings,
        *,
        relay: PublicKey,
        file: Path,
        totals: Callable[[], Mapping[PublicKey, int]],
        active: Callable[[], Collection[PublicKey]],
        seen: Callable[[UsageReading], None],
        account: Stats | None = None,
        keeps: bool = True,
    ) -> None:
        """Keep the account in a file.

        :param totals: gives each contract's bytes since the relay started.
        :param active: gives the contracts that are configured.
        :param seen: is told of every look.
        :param account: to go on with, in the place of the one in the file.
        :param keeps: whether the file is ours; see :meth:`keep`.
        """
        self._reactor = reactor
        self._clock = clock
        self._settings = settings
        self._relay = relay
        self._file = file
        self._totals = totals
        self._active = active
        self._seen = seen
        self._account = account
        self._keeps = keeps
        self._recorder = Recorder(settings.frame, self._now(), None)
        self._pace = Pace()
        self._reading = self._look()
        self._trouble = ""
        self._one_by_one = DeferredLock()
        self._looking = Steady(reactor, _LOOK_EVERY, self._look_and_tell)
        self._writing = Steady(reactor, settings.write_interval, self.write)

    def startService(self) -> None:
        """Continue the account on disk; one that can't be read is set aside."""
        super().startService()
        self._recorder = Recorder(self._settings.frame, self._now(), self._account or self._read())
        self._look_and_tell()
        self._looking.start()
        self._write_regularly()

    def stopService(self) -> Deferred[None]:
        """Write the last state."""
        super().stopService()
        self._looking.stop()
        self._writing.stop()
        return self.write()

    def apply(self, settings: UsageSettings) -> None:
        """Measure otherwise from here on; the present window is reckoned anew from its start."""
        self._settings = settings
        self._recorder.reckon(settings.frame)
        self._look_and_tell()
        self._writing.stop()
        self._write_regularly()

    def keep(self, keeps: bool) -> Deferred[None]:
        """Be the one who writes, or leave that to another process that measures the same.

        :returns: fires when the last write of our own, or the first one, is done.
        """
        self._keeps = keeps
        return self.write() if keeps else self._one_by_one.run(succeed, None)

    def account(self) -> Stats:
        """Give what another process needs to go on with."""
        self._look_and_tell()
        return self._stats()

    def status(self) -> UsageStatus:
        """Tell what was carried."""
        return UsageStatus(self._reading, self._trouble)

    def write(self) -> Deferred[None]:
        """Write the present state; a disk that won't take it is told of, and tried again."""
        self._look_and_tell()
        return self._in_thread(self._file, self._stats().to_fields())

    def _write_regularly(self) -> None:
        # A new one each time: one that is stopped in a write would go on when it is started again.
        self._writing = Steady(self._reactor, self._settings.write_interval, self.write)
        self._writing.start()

    def _now(self) -> int:
        return round(self._clock() * 1000)

    def _stats(self) -> Stats:
        return self._recorder.stats().with_every(self._active())

    def _look_and_tell(self) -> None:
        self._reading = self._look()
        self._seen(self._reading)

    def _look(self) -> UsageReading:
        now, totals = self._now(), self._totals()
        closed = self._recorder.look(now, totals)
        if closed is not None:
            self._close(closed)
        window = self._recorder.window
        pace = self._pace.look(self._reactor.seconds(), totals)
        return UsageReading(now, window.start, window.end, self._stats().carried, pace)

    def _close(self, closed: ClosedWindow) -> None:
        self._log.info("A window of network usage has ended: {bytes} bytes", bytes=sum(closed.stats.carried.values()))
        self._in_thread(self._file, self._stats().to_fields())
        if self._settings.archive is not None:
            record = closed.stats.with_every(self._active()).to_record(self._relay, closed.end, self._active())
            self._in_thread(self._settings.archive / f"{self._relay}-{closed.end}.json", record)

    def _in_thread(self, file: Path, data: dict[str, Any]) -> Deferred[None]:
        if not self._keeps:
            return succeed(None)

        def work() -> None:
            file.parent.mkdir(parents=True, exist_ok=True)
            write_json_durably(file, data)

        written: Deferred[None] = self._one_by_one.run(
            deferToThreadPool, self._reactor, self._reactor.getThreadPool(), work
        )
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
            self._log.info("There is no {file} yet: a window of network usage begins", file=self._file.name)
            return None
        except (WireError, OSError) as e:
            aside = self._file.with_name(f"{self._file.name}.damaged-{self._now()}")
            self._log.error(
                "{file} can't be read, and is now {aside}: {why}", file=self._file.name, aside=aside.name, why=str(e)
            )
            self._file.replace(aside)
            return None
