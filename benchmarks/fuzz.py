"""Looks for input that a relay does not take well: python benchmarks/fuzz.py [TARGET ...] [--minutes 5] [--seed N].

Each target reads bytes as strangers, or files, send them; ``door`` is a whole relay's door with sessions, tunnels,
targets and time in memory. Bytes begin as what honest peers send, and are changed by atheris, which watches what
code they reach (``pip install atheris``), or, without it, by chance. What is found lies in --found afterwards, and
belongs into tests/fuzz/cases/TARGET once it is mended.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

_ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(_ROOT))

#: Seconds that one input may take, and megabytes that all of it may.
_HANG, _MEMORY = 20, 2048


class _Hang(BaseException):
    """An input takes too long."""


def _mutated(chance: random.Random, corpus: list[bytes]) -> bytes:
    data = bytearray(chance.choice(corpus))
    for _ in range(chance.choice([1, 1, 2, 4, 8])):
        at = chance.randrange(len(data) + 1)
        match chance.randrange(6):
            case 0:
                data[at : at + 1] = bytes([chance.randrange(256)])
            case 1:
                data[at:at] = chance.randbytes(chance.randrange(1, 9))
            case 2:
                del data[at : at + chance.randrange(1, 17)]
            case 3 if at < len(data):
                data[at] ^= 1 << chance.randrange(8)
            case 4:
                other = chance.choice(corpus)
                begin = chance.randrange(len(other) + 1)
                data[at:at] = other[begin : begin + chance.randrange(1, 200)]
            case _:
                other = chance.choice(corpus)
                data[at:] = other[chance.randrange(len(other) + 1) :]
    return bytes(data[:20_000])


def _keep(found: Path, target: str, data: bytes) -> Path:
    folder = found / target
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / hashlib.sha256(data).hexdigest()[:16]
    file.write_bytes(data)
    return file


def _be_quiet() -> None:
    """Have nothing of what is logged on the way on the screen."""
    from twisted.logger import globalLogBeginner

    globalLogBeginner.beginLoggingTo([], discardBuffer=True, redirectStandardIO=False)


def by_chance(target: str, seconds: float, seed: int, found: Path) -> int:
    """Change input by chance; give the number of findings."""
    from tests.fuzz.targets import TARGETS

    _be_quiet()
    read, make = TARGETS[target]
    chance = random.Random(seed)
    corpus = make(seed)

    def hang(*_: object) -> None:
        raise _Hang

    signal.signal(signal.SIGALRM, hang)
    begun, runs, places = time.process_time(), 0, set()
    while time.process_time() - begun < seconds:
        data = _mutated(chance, corpus)
        runs += 1
        signal.alarm(_HANG)
        try:
            read(data)
        except (Exception, _Hang) as e:  # noqa: BLE001 - every exception is a finding
            where = traceback.extract_tb(e.__traceback__)[-1]
            if (where.filename, where.lineno) not in places:
                places.add((where.filename, where.lineno))
                print(f"{target}: {_keep(found, target, data)}")
                traceback.print_exc()
        finally:
            signal.alarm(0)
    print(f"{target}: {runs} inputs in {time.process_time() - begun:.0f} CPU s, seed {seed}, {len(places)} findings")
    return len(places)


def by_coverage(target: str, seconds: float, seed: int, found: Path, corpus: Path) -> None:
    """Let atheris change input; it ends the process."""
    import atheris

    with atheris.instrument_imports(include=["wireleap_relay"]):
        from tests.fuzz.targets import TARGETS

    _be_quiet()
    read, make = TARGETS[target]
    for data in make(seed):
        _keep(corpus, target, data)
    (found / target).mkdir(parents=True, exist_ok=True)
    atheris.Setup(
        [
            sys.argv[0],
            f"-max_total_time={seconds:.0f}",
            f"-seed={seed % 2**32 or 1}",
            f"-timeout={_HANG}",
            f"-rss_limit_mb={_MEMORY}",
            f"-artifact_prefix={found / target}/",
            "-print_final_stats=1",
            "-max_len=8192",
            str(corpus / target),
        ],
        read,
    )
    atheris.Fuzz()


def main() -> None:
    """Fuzz one target after the other."""
    has_atheris = importlib.util.find_spec("atheris") is not None
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="all of them without")
    parser.add_argument("--minutes", type=float, default=5.0, help="for each target")
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4)), help="for the same run again")
    parser.add_argument("--engine", choices=["coverage", "chance"], default="coverage" if has_atheris else "chance")
    parser.add_argument("--found", type=Path, default=Path(tempfile.gettempdir()) / "wireleap-relay-found")
    parser.add_argument("--corpus", type=Path, help="a folder in which a corpus grows; a passing one without")
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    seconds = options.minutes * 60
    if options.alone:
        # Before anything is imported that is to be watched.
        by_coverage(options.targets[0], seconds, options.seed, options.found, options.corpus)
    from tests.fuzz.targets import TARGETS

    unknown = set(options.targets) - set(TARGETS)
    if unknown:
        parser.error(f"no such target: {', '.join(sorted(unknown))}; there are {', '.join(TARGETS)}")
    print(f"seed {options.seed}, by {options.engine}", flush=True)
    targets = options.targets or list(TARGETS)
    if options.engine == "chance":
        findings = [by_chance(target, seconds, options.seed, options.found) for target in targets]
        sys.exit(any(findings))
    with tempfile.TemporaryDirectory() as passing:
        ends = []
        for target in targets:
            words = [sys.executable, __file__, target, "--alone", "--minutes", str(options.minutes)]
            words += ["--seed", str(options.seed), "--found", str(options.found)]
            words += ["--corpus", str(options.corpus or passing)]
            ends.append(subprocess.run(words, check=False).returncode)
        sys.exit(any(ends))


if __name__ == "__main__":
    main()
