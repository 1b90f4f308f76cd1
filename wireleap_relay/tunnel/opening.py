"""From a request to a tunnel: read, admit, deposit and dial, then let traffic flow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger

from wireleap_relay.boundaries import Admission, Grant, Refused
from wireleap_relay.tunnel import abuse, answers
from wireleap_relay.tunnel.decoy import Decoy
from wireleap_relay.tunnel.dial import Dialler
from wireleap_relay.tunnel.registry import Registry
from wireleap_relay.tunnel.splice import Splice, TcpSplice, UdpSplice
from wireleap_relay.tunnel.stream import Headers, Stream, header_value
from wireleap_relay.wire.errors import WireError
from wireleap_relay.wire.keys import PublicKey
from wireleap_relay.wire.payload import Connect, Ping, parse_payload
from wireleap_relay.wire.status import Status

_UNFORESEEN = "internal error"


@attrs.define
class Doorway:
    """Answers the requests of clients: the listener's only way to the rest of the relay.

    :ivar relay: this relay's public key.
    :ivar decoy: answers whoever wants no tunnel.
    :ivar maxtime: longest life of a tunnel, in seconds; 0 for no limit.
    :ivar is_overloaded: tells whether no tunnel can be opened just now.
    """

    relay: PublicKey
    admission: Admission
    dialler: Dialler
    registry: Registry
    reactor: Any
    decoy: Decoy
    maxtime: float = 0.0
    is_overloaded: Callable[[], bool] = attrs.field(default=lambda: False)

    def request(self, stream: Stream, headers: Headers) -> None:
        """Answer one request."""
        method = header_value(headers, b":method")
        payload = header_value(headers, answers.PAYLOAD)
        if method != b"PUT" or (payload is None and self.decoy.hides):
            stream.for_strangers = True
            self.decoy.request(stream, headers)
            return stream.spend(abuse.REQUESTS)
        stream.handler = opening = _Opening(stream, self)
        try:
            if payload is None:
                raise WireError("missing")
            asked = parse_payload(payload)
        except WireError as e:
            return self.refuse(stream, Refused(400, f"wl-payload: {e}"))
        if isinstance(asked, Ping):
            return answers.pong(stream, self.relay)
        if self.is_overloaded():
            # No 400: its client takes another way then.
            return self.refuse(stream, Refused(502, "the relay has too much to do", "overload"))
        return opening.start(asked)

    def refuse(self, stream: Stream, refused: Refused, at_target: bool = False) -> None:
        """Answer with a reason for having no tunnel."""
        self.registry.refused(refused.reason)
        origin = answers.TARGET if at_target else str(self.relay)
        answers.refuse(stream, Status(refused.code, refused.description, origin))
        if refused.code == 400:
            stream.spend(abuse.REQUESTS)


class _Opening:
    """A tunnel that is being opened: it keeps what the client sends meanwhile, a window at most."""

    _log = Logger()

    def __init__(self, stream: Stream, doorway: Doorway) -> None:
        self._stream = stream
        self._doorway = doorway
        self._early: list[tuple[bytes, bool]] = []
        self._client_ended = False
        self._under_way: Deferred[None] | None = None

    def start(self, connect: Connect) -> None:
        """Open the tunnel; every outcome but success is told to the client."""
        self._under_way = Deferred.fromCoroutine(self._open(connect))
        self._under_way.addErrback(self._failed)

    async def _open(self, connect: Connect) -> None:
        doorway = self._doorway
        try:
            grant = doorway.admission.check(connect)
            doorway.dialler.policy.check_role(grant.role, connect.remote.is_target)
        except Refused as e:
            return doorway.refuse(self._stream, e)
        # The dial may run while the disk works; traffic waits for both.
        dialling = Deferred.fromCoroutine(self._dial(connect, grant))
        try:
            await doorway.admission.deposit(connect.token)
        except Refused as e:
            _give_up(dialling)
            return doorway.refuse(self._stream, e)
        except CancelledError:
            _give_up(dialling)
            raise
        try:
            splice = await dialling
        except Refused as e:
            return doorway.refuse(self._stream, e, connect.remote.is_target and e.code != 400)
        doorway.registry.opened(splice, grant.contract, doorway.maxtime)
        try:
            splice.begin(self._early, self._client_ended)
        except Exception:
            # Some of what came early may be lost: nothing may come after that.
            splice.end(Status(500, _UNFORESEEN, str(doorway.relay)))
            raise
        return None

    async def _dial(self, connect: Connect, grant: Grant) -> Splice:
        doorway = self._doorway
        origin = answers.TARGET if connect.remote.is_target else str(doorway.relay)
        kind = UdpSplice if connect.is_udp else TcpSplice

        def build() -> Any:
            return kind(self._stream, grant.meter, origin, doorway.reactor)

        dial = doorway.dialler.udp if connect.is_udp else doorway.dialler.tcp
        began = doorway.reactor.seconds()
        try:
            opened: Splice = await dial(connect, build)
        except Refused as e:
            doorway.registry.dialled(e.reason, doorway.reactor.seconds() - began)
            raise
        doorway.registry.dialled("connected", doorway.reactor.seconds() - began)
        return opened

    def _failed(self, failure: Any) -> None:
        if failure.check(CancelledError):
            return
        self._log.failure("A tunnel could not be opened for a reason that nobody foresaw", failure)
        self._doorway.refuse(self._stream, Refused(500, _UNFORESEEN))

    # What the client does meanwhile

    def responded(self, headers: Headers) -> None:
        """Not for servers."""

    def data_received(self, data: bytes, frame_done: bool) -> None:
        """Keep it for the target; credit is given when the target takes it."""
        self._early.append((data, frame_done))

    def ended(self, trailers: Headers) -> None:
        """The client has said all it has to say."""
        self._client_ended = True

    def was_reset(self, code: int) -> None:
        """The client does not want the tunnel any more."""
        if self._under_way is not None:
            self._under_way.cancel()

    def pause(self) -> None:
        """Only short answers are sent from here."""

    def resume(self) -> None:
        """Nothing was paused."""


def _give_up(dialling: Deferred[Splice]) -> None:
    """Want a target's connection no more, whether it is there already or not."""
    dialling.addCallbacks(lambda splice: splice.abort(), lambda _: None)
    dialling.cancel()
