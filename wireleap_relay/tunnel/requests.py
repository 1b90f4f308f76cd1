"""Whether a request's header fields are well-formed (RFC 9113, section 8)."""

from __future__ import annotations

import re

from h2.exceptions import ProtocolError
from h2.utilities import CONNECTION_HEADERS, HeaderValidationFlags, validate_headers

from wireleap_relay.tunnel.fields import Fields
from wireleap_relay.tunnel.stream import header_value

_REQUEST = HeaderValidationFlags(is_client=False, is_trailer=False, is_response_header=False, is_push_promise=False)
_RESPONSE = _REQUEST._replace(is_client=True, is_response_header=True)
_TRAILERS = _REQUEST._replace(is_trailer=True)

_PSEUDO = frozenset((b":method", b":scheme", b":authority", b":path"))
#: Fields with rules of their own.
_LENGTH = b"content-length"
_SPECIAL = frozenset((b"te", b"host", _LENGTH)) | CONNECTION_HEADERS

_is_name = re.compile(rb"[!-9;-@\[-~]+").fullmatch
#: Anything but controls, and no space at an end.
_is_value = re.compile(rb"(?:[!-~\x80-\xff](?:[ -~\x80-\xff]*[!-~\x80-\xff])?)?").fullmatch

#: A number that is a number of bytes.
_is_length = re.compile(rb"[0-9]{1,18}").fullmatch


def is_request(fields: Fields) -> bool:
    """Tell whether fields make a well-formed request."""
    return _is_plain_request(fields) or (
        _is_valid(fields, _REQUEST) and all(_is_length(value) for name, value in fields if name == _LENGTH)
    )


def announced_length(fields: Fields) -> int | None:
    """Give the bytes of payload that a well-formed request announces; None where it doesn't."""
    length = header_value(fields, _LENGTH)
    return None if length is None else int(length)


def is_response(fields: Fields) -> bool:
    """Tell whether fields make a well-formed response."""
    return _is_valid(fields, _RESPONSE)


def are_trailers(fields: Fields) -> bool:
    """Tell whether fields make well-formed trailers."""
    return _is_valid(fields, _TRAILERS)


def _is_plain_request(fields: Fields) -> bool:
    """Tell whether a request is like any that clients make: all four pseudo fields, then ordinary ones.

    h2 has seven generators for its rules; what doesn't need them all is
    spared them. Every request that is well-formed here is so to h2.
    """
    if {name for name, _ in fields[:4]} != _PSEUDO:
        return False
    if not all(value and value != b"CONNECT" and _is_value(value) for _, value in fields[:4]):
        return False
    return all(name not in _SPECIAL and _is_name(name) and _is_value(value) for name, value in fields[4:])


def _is_valid(fields: Fields, flags: HeaderValidationFlags) -> bool:
    try:
        for _ in validate_headers(fields, flags):
            pass
    except ProtocolError:
        return False
    return True
