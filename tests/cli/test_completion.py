"""Completion, in the shells themselves."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SkipTest

from tests.cli.test_main import MainTestCase

_BASH = """
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
_wireleap_relay
printf '%s\\n' "${COMPREPLY[@]}"
"""
_ZSH = """
compdef() { [[ $* == "_wireleap_relay wireleap-relay" ]] || print -u2 "$*" }
source "$1"; shift
compadd() { [[ $1 == -- ]] && shift; print -l -- "$@" }
_describe() { print -l -- "${(P)2[@]}" }
_files() { print files }
words=("$@"); CURRENT=${#words[@]}
_wireleap_relay
"""
CASES = [
    (["st"], {"start", "stop", "status"}, {"init", "--home"}),
    (["--home", "stop", "che"], {"check-config"}, {"--fg"}),
    (["start", "--"], {"--fg", "--log", "--home"}, {"--json", "stop"}),
    (["status", "--j"], {"--json"}, {"--fg"}),
    (["completion", ""], {"bash", "zsh", "fish"}, {"start"}),
    (["help", "re"], {"restart", "reload"}, {"--json"}),
]


class CompletionTests(MainTestCase):
    def script(self, shell: str) -> str:
        if shutil.which(shell) is None:
            raise SkipTest(f"{shell} is not there")
        code, said, errors = self.run_main("completion", shell)
        self.assertEqual((code, errors), (0, ""))
        file = Path(self.mktemp())
        file.write_text(said)
        return str(file.absolute())

    def run_shell(self, *words: str) -> list[str]:
        said = subprocess.run(words, capture_output=True, text=True, timeout=30)
        self.assertEqual(said.stderr, "")
        return said.stdout.split("\n")

    def check(self, offered: list[str], words: list[str], wanted: set[str], unwanted: set[str]) -> None:
        found = {line.split("\t")[0].split(":")[0] for line in offered}
        self.assertEqual((wanted - found, unwanted & found), (set(), set()), (words, offered))

    def test_bash(self) -> None:
        script = self.script("bash")
        for words, wanted, unwanted in CASES:
            self.check(
                self.run_shell("bash", "-c", _BASH, "bash", script, "wireleap-relay", *words), words, wanted, unwanted
            )
        offered = self.run_shell("bash", "-c", _BASH, "bash", script, "wireleap-relay", "--home", sys.prefix + "/")
        self.assertIn(f"{sys.prefix}/bin", offered)

    def test_zsh(self) -> None:
        script = self.script("zsh")
        for words, wanted, _ in CASES:
            self.check(
                self.run_shell("zsh", "-f", "-c", _ZSH, "zsh", script, "wireleap-relay", *words), words, wanted, set()
            )
        self.assertIn("files", self.run_shell("zsh", "-f", "-c", _ZSH, "zsh", script, "wireleap-relay", "--home", ""))

    def test_fish(self) -> None:
        script = self.script("fish")
        for words, wanted, unwanted in CASES:
            line = " ".join(["wireleap-relay", *words])
            program = 'source $argv[1]; complete -C "$argv[2]"'
            self.check(self.run_shell("fish", "-N", "-c", program, script, line), words, wanted, unwanted)

    def test_another_shell(self) -> None:
        code, said, errors = self.run_main("completion", "csh")
        self.assertEqual((code, said), (2, ""))
        self.assertIn("invalid choice: 'csh'", errors)
