"""The command that writes what a shell needs to complete this one's words."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Mapping

from wireleap_relay.cli.command import OK, Command

SHELLS = ("bash", "zsh", "fish")
#: Options whose value is a folder or a file.
_FOLDERS, _FILES = ("--home",), ("--log",)

_BASH = """\
# wireleap-relay completion bash > /etc/bash_completion.d/wireleap-relay
_wireleap_relay() {{
    local word command="" current="${{COMP_WORDS[COMP_CWORD]}}" before="${{COMP_WORDS[COMP_CWORD-1]}}" skip=""
    for word in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
        if [[ -n $skip ]]; then skip=""; continue; fi
        case $word in --home) skip=1 ;; -*) ;; *) command=$word; break ;; esac
    done
    case $before in
        {folders}) mapfile -t COMPREPLY < <(compgen -d -- "$current"); return ;;
        {files}) mapfile -t COMPREPLY < <(compgen -f -- "$current"); return ;;
    esac
    local words
    case $command in
        "") words="--home --version --help {commands}" ;;
{cases}
        *) words="" ;;
    esac
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
}}
complete -F _wireleap_relay wireleap-relay
"""

_ZSH = """\
#compdef wireleap-relay
# wireleap-relay completion zsh > "${{fpath[1]}}/_wireleap-relay"
_wireleap_relay() {{
    local -a commands
    commands=(
{described}
    )
    local i command="" skip=""
    for (( i = 2; i < CURRENT; i++ )); do
        if [[ -n $skip ]]; then skip=""; continue; fi
        case ${{words[i]}} in --home) skip=1 ;; -*) ;; *) command=${{words[i]}}; break ;; esac
    done
    case ${{words[CURRENT-1]}} in
        {folders}) _files -/; return ;;
        {files}) _files; return ;;
    esac
    case $command in
        "") _describe command commands; compadd -- --home --version --help ;;
{cases}
    esac
}}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then _wireleap_relay "$@"; else compdef _wireleap_relay wireleap-relay; fi
"""

_FISH = """\
# wireleap-relay completion fish > ~/.config/fish/completions/wireleap-relay.fish
function __wireleap_relay_command
    set -l skip 0
    for word in (commandline -opc)[2..]
        if test $skip = 1
            set skip 0
            continue
        end
        switch $word
            case --home
                set skip 1
            case '-*'
            case '*'
                echo $word
                return 0
        end
    end
    return 1
end
complete -c wireleap-relay -f
complete -c wireleap-relay -l home -r -a '(__fish_complete_directories)' -d "the relay's home"
complete -c wireleap-relay -n 'not __wireleap_relay_command >/dev/null' -l version -d 'print the version'
"""


def bash(parsers: Mapping[str, ArgumentParser], summaries: Mapping[str, str]) -> str:
    """Write it for bash."""
    cases = "\n".join(f'        {name}) words="{" ".join(_words(name, parsers))}" ;;' for name in summaries)
    return _BASH.format(folders="|".join(_FOLDERS), files="|".join(_FILES), commands=" ".join(summaries), cases=cases)


def zsh(parsers: Mapping[str, ArgumentParser], summaries: Mapping[str, str]) -> str:
    """Write it for zsh."""
    described = "\n".join(f"        {_quoted(f'{name}:{summary}')}" for name, summary in summaries.items())
    cases = "\n".join(f"        {name}) compadd -- {' '.join(_words(name, parsers))} ;;" for name in summaries)
    return _ZSH.format(folders="|".join(_FOLDERS), files="|".join(_FILES), described=described, cases=cases)


def fish(parsers: Mapping[str, ArgumentParser], summaries: Mapping[str, str]) -> str:
    """Write it for fish."""
    lines = []
    for name, summary in summaries.items():
        none = "'not __wireleap_relay_command >/dev/null'"
        lines.append(f"complete -c wireleap-relay -n {none} -a {name} -d {_quoted(summary)}")
        seen = f"'contains -- {name} (__wireleap_relay_command)'"
        for word in _words(name, parsers):
            if word.startswith("--"):
                value = " -r -F" if word in _FILES else ""
                lines.append(f"complete -c wireleap-relay -n {seen} -l {word[2:]}{value}")
            elif not word.startswith("-"):
                lines.append(f"complete -c wireleap-relay -n {seen} -a {word}")
    return _FISH + "\n".join(lines) + "\n"


_WRITERS = {"bash": bash, "zsh": zsh, "fish": fish}


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def _words(name: str, parsers: Mapping[str, ArgumentParser]) -> list[str]:
    """Give what may follow a command."""
    if name == "help":
        return list(parsers)
    words: list[str] = []
    for action in parsers[name]._actions:
        words += action.option_strings or map(str, action.choices or ())
    return words


def _completion(arguments: Namespace) -> int:
    # It is a command among those that it writes of.
    from wireleap_relay.cli.main import PLACES, load_commands, make_parser

    shown = {command.name: command.summary for command in load_commands(PLACES) if not command.hidden}
    print(_WRITERS[arguments.shell](make_parser(shown)[1], shown), end="")
    return OK


def _completion_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("shell", choices=SHELLS, metavar="SHELL", help="bash, zsh or fish")


COMPLETION = Command(
    "completion",
    "write what a shell needs to complete commands",
    "Writes a script for bash, zsh or fish; its first line tells where to put it. Or try it at once: in bash with"
    " `source <(wireleap-relay completion bash)`.",
    _completion,
    _completion_arguments,
)
