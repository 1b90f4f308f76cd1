"""What strangers are shown: requests that open no tunnel, and the answers to them. Nothing here does I/O but :func:`read_folder`."""

from __future__ import annotations

import hashlib
import mimetypes
import os
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote_to_bytes

import attrs

from wireleap_relay.wire.status import Status

Field = tuple[bytes, bytes]

#: Bytes of a folder's files, and how many of them: they are kept in memory.
LARGEST_FOLDER = 64 * 2**20
MOST_FILES = 10_000

_INDEX = "index.html"
_TEXT = b"text/plain; charset=utf-8"


@attrs.frozen
class Answer:
    """An answer, without what depends on its time and its way.

    :ivar fields: names in lower case.
    """

    code: int
    fields: tuple[Field, ...]
    body: bytes = attrs.field(default=b"", repr=False)


class Site(Protocol):
    """Answers requests."""

    def answer(self, method: bytes, path: bytes, known: bytes | None) -> Answer:
        """Answer a request.

        :param path: as it was sent, with a query where there is one.
        :param known: the ``if-none-match`` that it has.
        """


class NotAllowed:
    """Allows no method, as the Go relay does (PROTOCOL: *The tunnel*)."""

    _answer = Answer(
        405,
        ((b"content-type", b"application/json"),),
        Status(405, "HTTP method not allowed").to_json().encode() + b"\n",
    )

    def answer(self, method: bytes, path: bytes, known: bytes | None) -> Answer:
        """Answer any request."""
        return self._answer


class Folder:
    """Shows files that were read before: every answer takes as long as any other."""

    def __init__(self, pages: dict[bytes, Answer]) -> None:
        """Show pages by their paths, which begin with a slash."""
        self._pages = pages
        self._missing = pages.get(b"/404.html", _error(404, b"Not Found"))

    def answer(self, method: bytes, path: bytes, known: bytes | None) -> Answer:
        """Answer a request: with a file, or by saying that there is none."""
        if method not in (b"GET", b"HEAD"):
            return _error(405, b"Method Not Allowed", (b"allow", b"GET, HEAD"))
        page = self._pages.get(unquote_to_bytes(path.partition(b"?")[0]))
        if page is None:
            return attrs.evolve(self._missing, code=404)
        if known is not None and (b"etag", known) in page.fields:
            return attrs.evolve(page, code=304, body=b"")
        return page


class FolderTooLarge(Exception):
    """A folder holds more than is kept in memory; the text says what was too much."""


def read_folder(folder: Path) -> Folder:
    """Read a folder's files, without those whose names begin with a dot; symbolic links are not followed.

    :raises OSError: where it can't be read.
    :raises FolderTooLarge: where there is too much in it.
    """
    pages: dict[bytes, Answer] = {}
    size = 0
    for path, file in _files(folder):
        page = _page(file)
        size += len(page.body)
        if size > LARGEST_FOLDER:
            raise FolderTooLarge(f"there are more than {LARGEST_FOLDER // 2**20} MB in it")
        if len(pages) >= MOST_FILES:
            raise FolderTooLarge(f"there are more than {MOST_FILES} files in it")
        pages[path] = page
        if file.name == _INDEX:
            pages[path.removesuffix(_INDEX.encode())] = page
    return Folder(pages)


def _files(folder: Path) -> Iterator[tuple[bytes, Path]]:
    def fail(error: OSError) -> None:
        raise error

    for here, folders, names in os.walk(folder, onerror=fail):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            file = Path(here, name)
            if not name.startswith(".") and file.is_file() and not file.is_symlink():
                yield b"/" + os.fsencode(file.relative_to(folder)), file


def _page(file: Path) -> Answer:
    body = file.read_bytes()
    kind, coding = mimetypes.guess_type(file.name)
    name = kind if kind and not coding else "application/octet-stream"
    if name.startswith("text/"):
        name += "; charset=utf-8"
    fields = (
        (b"content-type", name.encode()),
        (b"last-modified", formatdate(file.stat().st_mtime, usegmt=True).encode()),
        (b"etag", b'"' + hashlib.sha256(body).hexdigest()[:16].encode() + b'"'),
    )
    return Answer(200, fields, body)


def _error(code: int, text: bytes, *fields: Field) -> Answer:
    return Answer(code, ((b"content-type", _TEXT), *fields), b"%d %s\n" % (code, text))


def fields_of(answer: Answer, now: float) -> list[Field]:
    """Write an answer's header fields, as any web server sends them.

    :param now: Unix seconds.
    """
    fields = [*answer.fields, (b"date", formatdate(now, usegmt=True).encode())]
    if answer.code != 304:
        fields.append((b"content-length", b"%d" % len(answer.body)))
    return fields
