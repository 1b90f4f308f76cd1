"""What peers do to a relay that is no use to them: its kinds, and how much of each one connection may do.

Sans-IO and without a clock: whoever has one says when a second has passed.
"""

from __future__ import annotations

import attrs

# What is allowed, but not as often as one likes. Each kind is counted once for a connection that ends by it.
RESETS = "resets"  #: the peer opens streams and resets them before they are tunnels (CVE-2023-44487)
MADE_RESETS = "made_resets"  #: it makes us reset its streams (CVE-2025-8671)
REQUESTS = "requests"  #: requests that open no tunnel
SETTINGS = "settings"
PINGS = "pings"
PRIORITIES = "priorities"
WINDOW_UPDATES = "window_updates"
EMPTY_FRAMES = "empty_frames"  #: DATA without data
LATE_FRAMES = "late_frames"  #: for streams that were reset
OTHER_FRAMES = "other_frames"  #: of unknown kinds, and GOAWAY
KEY_UPDATES = "key_updates"  #: TLS has something to say after its handshake

# What ends a connection at once.
CONTINUATIONS = "continuations"  #: a block of headers in too many frames (CVE-2024-27316)
HEADER_LIST = "header_list"  #: too many header fields, or too long ones
COMPRESSION = "compression"  #: broken HPACK
FLOW_CONTROL = "flow_control"  #: more than a window allows, or a window over 2^31
STREAM_IDS = "stream_ids"  #: out of order
PROTOCOL = "protocol"  #: any other error that ends a connection
TLS = "tls"  #: no TLS, or not ours
UNREAD = "unread"  #: a peer that asks, and does not read our answers

# What takes too long.
SLOW_HANDSHAKE = "slow_handshake"
SLOW_HEADERS = "slow_headers"
IDLE = "idle"
STALLED = "stalled"  #: a peer that leaves unread what its tunnels bring

# What there is too much of. No connection is refused for good.
CONNECTIONS = "connections"  #: of one network at once
CONNECTION_RATE = "connection_rate"  #: of one network in a second
DESCRIPTORS = "descriptors"  #: of the process
MEMORY = "memory"  #: of the process

#: Every kind, in the order in which they are shown.
KINDS = (
    RESETS,
    MADE_RESETS,
    REQUESTS,
    SETTINGS,
    PINGS,
    PRIORITIES,
    WINDOW_UPDATES,
    EMPTY_FRAMES,
    LATE_FRAMES,
    OTHER_FRAMES,
    KEY_UPDATES,
    CONTINUATIONS,
    HEADER_LIST,
    COMPRESSION,
    FLOW_CONTROL,
    STREAM_IDS,
    PROTOCOL,
    TLS,
    UNREAD,
    SLOW_HANDSHAKE,
    SLOW_HEADERS,
    IDLE,
    STALLED,
    CONNECTIONS,
    CONNECTION_RATE,
    DESCRIPTORS,
    MEMORY,
)

#: A peer may do this many seconds' worth at once.
BURST = 5
#: What SETTINGS count, for they may change every stream's window; and one more for so many bytes of them.
SETTINGS_COST, SETTINGS_BYTES = 10, 64
#: Bytes that we send for each WINDOW_UPDATE that is no flood, however many there are in a second.
BYTES_PER_UPDATE = 64


@attrs.frozen
class Rates:
    """How often a peer may do what costs it nothing, per second and connection.

    :ivar resets: streams that end in a reset, of the peer's or of our making.
    :ivar requests: requests that open no tunnel.
    :ivar frames: of each other kind that carries nothing.
    :ivar window_updates: beside those that our own sending explains.
    """

    resets: int = 100
    requests: int = 200
    frames: int = 1000
    window_updates: int = 5000

    def of(self, kind: str) -> int:
        """Give the rate of a kind."""
        if kind in (RESETS, MADE_RESETS):
            return self.resets
        return self.requests if kind == REQUESTS else self.frames


#: What no honest peer comes near.
GENEROUS = Rates()


class Budget:
    """What one peer has done lately, beside what it may do. It costs nothing while a peer does nothing of it.

    :ivar updates: WINDOW_UPDATE frames that it may still send; those are many, so whoever reads them counts.
    """

    __slots__ = ("_done", "_rates", "_sent", "updates")

    def __init__(self, rates: Rates) -> None:
        """Begin with leave to do all of it."""
        self._rates = rates
        self._done: dict[str, int] = {}
        self._sent = 0
        self.updates = rates.window_updates * BURST

    def spend(self, kind: str, amount: int = 1) -> bool:
        """Account for something.

        :returns: whether it was within bounds.
        """
        done = self._done.get(kind, 0) + amount
        self._done[kind] = done
        return done <= self._rates.of(kind) * BURST

    def more_updates(self, sent: int) -> bool:
        """Look, when :attr:`updates` is used up, at how much there was to update.

        :param sent: bytes of payload sent on the connection so far.
        :returns: whether that explains them.
        """
        self.updates += (sent - self._sent) // BYTES_PER_UPDATE
        self._sent = sent
        return self.updates >= 0

    def second_passed(self) -> None:
        """Let the peer do as much again as it may in a second."""
        rates, done = self._rates, self._done
        self.updates = min(self.updates + rates.window_updates, rates.window_updates * BURST)
        for kind in list(done):
            done[kind] -= rates.of(kind)
            if done[kind] <= 0:
                del done[kind]
