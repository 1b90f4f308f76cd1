"""``wireleap-relay sandbox``, as a stranger runs it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "wireleap_relay", "sandbox"]


class _Site(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = b"found" * 1000
        self.send_response(404 if self.path == "/none" else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class SandboxCommandTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "120"}

    def run_once(self, *words: str) -> subprocess.CompletedProcess[str]:
        result = subprocess.run(
            [*COMMAND, "--once", *words], capture_output=True, text=True, env=self.environment, timeout=90
        )
        self.assertNotIn("Traceback", result.stdout + result.stderr)
        return result

    def test_once_fetches_pays_and_settles(self) -> None:
        result = self.run_once()
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        for text in ("all three relays are enrolled", "HTTP 200", "hop 3: backing", "has submitted 1 sharetoken"):
            self.assertIn(text, result.stdout)
        self.assertEqual(result.stdout.count("31.67 usd"), 3)

    def test_once_with_a_page_of_ones_own(self) -> None:
        server = HTTPServer(("127.0.0.1", 0), _Site)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        url = f"http://127.0.0.1:{server.server_port}/none"
        result = self.run_once(url)
        self.assertEqual(result.returncode, 0)
        self.assertIn(f"{url}: HTTP 404, 5000 bytes", result.stdout)

    def test_once_with_a_page_that_is_not_there(self) -> None:
        result = self.run_once("http://127.0.0.1:1/")
        self.assertEqual(result.returncode, 1)
        self.assertIn("http://127.0.0.1:1/ could not be fetched: 502 connection refused", result.stderr)

    def test_stays_until_it_is_told_to_stop(self) -> None:
        for words, text in (([], "--socks5-hostname"), (["--network-only"], "accesskey")):
            sandbox = subprocess.Popen(
                [*COMMAND, *words], stdout=subprocess.PIPE, text=True, env={**self.environment, "PYTHONUNBUFFERED": "1"}
            )
            assert sandbox.stdout is not None
            self.addCleanup(sandbox.stdout.close)
            self.addCleanup(sandbox.wait)
            self.addCleanup(sandbox.kill)
            said = ""
            deadline = time.monotonic() + 30
            while text not in said and time.monotonic() < deadline:
                said += sandbox.stdout.readline()
            self.assertIn(text, said)
            sandbox.send_signal(signal.SIGINT)
            self.assertEqual(sandbox.wait(30), 0)
