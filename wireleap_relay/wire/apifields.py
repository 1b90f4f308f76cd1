"""Fields that only APIs have: durations and rationals as text, and what is left out (PROTOCOL: *API requests*)."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Any, NewType

from cattrs.gen import make_dict_unstructure_fn

from wireleap_relay.wire.errors import WireError
from wireleap_relay.wire.structure import converter
from wireleap_relay.wire.units import format_duration, parse_duration

#: Seconds, travelling as a duration's text.
Seconds = NewType("Seconds", float)

_RATIONAL = re.compile(r"-?\d{1,40}(?:/\d{1,40}|\.\d{1,40})?", re.ASCII)


def parse_rational(text: str) -> Fraction:
    """Read ``100``, ``1/3`` or ``2.5``.

    :raises WireError: where the text is anything else.
    """
    if not _RATIONAL.fullmatch(text):
        raise WireError('expected a number as text, such as "100" or "1/3"')
    try:
        return Fraction(text)
    except ZeroDivisionError:
        raise WireError("expected a number that is not divided by zero") from None


def _text(value: Any) -> str:
    if type(value) is not str:
        raise WireError("expected text")
    return value


converter.register_structure_hook(Seconds, lambda value, _: Seconds(parse_duration(_text(value))))
converter.register_structure_hook(Fraction, lambda value, _: parse_rational(_text(value)))
converter.register_unstructure_hook(Seconds, format_duration)
converter.register_unstructure_hook(Fraction, str)


def write_without_defaults(*kinds: type) -> None:
    """Have the converter leave out of these values whatever is not set."""
    for kind in kinds:
        converter.register_unstructure_hook(
            kind, make_dict_unstructure_fn(kind, converter, _cattrs_omit_if_default=True)
        )
