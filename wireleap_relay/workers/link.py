"""The daemon's end of the socket between it and a worker, of which it believes nothing.

A worker faces strangers. Whoever takes one over can send whatever there is, so what no worker says ends it.
"""

from __future__ import annotations

import os
from typing import Any, Protocol, cast

from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.protocol import connectionDone
from twisted.logger import InvalidLogLevelError, Logger, LogLevel
from twisted.protocols.amp import (
    COMMAND,
    ERROR,
    ERROR_CODE,
    ERROR_DESCRIPTION,
    UNKNOWN_ERROR_CODE,
    AmpBox,
    NoEmptyBoxes,
)
from twisted.python.failure import Failure

from wireleap_relay.wire.errors import WireError
from wireleap_relay.workers import commands

#: Bytes without the end of a box: one has few values, of 65,535 at the most.
_LONGEST_BOX = 2**18
#: Sharetokens of one worker that are on their way to the disk; while there are more, it is not heard.
_MOST_WAITING = 2000
#: Lines for the log, in so many seconds.
_MOST_LINES, _SPELL = 200, 60.0


class Employer(Protocol):
    """Whom a link tells what a worker says.

    :ivar number: the worker's.
    """

    number: int

    def heard(self, report: commands.Report) -> None:
        """Count.

        :raises WireError: where a worker can't have counted that.
        """

    def deposit(self, tokens: list[bytes]) -> Deferred[bytes]:
        """Keep sharetokens; see :class:`wireleap_relay.workers.commands.Deposit`.

        :raises WireError: where one is none that a worker can have been given.
        """

    def distrust(self, why: str) -> None:
        """End a worker that says what no worker says; the link closes itself."""

    def lost(self, link: WorkerLink) -> None:
        """The link is closed."""


class WorkerLink(commands.Link):
    """Listens to a worker, and tells it what to do.

    :ivar lost: fires when the worker is gone.
    """

    _log = Logger()

    def __init__(self, clock: Any, employer: Employer) -> None:
        """Listen for an employer."""
        super().__init__()
        self.lost: Deferred[None] = Deferred()
        self._clock = clock
        self._employer = employer
        self._distrusted = False
        self._since_box = 0
        self._waiting = 0
        self._unread = False
        self._lines = 0
        self._spell_began = 0.0

    @property
    def is_behind(self) -> bool:
        """Whether the worker is not heard, for the disk has not kept up with it."""
        return self._waiting > _MOST_WAITING

    def end(self) -> None:
        """The worker is needed no longer: it ends with this."""
        self._transport.loseConnection()

    # The transport's side

    def connectionMade(self) -> None:
        """Have a worker that does not read what it is told be heard no longer."""
        self._transport.registerProducer(self, True)

    def dataReceived(self, data: bytes) -> None:
        """Listen."""
        if self._distrusted:
            return
        self._since_box += len(data)
        if self._since_box > _LONGEST_BOX:
            self._distrust("a box has no end")
            return
        super().dataReceived(data)

    def fileDescriptorReceived(self, descriptor: int) -> None:
        """Take no descriptors: each would be one less for the daemon."""
        os.close(descriptor)
        self._distrust("it sends descriptors")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The worker is gone."""
        super().connectionLost(reason)
        self.lost.callback(None)
        self._employer.lost(self)

    def pauseProducing(self) -> None:
        """It does not read."""
        self._unread = True
        self._keep_pace()

    def resumeProducing(self) -> None:
        """It has read."""
        self._unread = False
        self._keep_pace()

    def stopProducing(self) -> None:
        """The transport is gone."""

    def _keep_pace(self) -> None:
        if self._unread or self.is_behind:
            self._transport.pauseProducing()
        else:
            self._transport.resumeProducing()

    # AMP's side

    def lengthLimitExceeded(self, length: int) -> None:
        """Look at no key that is longer than keys are."""
        self._distrust("a key is too long")

    def ampBoxReceived(self, box: AmpBox) -> None:
        """Look at a box."""
        self._since_box = 0
        if self._distrusted:
            return
        if ERROR in box:
            # AMP forgets who has asked before it misses one of these.
            box.setdefault(ERROR_CODE, UNKNOWN_ERROR_CODE)
            box.setdefault(ERROR_DESCRIPTION, b"")
        try:
            super().ampBoxReceived(box)
        except KeyError:
            self._distrust("it answers what it was not asked")
        except NoEmptyBoxes:
            self._distrust("a box is empty")

    def dispatchCommand(self, box: AmpBox) -> Deferred[AmpBox]:
        """Do what a worker asks."""
        command, act = _COMMANDS.get(box[COMMAND], (None, None))
        if command is None or act is None:
            return self._nonsense("it asks for what nobody does")
        try:
            asked = command.parseArguments(box, self)
        except WireError as e:
            return self._nonsense(f"{command.__name__}: {e}")
        except Exception as e:  # noqa: BLE001 - AMP raises whatever it stumbles over
            return self._nonsense(f"{command.__name__}: {type(e).__name__}")
        done: Deferred[Any] = maybeDeferred(act, self, **asked)
        done.addCallback(command.makeResponse, self)
        return done.addErrback(self._refused)

    def _refused(self, failure: Failure) -> Deferred[AmpBox]:
        failure.trap(WireError)
        return self._nonsense(failure.getErrorMessage())

    def _nonsense(self, why: str) -> Deferred[AmpBox]:
        self._distrust(why)
        return succeed(AmpBox())  # nobody reads it any more

    def _distrust(self, why: str) -> None:
        if not self._distrusted:
            self._distrusted = True
            self._employer.distrust(why)
            self._transport.abortConnection()

    @property
    def _transport(self) -> Any:
        return cast("Any", self.transport)

    # What a worker says

    def _count(self, report: commands.Report) -> dict[str, Any]:
        self._employer.heard(report)
        return {}

    def _deposit(self, tokens: list[bytes]) -> Deferred[dict[str, Any]]:
        kept = self._employer.deposit(tokens)
        self._waiting += len(tokens)
        self._keep_pace()
        return kept.addCallback(self._kept, len(tokens))

    def _kept(self, outcomes: bytes, count: int) -> dict[str, Any]:
        self._waiting -= count
        self._keep_pace()
        return {"outcomes": outcomes}

    def _tell(self, level: str, namespace: str, line: str) -> dict[str, Any]:
        try:
            loud = LogLevel.levelWithName(level)
        except InvalidLogLevelError:
            raise WireError("a line for the log has no level") from None
        now = self._clock.seconds()
        if now - self._spell_began >= _SPELL:
            self._spell_began, self._lines = now, 0
        self._lines += 1
        if self._lines == _MOST_LINES:
            self._log.warn(
                "Worker {number} has more to say than fits a log: the rest of this minute is left out",
                number=self._employer.number,
            )
        elif self._lines < _MOST_LINES:
            log = Logger(namespace or "wireleap_relay.workers")
            log.emit(loud, "{line}", line=line[: commands.LONGEST_LINE], worker=self._employer.number)
        return {}


#: By name: what a worker may ask for, and what does it.
_COMMANDS: dict[bytes, tuple[Any, Any]] = {
    command.commandName: (command, act)
    for command, act in (
        (commands.Count, WorkerLink._count),
        (commands.Deposit, WorkerLink._deposit),
        (commands.Log, WorkerLink._tell),
    )
}
