"""Homes with real daemons."""

from __future__ import annotations

import datetime
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from wireleap_relay.daemon.control import Launched, launch
from wireleap_relay.daemon.state import look
from wireleap_relay.home import Home
from wireleap_relay.sandbox.relays import free_port

ROOT = Path(__file__).parents[2]
RELAY = [sys.executable, "-m", "wireleap_relay"]


class _NoContract(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_error(404)

    def log_message(self, *_: object) -> None:
        pass


def _serve() -> ThreadingHTTPServer:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _NoContract)
    threading.Thread(target=lambda: (server.serve_forever(0.02), server.server_close()), daemon=True).start()
    return server


class DaemonTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.contract = _serve()
        self.addCleanup(self.contract.shutdown)
        self.home = Home(Path(self.mktemp()).absolute())
        self.home.create_identity(datetime.datetime.now(datetime.UTC))
        self.patch(os, "environ", {**os.environ, "PYTHONPATH": str(ROOT)})

    def write_config(self, **changes: Any) -> None:
        config = {
            "address": f"127.0.0.1:{free_port()}",
            "contracts": {
                f"http://127.0.0.1:{self.contract.server_port}": {
                    "address": "wireleap://127.0.0.1:1",
                    "role": "backing",
                }
            },
            "drain_timeout": "1s",
            "workers": 0,
            **changes,
        }
        self.home.config.write_text(json.dumps(config))

    def launch(self, command: list[str] = RELAY, patience: float = 20.0, **options: Any) -> Launched:
        launched = launch(self.home, command, patience=patience, **options)
        self.addCleanup(self.end, launched)
        return launched

    def end(self, launched: Launched) -> None:
        launched.process.kill()
        launched.process.wait()

    def script(self, text: str) -> list[str]:
        """Give the words that run a program which is no relay, and is told what one is told."""
        return [sys.executable, "-c", text]

    def until(self, happened: Callable[[], object], seconds: float = 10.0) -> None:
        deadline = time.monotonic() + seconds
        while not happened():
            self.assertLess(time.monotonic(), deadline, "it takes too long")
            time.sleep(0.02)

    def state(self) -> str:
        return look(self.home).kind
