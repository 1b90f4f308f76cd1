"""Names, from a name server over real sockets."""

from __future__ import annotations

import os
import resource
import socket
import threading
from pathlib import Path
from typing import Any

import psutil
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.task import deferLater
from twisted.names import dns
from twisted.trial.unittest import TestCase

from tests.tunnel.nameworld import NameServer, Zone
from tests.tunnel.world import reactor
from wireleap_relay.tunnel import resolver as module
from wireleap_relay.tunnel.nameserver import LookupFailed
from wireleap_relay.tunnel.resolver import Resolver


class ResolverTests(TestCase):
    timeout = 30

    def setUp(self) -> None:
        self.server = NameServer()
        self.addCleanup(self.server.stop)
        self.zones = self.server.zones

    def resolver(self, **options: Any) -> Resolver:
        self.folder = self.mktemp()
        made = self.server.resolver(self.folder, **options)
        made.startService()
        self.addCleanup(lambda: made.stopService() if made.running else None)
        return made

    async def fails(self, looking: Deferred[Any], why: str) -> None:
        with self.assertRaises(LookupFailed) as caught:
            await looking
        self.assertIn(why, str(caught.exception))

    async def test_both_families(self) -> None:
        self.zones["a.example"] = Zone(["192.0.2.1", "192.0.2.2"], ["2001:db8::1"])
        resolver = self.resolver()
        self.assertEqual(await resolver.look_up("a.example", "4"), ("192.0.2.1", "192.0.2.2"))
        self.assertEqual(await resolver.look_up("A.Example.", "6"), ("2001:db8::1",))
        self.assertEqual(resolver.status(), module.ResolverStatus(2, 0, 0, 2, 0, 0))

    async def test_aliases(self) -> None:
        self.zones["a.example"] = Zone(alias="b.example")
        self.zones["b.example"] = Zone(["192.0.2.1"])
        self.assertEqual(await self.resolver().look_up("a.example", "4"), ("192.0.2.1",))

    async def test_a_name_is_remembered_as_long_as_its_ttl_says(self) -> None:
        self.zones["a.example"] = Zone(["192.0.2.1"], ttl=60)
        self.zones["once.example"] = Zone(["192.0.2.1"], ttl=0)
        resolver = self.resolver()
        for _ in range(3):
            await resolver.look_up("a.example", "4")
            await resolver.look_up("once.example", "4")
        self.assertEqual([name for name, _ in self.server.asked].count("a.example"), 1)
        self.assertEqual([name for name, _ in self.server.asked].count("once.example"), 3)
        now = reactor.seconds()
        self.patch(resolver, "_reactor", _Later(now + 59))
        self.assertEqual(await resolver.look_up("a.example", "4"), ("192.0.2.1",))
        self.assertEqual(len(self.server.asked), 4)
        self.patch(resolver, "_reactor", _Later(now + 61))
        await resolver.look_up("a.example", "4")
        self.assertEqual(len(self.server.asked), 5)

    async def test_no_ttl_is_believed_for_ever(self) -> None:
        self.zones["a.example"] = Zone(["192.0.2.1"], ttl=10**9)
        resolver = self.resolver()
        await resolver.look_up("a.example", "4")
        self.patch(resolver, "_reactor", _Later(reactor.seconds() + module.LONGEST_REMEMBERED + 1))
        await resolver.look_up("a.example", "4")
        self.assertEqual(len(self.server.asked), 2)

    async def test_names_that_are_not_are_remembered_as_their_zone_says(self) -> None:
        self.zones["none.example"] = Zone(code=dns.ENAME, none_ttl=30)
        resolver = self.resolver()
        for _ in range(2):
            self.assertEqual(await resolver.look_up("none.example", "4"), ())
            self.assertEqual(await resolver.look_up("unknown.example", "4"), ())
        self.assertEqual([name for name, _ in self.server.asked].count("none.example"), 1)
        self.assertEqual([name for name, _ in self.server.asked].count("unknown.example"), 2)

    async def test_memory_is_bounded(self) -> None:
        self.patch(module, "MOST_REMEMBERED", 3)
        resolver = self.resolver()
        for number in range(5):
            self.zones[f"{number}.example"] = Zone(["192.0.2.1"])
            await resolver.look_up(f"{number}.example", "4")
            await resolver.look_up("0.example", "4")
        self.assertEqual(resolver.status().remembered, 3)
        self.assertEqual([name for name, _ in self.server.asked].count("0.example"), 1)

    async def test_one_question_for_all_who_wait(self) -> None:
        self.zones["a.example"] = Zone(["192.0.2.1"], delay=0.2)
        resolver = self.resolver()
        first, second, third = [resolver.look_up("a.example", "4") for _ in range(3)]
        second.cancel()
        with self.assertRaises(CancelledError):
            await second
        self.assertEqual(await gatherResults([first, third]), [("192.0.2.1",)] * 2)
        self.assertEqual(len(self.server.asked), 1)

    async def test_a_slow_domain_delays_nobody_else(self) -> None:
        self.zones["fast.example"] = Zone(["192.0.2.1"])
        resolver = self.resolver()
        slow = []
        for number in range(200):
            name = f"{number}.slow.example"
            self.zones[name] = Zone(delay=None)
            slow.append(resolver.look_up(name, "4"))
        turned_away = [each for each in slow if each.called]
        self.assertEqual(len(turned_away), 200 - module.MOST_ASKED_BELOW_ONE_DOMAIN)
        self.assertEqual(resolver.status().turned_away, len(turned_away))
        for each in turned_away:
            await self.fails(each, "too many")
        self.assertEqual(await resolver.look_up("fast.example", "4"), ("192.0.2.1",))
        resolver.stopService()
        for each in slow:
            if each not in turned_away:
                with self.assertRaises(CancelledError):
                    await each
        self.assertEqual(resolver.status().asking, 0)

    async def test_all_questions_are_bounded(self) -> None:
        self.patch(module, "MOST_ASKED", 3)
        resolver = self.resolver()
        for number in range(3):
            self.zones[f"{number}.{number}"] = Zone(delay=None)
            resolver.look_up(f"{number}.a{number}.example", "4").addErrback(lambda _: None)
        await self.fails(resolver.look_up("d.example", "4"), "too many")

    async def test_a_server_that_fails_or_is_not_there(self) -> None:
        self.zones["a.example"] = Zone(code=dns.ESERVER)
        await self.fails(self.resolver().look_up("a.example", "4"), "code 2")
        closed = Resolver(reactor, Path(self.folder) / "resolv.conf", Path(self.folder) / "hosts", 1)
        await self.fails(closed.look_up("a.example", "4"), "can't be reached")
        self.assertEqual(closed.status().failed, 1)

    async def test_a_server_that_is_silent_for_a_while_is_asked_again(self) -> None:
        self.zones["a.example"] = zone = Zone(["192.0.2.1"], delay=None)
        resolver = self.resolver()
        looking = resolver.look_up("a.example", "4")
        await deferLater(reactor, 1.5)
        zone.delay = 0.0
        # Whoever asks now waits for the answer to the same question.
        self.assertEqual(await gatherResults([looking, resolver.look_up("a.example", "4")]), [("192.0.2.1",)] * 2)

    async def test_the_next_server_is_asked(self) -> None:
        self.zones["a.example"] = Zone(["192.0.2.1"])
        # Nobody listens at 127.0.0.2.
        resolver = self.resolver(servers="nameserver 127.0.0.2 # first\nnameserver\nnameserver 127.0.0.1\n")
        self.assertEqual(await resolver.look_up("a.example", "4"), ("192.0.2.1",))

    async def test_answers_of_others_are_passed_over(self) -> None:
        def other_number(asked: dns.Message) -> dns.Message:
            return self._lie(asked, asked.id ^ 1, asked.queries[0])

        def other_name(asked: dns.Message) -> dns.Message:
            return self._lie(asked, asked.id, dns.Query(b"b.example", dns.A))

        self.zones["a.example"] = Zone(["192.0.2.1"], delay=0.05)
        self.server.lies = [other_number, other_name]
        self.assertEqual(await self.resolver().look_up("a.example", "4"), ("192.0.2.1",))

    def _lie(self, asked: dns.Message, number: int, query: dns.Query) -> dns.Message:
        lie = dns.Message(number, answer=1)
        lie.queries = [query]
        lie.answers = [dns.RRHeader(query.name.name, dns.A, ttl=60, payload=dns.Record_A("192.0.2.66"))]
        return lie

    async def test_addresses_of_other_names_in_an_answer_are_passed_over(self) -> None:
        class Stray(NameServer):
            def _answer(self, number: int, query: dns.Query, zone: Zone) -> dns.Message:
                answer = super()._answer(number, query, zone)
                answer.answers.append(dns.RRHeader(b"x.example", dns.A, ttl=1, payload=dns.Record_A("192.0.2.66")))
                return answer

        server = Stray()
        self.addCleanup(server.stop)
        server.zones["a.example"] = Zone(["192.0.2.1"])
        self.assertEqual(await server.resolver(self.mktemp()).look_up("a.example", "4"), ("192.0.2.1",))

    async def test_bytes_that_are_no_answer(self) -> None:
        class Noise(NameServer):
            def datagramReceived(self, datagram: bytes, addr: Any) -> None:
                for size in range(0, 60, 3):
                    self.transport.write(datagram[:2] + os.urandom(size), addr)
                self.transport.write(datagram[:2] + b"\xff" * 200, addr)
                # A name that points at itself.
                self.transport.write(datagram[:2] + b"\x80\0\0\1\0\0\0\0\0\0\xc0\x0c\0\1\0\1", addr)
                super().datagramReceived(datagram, addr)

        server = Noise()
        self.addCleanup(server.stop)
        server.zones["a.example"] = Zone(["192.0.2.1"], delay=0.05)
        self.assertEqual(await server.resolver(self.mktemp()).look_up("a.example", "4"), ("192.0.2.1",))

    async def test_there_is_room_for_no_thread(self) -> None:
        resolver = self.resolver(hosts="127.0.0.1 localhost\n")
        self.addCleanup(threading.stack_size, threading.stack_size(2**30))
        before = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (psutil.Process().memory_info().vms + 2**29, before[1]))
        try:
            for _ in range(20):
                await self.fails(resolver.look_up("localhost", "4"), "there is no thread")
        finally:
            resource.setrlimit(resource.RLIMIT_AS, before)
        self.assertIn("127.0.0.1", await resolver.look_up("localhost", "4"))

    async def test_an_answer_that_does_not_fit_is_left_to_the_system(self) -> None:
        self.zones["a.localdomain.example"] = Zone(cut=True)
        resolver = self.resolver()
        self.patch(module, "_getaddrinfo", lambda name, family: (f"{name} {family}",))
        self.assertEqual(await resolver.look_up("a.localdomain.example", "4"), ("a.localdomain.example 4",))

    async def test_a_thread_that_is_lost_is_not_waited_for(self) -> None:
        # As one is that finds no memory to begin with.
        self.patch(module, "start_new_thread", lambda run, words: 1)
        self.patch(module, "_LIMIT", 0.1)
        resolver = self.resolver()
        await self.fails(resolver.look_up("localhost", "4"), "did not answer in time")
        self.assertEqual(resolver.status().asking, 0)

    async def test_this_machines_names(self) -> None:
        resolver = self.resolver(hosts="127.0.0.1 localhost\n192.0.2.9 Pinned.example alias # not.this\n")
        self.assertIn("127.0.0.1", await resolver.look_up("localhost", "4"))
        # The system's own hosts file decides over what is in ours.
        self.assertEqual(await resolver.look_up("pinned.example", "4"), ())
        self.assertEqual(self.server.asked, [])
        await resolver.look_up("not.this", "4")
        self.assertEqual(self.server.asked, [("not.this", dns.A)])

    async def test_names_that_nobody_knows(self) -> None:
        resolver = self.resolver()
        for name in ("x.invalid", "x.onion"):
            self.assertEqual(await resolver.look_up(name, "4"), ())
        self.assertEqual(self.server.asked, [])

    async def test_the_files_are_read_again(self) -> None:
        self.zones["a.example"] = Zone(["192.0.2.1"], ttl=0)
        resolver = self.resolver(servers="nameserver 127.0.0.2\n")
        await self.fails(resolver.look_up("a.example", "4"), "can't be reached")
        (Path(self.folder) / "resolv.conf").write_text("nameserver 127.0.0.1\n")
        self.patch(module, "_BELIEVED", 0.0)
        resolver.look_up("b.example", "4").addErrback(lambda _: None)
        deadline = reactor.seconds() + 5
        while resolver._files.servers[0][0] != "127.0.0.1" and reactor.seconds() < deadline:
            await deferLater(reactor, 0.01)
        self.assertEqual(await resolver.look_up("a.example", "4"), ("192.0.2.1",))

    async def test_no_files(self) -> None:
        resolver = Resolver(reactor, Path("/nonexistent"), Path("/nonexistent"), 1)
        self.assertEqual(resolver._files.servers, (("127.0.0.1", 1),))

    async def test_no_sockets_are_left(self) -> None:
        before = _sockets()
        self.zones["slow.example"] = Zone(delay=None)
        resolver = self.resolver(servers="nameserver 127.0.0.2\nnameserver 127.0.0.1\n")
        waiting = [resolver.look_up(name, "4") for name in ("slow.example", "a.example", "b.example")]
        await gatherResults(waiting[1:])
        resolver.stopService()
        with self.assertRaises(CancelledError):
            await waiting[0]
        self.assertEqual(_sockets(), before)


def _sockets() -> int:
    return sum(each.family == socket.AF_INET for each in psutil.Process().net_connections("all"))


class _Later:
    """The reactor, at another time."""

    def __init__(self, now: float) -> None:
        self._now = now

    def seconds(self) -> float:
        return self._now

    def __getattr__(self, name: str) -> Any:
        return getattr(reactor, name)
