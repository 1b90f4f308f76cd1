"""``top``, in a terminal and without one."""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
import sys
import tempfile
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

import attrs
from rich.console import Console
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SkipTest, SynchronousTestCase, TestCase

from tests.admin.views import NOW, make_view
from tests.tunnel.world import reactor
from wireleap_relay.admin import snapshot
from wireleap_relay.admin.events import Event
from wireleap_relay.admin.pages import make_pages
from wireleap_relay.admin.rest import RestService
from wireleap_relay.admin.view import View
from wireleap_relay.cli.main import main
from wireleap_relay.cli.screen import screen
from wireleap_relay.configvalues import RestAddress
from wireleap_relay.home import Home

TMUX = shutil.which("tmux")


def data_of(view: View) -> dict[str, Any]:
    makers = {"health": snapshot.api_health, "contracts": snapshot.api_contracts, "tokens": snapshot.api_tokens, "usage": snapshot.api_usage, "workers": snapshot.api_workers, "events": snapshot.api_events}  # fmt: skip
    return json.loads(json.dumps({name: make(view) for name, make in makers.items()}))  # type: ignore[no-any-return, operator]


class Options(SynchronousTestCase):
    def test_bad_intervals(self) -> None:
        for interval in ("0", "soon", "-1", "9999", "nan"):
            err = io.StringIO()
            with redirect_stderr(err), self.assertRaises(SystemExit) as caught:
                main(["top", "--interval", interval])
            self.assertEqual(caught.exception.code, 2)
            self.assertIn("expected seconds from 0.5 to 3600", err.getvalue())


class Screen(SynchronousTestCase):
    def shown(self, view: View, trouble: str = "", width: int = 120) -> str:
        out = io.StringIO()
        Console(file=out, width=width).print(screen(data_of(view), NOW, trouble))
        return out.getvalue()

    def test_what_it_shows(self) -> None:
        shown = self.shown(make_view())
        for words in (
            "healthy  up for 12h",
            "from clients   65.1 KB/s",
            "17 tunnels open on 9 connections, 1234 opened, 4 refused; 3 connections ended",
            "8.00 GB in this window; 15.2 GB at its end in 1d",
            "https://contract.example  backing  enrolled",
            "12 USD",
            "opens in 1h",
            "worker 1",
            "Not enrolled with <b>https://other.example</b>: no answer",
        ):
            self.assertIn(words, shown)

    def test_a_relay_that_knows_nothing_yet(self) -> None:
        shown = self.shown(make_view(measured=False, workers=0), "the relay does not answer")
        self.assertIn("the relay does not answer", shown)
        self.assertNotIn("in this window", shown)

    def test_a_narrow_terminal(self) -> None:
        self.assertTrue(all(len(line) <= 60 for line in self.shown(make_view(), width=60).splitlines()))


class Top(TestCase):
    """The command itself, beside a REST API in this process."""

    timeout = 60

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()  # trial's own folders have names too long for sockets
        self.addCleanup(folder.cleanup)
        self.home = Home(Path(folder.name))
        self.looks = 0
        self.text = ""

    def serve(self) -> RestService:
        pages = make_pages(reactor, self.view, lambda: None)
        service = RestService(reactor, RestAddress(path=str(self.home.control)), 0o600, pages)
        service.startService()
        self.addCleanup(lambda: service.stopService() if service.running else None)
        return service

    def view(self) -> View:
        self.looks += 1
        view = make_view(open=7000 + self.looks)
        return attrs.evolve(view, events=(Event(NOW, "info", self.text), *view.events))

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "wireleap_relay", "--home", str(self.home.path), "top", *arguments]

    def top(self, *arguments: str) -> Deferred[subprocess.CompletedProcess[str]]:
        return deferToThread(
            lambda: subprocess.run(self.command(*arguments), capture_output=True, text=True, timeout=30)
        )

    async def test_without_a_terminal_it_prints_once(self) -> None:
        self.serve()
        done = await self.top()
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertIn("tunnels open on 9 connections", done.stdout)
        self.assertNotIn("\x1b", done.stdout)
        self.assertIn("https://contract.example  backing", done.stdout)

    async def test_texts_of_others_do_nothing_to_the_terminal(self) -> None:
        self.text = "\x1b[2J\x07evil"
        self.serve()
        self.assertIn("?[2J?evil", (await self.top()).stdout)

    async def test_nobody_answers(self) -> None:
        done = await self.top()
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assertIn("the relay does not say how it gets on: ", done.stderr)

    async def test_live_in_a_terminal(self) -> None:
        if TMUX is None:
            raise SkipTest("there is no tmux: apt-get install tmux")
        service = self.serve()
        terminal = self.home.path.name
        command = " ".join(f"'{word}'" for word in self.command("--interval", "0.5"))
        await self.tmux(
            terminal,
            "-f",
            "/dev/null",
            "new-session",
            "-d",
            "-x",
            "110",
            "-y",
            "40",
            f"{command}; echo left $?; sleep 60",
        )
        self.addCleanup(lambda: self.tmux(terminal, "kill-server"))
        first = await self.shows(terminal, "q leaves; every 0.5 s")
        self.assertIn("RECENT EVENTS", first)
        count = re.search(r"(\d+) tunnels open", first)
        assert count is not None
        await self.shows(terminal, count[0], gone=True)
        await service.stopService()
        await self.shows(terminal, "The relay does not say")
        await self.tmux(terminal, "resize-window", "-x", "70", "-y", "12")
        await self.tmux(terminal, "send-keys", "q")
        self.assertNotIn("tunnels open", await self.shows(terminal, "left 0"))

    def tmux(self, terminal: str, *words: str) -> Deferred[str]:
        return deferToThread(
            lambda: (
                subprocess.run([TMUX or "", "-L", terminal, *words], capture_output=True, text=True, check=True).stdout
            )
        )

    async def shows(self, terminal: str, words: str, gone: bool = False) -> str:
        """Wait until the terminal shows something, or does not any more."""
        deadline = reactor.seconds() + 20
        while (words not in (found := await self.tmux(terminal, "capture-pane", "-p"))) is not gone:
            self.assertLess(reactor.seconds(), deadline, found)
        return found
