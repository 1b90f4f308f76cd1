"""The relay that is soaked: a daemon and its workers, started again whenever they die."""

from __future__ import annotations

import atexit
import datetime
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import psutil
import treq
from twisted.internet.task import deferLater

import wireleap_relay
from wireleap_relay.home import Home
from wireleap_relay.sandbox.circuit import Hop
from wireleap_relay.sandbox.relays import free_port
from wireleap_relay.usage.stats import Stats
from wireleap_relay.wire.address import Address

_SITE = Path(__file__).resolve().parent / "site"
#: Where the code is that this process has, too.
_CODE = Path(wireleap_relay.__file__).resolve().parents[1]
_RECOVERY = 60.0
#: Seconds between two writes of stats.json.
WRITE_INTERVAL = 1.0


@attrs.frozen
class Sample:
    """One process at one moment."""

    memory: int
    descriptors: int
    threads: int
    delayed_calls: int


class SoakedRelay:
    """One relay.

    :ivar starts: how often its daemon was started.
    """

    def __init__(self, reactor: Any, folder: Path, contract: str, role: str, workers: int, name_server: int) -> None:
        """Make a home.

        :param name_server: the port of the one that it asks, on loopback.
        """
        self._reactor = reactor
        self.home = Home(folder / role)
        self.probe = folder / f"{role}.probe"
        self.probe.mkdir(parents=True)
        (self.probe / "nameserver").write_text(str(name_server))
        self.log = folder / f"{role}.log"
        self.starts = 0
        key = self.home.create_identity(datetime.datetime.now(datetime.UTC)).key.public_key
        port, self._rest = free_port(), free_port()
        self.hop = Hop(Address.from_text(f"wireleap://127.0.0.1:{port}"), key)
        config = {
            "address": f"127.0.0.1:{port}",
            "workers": workers,
            "timeout": "5s",
            "drain_timeout": "2s",
            "auto_submit_interval": "1s",
            "network_usage": {"timeframe": "30d", "write_interval": f"{WRITE_INTERVAL}s"},
            "rest_api": {"address": f"http://127.0.0.1:{self._rest}"},
            "danger_zone": {"allow_loopback": True},
            "contracts": {contract: {"address": f"wireleap://127.0.0.1:{port}", "role": role}},
        }
        self.home.config.write_text(json.dumps(config))
        self._process: subprocess.Popen[bytes] | None = None
        atexit.register(self.kill)

    def start(self) -> None:
        """Start the daemon."""
        self.starts += 1
        path = os.pathsep.join([str(_SITE), str(_CODE)])
        environment = {**os.environ, "SOAK": str(self.probe), "PYTHONPATH": path}
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "wireleap_relay", "--home", str(self.home.path), "start", "--fg"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
            )

    @property
    def daemon(self) -> psutil.Process:
        """Give its process."""
        assert self._process is not None
        return psutil.Process(self._process.pid)

    @property
    def workers(self) -> list[psutil.Process]:
        """Give its workers' processes."""
        return [each for each in self.daemon.children() if each.status() != psutil.STATUS_ZOMBIE]

    def kill(self) -> None:
        """Kill the daemon; its workers end by themselves."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    async def stop(self) -> int:
        """Stop it as an operator would; give its exit code."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        code = await self.until(self._process.poll, 30.0)
        return int(code)

    @property
    def ended(self) -> bool:
        """Whether the daemon is gone."""
        return self._process is None or self._process.poll() is not None

    def seconds_since_written(self) -> float:
        """Tell how old the account of usage is that is on disk."""
        return time.time() - self.home.stats.stat().st_mtime if self.home.stats.exists() else float("inf")

    async def counted(self) -> int:
        """Give the bytes that it has counted."""
        usage = await self.ask("usage")
        return sum(each["carried"] for each in usage["window"]["contracts"])

    def written(self) -> int:
        """Give the bytes that it has counted, as they are on its disk."""
        return sum(Stats.from_json(self.home.stats.read_bytes()).carried.values())

    def connections(self) -> int:
        """Count the TCP connections of its workers."""
        return sum(bool(each.raddr) for worker in self.workers for each in worker.net_connections("tcp"))

    def set_clock(self, wrong_by: float) -> None:
        """Have all of its processes believe in another time."""
        temporary = self.probe / "clock.new"
        temporary.write_text(str(wrong_by))
        temporary.replace(self.probe / "clock")

    async def ask(self, path: str) -> Any:
        """Ask the REST API; None where there is no answer."""
        try:
            answer = await treq.get(f"http://127.0.0.1:{self._rest}/api/{path}", persistent=False, timeout=5)
            return await answer.json()
        except Exception:  # noqa: BLE001 - faults are what this is about
            return None

    async def recovered(self) -> float:
        """Wait until it is healthy, all of its workers are running and its clock is right again.

        :returns: seconds that it took.
        :raises AssertionError: where it takes too long.
        """
        begun = time.monotonic()
        while time.monotonic() - begun < _RECOVERY:
            health, workers = await self.ask("health"), await self.ask("workers")
            if health and workers and health["healthy"] and self._are_running(workers["workers"]):
                return time.monotonic() - begun
            await deferLater(self._reactor, 0.2)
        raise AssertionError(f"not healthy again within {_RECOVERY:.0f} s: {health}, {workers}")

    def _are_running(self, workers: Sequence[Mapping[str, Any]]) -> bool:
        """Tell whether workers are what their daemon says; of one that has just died it has not heard."""
        return all(each["state"] == "running" for each in workers) and (
            {each["pid"] for each in workers} == {each.pid for each in self.workers}
        )

    async def until(self, condition: Callable[[], Any], patience: float) -> Any:
        """Wait until something is not None any more."""
        deadline = time.monotonic() + patience
        while (found := condition()) is None:
            assert time.monotonic() < deadline, "it takes too long"
            await deferLater(self._reactor, 0.05)
        return found

    def samples(self) -> dict[int, Sample]:
        """Look at all of its processes now."""
        found = {}
        try:
            for process in [self.daemon, *self.workers]:
                with process.oneshot():
                    told = self.probe / f"{process.pid}.json"
                    calls = json.loads(told.read_text())["delayed_calls"] if told.exists() else 0
                    found[process.pid] = Sample(
                        process.memory_info().rss, process.num_fds(), process.num_threads(), calls
                    )
        except (psutil.Error, ValueError, AssertionError):
            return {}  # one has gone meanwhile
        return found
