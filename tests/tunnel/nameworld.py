"""A name server on loopback that knows what its test tells it, and is as slow as it is told to be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
from twisted.internet.protocol import DatagramProtocol
from twisted.names import dns

from tests.tunnel.world import reactor
from wireleap_relay.tunnel.resolver import Resolver


@attrs.define
class Zone:
    """What a name has.

    :ivar delay: seconds before it is told; None for never.
    """

    four: list[str] = attrs.Factory(list)
    six: list[str] = attrs.Factory(list)
    alias: str | None = None
    ttl: int = 60
    delay: float | None = 0.0
    delay_six: float | None = 0.0
    code: int = dns.OK
    none_ttl: int | None = None
    cut: bool = False


class NameServer(DatagramProtocol):
    """Answers with what ``zones`` say; names that are not in it are not."""

    noisy = False

    def __init__(self) -> None:
        self.zones: dict[str, Zone] = {}
        self.asked: list[tuple[str, int]] = []
        self.lies: list[Any] = []
        self.address: tuple[str, int] = ("127.0.0.1", 0)
        self.start()

    def start(self) -> None:
        """Answer, at the same port as before."""
        self.port = reactor.listenUDP(self.address[1], self, "127.0.0.1")
        self.address = ("127.0.0.1", self.port.getHost().port)

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        message = dns.Message()
        message.fromStr(datagram)
        [query] = message.queries
        name = query.name.name.decode().lower()
        self.asked.append((name, query.type))
        zone = self.zones.get(name, Zone(code=dns.ENAME))
        delay = zone.delay_six if query.type == dns.AAAA and zone.delay == 0.0 else zone.delay
        for lie in self.lies:
            self.transport.write(lie(message).toStr(), addr)
        if delay is not None:
            answer = self._answer(message.id, query, zone).toStr()
            reactor.callLater(delay, self._say, answer, addr)

    def _answer(self, number: int, query: dns.Query, zone: Zone) -> dns.Message:
        answer = dns.Message(number, answer=1, rCode=zone.code, trunc=int(zone.cut))
        answer.queries = [query]
        owner = query.name.name.decode()
        if zone.alias is not None:
            alias = dns.RRHeader(owner, dns.CNAME, ttl=zone.ttl, payload=dns.Record_CNAME(zone.alias))
            answer.answers.append(alias)
            owner, zone = zone.alias, self.zones[zone.alias]
        if query.type == dns.A:
            records: list[Any] = [dns.Record_A(each) for each in zone.four]
        else:
            records = [dns.Record_AAAA(each) for each in zone.six]
        answer.answers += [dns.RRHeader(owner, query.type, ttl=zone.ttl, payload=each) for each in records]
        if zone.none_ttl is not None:
            soa = dns.Record_SOA(minimum=zone.none_ttl)
            answer.authority = [dns.RRHeader("example", dns.SOA, ttl=600, payload=soa)]
        return answer

    def _say(self, answer: bytes, addr: Any) -> None:
        if self.transport is not None:
            self.transport.write(answer, addr)

    def resolver(self, folder: str, hosts: str = "", servers: str = "nameserver 127.0.0.1\n") -> Resolver:
        """A resolver that asks this server."""
        path = Path(folder)
        path.mkdir()
        (path / "resolv.conf").write_text(servers)
        (path / "hosts").write_text(hosts)
        return Resolver(reactor, path / "resolv.conf", path / "hosts", self.address[1])

    def stop(self) -> Any:
        return self.port.stopListening()
