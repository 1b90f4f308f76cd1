"""Processes that are killed at a step of an upgrade."""

from __future__ import annotations

import attrs
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from tests.tunnel.world import reactor
from tests.upgrade.world import NEW, OLD, UpgradeTestCase
from wireleap_relay.daemon.control import launch
from wireleap_relay.upgrade.peer import Peer

#: Who is killed; all of them is what a power cut does.
SUPERVISOR, OLD_DAEMON, NEW_DAEMON, OLD_AND_SUPERVISOR, ALL = "supervisor", "old", "new", "old and supervisor", "all"
PREPARED = ("noticed", "fetching", "verified", "staged")
SUPERVISED = ("migrating", "stopping", "probation", "committed", "rolling back")

#: Every step, with everybody who lives at the time.
KILLS = [(step, ALL) for step in PREPARED] + [
    (step, victim)
    for step in SUPERVISED
    for victim in (SUPERVISOR, OLD_DAEMON, NEW_DAEMON, OLD_AND_SUPERVISOR, ALL)
    if not (victim is NEW_DAEMON and step in ("migrating", "stopping"))
]

_KILL = """\
from wireleap_relay.upgrade.work import RecordedWork as _work
_stands = _work.stands
def _killing(self, state):
    _stands(self, state)
    if state != {step!r} or os.path.exists({mark!r}):
        return
    open({mark!r}, "w").close()
    from wireleap_relay.daemon.state import look
    record, me = self.record, os.getpid()
    old = record.old_pid or look(self.home).pid or 0
    victims = {{"supervisor": [me], "old": [old], "new": [record.new_pid], "old and supervisor": [old, me],
               "all": [record.new_pid, old, me]}}[{victim!r}]
    for pid in filter(None, victims):
        os.kill(pid, 9)
_work.stands = _killing
"""
#: So that there is something to roll back.
_FAILS = """
from wireleap_relay.upgrade.supervisor import Supervisor as _s, Trouble as _t
_s._watch = lambda self: _t("it is no good")
"""


@attrs.frozen
class Outcome:
    """What came of it.

    :ivar state: on record.
    :ivar version: that serves.
    :ivar restarted: whether the relay had to be started again, as systemd does.
    :ivar refused: new connections that were not served, while a daemon lived.
    """

    state: str
    version: str
    restarted: bool
    refused: int
    answered: int


class KillTestCase(UpgradeTestCase):
    probation = 1.0

    async def kill(self, step: str, victim: str) -> Outcome:
        """Kill somebody at a step; see that all is whole in the end."""
        mark = str(self.home.path / "killed")
        fault = _KILL.format(step=step, victim=victim, mark=mark)
        if step == "rolling back":
            fault += _FAILS
        self.home.program.write_bytes(self.program(OLD, fault))
        self.publish(fault=fault)
        programs = {version: self.program(version, fault) for version in (OLD, NEW)}
        pid = await self.launch()
        reader = await self.open_tunnel()
        await self.echo(reader)
        load = self.connect_all_the_time()
        self.ask_for(NEW)
        with Peer(self.home, pid) as daemon:
            await deferToThread(daemon.ask, "stay")  # a heartbeat now
        await self.until((self.home.path / "killed").exists, 30)
        before = len(load.refused)
        await deferLater(reactor, 0.5)
        restarted = not self.pids()
        if restarted:
            await load.stop()
            launched = await deferToThread(launch, self.home, [str(self.home.program)], patience=20.0)
            self.addCleanup(launched.process.wait)
            self.addCleanup(launched.process.kill)
        await self.until(lambda: self.record().is_done and self.record().state != "noticed", 40)
        await self.until(lambda: len(self.pids()) == 1, 20)
        await self.until(lambda: self.running() in self.pids(), 10)
        await load.stop()
        record = self.record()
        version = NEW if record.state == "committed" else OLD
        await self.until(lambda: self.served_version() == version, 15)
        self.assertEqual(self.home.program.read_bytes(), programs[version])
        for file in (self.home.program, self.home.config):
            self.assertFalse(self.home.next(file).exists())
        await self.echo(await self.open_tunnel())
        return Outcome(record.state, version, restarted, 0 if restarted else len(load.refused) - before, load.answered)
