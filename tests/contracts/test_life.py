"""Two contracts in any weather: whatever happens to a relay's desks, in any order, its contracts end up where they belong."""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from twisted.logger import LogLevel, globalLogPublisher

from tests.contracts.offices import CONTRACT, DIRECTORY, SECOND, Notices, OpenTunnels, Settings
from tests.upstream.worlds import MemoryWorld
from wireleap_relay.boundaries import Refused, UsageReading
from wireleap_relay.contracts.limits import GlobalLimit
from wireleap_relay.contracts.office import Office
from wireleap_relay.contracts.service import ContractsService
from wireleap_relay.sandbox.contract import SandboxContract
from wireleap_relay.sandbox.directory import Rules
from wireleap_relay.wire.address import Address
from wireleap_relay.wire.endpoint import Endpoint
from wireleap_relay.wire.keys import SigningKey

_DRAIN = 20.0
_PLACES = st.sampled_from([CONTRACT, SECOND, DIRECTORY])


class Life(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.world = MemoryWorld(rules=Rules(cost=4))
        second = SandboxContract(SigningKey.generate(), Endpoint(SECOND), self.world.directory.pointer, self.world.now)
        self.world.root.putChild(b"second", second.resource)
        self.ids = {CONTRACT: self.world.contract.id, SECOND: second.id}
        self.key = SigningKey.generate()
        self.tunnels = OpenTunnels()
        office = Office(
            self.world.clock,
            self.key.public_key,
            self.world.upstream(self.key),
            self.tunnels,
            Notices(),
            lambda: 0.5,
            _DRAIN,
        )
        self.wanted = {CONTRACT: Settings(), SECOND: Settings(upgrade_channel=None)}
        self.service = ContractsService(office, self.wanted, "0.7.0")
        self.carried = dict.fromkeys(self.ids, 0)
        self.troubles: list[Any] = []
        globalLogPublisher.addObserver(self._noticed)

    @initialize(down=st.sets(_PLACES), silent=st.sets(_PLACES))
    def begins(self, down: set[str], silent: set[str]) -> None:
        self.world.agent.down |= down
        self.world.agent.silent |= silent
        self.service.startService()

    def _noticed(self, event: dict[str, Any]) -> None:
        if event.get("log_level") in (LogLevel.error, LogLevel.critical) or event.get("isError"):
            self.troubles.append(event)

    # What happens

    @rule(seconds=st.sampled_from([0.1, 1, 6, 20, 70, 400]))
    def time_passes(self, seconds: float) -> None:
        self.world.clock.pump([min(seconds, 1.0)] * max(1, round(seconds)))

    @rule(place=_PLACES)
    def goes_down(self, place: str) -> None:
        self.world.agent.down.add(place)

    @rule(place=_PLACES)
    def goes_silent(self, place: str) -> None:
        self.world.agent.silent.add(place)

    @rule()
    def all_come_back(self) -> None:
        self.world.agent.down.clear()
        self.world.agent.silent.clear()

    @rule()
    def the_directory_forgets(self) -> None:
        self.world.directory._relays.clear()

    @rule(url=st.sampled_from([CONTRACT, SECOND]), count=st.integers(1, 3))
    def tunnels_open(self, url: str, count: int) -> None:
        if self._accepts(url):
            self.tunnels.open[self.ids[url]] += count

    @rule(url=st.sampled_from([CONTRACT, SECOND]))
    def tunnels_end(self, url: str) -> None:
        self.tunnels.finish(self.ids[url])

    @rule(url=st.sampled_from([CONTRACT, SECOND]), size=st.sampled_from([1, 40, 91, 95]))
    def traffic_is_seen(self, url: str, size: int) -> None:
        self.carried[url] = max(self.carried[url], size)
        self._tell_usage()

    @rule()
    def a_new_window_begins(self) -> None:
        self.carried = dict.fromkeys(self.ids, 0)
        self._tell_usage()

    @rule(url=st.sampled_from([CONTRACT, SECOND]), present=st.booleans(), port=st.integers(1, 3), limited=st.booleans())
    def the_config_changes(self, url: str, present: bool, port: int, limited: bool) -> None:
        self.wanted = {key: value for key, value in self.wanted.items() if key != url}
        if present:
            address = Address("wireleap", "203.0.113.5", port)
            channel = "default" if url == CONTRACT else None
            self.wanted[url] = Settings(address, "backing", None, 100 if limited else None, channel)
        self.service.apply(self.wanted, GlobalLimit(None, None), _DRAIN)

    def _tell_usage(self) -> None:
        now = round(self.world.now() * 1000)
        counts = {self.ids[url]: size for url, size in self.carried.items()}
        self.service.usage_seen(UsageReading(now, now, now + 86_400_000, counts, dict.fromkeys(counts, 0.0)))

    def _accepts(self, url: str) -> bool:
        try:
            self.service.book.accepting(self.ids[url])
        except Refused:
            return False
        return True

    # What has to hold

    @invariant()
    def nothing_has_crashed(self) -> None:
        assert not self.troubles, self.troubles[0]

    @invariant()
    def tunnels_are_taken_while_enrolled_and_never_else(self) -> None:
        states = {status.url: status for status in self.service.status()}
        for url in self.ids:
            assert self._accepts(url) == (url in states and states[url].enrolled), (url, states.get(url))

    @invariant()
    def who_is_hard_limited_has_no_tunnels(self) -> None:
        for status in self.service.status():
            if status.state == "hard-limited":
                assert not self.tunnels.open[self.ids[str(status.url)]]

    @invariant()
    def who_waits_has_one_timer(self) -> None:
        # Of each contract: a heartbeat or another try, a request's time limit, its pause, a farewell's and a drain's.
        assert len(self.world.clock.getDelayedCalls()) <= 6 * len(self.ids)

    def teardown(self) -> None:
        """Let all come back, and time pass; then leave."""
        try:
            self._settle()
        finally:
            globalLogPublisher.removeObserver(self._noticed)

    def _settle(self) -> None:
        self.all_come_back()
        self.a_new_window_begins()
        self.world.clock.pump([1.0] * 460)
        self.nothing_has_crashed()
        states = {str(status.url): status.state for status in self.service.status()}
        assert states == dict.fromkeys(self.wanted, "enrolled"), states
        for url in self.wanted:
            self.tunnels.open[self.ids[url]] += 1
        ended: list[Any] = []
        self.service.stopService().addCallback(ended.append)
        self.world.clock.pump([1.0] * 30)
        self.nothing_has_crashed()
        assert ended, "it does not come to an end"
        # One that left while the directory was out of reach was not heard: heartbeats that no longer come tell it.
        assert not (self.wanted and self.world.directory.status())
        assert not self.world.clock.getDelayedCalls(), self.world.clock.getDelayedCalls()
        assert not +self.tunnels.open


class LifeTests(Life.TestCase):  # type: ignore[misc]
    settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
