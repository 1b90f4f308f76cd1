"""Where in JSON text that a person wrote something is: paths, lines and columns."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from wireleap_relay.wire.structure import Mistake

_WORD = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_TOKEN = re.compile(r'("(?:[^"\\]|\\.)*")(\s*:)?|[\[\]{}]')


def below(path: str, name: str) -> str:
    """Give the path of a key in the object at a path: ``a.b``, or ``a["b c"]`` where it is no plain word."""
    if not _WORD.fullmatch(name):
        return f"{path}[{json.dumps(name)}]"
    return f"{path}.{name}" if path else name


def position(text: str, index: int) -> str:
    """Tell people where in a text a character is; lines and columns begin with 1."""
    line, column = text.count("\n", 0, index) + 1, index - text.rfind("\n", 0, index)
    return f"line {line}, column {column}"


def repeated_keys(text: str) -> Iterator[Mistake]:
    """Find keys that an object holds more than once; text that is no JSON otherwise has none."""
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return
    opened: list[tuple[str, set[str]]] = []
    path = ""
    for token in _TOKEN.finditer(text):
        if token[0] in ("{", "["):
            opened.append((path, set()))
        elif token[0] in ("}", "]"):
            opened.pop()
        elif token[2]:
            whose, seen = opened[-1]
            name = json.loads(token[1])
            path = below(whose, name)
            if name in seen:
                yield Mistake(path, f"is there more than once ({position(text, token.start())})")
            seen.add(name)
