"""URLs of contracts, directories and what else speaks their API (PROTOCOL: *API requests*)."""

from __future__ import annotations

import re
from typing import Any, NewType
from urllib.parse import urlsplit

from wireleap_relay.wire.address import is_host
from wireleap_relay.wire.errors import WireError
from wireleap_relay.wire.structure import converter

#: An ``http`` or ``https`` URL; any path, and nothing after it.
Endpoint = NewType("Endpoint", str)

_PLAIN = re.compile(r"(?:(?![?#@])[!-~]){1,2048}", re.ASCII)
_EXPECTED = "expected a URL such as https://contract.example.com/path"


def parse_endpoint(text: str) -> Endpoint:
    """Read the URL of an API.

    :raises WireError: where it isn't one of ``http`` or ``https`` with a host
        and at the most a port and a path.
    """
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise WireError(_EXPECTED) from None
    host = parts.hostname
    if not _PLAIN.fullmatch(text) or parts.scheme not in ("http", "https") or port == 0:
        raise WireError(_EXPECTED)
    if not host or not is_host(host):
        raise WireError(_EXPECTED)
    return Endpoint(text)


def join(endpoint: Endpoint, path: str) -> str:
    """Put a path that begins with ``/`` under an endpoint."""
    return endpoint.rstrip("/") + path


def _structure(value: Any, _: Any) -> Endpoint:
    if type(value) is not str:
        raise WireError("expected text")
    return parse_endpoint(value)


converter.register_structure_hook(Endpoint, _structure)
