"""Between JSON and frozen values: strict, and every mistake has a path.

cattrs does the work; the hooks here make it refuse what it would otherwise
coerce (``5`` where text belongs), and :func:`mistakes` turns its exception
groups into lines that a person can act on.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, TypeVar, get_args, get_origin

import attrs
import cattrs
from cattrs.cols import list_structure_factory
from cattrs.errors import (
    AttributeValidationNote,
    ClassValidationError,
    ForbiddenExtraKeysError,
    IterableValidationError,
    IterableValidationNote,
)
from cattrs.gen import make_dict_structure_fn

from wireleap_relay.wire.encoding import read_json
from wireleap_relay.wire.errors import WireError
from wireleap_relay.wire.keys import PublicKey, Signature

T = TypeVar("T")

_NAMES: dict[type, str] = {str: "text", int: "a whole number", bool: "true or false"}
_INT64 = 2**63


def _strict(wanted: type[Any]) -> Any:
    def read(value: Any, _: Any) -> Any:
        # bool is an int to Python, not to JSON.
        if type(value) is not wanted:
            raise WireError(f"expected {_NAMES[wanted]}")
        if wanted is int and not -_INT64 <= value < _INT64:
            raise WireError("expected a whole number of 64 bits")
        return value

    return read


def _number(value: Any, _: Any) -> float:
    # cattrs would take "nan" for one.
    if type(value) is not float and type(value) is not int:
        raise WireError("expected a number")
    try:
        return float(value)
    except OverflowError:
        raise WireError("a number is too large") from None


def whole_number(value: Any) -> int:
    """Give a whole number of 64 bits.

    :raises TypeError: where it is something else.
    """
    if type(value) is not int or not -_INT64 <= value < _INT64:
        raise TypeError
    return value


def _from_text(kind: type[Signature] | type[PublicKey]) -> Any:
    def read(value: Any, _: Any) -> Any:
        if type(value) is not str:
            raise WireError("expected text")
        return kind.from_text(value)

    return read


def _is_literal(kind: Any) -> bool:
    return get_origin(kind) is Literal


def _is_array(kind: Any) -> bool:
    return get_origin(kind) is list or (get_origin(kind) is tuple and get_args(kind)[1:] == (...,))


def _one_of(value: Any, literal: Any) -> Any:
    choices = get_args(literal)
    if type(value) is not str or value not in choices:
        raise WireError("expected one of " + ", ".join(choices))
    return value


def strict_converter() -> cattrs.Converter:
    """Make a converter that coerces nothing and knows keys and signatures."""
    converter = cattrs.Converter(detailed_validation=True)

    def objects_only(kind: type) -> Any:
        from_fields: Any = make_dict_structure_fn(kind, converter)

        def read(value: Any, _: Any) -> Any:
            if type(value) is not dict:
                raise WireError("expected a JSON object")
            return from_fields(value, kind)

        return read

    def arrays_only(kind: Any) -> Any:
        made: Any = get_origin(kind)
        items: Any = list[get_args(kind)[0]]  # type: ignore[misc]
        from_items: Any = list_structure_factory(items, converter)

        def read(value: Any, _: Any) -> Any:
            # Text and objects are iterable to Python, not to JSON.
            if type(value) is not list:
                raise WireError("expected a JSON array")
            return made(from_items(value, items))

        return read

    converter.register_structure_hook_factory(attrs.has, objects_only)
    converter.register_structure_hook_factory(_is_array, arrays_only)
    for wanted in _NAMES:
        converter.register_structure_hook(wanted, _strict(wanted))
    converter.register_structure_hook(float, _number)
    converter.register_structure_hook_func(_is_literal, _one_of)
    for kind in (PublicKey, Signature):
        converter.register_structure_hook(kind, _from_text(kind))
        converter.register_unstructure_hook(kind, str)
    return converter


#: For values of the wire; unknown fields are ignored, as newer peers may send more.
converter = strict_converter()


@attrs.frozen
class Mistake:
    """One thing wrong with a structured value: where, and what was expected."""

    path: str
    problem: str

    def __str__(self) -> str:
        return f"{self.path}: {self.problem}" if self.path else self.problem


class Mistaken(WireError):
    """Several things are wrong with a value; their paths are whole."""

    def __init__(self, found: list[Mistake]) -> None:
        super().__init__("; ".join(map(str, found)))
        self.found = found


def mistakes(error: BaseException, path: str = "") -> Iterator[Mistake]:
    """Flatten what a converter raised into single mistakes, in the order of the fields."""
    if isinstance(error, ClassValidationError | IterableValidationError):
        for inner in error.exceptions:
            yield from mistakes(inner, _below(path, inner))
    elif isinstance(error, ForbiddenExtraKeysError):
        for name in sorted(error.extra_fields):
            yield Mistake(_join(path, name), "unknown key")
    elif isinstance(error, KeyError):
        yield Mistake(path, "missing")
    elif isinstance(error, Mistaken):
        yield from error.found
    elif isinstance(error, WireError):
        yield Mistake(path, str(error))
    else:
        yield Mistake(path, "expected a JSON object")


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _below(path: str, inner: BaseException) -> str:
    for note in getattr(inner, "__notes__", ()):
        if isinstance(note, AttributeValidationNote):
            return _join(path, note.name)
        if isinstance(note, IterableValidationNote):
            return f"{path}[{note.index}]"
    return path


def structure(value: Any, kind: type[T], using: cattrs.Converter = converter) -> T:
    """Make a frozen value of JSON data.

    :raises WireError: listing every field that is missing or mistyped.
    """
    try:
        return using.structure(value, kind)
    except WireError:
        raise
    except Exception as e:  # noqa: BLE001 - cattrs groups whatever the hooks raise
        raise WireError("; ".join(str(m) for m in mistakes(e))) from None


def read(text: str | bytes, kind: type[T], using: cattrs.Converter = converter) -> T:
    """Make a frozen value of JSON text.

    :raises WireError: where it isn't JSON, or a field is missing or mistyped.
    """
    return structure(read_json(text), kind, using)
