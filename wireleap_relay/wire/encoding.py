"""How binary values and JSON are written (PROTOCOL: *Encodings*)."""

from __future__ import annotations

import base64
import binascii
import json
import math
from typing import Any

from wireleap_relay.wire.errors import WireError


def to_base64url(raw: bytes) -> str:
    """Write bytes as base64url (RFC 4648, section 5) without padding."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


def from_base64url(text: str, size: int) -> bytes:
    """Read exactly ``size`` bytes of unpadded base64url.

    Only the one text that :func:`to_base64url` would write is accepted, so
    that a value can't be told apart from itself by its spelling.

    :raises WireError: for anything else.
    """
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if len(raw) != size or to_base64url(raw) != text:
        raise WireError(f"expected {size} bytes as base64url without padding")
    return raw


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise WireError("a key is there twice")
    return found


def _no_constant(name: str) -> Any:
    raise WireError(f"{name} is not a JSON number")


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise WireError("a number is too large")
    return number


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_finite)


def read_json(text: str | bytes) -> Any:
    """Read one JSON value; a key twice in one object, NaN, infinity and trailing text are refused.

    :param text: JSON, as text or UTF-8 bytes.
    :raises WireError: where it is not such a value.
    """
    try:
        if isinstance(text, bytes):
            text = text.decode("utf-8")
        value = _DECODER.decode(text)
        if "\\u" in text or not text.isascii():
            # Escapes, and text that was decoded leniently, can hold half a character, which no later encoding takes.
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except json.JSONDecodeError as e:
        raise WireError(f"not JSON: {e.msg} (line {e.lineno}, column {e.colno})") from None
    except WireError:
        raise
    except (ValueError, RecursionError) as e:
        raise WireError(f"not JSON: {type(e).__name__}") from None
    return value


def write_json(value: object) -> str:
    """Write a value as one line of JSON: no spaces, ASCII only, keys in the order they have."""
    return json.dumps(value, separators=(",", ":"))
