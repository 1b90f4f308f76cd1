"""The last part of an upgrade: a process of the new version has its daemon take the old one's place, or takes it back.

It knows the daemons by their handover sockets only, so it, and each of them,
may die at any moment: the rest goes on from the record.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs

from wireleap_relay.config import ConfigError, parse_config
from wireleap_relay.daemon.control import DaemonError, LaunchFailed, launch
from wireleap_relay.daemon.lock import HomeTaken
from wireleap_relay.home import Home, HomeError
from wireleap_relay.upgrade import files
from wireleap_relay.upgrade.migrations import migrate_home
from wireleap_relay.upgrade.peer import NoPeer, Peer, PeerFailed, stopped_name
from wireleap_relay.upgrade.record import Busy, Record, at_work
from wireleap_relay.upgrade.work import RecordedWork
from wireleap_relay.wire.versions import Version

_LOOK_EVERY = 0.5
#: Seconds that a stopping relay may need beside its ``drain_timeout``.
_ENDING = 15.0
#: PINGs in a row that may get no answer.
_PINGS = 3
_STARTS = 3
#: Seconds until whoever has staged an upgrade leaves it to its supervisor.
_HANDED_OVER = 5.0

#: Is told, in a sentence, what happens.
Tell = Callable[[str], None]


@attrs.frozen
class Patience:
    """How long a new daemon is waited for, in seconds.

    :ivar start: until it listens.
    :ivar probation: that it has to do well, once it serves.
    :ivar enrollment: after that, until it is enrolled as the old one was.
    :ivar answer: to a question.
    """

    start: float = 60.0
    probation: float = 90.0
    enrollment: float = 180.0
    answer: float = 10.0

    @classmethod
    def shortened(cls, probation: float) -> Patience:
        """Wait less, as tests do."""
        return cls(start=20.0, probation=probation, enrollment=probation, answer=2.0)


class Supervisor(RecordedWork):
    """Does what is left of an upgrade from where it is staged."""

    def __init__(self, home: Home, tell: Tell, patience: Patience | None = None) -> None:
        """Go on from the record in a home."""
        super().__init__(home)
        self._tell = tell
        self._patience = patience or Patience()
        self._old = _Daemon(home, self.record.old_pid)
        self._new = _Daemon(home, self.record.new_pid)

    def stands(self, state: Any) -> None:
        """Record the state."""
        super().stands(state)
        if state == "committed":
            self._tell(f"Version {self.record.version} has done well, and stays")

    def migrate(self) -> None:
        """Make a config for the new version, and see whether it can read it."""
        try:
            changed = migrate_home(self.home, Version.from_text(self.record.old))
            config = self.home.next(self.home.config)
            parse_config(config.read_bytes())
            self.keep(config_sum=files.sum_of_config(self.home))
        except ConfigError as e:
            mistakes = "; ".join(map(str, e.mistakes))
            self._fail(f"version {self.record.version} can't read the config: {mistakes}")
            return
        except Exception as e:  # noqa: BLE001 - whatever a migration may raise, it must not strand the relay
            self._fail(f"its migration of the config has failed: {e}")
            return
        for name in changed:
            self._tell(f"The config was changed for version {self.record.version}: {name}")
        self.machine.migrated()

    def take_over(self) -> None:
        """Start the new daemon beside the old one, and have it accept connections in its place."""
        if not self.record.was_running:
            self.machine.taken_over()  # there is nobody whose place could be taken
            return
        self._old = _Daemon(self.home, self.record.old_pid)
        try:
            self._old.ask("health", self._patience.answer)
            self._launch_next(self.record.old_pid)
            self._old.ask("pause", self._patience.answer)
            self._new.ask("accept", self._patience.answer)
        except NoPeer as e:
            self._fail(f"the relay that was to be succeeded: {e}", skip=False)
            return
        except (PeerFailed, DaemonError, HomeError) as e:
            self._fail(_why(e))
            return
        self._tell(f"Version {self.record.version} serves new clients, as process {self._new.pid}")
        self.machine.taken_over()

    def _launch_next(self, predecessor: int) -> None:
        def heard(fields: dict[str, str]) -> None:
            if "STATUS" in fields:
                self._tell(f"Version {self.record.version}: {fields['STATUS']}")

        program = self.home.next(self.home.program)
        launched = launch(self.home, [str(program)], patience=self._patience.start, succeeding=predecessor, heard=heard)
        self._new = _Daemon(self.home, launched.pid, lambda: launched.process.poll() is None)
        self.keep(new_pid=launched.pid)

    def watch(self) -> None:
        """See how the new daemon does, for as long as its probation lasts."""
        trouble = Trouble() if not self.record.was_running else self._watch()
        if not trouble and files.sum_of_config(self.home) != self.record.config_sum:
            trouble = Trouble(f"{self.home.config.name} was changed meanwhile: try again", skip=False)
        if trouble:
            self._fail(trouble.why, skip=trouble.skip)
        else:
            self.machine.proved()

    def _watch(self) -> Trouble:
        begin, silent = time.monotonic(), 0
        had: set[str] = set()
        while True:
            try:
                health = self._new.ask("health", self._patience.answer)
            except PeerFailed:
                return Trouble("it has ended" if self._new.ends_within(1.0) else "it does not answer any more")
            try:
                self._new.ask("ping", self._patience.answer)
                silent = 0
            except PeerFailed as e:
                silent += 1
                if silent >= _PINGS:
                    return Trouble(f"clients get no answer: {e}")
            old = self._old.try_to_ask("health", self._patience.answer)
            if self._is_stopped(old) or health["stopping"]:
                return Trouble("the relay was told to stop", skip=False)
            had = set(old["enrolled"]) if old else had
            missing = had - set(health["enrolled"])
            lasted = time.monotonic() - begin
            if lasted >= self._patience.probation and not silent:
                if not missing:
                    return Trouble()
                if lasted >= self._patience.probation + self._patience.enrollment:
                    return Trouble("; ".join(f"{url}: {health['troubles'].get(url, '')}" for url in sorted(missing)))
            time.sleep(_LOOK_EVERY)

    def commit(self) -> None:
        """Put the new files in their places, make the new daemon the keeper, and let the old one go."""
        files.put_in_place(self.home)
        if self.record.was_running and not self._hands_over(self._old, self._new):
            self._tell(f"Process {self._new.pid} of version {self.record.version} has died: it is started again")
            self._start(self.record.version, self._old)
        self.keep(finished=True)

    def _hands_over(self, leaving: _Daemon, staying: _Daemon) -> bool:
        """Have one daemon take over all that is left from the other, which may be dead; tell whether it could."""
        leaving.try_to_ask("pause", self._patience.answer)
        try:
            staying.ask("accept", self._patience.answer)
            leaving.try_to_ask("rest", self._patience.answer)
            staying.ask("keep", self._patience.answer)
        except PeerFailed:
            leaving.try_to_ask("accept", self._patience.answer)
            leaving.try_to_ask("keep", self._patience.answer)
            return False
        leaving.try_to_ask("leave", self._patience.answer, successor=staying.pid)
        staying.try_to_ask("adopt", self._patience.answer)
        return True

    def _start(self, version: str, other: _Daemon) -> None:
        """Start what is in the home, in the place of the other version's daemon where that lives."""
        # With 0 it succeeds nobody, and knows nevertheless that an upgrade is being worked on.
        predecessor = other.pid if other.is_reachable() else 0
        for attempt in range(_STARTS):
            try:
                launched = launch(
                    self.home, [str(self.home.program)], patience=self._patience.start, succeeding=predecessor
                )
            except HomeTaken as e:  # somebody else was faster, systemd for one
                self._tell(str(e))
                return
            except (DaemonError, HomeError) as e:
                self._tell(f"Attempt {attempt + 1} of {_STARTS} to start version {version} again: {_why(e)}")
                continue
            if predecessor:
                self._hands_over(other, _Daemon(self.home, launched.pid))
            self._tell(f"Version {version} runs again, as process {launched.pid}")
            return

    def undo(self) -> None:
        """Have the old daemon serve alone, and remove the new files."""
        self._tell(f"Version {self.record.version} is taken back: {self.record.why}")
        files.remove_next(self.home)  # before the old version may start again, and read what is not for it
        if self._is_stopped(self._old.try_to_ask("health", self._patience.answer)):
            self._tell("The relay was told to stop, so it is not started again")
            (self.home.path / stopped_name(self.record.old_pid)).unlink(missing_ok=True)
        elif self._old.is_reachable():
            self._old.try_to_ask("accept", self._patience.answer)
            self._old.try_to_ask("stay", self._patience.answer)
        elif self.record.was_running:
            self._start(self.record.old, self._new)
        left = self._new.try_to_ask("leave", self._patience.answer, successor=self._old.pid) is not None
        if not left:
            self._new.kill()
        super().undo()
        if left and not self._new.ends_within(self._drain_timeout() + _ENDING):
            self._new.kill()

    def _is_stopped(self, health: dict[str, Any] | None) -> bool:
        """Tell whether the old daemon was told to stop, and did not just die."""
        stopped = self.home.path / stopped_name(self.record.old_pid)
        return bool(health and health["stopping"]) or stopped.exists()

    def _drain_timeout(self) -> float:
        with contextlib.suppress(HomeError, ConfigError):
            return parse_config(self.home.read_config())[0].drain_timeout
        return 0.0

    def _fail(self, why: str, *, skip: bool = True) -> None:
        self.machine.failed(why, skip=skip)


@attrs.frozen
class Trouble:
    """What keeps a new version from staying; false where nothing does."""

    why: str = ""
    skip: bool = True

    def __bool__(self) -> bool:
        return bool(self.why)


class _Daemon:
    """One of the two daemons, as far as it is there."""

    def __init__(self, home: Home, pid: int, lives: Callable[[], bool] | None = None) -> None:
        self.pid = pid
        self._home = home
        self._peer: Peer | None = None
        self._lives = lives or (lambda: Path(f"/proc/{pid}").exists())

    def ask(self, what: str, patience: float, **fields: object) -> dict[str, Any]:
        if not self.pid:
            raise NoPeer("there is no such process")
        if self._peer is None:
            self._peer = Peer(self._home, self.pid)
        try:
            return self._peer.ask(what, patience, **fields)
        except PeerFailed:
            # Whatever it says later belongs to a question that nobody asks any more.
            self._peer.socket.close()
            self._peer = None
            raise

    def try_to_ask(self, what: str, patience: float, **fields: object) -> dict[str, Any] | None:
        try:
            return self.ask(what, patience, **fields)
        except PeerFailed:
            return None

    def is_reachable(self) -> bool:
        try:
            with Peer(self._home, self.pid):
                return True
        except NoPeer:
            return False

    def ends_within(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while self._lives():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.1)
        return True

    def kill(self) -> None:
        """Kill it, if it is what it was: it has a handover socket of its own in the home."""
        if self.pid and self.is_reachable():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)


def _why(error: Exception) -> str:
    last = error.log[-1:] if isinstance(error, LaunchFailed) else []
    return ": ".join([str(error), *last])


def supervise(home: Home, tell: Tell, patience: Patience, *, begin: bool) -> Record:
    """See an upgrade through.

    :param begin: it is staged; else finish or undo what another supervisor has left.
    :returns: how it has ended.
    :raises Busy: where another supervisor works on it.
    """
    deadline = time.monotonic() + _HANDED_OVER
    while True:
        try:
            with at_work(home):
                work = Supervisor(home, tell, patience)
                if begin and work.record.state == "staged":
                    work.machine.begun()
                else:
                    work.machine.interrupted()
                return work.record
        except Busy:
            # Whoever has prepared it may be about to leave it to us.
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
