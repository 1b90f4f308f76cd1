"""The single values of ``config.json``: how each is written, and within which bounds (PROTOCOL: *config.json*).

Every reader takes a value as JSON has it, and raises
:exc:`wireleap_relay.wire.errors.WireError` where it is not one of its kind.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, tzinfo
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any, Literal, NewType
from urllib.parse import quote, unquote
from zoneinfo import ZoneInfo

import attrs

from wireleap_relay.wire.address import Address, is_host, join_host_port
from wireleap_relay.wire.errors import WireError
from wireleap_relay.wire.units import format_duration_for_people, parse_duration, parse_size

HOUR, DAY, YEAR = 3600.0, 86400.0, 365 * 86400.0

#: A relay's address, never a target's.
PublishedAddress = NewType("PublishedAddress", Address)

_HOST_PORT = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\[\]:]*)):(\d{1,5})", re.ASCII)
_FILE = re.compile(r"file://(/[^?#]*[^?#/])")
_UNIX, _PLAIN, _PLAIN_UNIX = "unix:", "h2c://", "h2c+unix:"
_CONTRACT_KEY = re.compile(r"[^:\s]+:\S+")
_CALENDAR = re.compile(
    r"(?:(?P<day>daily)|(?P<week>weekly) (?P<weekday>[a-z]{3,9})|(?P<month>monthly) (?P<date>\d{1,2}))"
    r"(?: (?P<hour>\d{1,2}):(?P<minute>\d{2}))?(?: (?P<zone>[A-Za-z][\w+/-]*))?",
    re.ASCII,
)
_WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_MOST_WORKERS = 256
_LONGEST_SOCKET_PATH = 107  # bytes: Linux's sockaddr_un, less the NUL at its end


@attrs.frozen
class ListenAddress:
    """Where to listen: a TCP address, or a unix socket.

    :ivar host: a name or an IP address; empty for every interface.
    :ivar port: 0 for a unix socket.
    :ivar path: of a unix socket; empty for a TCP address.
    :ivar plain: HTTP/2 without TLS, for a web server on this machine.
    """

    host: str
    port: int
    path: str = ""
    plain: bool = False

    def __str__(self) -> str:
        if self.path:
            return (_PLAIN_UNIX if self.plain else _UNIX) + self.path
        return (_PLAIN if self.plain else "") + join_host_port(self.host, self.port)


@attrs.frozen
class RestAddress:
    """Where the REST API is served: a TCP address, or a unix socket."""

    tcp: ListenAddress | None = None
    path: str | None = None

    def __str__(self) -> str:
        return f"http://{self.tcp}" if self.tcp is not None else f"file://{quote(self.path or '')}"


@attrs.frozen
class DecoyChoice:
    """What strangers are shown: a folder, another web server on this machine, or neither."""

    folder: str | None = None
    server: ListenAddress | None = None


NO_DECOY = DecoyChoice()


@attrs.frozen
class CalendarStart:
    """When windows begin that follow the calendar.

    :ivar day: of the week, from 0 for Monday, or of the month, from 1; a
        shorter month has its last one instead.
    """

    every: Literal["day", "week", "month"]
    day: int = 0
    hour: int = 0
    minute: int = 0
    zone: tzinfo = UTC


def _text(value: Any, such_as: str) -> str:
    if type(value) is not str:
        raise WireError(f"expected text such as {such_as}")
    return value


def seconds(least: float, most: float, *, or_zero: bool = False) -> Callable[[Any], float]:
    """Make a reader of durations within bounds; with ``or_zero`` 0s will do too, where it turns something off."""
    bounds = f"from {format_duration_for_people(least)} to {format_duration_for_people(most)}"

    def read(value: Any) -> float:
        found = parse_duration(_text(value, '"5m0s"'))
        if not (least <= found <= most or (or_zero and not found)):
            raise WireError(f"expected a duration {bounds}" + (", or 0s" if or_zero else ""))
        return found

    return read


def calendar_start(value: Any) -> CalendarStart:
    """Read ``daily``, ``weekly mon`` or ``monthly 15``, followed by a time and a time zone where one likes."""
    such_as = '"monthly 15 00:00", "weekly mon" or "daily 06:00 Europe/Berlin"'
    text = _text(value, such_as)
    match = _CALENDAR.fullmatch(text)
    if match is None:
        raise WireError(f"expected text such as {such_as}")
    hour, minute = int(match["hour"] or 0), int(match["minute"] or 0)
    if hour > 23 or minute > 59:
        raise WireError("expected a time from 00:00 to 23:59")
    zone = _time_zone(match["zone"])
    if match["day"]:
        return CalendarStart("day", 0, hour, minute, zone)
    if match["month"]:
        day = int(match["date"])
        if not 1 <= day <= 31:
            raise WireError("expected a day of the month from 1 to 31")
        return CalendarStart("month", day, hour, minute, zone)
    for number, name in enumerate(_WEEKDAYS):
        if match["weekday"] in (name, name[:3]):
            return CalendarStart("week", number, hour, minute, zone)
    raise WireError("expected a day of the week such as mon or sunday")


def _time_zone(name: str | None) -> tzinfo:
    if name is None or name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise WireError(f"{name} is no time zone that this machine knows") from None


def whole(least: int, most: int) -> Callable[[Any], int]:
    """Make a reader of whole numbers within bounds."""

    def read(value: Any) -> int:
        if type(value) is not int or not least <= value <= most:
            raise WireError(f"expected a whole number from {least} to {most}")
        return value

    return read


def worker_count(value: Any) -> int | None:
    """Read how many workers there are to be; None for as many as the machine suggests."""
    if value == "auto":
        return None
    if type(value) is not int or not 0 <= value <= _MOST_WORKERS:
        raise WireError(f'expected "auto", or a whole number from 0 to {_MOST_WORKERS}')
    return value


def limit(value: Any) -> int:
    """Read a size, in bytes, that something must not outgrow."""
    size = parse_size(_text(value, '"10TB"'))
    if not size:
        raise WireError("expected more than 0B; leave it out for no limit")
    return size


def folder(value: Any) -> str:
    """Read a folder's name; empty for none, as in configs of the Go relay."""
    text = _text(value, '"archive"')
    if "\0" in text:
        raise WireError("expected the name of a folder")
    return text


def contract_key(value: Any) -> str:
    """Read an enrollment key."""
    text = _text(value, '"user:password"')
    if not _CONTRACT_KEY.fullmatch(text):
        raise WireError("expected user:password")
    return text


def umask(value: Any) -> int:
    """Read a file's mode."""
    text = _text(value, '"600"')
    if not re.fullmatch("[0-7]{3}", text):
        raise WireError('expected three octal digits such as "600"')
    return int(text, 8)


def user_name(value: Any) -> str:
    """Read the name of a user of the machine."""
    text = _text(value, '"wireleap"')
    if not re.fullmatch(r"[A-Za-z_][\w.-]*\$?", text, re.ASCII):
        raise WireError('expected the name of a user such as "wireleap"')
    return text


def listen_address(value: Any) -> ListenAddress:
    """Read ``host:port`` or ``unix:/path``; with ``h2c://`` or ``h2c+`` before it there is no TLS."""
    text = _text(value, '"0.0.0.0:13490"')
    for scheme, plain in ((_UNIX, False), (_PLAIN_UNIX, True)):
        if text.startswith(scheme):
            return ListenAddress("", 0, _socket_path(text.removeprefix(scheme), scheme), plain)
    return _plain_address(text) if text.startswith(_PLAIN) else _host_port(text)


def _plain_address(text: str) -> ListenAddress:
    """Read what nobody outside of this machine may reach, for there is no TLS."""
    try:
        address = _host_port(text.removeprefix(_PLAIN))
        if ip_address(address.host).is_loopback:
            return attrs.evolve(address, plain=True)
    except ValueError:
        pass
    raise WireError('expected a loopback address after h2c://, such as "h2c://127.0.0.1:13490" or "h2c://[::1]:13490"')


def _socket_path(path: str, scheme: str) -> str:
    if not path.startswith("/") or path.endswith("/") or "\0" in path or len(path.encode()) > _LONGEST_SOCKET_PATH:
        raise WireError(
            f'expected an absolute path such as "{scheme}/run/wireleap-relay.sock", of at most'
            f" {_LONGEST_SOCKET_PATH} bytes"
        )
    return path


def _host_port(text: str) -> ListenAddress:
    match = _HOST_PORT.fullmatch(text)
    host = "" if match is None else match[1] or match[2]
    # In brackets is IPv6, and IPv6 alone.
    if (
        match is None
        or not 0 < int(match[3]) < 65536
        or (host and not is_host(host))
        or (match[1] is not None) != (":" in host)
    ):
        raise WireError(
            'expected an address such as "0.0.0.0:13490", ":13490", "[::]:13490" or "unix:/run/wireleap-relay.sock"'
        )
    return ListenAddress(host, int(match[3]))


def rest_address(value: Any) -> RestAddress:
    """Read ``http://host:port`` or ``file:///path``."""
    text = _text(value, '"http://127.0.0.1:13491"')
    if text.startswith("http://"):
        try:
            return RestAddress(tcp=_host_port(text.removeprefix("http://").removesuffix("/")))
        except WireError:
            raise WireError('expected an address such as "http://127.0.0.1:13491"') from None
    match = _FILE.fullmatch(text)
    path = unquote(match[1]) if match else ""
    if not path or "\0" in path or len(path.encode()) > _LONGEST_SOCKET_PATH:
        raise WireError(
            'expected an address such as "http://127.0.0.1:13491" or "file:///run/wireleap-relay.sock",'
            f" with a path of at most {_LONGEST_SOCKET_PATH} bytes"
        )
    return RestAddress(path=path)


def manhole_address(value: Any) -> RestAddress:
    """Read ``127.0.0.1:2222`` or ``unix:/path``: nobody from outside may come there."""
    such_as = 'expected an address such as "127.0.0.1:2222" or "unix:/run/wireleap-relay/manhole.sock"'
    text = _text(value, '"127.0.0.1:2222"')
    if text.startswith("unix:"):
        try:
            return rest_address("file://" + text.removeprefix("unix:"))
        except WireError:
            raise WireError(f"{such_as}, with a path of at most {_LONGEST_SOCKET_PATH} bytes") from None
    try:
        found = listen_address(text)
    except WireError:
        raise WireError(such_as) from None
    try:
        is_loopback = ip_address(found.host).is_loopback
    except ValueError:
        is_loopback = found.host == "localhost"
    if not is_loopback:
        raise WireError("expected an address of this machine alone, such as 127.0.0.1:2222: use SSH to get to it")
    return RestAddress(tcp=found)


def file_name(value: Any) -> str:
    """Read a file's name."""
    text = _text(value, '"authorized_keys"')
    if not text or "\0" in text:
        raise WireError("expected the name of a file")
    return text


def decoy(value: Any) -> DecoyChoice:
    """Read ``405``, ``/a/folder`` or ``http://127.0.0.1:port``."""
    wrong = WireError(
        'expected "405", a folder such as "/var/www/html", or a web server such as "http://127.0.0.1:8080"'
    )
    text = _text(value, '"405", "/var/www/html" or "http://127.0.0.1:8080"')
    if text == "405":
        return DecoyChoice()
    if text.startswith("/") and "\0" not in text:
        return DecoyChoice(folder=text)
    if not text.startswith("http://"):
        raise wrong
    try:
        server = listen_address(text.removeprefix("http://").removesuffix("/"))
        is_here = ip_address(server.host).is_loopback
    except (WireError, ValueError):
        raise wrong from None
    if not is_here or server.plain:
        raise WireError("expected a web server on this machine: 127.0.0.1 or [::1]")
    return DecoyChoice(server=server)


def published(value: Any) -> PublishedAddress:
    """Read ``wireleap://host:port/path``; without a port it has 443."""
    such_as = '"wireleap://relay.example.com:13490"'
    text = _text(value, such_as)
    if not text.startswith("wireleap://"):
        raise WireError(f"expected an address such as {such_as}")
    return PublishedAddress(Address.from_text(text))


def bind_addresses(value: Any) -> tuple[IPv4Address | IPv6Address, ...]:
    """Read an IP address, or a list with one of IPv4 and one of IPv6."""
    such_as = WireError('expected an IP address such as "203.0.113.5", or a list with an IPv4 and an IPv6 address')
    texts = value if type(value) is list else [value]
    if not texts or any(type(text) is not str or "%" in text for text in texts):
        raise such_as
    try:
        found = tuple(map(ip_address, texts))
    except ValueError:
        raise such_as from None
    if len({address.version for address in found}) != len(found):
        raise such_as
    return found
