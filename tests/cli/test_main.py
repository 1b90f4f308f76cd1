"""The command's words and exit codes, without a process for each."""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from wireleap_relay import __version__
from wireleap_relay.cli import daemon
from wireleap_relay.cli.command import FAILED, MISUSED, OK
from wireleap_relay.cli.main import PLACES, load_commands, main
from wireleap_relay.config import example_config
from wireleap_relay.home import HOME_VARIABLE
from wireleap_relay.sandbox import main as sandbox
from wireleap_relay.sandbox.relays import free_port


class MainTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.home = Path(self.mktemp()).absolute()
        self.patch(os, "environ", {**os.environ, HOME_VARIABLE: str(self.home), "COLUMNS": "100"})

    def run_main(self, *words: str) -> tuple[int, str, str]:
        out, errors = io.StringIO(), io.StringIO()
        patches = [self.patch(sys, "stdout", out), self.patch(sys, "stderr", errors)]
        try:
            code = main(words)
        except SystemExit as e:
            code = e.code if isinstance(e.code, int) else -1
        for patch in patches:
            patch.restore()
        return code, out.getvalue(), errors.getvalue()


class HelpTests(MainTestCase):
    def test_every_command_explains_itself(self) -> None:
        overview = self.run_main("help")
        self.assertEqual(overview, self.run_main("--help"))
        for command in load_commands(PLACES):
            self.assertEqual(command.summary in overview[1], not command.hidden)
            code, said, errors = self.run_main("help", command.name)
            self.assertEqual((code, errors), (OK, ""))
            self.assertIn(f"usage: wireleap-relay {command.name}", said)
            self.assertIn(command.details, " ".join(said.split()))
            if command.name != "twistd":  # which answers that itself
                self.assertEqual(self.run_main(command.name, "--help"), (code, said, errors))
            self.assertLessEqual(max(map(len, said.splitlines())), 100)

    def test_misused(self) -> None:
        for words, complaint in [
            (["iniit"], "there is no command 'iniit'; did you mean init?"),
            (["--home", "init", "stat"], "there is no command 'stat'; did you mean start?"),
            (["--home=x", "zzz"], "there is no command 'zzz'\n"),
            (["help", "zzz"], "there is no command 'zzz'\n"),
            (["sandbox", "http://x"], "unrecognized arguments: http://x"),
            (["init", "extra"], "unrecognized arguments: extra"),
            (["start", "--f"], "unrecognized arguments: --f"),
            (["--home"], "--home: expected one argument"),
            (["init", "--home"], "--home: expected one argument"),
            (["sandbox", "--once", "--network-only"], "not allowed with argument"),
        ]:
            code, said, errors = self.run_main(*words)
            self.assertEqual((code, said), (MISUSED, ""), words)
            self.assertIn(complaint, errors)
            for line in errors.splitlines():
                self.assertTrue(line.startswith("wireleap-relay: "), line)

    def test_no_words(self) -> None:
        code, said, errors = self.run_main()
        self.assertEqual((code, said), (MISUSED, ""))
        self.assertIn("usage: wireleap-relay", errors)

    def test_version(self) -> None:
        self.assertEqual(self.run_main("version"), (OK, f"{__version__}\n", ""))
        self.assertEqual(
            self.run_main("version", "-v")[1].splitlines()[1:],
            [
                "client-relay interface version 0.2.0",
                "relay-relay interface version 0.2.0",
                "relay-dir interface version 0.2.0",
                "relay-contract interface version 0.1.0",
            ],
        )


class HomeTests(MainTestCase):
    def test_the_home_may_stand_before_the_command_or_after_it(self) -> None:
        for number, words in enumerate(
            (
                ["--home", "{}", "init"],
                ["init", "--home", "{}"],
                ["--home={}", "init"],
                ["--home", "x", "init", "--home={}"],
            )
        ):
            home = self.home / str(number)
            code, _, errors = self.run_main(*(word.format(home) for word in words))
            self.assertEqual((code, errors), (OK, ""))
            self.assertTrue((home / "key.seed").exists())

    def test_no_home(self) -> None:
        self.assertEqual(
            self.run_main("--home", "", "init"), (FAILED, "", "wireleap-relay: --home has to name a folder\n")
        )


class InitTests(MainTestCase):
    def test_beside_a_restored_key(self) -> None:
        self.run_main("init")
        seed = (self.home / "key.seed").read_bytes()
        names = {file.name for file in self.home.iterdir()}
        public = json.loads((self.home / "key.pub").read_text())
        for file in self.home.iterdir():
            if file.name != "key.seed":
                file.unlink()
        code, said, errors = self.run_main("init")
        self.assertEqual((code, errors), (OK, ""))
        self.assertIn("key.seed was there already: its key is kept", said)
        self.assertIn(f"This relay's public key is {public}\n", said)
        self.assertIn(": key.pub, relay-cert.pem, relay-key.pem, config.example.json\n", said)
        self.assertEqual((self.home / "key.seed").read_bytes(), seed)
        self.assertEqual({file.name for file in self.home.iterdir()}, names)
        code, said, errors = self.run_main("init")
        self.assertEqual((code, said), (FAILED, ""))
        self.assertIn("has key.seed and all that goes with it: nothing was changed", errors)

    def test_beside_a_broken_key(self) -> None:
        self.home.mkdir()
        (self.home / "key.seed").write_text("mine")
        code, said, errors = self.run_main("init")
        self.assertEqual((code, said), (FAILED, ""))
        self.assertIn("key.seed: expected 32 bytes", errors)
        self.assertEqual([file.name for file in self.home.iterdir()], ["key.seed"])
        self.assertEqual((self.home / "key.seed").read_text(), "mine")

    def test_an_example_is_the_operators_once_it_is_there(self) -> None:
        self.home.mkdir()
        (self.home / "config.example.json").write_text("mine")
        self.assertEqual(self.run_main("init")[0], OK)
        self.assertEqual((self.home / "config.example.json").read_text(), "mine")

    def test_a_home_that_can_not_be(self) -> None:
        self.home.write_text("in the way")
        code, said, errors = self.run_main("init")
        self.assertEqual((code, said), (FAILED, ""))
        self.assertIn(str(self.home), errors)


class CheckConfigTests(MainTestCase):
    def test_the_example(self) -> None:
        self.run_main("init")
        (self.home / "config.json").write_text(example_config().replace(":13490", f":{free_port()}"))
        self.assertEqual(self.run_main("check-config"), (OK, "OK\n", ""))

    def test_mistakes_and_what_explains_them(self) -> None:
        self.run_main("init")
        (self.home / "config.json").write_text('{"adress": ":1", "contracts": {}}')
        for words in (["check-config"], ["start", "--fg"]):
            self.assertEqual(
                self.run_main(*words),
                (
                    FAILED,
                    "",
                    "wireleap-relay: warning: adress: unknown key; did you mean address?\n"
                    "wireleap-relay: config.json: address: missing\n"
                    "wireleap-relay: config.json: contracts: expected a JSON object with at least one contract,"
                    " by its URL\n",
                ),
            )

    def test_no_text(self) -> None:
        self.run_main("init")
        (self.home / "config.json").mkdir()
        self.assertEqual(
            self.run_main("check-config"), (FAILED, "", f"wireleap-relay: {self.home}/config.json: Is a directory\n")
        )


class StartTests(MainTestCase):
    def test_twistd_is_told_all_that_it_needs(self) -> None:
        self.run_main("init")
        (self.home / "config.json").write_text(example_config())
        told: list[list[str]] = []
        self.patch(os, "geteuid", lambda: 1000)
        self.patch(daemon, "run_twistd", lambda words: told.append(words) or 0)
        self.assertEqual(self.run_main("start", "--fg"), (OK, "", ""))
        self.assertEqual(told, [["--nodaemon", "--pidfile=", "wireleap-relay", f"--home={self.home}"]])

    def test_root_is_warned(self) -> None:
        self.run_main("init")
        (self.home / "config.json").write_text(example_config())
        (self.home / "key.seed").chmod(0o640)
        self.patch(os, "geteuid", lambda: 0)
        self.patch(daemon, "run_twistd", lambda words: 0)
        self.assertEqual(
            self.run_main("start", "--fg")[2].splitlines(),
            [
                f"wireleap-relay: warning: {self.home}/key.seed may be read by other users, with what is secret in it:"
                f" chmod 600 {self.home}/key.seed",
                "wireleap-relay: warning: the relay is started as root: it needs no such rights, and is safer as a"
                " user of its own",
            ],
        )

    def test_twistd(self) -> None:
        self.assertIn("--rundir", self.run_main("twistd", "--help")[1])
        code, said, errors = self.run_main("twistd", "wireleap-relay", "--help")
        self.assertEqual((code, errors), (OK, ""))
        for word in ("--home", "SIGUSR1", "wireleap-relay.log"):
            self.assertIn(word, said)
        code, said, errors = self.run_main("twistd", "--nodaemon", "wireleap-relay", "--home", str(self.home / "x"))
        self.assertEqual((code, said), (FAILED, ""))
        self.assertEqual(errors, f"wireleap-relay: {self.home}/x is missing: `wireleap-relay init` makes it\n")


class SandboxTests(MainTestCase):
    def test_what_it_is_asked_for(self) -> None:
        asked: list[dict[str, object]] = []
        self.patch(sandbox, "run", lambda **what: asked.append(what) or 7)
        for words, wanted in [
            ([], {"once": False, "url": None, "network_only": False}),
            (["--once"], {"once": True, "url": None, "network_only": False}),
            (["--once", "http://x"], {"once": True, "url": "http://x", "network_only": False}),
            (["--network-only"], {"once": False, "url": None, "network_only": True}),
        ]:
            self.assertEqual(self.run_main("sandbox", *words), (7, "", ""))
            self.assertEqual(asked.pop(), wanted)

    def test_troubles_have_plain_words(self) -> None:
        for trouble, code, words in [
            (OSError(98, "Address already in use"), FAILED, "[Errno 98] Address already in use\n"),
            (OSError(13, "Permission denied", "/x"), FAILED, "/x: Permission denied\n"),
            (KeyboardInterrupt(), 130, ""),
        ]:

            def run(trouble: BaseException = trouble, **_: object) -> int:
                raise trouble

            self.patch(sandbox, "run", run)
            self.assertEqual(self.run_main("sandbox"), (code, "", words and f"wireleap-relay: {words}"))
