"""What is asked and done also when a process is short of everything."""

from __future__ import annotations

import os
import re
import resource
import subprocess
import sys
from tempfile import TemporaryFile
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from wireleap_relay import ownprocess
from wireleap_relay.ownprocess import NO_MEMORY, Steady, resident_memory, tcp_memory_is_short
from wireleap_relay.workers.health import ProcessHealth


class NoDescriptorsTests(SynchronousTestCase):
    def use_up(self) -> None:
        """Leave no descriptor to be had."""
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        free = os.dup(0)
        os.close(free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        self.assertRaises(OSError, os.dup, 0)

    def test_memory_is_known(self) -> None:
        before = resident_memory()
        self.assertGreater(before, 10_000_000)
        self.use_up()
        self.assertGreater(resident_memory(), before // 2)

    def test_the_system_tells_whether_its_buffers_are_full(self) -> None:
        self.assertFalse(tcp_memory_is_short())
        self.use_up()
        self.assertFalse(tcp_memory_is_short())

    def test_its_buffers_are_full(self) -> None:
        table = os.pread(ownprocess._protocols(os.getpid()), 16 * 1024, 0)
        with TemporaryFile() as shown:
            shown.write(re.sub(rb"(?m)^(TCP .*?)no ", rb"\1yes ", table, count=1))
            shown.flush()
            self.patch(ownprocess, "_protocols", lambda _: shown.fileno())
            self.assertTrue(tcp_memory_is_short())

    def test_a_process_knows_how_it_is_doing(self) -> None:
        clock = Clock()
        health = ProcessHealth(clock)
        health.start()
        before = health.status()
        self.assertGreater(before.most_descriptors, before.descriptors)
        self.use_up()
        clock.pump([0.25] * 4)
        self.assertEqual(health.status().descriptors, health.status().most_descriptors)
        health.stop()


class SteadyTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.calls: list[Any] = []

    def call(self) -> None:
        self.calls.append(self.clock.seconds())
        if len(self.calls) == 2:
            raise OSError

    def test_it_goes_on_when_it_fails(self) -> None:
        steady = Steady(self.clock, 2.0, self.call)
        steady.start(now=True)
        self.clock.pump([1.0] * 9)
        self.assertEqual(self.calls, [0.0, 2.0, 4.0, 6.0, 8.0])
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)
        steady.stop()
        self.clock.advance(10)
        self.assertEqual(len(self.calls), 5)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_it_may_be_stopped_by_what_fails(self) -> None:
        def call() -> None:
            steady.stop()
            raise OSError

        steady = Steady(self.clock, 2.0, call)
        steady.start()
        self.clock.pump([1.0] * 9)
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])


#: A process that is to end when it has no memory left.
_PROCESS = """
import os, resource, ssl, threading
from twisted.internet import defer, endpoints, protocol, reactor
from wireleap_relay.ownprocess import end_without_memory

def have_no_more():
    size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size, resource.RLIM_INFINITY))

def take_all():
    have_no_more()
    kept = []
    while True:
        kept.append((kept, bytes(100)))

def go_on(*_):
    print("it goes on", flush=True)

end_without_memory(reactor, lambda: os.write(1, b"The end of " + b"all" * 500_000 + b"!\\n"))
{act}
reactor.run()
go_on()
"""
_LAST_WORDS = "The end of " + "all" * 500_000 + "!\n"


class NoMemoryTests(SynchronousTestCase):
    def ends(self, act: str, words: str = _LAST_WORDS) -> None:
        """See that a process ends of what it does, and says why and nothing else."""
        script = _PROCESS.replace("{act}", act)
        ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
        self.assertEqual((ended.returncode, ended.stderr), (NO_MEMORY, ""))
        self.assertEqual(ended.stdout, words)

    def test_what_the_reactor_calls(self) -> None:
        self.ends("def fail(): raise MemoryError\nreactor.callLater(0, fail)\nreactor.callLater(0.1, go_on)")

    def test_all_memory_is_used_up(self) -> None:
        self.ends("reactor.callLater(0, take_all)")

    def test_a_protocol(self) -> None:
        self.ends(
            "class Reader(protocol.Protocol):\n"
            "    def dataReceived(self, data): raise MemoryError\n"
            "    def connectionLost(self, reason): go_on()\n"
            "port = reactor.listenTCP(0, protocol.Factory.forProtocol(Reader), interface='127.0.0.1')\n"
            "class Writer(protocol.Protocol):\n"
            "    def connectionMade(self): self.transport.write(b'x')\n"
            "end = endpoints.TCP4ClientEndpoint(reactor, '127.0.0.1', port.getHost().port)\n"
            "endpoints.connectProtocol(end, Writer())"
        )

    def test_a_failure_that_somebody_takes_care_of(self) -> None:
        self.ends(
            "async def fail(): raise MemoryError\n"
            "reactor.callLater(0, lambda: defer.Deferred.fromCoroutine(fail()).addErrback(go_on))"
        )

    def test_a_thread(self) -> None:
        self.ends("def fail(): raise MemoryError\nreactor.callLater(0, lambda: threading.Thread(target=fail).start())")

    def test_where_nobody_can_be_told(self) -> None:
        self.ends("class Thing:\n    def __del__(self): raise MemoryError\nreactor.callLater(0, Thing)")

    def test_the_reactor_itself(self) -> None:
        self.ends("def fail(): raise MemoryError\nreactor.mainLoop = fail")

    def test_openssl_says_so(self) -> None:
        self.ends(
            "data = bytes(50_000_000)\n"
            "def fail():\n"
            "    have_no_more()\n"
            "    try:\n"
            "        ssl.MemoryBIO().write(data)\n"
            "    except MemoryError:\n"
            "        go_on()\n"  # Python would say this, and has nothing to say here
            "reactor.callLater(0, fail)"
        )

    def test_the_last_words_fail(self) -> None:
        self.ends("end_without_memory(reactor, lambda: 1 / 0)\nreactor.callLater(0, take_all)", "")
