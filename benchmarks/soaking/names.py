"""The name server of a relay that is soaked: it knows every name below one domain, and has moods."""

from __future__ import annotations

from typing import Any, Literal

from twisted.internet.protocol import DatagramProtocol
from twisted.names import dns

#: All names below this one are on loopback; no log may hold it.
DOMAIN = "soaked.example"
#: Seconds for which an answer may be remembered: so that names are asked for again and again.
_TTL = 1

Mood = Literal["well", "silent", "failing"]


class NameServer(DatagramProtocol):
    """Answers at a port on loopback.

    :ivar mood: how.
    :ivar port: where.
    """

    noisy = False

    def __init__(self, reactor: Any) -> None:
        """Begin to answer."""
        self._reactor = reactor
        self.mood: Mood = "well"
        self.port = 0
        self.start()

    def start(self) -> None:
        """Answer, at the same port as before."""
        self._socket = self._reactor.listenUDP(self.port, self, "127.0.0.1")
        self.port = self._socket.getHost().port

    async def stop(self) -> None:
        """Be gone: whoever asks is told that nobody listens."""
        await self._socket.stopListening()

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        if self.mood == "silent":
            return
        message = dns.Message()
        message.fromStr(datagram)
        [query] = message.queries
        answer = dns.Message(message.id, answer=1, rCode=dns.ESERVER if self.mood == "failing" else dns.OK)
        answer.queries = [query]
        name = query.name.name
        if self.mood == "well" and query.type == dns.A:
            answer.answers = [dns.RRHeader(name, dns.A, ttl=_TTL, payload=dns.Record_A("127.0.0.1"))]
        elif self.mood == "well":
            answer.authority = [dns.RRHeader(name, dns.SOA, ttl=_TTL, payload=dns.Record_SOA(minimum=_TTL))]
        self.transport.write(answer.toStr(), addr)  # type: ignore[union-attr]
