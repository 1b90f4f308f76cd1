"""The status page: as it is written, and in a real browser."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile

from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SkipTest, SynchronousTestCase, TestCase

from tests.admin.views import NOW, make_view
from tests.admin.world import RestTestCase, ask
from tests.tunnel.world import reactor
from wireleap_relay.admin.page import page_answer
from wireleap_relay.admin.pages import make_pages
from wireleap_relay.admin.rest import RestService
from wireleap_relay.admin.view import View
from wireleap_relay.admin.words import moment, percent, rate, size, span
from wireleap_relay.configvalues import rest_address
from wireleap_relay.sandbox.relays import free_port

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


class Words(SynchronousTestCase):
    def test_sizes(self) -> None:
        cases = {0: "0 B", 999: "999 B", 1000: "0.98 KB", 1536: "1.50 KB", 10_240: "10.0 KB", 2**40: "1.00 TB"}
        self.assertEqual({count: size(count) for count in cases}, cases)
        self.assertEqual(rate(2**20), "1.00 MB/s")

    def test_durations(self) -> None:
        cases = {0: "0s", 59.6: "1m", 61: "1m 1s", 3600: "1h", 90_061: "1d 1h", 86_460: "1d"}
        self.assertEqual({seconds: span(seconds) for seconds in cases}, cases)

    def test_times_and_shares(self) -> None:
        self.assertEqual(moment(NOW), "2023-11-14 22:13:20 UTC")
        self.assertEqual((percent(1, 3), percent(1, 0)), ("33.3 %", "-"))


class Page(SynchronousTestCase):
    def text(self, view: View) -> str:
        return self.successResultOf(page_answer(view)).body.decode()

    def test_the_figures_are_there(self) -> None:
        text = self.text(make_view())
        for figure in (
            "8.00 GB of 40.0 GB (20.0 %)",
            "15.2 GB",
            "12 USD",
            "166 KB/s",
            "worker 1",
            "refused: policy",
            "connections ended: slow handshake",
        ):
            self.assertIn(figure, text)

    def test_nothing_comes_from_elsewhere(self) -> None:
        answer = self.successResultOf(page_answer(make_view()))
        self.assertEqual(re.findall(rb"(?:src|href)=\"(?!data:)[^\"]*\"|@import|url\(", answer.body), [])
        self.assertTrue(answer.headers["Content-Security-Policy"].startswith("default-src 'none'; "))

    def test_what_others_say_is_text(self) -> None:
        text = self.text(make_view())
        self.assertIn("&lt;b&gt;https://other.example", text)
        self.assertNotIn("<b>", text)

    def test_a_relay_that_knows_nothing_yet(self) -> None:
        self.assertIn("Nothing is measured", self.text(make_view(measured=False, workers=0)))


class Browser(TestCase):
    """A real one, without a window.

    :ivar served: how often the page was asked for.
    """

    timeout = 60

    def setUp(self) -> None:
        if CHROMIUM is None:
            raise SkipTest("there is no chromium: apt-get install chromium")
        self.served = 0
        self.port = free_port()
        address = rest_address(f"http://127.0.0.1:{self.port}")
        self.service = RestService(reactor, address, 0o600, make_pages(reactor, self.view, lambda: None))
        self.service.startService()
        self.addCleanup(self.service.stopService)

    def view(self) -> View:
        self.served += 1
        return make_view(open=7000 + self.served)

    async def open(self, *options: str) -> str:
        """Open the page, and give what the browser prints."""

        def work() -> str:
            with tempfile.TemporaryDirectory() as profile:
                done = subprocess.run(
                    [
                        CHROMIUM or "",
                        "--headless=new",
                        "--no-sandbox",
                        "--disable-gpu",
                        "--disable-background-networking",
                        "--enable-logging=stderr",
                        f"--user-data-dir={profile}",
                        *options,
                        f"http://127.0.0.1:{self.port}/",
                    ],
                    capture_output=True,
                    text=True,
                    check=True,
                    timeout=50,
                )
            self.assertNotIn("CONSOLE", done.stderr)  # where it complains of what the policy forbids
            return done.stdout

        found: str = await deferToThread(work)
        return found

    async def test_the_figures_need_no_script(self) -> None:
        dom = await self.open("--dump-dom")
        self.assertIn("<dd>7001", dom)
        self.assertIn("8.00 GB of 40.0 GB", dom)
        self.assertEqual(self.served, 1)

    async def test_it_is_live(self) -> None:
        dom = await self.open("--virtual-time-budget=16000", "--dump-dom")
        self.assertGreater(self.served, 2)
        self.assertIn(f"<dd>{7000 + self.served}", dom)
        self.assertEqual(dom.count("<main>"), 1)


class Served(RestTestCase):
    async def test_a_relay_serves_it(self) -> None:
        await self.running()
        got = await ask(self.rest, "/")
        self.assertEqual((got.code, got.headers["content-type"]), (200, "text/html; charset=utf-8"))
        self.assertIn(str(self.identity.key.public_key).encode(), got.body)
        self.assertIn(self.network.contract.endpoint.encode(), got.body)
