"""`wireleap-relay policy HOST:PORT`."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from wireleap_relay.cli.command import FAILED, OK
from wireleap_relay.cli.main import main


class PolicyTests(SynchronousTestCase):
    def policy(self, remote: str, role: str = "backing", **config: Any) -> tuple[int, str]:
        home = Path(self.mktemp())
        home.mkdir()
        contract = {"address": "wireleap://relay.example", "role": role}
        fields = {"address": "127.0.0.1:13490", "contracts": {"https://contract.example": contract}, **config}
        (home / "config.json").write_text(json.dumps(fields))
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main(["--home", str(home), "policy", remote])
        return code, out.getvalue() + err.getvalue()

    def test_accepted(self) -> None:
        code, said = self.policy("8.8.8.8:443")
        self.assertEqual(
            (code, said), (OK, "target://8.8.8.8:443: dialled\n  8.8.8.8: accepted (exit_policy: accept *:*)\n")
        )

    def test_the_rule_that_refuses(self) -> None:
        self.assertEqual(
            self.policy("[2606::1]:25"),
            (FAILED, "target://[2606::1]:25: refused\n  2606::1: refused (exit_policy: reject *:25)\n"),
        )
        self.assertIn("no rule of exit_policy matches", self.policy("8.8.8.8:80", exit_policy=["accept *:443"])[1])

    def test_the_setting_that_it_takes(self) -> None:
        for remote, setting in [("localhost:80", "allow_loopback"), ("10.0.0.1:80", "allow_private")]:
            code, said = self.policy(remote)
            self.assertEqual(code, FAILED)
            self.assertIn(f"danger_zone.{setting}", said)
        self.assertIn("never dialled", self.policy("169.254.169.254:80")[1])

    def test_the_relay_itself(self) -> None:
        code, said = self.policy("wireleap://127.0.0.1:13490", danger_zone={"allow_loopback": True})
        self.assertEqual(code, FAILED)
        self.assertIn("is the relay itself", said)

    def test_roles(self) -> None:
        code, said = self.policy("8.8.8.8:443", role="entropic")
        self.assertEqual(code, FAILED)
        self.assertIn("an entropic relay dials relays only: that takes danger_zone.allow_targets", said)
        self.assertEqual(self.policy("wireleap://8.8.8.8:443", role="entropic")[0], OK)
        self.assertEqual(self.policy("8.8.8.8:443", role="entropic", danger_zone={"allow_targets": True})[0], OK)

    def test_what_is_no_address(self) -> None:
        for remote in ("example.com", "1.2.3:80", "no-such-host.invalid:80"):
            code, said = self.policy(remote)
            self.assertEqual(code, FAILED)
            self.assertTrue(said.startswith("wireleap-relay: "), said)
