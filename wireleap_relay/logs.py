"""The relay's log: lines for people or for programs, in a file that may be moved away, and nothing over and over."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from string import Formatter
from typing import Any

import attrs
from twisted.logger import ILogObserver, LogEvent, LogLevel, formatEvent
from zope.interface import implementer

from wireleap_relay.config import LogSettings

#: Seconds in which a line is told once, and lines of one kind so many times.
_SPELL = 60.0
_MOST_OF_A_KIND = 20
#: As syslog has them, and systemd's journal.
_PRIORITIES = {"debug": 7, "info": 6, "warn": 4, "error": 3, "critical": 2}
#: Who says at level info what is of interest to programmers.
_TECHNICAL = ("twisted.", "log_legacy", "stdout", "-")
_STANDARD_OUTPUT, _STANDARD_ERROR = 1, 2
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]")


@attrs.frozen
class Line:
    """One event, ready to be written.

    :ivar kind: what events that say the same of other things have in common.
    :ivar worker: which told of it; None for the daemon.
    """

    time: float
    level: str
    logger: str
    message: str
    fields: Mapping[str, Any] = {}
    traceback: str = ""
    kind: str = ""
    worker: int | None = None

    @classmethod
    def of(cls, event: LogEvent) -> Line:
        """Read an event."""
        failure = event.get("log_failure")
        format_, logger = str(event.get("log_format") or ""), str(event.get("log_namespace") or "-")
        worker = event.get("worker")
        return cls(
            time=event["log_time"],
            level=_level(event, logger),
            logger=logger,
            message=_CONTROLS.sub("?", formatEvent(event).strip()),
            fields={} if format_ == "{line}" else dict(_fields(format_, event)),
            traceback=failure.getTraceback() if failure is not None else "",
            kind=f"{logger} {format_}",
            worker=worker if isinstance(worker, int) else None,
        )


def _level(event: LogEvent, logger: str) -> str:
    if event.get("isError"):
        return "error"
    level: LogLevel = event.get("log_level") or LogLevel.info
    return "debug" if level is LogLevel.info and logger.startswith(_TECHNICAL) else str(level.name)


def _fields(format_: str, event: LogEvent) -> Iterator[tuple[str, Any]]:
    for _, name, _, _ in Formatter().parse(format_):
        if name and name in event:
            value = event[name]
            yield name, value if isinstance(value, int | float | bool | dict) else str(value)


def text_line(line: Line) -> str:
    """Write a line for people."""
    at = datetime.fromtimestamp(line.time, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    return f"{at} {_words(line)}\n"


def journal_line(line: Line) -> str:
    """Write a line for systemd's journal, which knows the time and has a use for priorities."""
    text = _words(line)
    return "".join(f"<{_PRIORITIES[line.level]}>{part}\n" for part in text.splitlines())


def _words(line: Line) -> str:
    of = f"worker {line.worker}: " if line.worker is not None else ""
    # What is indented is no line of its own, whoever has put it there.
    message = line.message.replace("\n", "\n    ")
    after = "".join(f"\n    {part}" for part in line.traceback.splitlines())
    return f"{line.level:5} {of}{message}{after}"


def json_line(line: Line) -> str:
    """Write a line for programs: one JSON object."""
    at = datetime.fromtimestamp(line.time, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    data: dict[str, Any] = {"time": at, "level": line.level, "message": line.message, "logger": line.logger}
    extra: dict[str, Any] = {
        "worker": line.worker,
        "fields": dict(line.fields) or None,
        "traceback": line.traceback or None,
    }
    data.update({name: value for name, value in extra.items() if value is not None})
    return json.dumps(data, ensure_ascii=False, default=str) + "\n"


@attrs.define
class _Spell:
    began: float
    last: Line
    left_out: int = 0


class Repetition:
    """Leaves out what was said already; pure."""

    def __init__(self) -> None:
        """Nothing was said yet."""
        self._said: dict[str, _Spell] = {}
        self._kinds: dict[str, _Spell] = {}

    def pass_on(self, line: Line) -> Iterator[Line]:
        """Give what is to be written now that this line comes: it or not, and how many were left out meanwhile."""
        yield from self.flush(line.time)
        said = self._said.setdefault(f"{line.level} {line.worker} {line.message}", _Spell(line.time, line, -1))
        said.left_out += 1
        if said.left_out:
            return
        kind = self._kinds.setdefault(line.kind, _Spell(line.time, line))
        kind.left_out += 1
        kind.last = line
        if kind.left_out <= _MOST_OF_A_KIND:
            yield line

    def flush(self, now: float = float("inf")) -> Iterator[Line]:
        """Give what has to be said of lines that were left out, as far as their time is over."""
        for spells in (self._said, self._kinds):
            for key, spell in list(spells.items()):
                # Spells begin one after the other.
                if now - spell.began < _SPELL and now >= spell.began:
                    break
                del spells[key]
                count = spell.left_out if spells is self._said else spell.left_out - _MOST_OF_A_KIND
                if count > 0:
                    what = "the same" if spells is self._said else "such as this one"
                    message = f"{spell.last.message} [{count} more {what} within {_SPELL:.0f} s]"
                    yield attrs.evolve(spell.last, time=min(now, spell.began + _SPELL), message=message, traceback="")


@implementer(ILogObserver)
class RelayLog:
    """Writes events to a file, or to standard output."""

    def __init__(self, path: Path | None, settings: LogSettings, environment: Mapping[str, str] | None = None) -> None:
        """Write to a file.

        :param path: None for standard output.
        :param environment: tells whether that leads to systemd's journal.
        :raises OSError: where the file can't be opened.
        """
        self._path = path
        self._repetition = Repetition()
        self._lost = 0
        self._out = _open(path) if path is not None else _STANDARD_OUTPUT
        self._is_journal = path is None and _leads_to_journal(environment or {})
        self.apply(settings)

    @property
    def ends_with_terminal(self) -> bool:
        """Whether nobody reads it any more once the terminal is gone."""
        return self._path is None and os.isatty(self._out)

    def apply(self, settings: LogSettings) -> None:
        """Go by other settings from here on."""
        self._least = _PRIORITIES[settings.level]
        self._form = json_line if settings.format == "json" else journal_line if self._is_journal else text_line

    def close(self) -> None:
        """Write no more."""
        if self._path is not None:
            os.close(self._out)

    def __call__(self, event: LogEvent) -> None:
        """Write an event."""
        line = Line.of(event)
        if _PRIORITIES[line.level] <= self._least and (line.message or line.traceback):
            self._write(self._repetition.pass_on(line))

    def reopen(self) -> None:
        """Go on in a new file, where the old one was moved away."""
        if self._path is None:
            return
        old, new = self._out, _open(self._path)
        _lead(old, new)
        self._out = new
        os.close(old)

    def _write(self, lines: Iterator[Line]) -> None:
        for line in lines:
            try:
                if self._lost:
                    lost = attrs.evolve(line, level="error", message=f"{self._lost} lines could not be written here")
                    os.write(self._out, self._form(lost).encode())
                    self._lost = 0
                os.write(self._out, self._form(line).encode())
            except OSError:
                # Nobody is left to be told, but for those who read on when the disk is in order again.
                self._lost += 1


def _open(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)


def _lead(old: int, new: int) -> None:
    """Lead standard output and error, where they went into the old file, into the new one."""
    was = os.fstat(old)
    for number in (_STANDARD_OUTPUT, _STANDARD_ERROR):
        with contextlib.suppress(OSError):  # it may be closed
            if os.path.samestat(os.fstat(number), was):
                os.dup2(new, number)


def _leads_to_journal(environment: Mapping[str, str]) -> bool:
    try:
        found = os.fstat(_STANDARD_OUTPUT)
    except OSError:
        return False
    return environment.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


_of_this_process: RelayLog | None = None


def as_of_this_process(log: RelayLog) -> str:
    """Make a log the one that twistd finds.

    :returns: what its ``--logger`` has to be.
    """
    global _of_this_process
    _of_this_process = log
    return f"{__name__}.of_this_process"


def of_this_process() -> RelayLog:
    """Give the log that was made this process's."""
    assert _of_this_process is not None  # noqa: S101 - its name is told by nobody else
    return _of_this_process
