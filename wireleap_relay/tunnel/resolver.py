"""Finds the addresses of names: from name servers, from this machine's own files, and from what it was told before."""

from __future__ import annotations

import socket
from _thread import start_new_thread
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Any, TypeVar

import attrs
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.python.failure import Failure

from wireleap_relay.tunnel.nameserver import Answer, Family, LookupFailed, Server, ask

T = TypeVar("T")
_Key = tuple[str, Family]

#: Names remembered, and seconds for which an answer is remembered at most, whatever its TTL says.
MOST_REMEMBERED = 10_000
LONGEST_REMEMBERED = 3600.0
LONGEST_REMEMBERED_NONE = 300.0
#: Questions under way, in all and below one domain: servers that are slow for one hold up no other.
MOST_ASKED = 500
MOST_ASKED_BELOW_ONE_DOMAIN = 50
#: Seconds after which a question is given up, though a tunnel's dialling may end before.
_LIMIT = 10.0
#: Names of this machine's own: looked up at once, and waiting.
_THREADS = 8
_WAITING = 100
#: Seconds for which its files are believed, and the answers out of them.
_BELIEVED = 5.0

_FAMILIES = {"4": socket.AF_INET, "6": socket.AF_INET6}
#: RFC 6761 and 7686: no name server knows these.
_NOWHERE = ("invalid", "onion")
_HERE = ("localhost", "local")


@attrs.frozen
class ResolverStatus:
    """What the resolver is doing.

    :ivar remembered: answers.
    :ivar asking: questions under way.
    :ivar hits: answered out of memory so far.
    :ivar asked: questions so far.
    :ivar failed: questions so far that nobody could answer.
    :ivar turned_away: names not looked up, for too many were being looked up.
    """

    remembered: int
    asking: int
    hits: int
    asked: int
    failed: int
    turned_away: int


@attrs.frozen
class _Files:
    """What this machine's files say; the stamps tell whether they are others now.

    :ivar hosts: names that ``/etc/hosts`` knows.
    """

    stamps: tuple[object, ...] = ()
    servers: tuple[Server, ...] = ()
    hosts: frozenset[str] = frozenset()


class Resolver(Service):
    """Looks names up without ever blocking the reactor.

    Names with a dot are asked of the name servers in ``resolv.conf``. Names
    without one, those in ``/etc/hosts`` and those below ``local`` and
    ``localhost`` are this machine's own: they go through the system's resolver
    and its ``nsswitch.conf``, in a few threads, as does what a name server
    could not fit into an answer. Search domains are for nobody else's names.
    """

    def __init__(
        self,
        reactor: Any,
        resolv_conf: Path = Path("/etc/resolv.conf"),
        hosts: Path = Path("/etc/hosts"),
        port: int = 53,
    ) -> None:
        """Read the files; nothing is asked yet.

        :param port: of the name servers.
        """
        self._reactor = reactor
        self._paths = (resolv_conf, hosts)
        self._port = port
        self._files = _read_files(_Files(), *self._paths, port)
        self._read_at = reactor.seconds()
        self._remembered: OrderedDict[_Key, tuple[float, tuple[str, ...]]] = OrderedDict()
        self._waiting: dict[_Key, list[Deferred[tuple[str, ...]]]] = {}
        self._looking: set[Deferred[None]] = set()
        self._below: Counter[str] = Counter()
        self._threads = 0
        self._queue: deque[Callable[[], None]] = deque()
        self._hits = self._asked = self._failed = self._turned_away = 0

    def stopService(self) -> None:
        """Ask no more."""
        super().stopService()
        for looking in list(self._looking):
            looking.cancel()

    def status(self) -> ResolverStatus:
        """Tell what the resolver is doing."""
        return ResolverStatus(
            len(self._remembered), len(self._waiting), self._hits, self._asked, self._failed, self._turned_away
        )

    def look_up(self, host: str, family: Family) -> Deferred[tuple[str, ...]]:
        """Find a name's addresses of one family.

        :returns: fires with them: none where there are none; fails with
            :exc:`LookupFailed`. Cancel it to wait no more.
        """
        name = host.lower().removesuffix(".")
        key = (name, family)
        found: Deferred[tuple[str, ...]] = Deferred(lambda cancelled: self._leave(key, cancelled))
        known = self._remembered.get(key)
        if known is not None and known[0] > self._reactor.seconds():
            self._remembered.move_to_end(key)
            self._hits += 1
            found.callback(known[1])
        elif name.rpartition(".")[2] in _NOWHERE:
            found.callback(())
        elif key in self._waiting:
            self._waiting[key].append(found)
        else:
            self._look_up(key, found)
        return found

    def _look_up(self, key: _Key, found: Deferred[tuple[str, ...]]) -> None:
        self._refresh()
        domain = ".".join(key[0].split(".")[-2:])
        if len(self._waiting) >= MOST_ASKED or self._below[domain] >= MOST_ASKED_BELOW_ONE_DOMAIN:
            self._turned_away += 1
            found.errback(LookupFailed("too many names are being looked up"))
            return
        self._waiting[key] = [found]
        self._below[domain] += 1
        self._asked += 1
        looking: Deferred[None] = Deferred.fromCoroutine(self._answer(*key)).addBoth(self._answered, key, domain)
        if not looking.called:
            self._looking.add(looking)
            looking.addBoth(lambda _: self._looking.discard(looking))

    async def _answer(self, name: str, family: Family) -> Answer:
        if "." not in name or name.rpartition(".")[2] in _HERE or name in self._files.hosts:
            return await self._ask_system(name, family)
        asking = ask(self._reactor, self._files.servers, name, family)
        try:
            answer = await asking.addTimeout(_LIMIT, self._reactor)
        except DeferredTimeout:
            raise LookupFailed("no name server answered in time") from None
        return answer if answer.whole else await self._ask_system(name, family)

    async def _ask_system(self, name: str, family: Family) -> Answer:
        if len(self._queue) >= _WAITING:
            raise LookupFailed("too many names are being looked up")
        asking = self._in_thread(lambda: _getaddrinfo(name, family))
        try:
            return Answer(await asking.addTimeout(_LIMIT, self._reactor), _BELIEVED)
        except DeferredTimeout:
            raise LookupFailed("the system did not answer in time") from None

    def _answered(self, result: Answer | Failure, key: _Key, domain: str) -> None:
        self._below[domain] -= 1
        if not self._below[domain]:
            del self._below[domain]
        waiting = self._waiting.pop(key)
        if isinstance(result, Failure):
            self._failed += 1
        else:
            self._remember(key, result)
        for found in waiting:
            if found.called:
                continue  # one of the others has given it up
            if isinstance(result, Failure):
                found.errback(result)
            else:
                found.callback(result.addresses)

    def _remember(self, key: _Key, answer: Answer) -> None:
        ttl = min(answer.ttl, LONGEST_REMEMBERED if answer.addresses else LONGEST_REMEMBERED_NONE)
        if ttl <= 0:
            return
        self._remembered[key] = (self._reactor.seconds() + ttl, answer.addresses)
        self._remembered.move_to_end(key)
        if len(self._remembered) > MOST_REMEMBERED:
            self._remembered.popitem(last=False)

    def _leave(self, key: _Key, cancelled: Deferred[tuple[str, ...]]) -> None:
        """Somebody waits no more; the question goes on, for its answer is worth remembering."""
        if key in self._waiting:
            self._waiting[key].remove(cancelled)

    def _refresh(self) -> None:
        now = self._reactor.seconds()
        if now - self._read_at >= _BELIEVED:
            self._read_at = now
            reading = self._in_thread(lambda: _read_files(self._files, *self._paths, self._port))
            reading.addCallbacks(
                lambda files: setattr(self, "_files", files), lambda failure: failure.trap(LookupFailed)
            )

    def _in_thread(self, work: Callable[[], T]) -> Deferred[T]:
        """Do something in one of a few threads that nobody has to wait for when the relay stops.

        :returns: fails with :exc:`LookupFailed` where the system has no thread to give.
        """
        done: Deferred[T] = Deferred()

        def run() -> None:
            try:
                result: T | Failure = work()
            except Exception:  # noqa: BLE001 - told to whoever waits
                result = Failure()
            self._reactor.callFromThread(finish, result)

        def finish(result: T | Failure) -> None:
            self._threads -= 1
            if self._queue:
                self._queue.popleft()()
            done.errback(result) if isinstance(result, Failure) else done.callback(result)

        def begin() -> None:
            self._threads += 1
            try:
                # Thread.start() waits until it runs: for ever, where it finds no memory to begin with.
                start_new_thread(run, ())
            except RuntimeError:
                finish(Failure(LookupFailed("there is no thread to look it up in")))

        begin() if self._threads < _THREADS else self._queue.append(begin)
        return done


def _getaddrinfo(name: str, family: Family) -> tuple[str, ...]:
    try:
        found = socket.getaddrinfo(name, None, _FAMILIES[family], socket.SOCK_STREAM)
    except socket.gaierror as e:
        if e.errno in (socket.EAI_NONAME, socket.EAI_NODATA, socket.EAI_ADDRFAMILY):
            return ()
        raise LookupFailed("the system's resolver failed") from None
    except (OSError, UnicodeError):
        raise LookupFailed("the system's resolver failed") from None
    return tuple(dict.fromkeys(str(entry[4][0]) for entry in found))


def _read_files(known: _Files, resolv_conf: Path, hosts: Path, port: int) -> _Files:
    """Read what has changed since; a file that isn't there is empty, as resolv.conf(5) has it."""
    stamps = (_stamp(resolv_conf), _stamp(hosts))
    if stamps == known.stamps:
        return known
    servers = [words[1] for words in _lines(resolv_conf, "#;") if words[0] == "nameserver" and _is_server(words[1:])]
    names = {name.lower().removesuffix(".") for words in _lines(hosts, "#") for name in words[1:]}
    return _Files(stamps, tuple((server, port) for server in servers or ["127.0.0.1"]), frozenset(names))


def _is_server(words: list[str]) -> bool:
    try:
        return bool(words) and bool(ip_address(words[0]))
    except ValueError:
        return False


def _stamp(path: Path) -> object:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _lines(path: Path, comments: str) -> list[list[str]]:
    try:
        text = path.read_text(errors="replace")
    except OSError:
        return []
    for mark in comments:
        text = "\n".join(line.partition(mark)[0] for line in text.splitlines())
    return [line.split() for line in text.splitlines() if line.strip()]
