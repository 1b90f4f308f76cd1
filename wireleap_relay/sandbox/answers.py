"""Status objects of the network's APIs, and the exception that carries one (PROTOCOL: *API requests*)."""

from __future__ import annotations

import attrs

from wireleap_relay.wire.status import Status

OK = Status(200, "OK")
CHALLENGE = Status(202, "repeat request with response to challenge in headers")
UPGRADE = Status(202, "please upgrade your relay to the given version as soon as possible")
BAD_REQUEST = Status(400, "bad request")
FORBIDDEN = Status(403, "action not allowed")
NOT_FOUND = Status(404, "resource not found")
METHOD = Status(405, "HTTP method not allowed")
CONFLICT = Status(409, "action conflicts with existing resource")
INTERNAL = Status(500, "internal server error")


class Problem(Exception):
    """A request is not served; the status says why."""

    def __init__(self, status: Status, cause: str = "") -> None:
        super().__init__(status, cause)
        self.status = attrs.evolve(status, cause=cause)
