"""What processes count, and how that adds up."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests import test_relay
from tests.tunnel.world import Target
from wireleap_relay.sandbox.relays import free_port
from wireleap_relay.tunnel import abuse
from wireleap_relay.tunnel.registry import DIAL_TIMES, Registry, TunnelCounts
from wireleap_relay.wire.keys import SigningKey
from wireleap_relay.workers.commands import Report, ReportText
from wireleap_relay.workers.health import ProcessHealth, ProcessStatus


def counts() -> TunnelCounts:
    registry = Registry(Clock(), SigningKey.generate().public_key)
    registry.refused("token")
    for seconds in (0.001, 0.005, 0.2, 7.0):
        registry.dialled("connected", seconds)
    registry.greeted(True)
    registry.offended(abuse.PINGS)
    return registry.counts()


class Figures(SynchronousTestCase):
    def test_dials_are_counted_in_classes(self) -> None:
        found = counts()
        self.assertEqual(found.dial_times, (2, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1))
        self.assertEqual(len(found.dial_times), len(DIAL_TIMES) + 1)
        self.assertAlmostEqual(found.dial_seconds, 7.206)

    def test_they_add_up(self) -> None:
        both = counts() + counts()
        self.assertEqual((both.refused, both.dials, both.handshakes), ({"token": 2}, {"connected": 8}, {"done": 2}))
        self.assertEqual(both.offences, {abuse.PINGS: 2})
        self.assertEqual(sum(both.dial_times), 8)
        self.assertEqual(counts() + TunnelCounts(), counts())

    def test_a_report_travels(self) -> None:
        report = Report({"a": 1}, {"a": 2}, {"a": 3}, 4, counts(), ProcessStatus(1.5, 2, 3, 4, 0.5))
        self.assertEqual(ReportText().fromString(ReportText().toString(report)), report)


class Health(SynchronousTestCase):
    def test_a_late_reactor_shows(self) -> None:
        clock = Clock()
        health = ProcessHealth(clock)
        health.start()
        clock.pump([0.25] * 4)
        self.assertEqual(health.status().lag, 0.0)
        clock.advance(1.25)
        self.assertAlmostEqual(health.status().lag, 1.0)
        clock.pump([0.25] * 100)
        self.assertEqual(health.status().lag, 0.0)
        health.stop()
        self.assertEqual(clock.getDelayedCalls(), [])

    def test_it_knows_its_process(self) -> None:
        health = ProcessHealth(Clock())
        health.start()
        status = health.status()
        self.assertGreater(status.memory, 10_000_000)
        self.assertTrue(3 <= status.descriptors < status.most_descriptors)


class RelayFigures(test_relay.RelayTestCase):
    async def test_a_relay_counts(self) -> None:
        relay = self.make()
        self.start(relay)
        circuit = await self.circuit_through(relay)
        await self.tunnel(circuit, self.target(Target))
        await self.failing_tunnel(circuit, f"127.0.0.1:{free_port()}")
        await self.failing_tunnel(circuit, "169.254.169.254:80")
        plane = relay.parts.plane

        def found() -> tuple[object, ...]:
            seen = plane.status().tunnels
            return (seen.opened, seen.dials, seen.refused, seen.handshakes)

        dials = {"connected": 1, "unreachable": 1, "policy": 1}
        await self.until(lambda: found() == (1, dials, {"unreachable": 1, "policy": 1}, {"done": 1}))


class RelayFiguresWithWorkers(RelayFigures):
    workers = 1
