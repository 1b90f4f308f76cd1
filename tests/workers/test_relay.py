"""All that a whole relay does, with workers; and what becomes of them."""

from __future__ import annotations

import os
import signal
import tempfile

from twisted.internet.defer import Deferred, gatherResults

from tests import test_relay
from tests.tunnel.test_listening import ThroughUnix
from tests.tunnel.world import Target
from wireleap_relay.relay import Relay
from wireleap_relay.workers.plane import WorkerStatus
from wireleap_relay.workers.service import WorkersService


class RelayTests(test_relay.RelayTests):
    workers = 2


class TroubleTests(test_relay.TroubleTests):
    workers = 2


class LimitTests(test_relay.LimitTests):
    workers = 2


class ReloadTests(test_relay.ReloadTests):
    workers = 2


class StopTests(test_relay.StopTests):
    workers = 2


class WorkerTests(test_relay.RelayTestCase):
    workers = 2

    def plane(self, relay: Relay) -> WorkersService:
        plane = relay.getServiceNamed("plane")
        assert isinstance(plane, WorkersService)
        return plane

    def statuses(self, relay: Relay) -> tuple[WorkerStatus, ...]:
        return self.plane(relay).status().workers

    async def running(self) -> Relay:
        relay = self.make()
        self.start(relay)
        await self.until(lambda: all(worker.state == "running" for worker in self.statuses(relay)), 20)
        return relay

    async def test_each_has_its_share(self) -> None:
        relay = await self.running()
        target = self.target(Target)
        readers = []
        for _ in range(20):  # each with a connection of its own
            reader = await self.tunnel(await self.circuit_through(relay), target)
            reader.tunnel.write(b"hello")
            await reader.at_least(5)
            readers.append(reader)
        await self.until(lambda: self.plane(relay).status().tunnels.open == 20)
        first, second = self.statuses(relay)
        self.assertEqual(first.tunnels + second.tunnels, 20)
        self.assertGreater(min(first.tunnels, second.tunnels), 0)
        usage = relay.parts.usage
        assert usage is not None
        await self.until(lambda: usage.status().reading.total == 200)
        self.assertGreater(first.process.cpu_seconds, 0)
        self.assertGreater(first.process.memory, 10_000_000)

    async def test_they_share_a_unix_socket(self) -> None:
        path = tempfile.mkdtemp() + "/relay.sock"
        self.addCleanup(os.rmdir, os.path.dirname(path))
        relay = self.make(address=f"unix:{path}")
        self.start(relay)
        await self.until(lambda: all(worker.state == "running" for worker in self.statuses(relay)), 20)
        target = self.target(Target)
        readers = []
        for _ in range(20):
            circuit = await self.circuit_through(relay)
            circuit._reactor = ThroughUnix(path)
            readers.append(await self.tunnel(circuit, target))
        first, second = self.statuses(relay)
        os.kill(first.pid, signal.SIGKILL)
        await self.until(lambda: self.statuses(relay)[0].pid != first.pid)
        for _ in range(5):
            circuit = await self.circuit_through(relay)
            circuit._reactor = ThroughUnix(path)
            await self.tunnel(circuit, target)
        await relay.stopService()
        self.assertEqual(os.listdir(os.path.dirname(path)), [])

    async def test_a_token_that_was_used_at_another_worker_is_refused(self) -> None:
        relay = await self.running()
        circuit = await self.circuit_through(relay)
        token = circuit._wallet.token(self.identity.key.public_key)
        target = self.target(Target)
        self.patch(circuit._wallet, "token", lambda _: token)
        await self.tunnel(circuit, target)
        for _ in range(8):
            again = await self.circuit_through(relay)
            self.patch(again._wallet, "token", lambda _: token)
            error = await self.failing_tunnel(again, target)
            assert error.status is not None
            self.assertEqual((error.status.code, error.status.description), (400, "the sharetoken was used before"))

    async def test_one_that_dies_is_replaced_and_no_connection_is_refused(self) -> None:
        relay = await self.running()
        target = self.target(Target)
        before = [worker.pid for worker in self.statuses(relay)]
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        circuits = [await self.circuit_through(relay) for _ in range(10)]
        readers = await gatherResults(
            [Deferred.fromCoroutine(self.tunnel(circuit, target)) for circuit in circuits], consumeErrors=True
        )
        for reader in readers:
            reader.tunnel.write(b"hello")
            await reader.at_least(5)
        after = self.statuses(relay)
        self.assertEqual([worker.restarts for worker in after], [1, 1])
        self.assertFalse({worker.pid for worker in after} & set(before))

    async def test_what_it_had_counted_stays_when_it_dies(self) -> None:
        relay = await self.running()
        usage = relay.parts.usage
        assert usage is not None
        reader = await self.tunnel(await self.circuit_through(relay), self.target(Target))
        reader.tunnel.write(bytes(10_000))
        await reader.at_least(10_000)
        await self.until(lambda: usage.status().reading.total == 20_000)
        for worker in self.statuses(relay):
            os.kill(worker.pid, signal.SIGKILL)
        await reader.ended
        await self.until(lambda: [worker.restarts for worker in self.statuses(relay)] == [1, 1])
        self.assertEqual(usage.status().reading.total, 20_000)
        self.assertEqual(self.plane(relay).status().tunnels.opened, 1)

    async def test_they_end_with_their_daemon(self) -> None:
        relay = await self.running()
        pids = [worker.pid for worker in self.statuses(relay)]
        await relay.stopService()
        for pid in pids:
            with self.assertRaises(ProcessLookupError):
                os.kill(pid, 0)

    async def test_signals_of_a_terminal_are_not_for_them(self) -> None:
        relay = await self.running()
        pids = [worker.pid for worker in self.statuses(relay)]
        for pid in pids:
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
                os.kill(pid, number)
        reader = await self.tunnel(await self.circuit_through(relay), self.target(Target))
        reader.tunnel.write(b"hello")
        await reader.at_least(5)
        self.assertEqual([worker.pid for worker in self.statuses(relay)], pids)
