"""Starts a home's daemon, stops it, and sends it signals; everything here may wait, but never for ever."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from typing import Any, Literal

import attrs

from wireleap_relay.daemon.lock import HomeTaken
from wireleap_relay.daemon.notify import LISTENING, NotifySocket
from wireleap_relay.daemon.state import DaemonState, look
from wireleap_relay.home import SUCCEEDS_VARIABLE, Home

_EVERY = 0.05
#: Seconds that a process has to end in after SIGTERM where nobody needs it to drain, and after SIGKILL.
_ENDING = 3.0
_TAIL = 20  # lines
#: Variables with which a supervisor speaks to this very process.
_NOT_INHERITED = ("WATCHDOG_", "LISTEN_", "JOURNAL_STREAM", SUCCEEDS_VARIABLE)


class DaemonError(Exception):
    """A daemon can't be started or told something; the text says why."""


class LaunchFailed(DaemonError):
    """A daemon was started, and is no more.

    :ivar log: what it wrote before its end, a line each.
    """

    def __init__(self, why: str, log: Sequence[str]) -> None:
        super().__init__(why)
        self.log = list(log)


class NotRunning(DaemonError):
    """There is no daemon."""


@attrs.frozen
class Launched:
    """A daemon that was started, and lives.

    :ivar ready: whether it has tried to enroll with every contract; else it accepts clients, and is still trying.
    :ivar said: its last words about how it stands.
    :ivar process: as long as we are its parent: ``poll()`` and ``kill()`` it.
    """

    pid: int
    ready: bool
    said: str
    process: subprocess.Popen[bytes]


def launch(
    home: Home,
    command: Sequence[str],
    *,
    patience: float,
    succeeding: int | None = None,
    heard: Callable[[dict[str, str]], None] = lambda _: None,
    extra: Any = None,
) -> Launched:
    """Start a daemon that outlives this process, and wait until it says that it is ready.

    It logs to the home's log. With ``succeeding`` it starts beside the daemon of
    that process id, whose place it takes when that one ends.

    :param command: the words that run the software, as :func:`wireleap_relay.home.command` gives them.
    :param patience: seconds until it has to be ready, or at least to listen.
    :param heard: is told of every notification, such as ``{"STATUS": "…"}``.
    :param extra: more arguments of :class:`subprocess.Popen`, say ``pass_fds``.
    :raises HomeTaken: where one runs already that is not to be succeeded.
    :raises LaunchFailed: where it ended, or had to be killed because it did not even listen in time.
    :raises DaemonError: where the log can't be written.
    """
    state = look(home)
    if state.kind == "running" and (succeeding is None or state.pid != succeeding):
        raise HomeTaken(home, state.pid)
    try:
        log = os.open(home.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
    except OSError as e:
        raise DaemonError(f"{home.log} can't be written: {e.strerror}") from None
    begin = os.fstat(log).st_size
    with NotifySocket() as told:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(_NOT_INHERITED)}
        environment = {**inherited, **told.environment}
        if succeeding is not None:
            environment[SUCCEEDS_VARIABLE] = str(succeeding)
        try:
            process = subprocess.Popen(  # noqa: S603 - the words are our own
                [*command, "--home", str(home.path), "start", "--fg", "--log", str(home.log)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=home.path,
                env=environment,
                start_new_session=True,
                umask=0o077,
                **(extra or {}),
            )
        except OSError as e:
            raise DaemonError(f"{command[0]} can't be run: {e.strerror}") from None
        finally:
            os.close(log)
        return _until_ready(home, process, told, patience, heard, begin)


def _until_ready(
    home: Home,
    process: subprocess.Popen[bytes],
    told: NotifySocket,
    patience: float,
    heard: Callable[[dict[str, str]], None],
    begin: int,
) -> Launched:
    deadline = time.monotonic() + patience
    listening, said = False, ""
    while time.monotonic() < deadline:
        fields = told.receive(_EVERY)
        if fields:
            heard(fields)
        said = fields.get("STATUS", said)
        listening = listening or LISTENING in fields
        if fields.get("READY") == "1":
            return Launched(process.pid, True, said, process)
        if not fields and process.poll() is not None:
            raise LaunchFailed(_ended(process.returncode), _tail(home, begin))
    if listening:
        return Launched(process.pid, False, said, process)
    process.kill()
    process.wait()
    raise LaunchFailed(
        f"process {process.pid} did not begin to listen within {patience:g} s, and was killed", _tail(home, begin)
    )


def _ended(code: int) -> str:
    if code < 0:
        return f"it was ended by {signal.Signals(-code).name}"
    return f"it ended with exit code {code}"


def _tail(home: Home, begin: int) -> list[str]:
    with contextlib.suppress(OSError), home.log.open("rb") as log:
        log.seek(begin)
        return log.read().decode("utf-8", "replace").splitlines()[-_TAIL:]
    return []


def send(home: Home, number: signal.Signals) -> int:
    """Send the daemon a signal.

    :returns: its process id.
    :raises NotRunning: where there is none.
    :raises DaemonError: where it can't be told, or can't be reached.
    """
    return _send(_running(home), number)


def _running(home: Home) -> DaemonState:
    state = look(home)
    if state.kind == "stopped":
        raise NotRunning("the relay is not running" + (f" ({state.why})" if state.why else ""))
    if state.kind == "unknown":
        raise DaemonError(f"it can't be told whether the relay is running: {state.why}")
    return state


def _send(state: DaemonState, number: signal.Signals) -> int:
    if state.pid is None:
        raise DaemonError("the relay is just being started: try again in a moment")
    try:
        os.kill(state.pid, number)
    except ProcessLookupError:
        raise NotRunning("the relay has just ended") from None
    except PermissionError:
        raise DaemonError(f"the relay runs as process {state.pid} of another user: it can't be told anything") from None
    return state.pid


@attrs.frozen
class Stopped:
    """How a daemon ended.

    :ivar how: by itself, told to hurry, or killed.
    """

    pid: int
    how: Literal["ended", "hurried", "killed"]


def stop(home: Home, *, patience: float, goes_on: Callable[[], bool] = lambda: True) -> Stopped:
    """Stop the daemon: let it finish, then hurry it, and kill it at last; a relay of another make is only asked.

    :param patience: seconds that it has to finish in.
    :param goes_on: tells, a few times a second, whether it is still worth waiting; else it is hurried at once.
    :raises NotRunning: where there is none.
    :raises DaemonError: where it can't be told, or does not end.
    """
    state = _running(home)
    pid = _send(state, signal.SIGTERM)
    if _gone_within(home, pid, patience, goes_on):
        return Stopped(pid, "ended")
    with contextlib.suppress(NotRunning):
        _send(state, signal.SIGTERM)
    if _gone_within(home, pid, _ENDING):
        return Stopped(pid, "hurried")
    if not state.ours:
        raise DaemonError(f"process {pid} does not end; it is no process of this software, and was not killed")
    if look(home).pid == pid:  # the lock is the proof that it is the one that was meant
        with contextlib.suppress(NotRunning):
            _send(state, signal.SIGKILL)
    if _gone_within(home, pid, _ENDING):
        return Stopped(pid, "killed")
    raise DaemonError(f"process {pid} does not end, even by SIGKILL")


def _gone_within(home: Home, pid: int, seconds: float, goes_on: Callable[[], bool] = lambda: True) -> bool:
    deadline = time.monotonic() + seconds
    while True:
        state = look(home)
        if state.kind == "stopped" or state.pid not in (pid, None):
            return True
        if time.monotonic() >= deadline or not goes_on():
            return False
        time.sleep(_EVERY)
