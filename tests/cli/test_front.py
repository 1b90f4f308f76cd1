"""`wireleap-relay front SERVER`; what its configurations do is tried in tests/fronting."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from wireleap_relay.cli.command import FAILED, OK
from wireleap_relay.cli.main import main

CONTRIB = Path(__file__).parent.parent.parent / "contrib"
FILES = {
    "nginx": "wireleap-relay.conf",
    "apache": "wireleap-relay.conf",
    "haproxy": "haproxy.cfg",
    "caddy": "Caddyfile",
}


class FrontTests(SynchronousTestCase):
    def front(self, home: Path, *words: str) -> tuple[int, str, str]:
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main(["--home", str(home), "front", *words])
        return code, out.getvalue(), err.getvalue()

    def home(self, address: str = "127.0.0.1:13490", *published: str, **fields: Any) -> Path:
        home = Path(self.mktemp())
        home.mkdir()
        addresses = published or ("wireleap://relay.example/wireleap",)
        contracts = {
            f"https://contract{number}.example": {"address": each, "role": "fronting", "upgrade_channel": "default"}
            for number, each in enumerate(addresses)
        }
        for contract in list(contracts.values())[1:]:
            del contract["upgrade_channel"]
        (home / "config.json").write_text(json.dumps({"address": address, "contracts": contracts, **fields}))
        return home

    def test_the_examples_are_what_is_printed(self) -> None:
        for server, file in FILES.items():
            code, printed, _ = self.front(CONTRIB / "fronting", server)
            path = f"contrib/{server}/{file}"
            self.assertEqual(code, OK)
            self.assertEqual(
                (CONTRIB / server / file).read_text(),
                printed,
                f"run wireleap-relay --home contrib/fronting front {server} > {path}",
            )

    def test_everything_is_filled_in(self) -> None:
        for address in ("127.0.0.1:1", ":1", "[::]:1", "unix:/run/r.sock", "h2c://127.0.0.1:1", "h2c+unix:/run/r.sock"):
            home = self.home(address)
            for server in FILES:
                _, printed, _ = self.front(home, server)
                self.assertNotRegex(printed, "@[A-Z]+@")
                self.assertIn("relay.example", printed)
                self.assertIn(" /wireleap", printed.replace('"', " "))

    def test_ways_to_the_relay(self) -> None:
        wanted = {
            "nginx": {
                ":9": ("server 127.0.0.1:9;", "grpcs://wireleap_relay;"),
                "[::]:9": ("server [::1]:9;", "grpcs://wireleap_relay;"),
                "h2c://127.0.0.1:9": ("server 127.0.0.1:9;", "grpc://wireleap_relay;"),
                "unix:/run/r.sock": ("server unix:/run/r.sock;", "grpcs://wireleap_relay;"),
            },
            "apache": {
                "192.0.2.7:9": ('"h2://192.0.2.7:9/wireleap"',),
                "h2c+unix:/run/r.sock": ('"unix:/run/r.sock|h2c://localhost/wireleap"',),
            },
            "haproxy": {
                "0.0.0.0:9": ("server relay 127.0.0.1:9 ssl verify none alpn h2",),
                "h2c+unix:/run/r.sock": ("server relay unix@/run/r.sock proto h2",),
            },
            "caddy": {
                "unix:/run/r.sock": ("reverse_proxy unix//run/r.sock {", "tls_insecure_skip_verify"),
                "h2c://127.0.0.1:9": ("reverse_proxy 127.0.0.1:9 {", "versions h2c 2"),
            },
        }
        for server, addresses in wanted.items():
            for address, lines in addresses.items():
                printed = self.front(self.home(address), server)[1]
                for line in lines:
                    self.assertIn(line, printed, (server, address))

    def test_a_path_is_needed(self) -> None:
        for published in ("wireleap://relay.example", "wireleap://relay.example:443/"):
            code, printed, said = self.front(self.home(":9", published), "nginx")
            self.assertEqual((code, printed), (FAILED, ""))
            self.assertIn("has no path", said)
            self.assertIn("wireleap://relay.example:443/wireleap", said)

    def test_paths_that_mean_something_else_there(self) -> None:
        for address, published in (
            (":9", "wireleap://relay.example/a;b"),
            ("unix:/run/a b.sock", "wireleap://x.example/a"),
        ):
            code, _, said = self.front(self.home(address, published), "nginx")
            self.assertEqual(code, FAILED)
            self.assertIn("letters, digits", said)

    def test_several_contracts(self) -> None:
        same = self.home(":9", *["wireleap://relay.example/wireleap"] * 2)
        self.assertEqual(self.front(same, "nginx")[0], OK)
        home = self.home(":9", "wireleap://one.example/a", "wireleap://two.example:444/b")
        self.assertIn("--contract URL", self.front(home, "nginx")[2])
        code, printed, _ = self.front(home, "nginx", "--contract", "https://contract1.example")
        self.assertEqual(code, OK)
        for line in ("listen 444 ssl http2;", "server_name two.example;", "location = /b {"):
            self.assertIn(line, printed)
        self.assertIn("none of the config's contracts", self.front(home, "nginx", "--contract", "https://x.example")[2])

    def test_bad_words_and_homes(self) -> None:
        self.assertEqual(self.front(Path(self.mktemp()), "nginx")[0], FAILED)
        with self.assertRaises(SystemExit):
            self.front(self.home(), "lighttpd")
