"""Builds a release out of the last commit: ``make release VERSION=… KEY=… [URL=…]``.

In ``dist/``: the wheel, the sdist, a single file that runs (for this machine's
processor and this Python), a ``.hash`` with the signed sums of all three, and
``changelogs/VERSION.md``. All but the signature are the same, byte for byte,
whenever and wherever the same commit is built with the same Python.
"""

from __future__ import annotations

import argparse
import datetime
import getpass
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from pathlib import Path

from pysequoia import PySigner, SignatureMode, Tsk, sign

from wireleap_relay.upgrade.release import KEY_FILE, SITE_FILE, file_name, sum_of_file, write_listing
from wireleap_relay.wire.errors import WireError
from wireleap_relay.wire.versions import Version

ROOT = Path(__file__).resolve().parent.parent
DIST = ROOT / "dist"
_REQUIREMENTS = "release/requirements.txt"


class Failed(Exception):
    """A release can't be built; the text says why."""


def main() -> int:
    """Build a release."""
    parser = argparse.ArgumentParser(description="Builds a release out of the last commit.")
    parser.add_argument("--version", required=True, help="of the release, such as 0.7.1")
    parser.add_argument("--key", required=True, type=Path, help="file with the OpenPGP key that signs it")
    parser.add_argument("--also-trust", type=Path, action="append", default=[], help="file with the next public key")
    parser.add_argument("--url", default=_default_url(), help="where releases are served [default: %(default)s]")
    parser.add_argument("--dist", type=Path, default=DIST, help="where it all goes [default: %(default)s]")
    wanted = parser.parse_args()
    try:
        version = Version.from_text(wanted.version)
        key = _read_key(wanted.key)
        trusted = [str(key.extract_certificate()), *(file.read_text() for file in wanted.also_trust)]
        with tempfile.TemporaryDirectory() as folder:
            made = build(version, "".join(trusted), wanted.url, Path(folder), wanted.dist)
        made.append(_sign(made, version, _signer(key), wanted.dist))
    except (Failed, WireError) as e:
        print(f"release: {e}", file=sys.stderr)
        return 1
    except subprocess.CalledProcessError as e:
        print(f"release: {e.cmd[0]} failed\n{(e.output or b'').decode()}", file=sys.stderr)
        return 1
    for file in made:
        print(file)
    return 0


def build(version: Version, keys: str, url: str, work: Path, dist: Path) -> list[Path]:
    """Build all that gets signed.

    :param keys: armored, whose signatures the release will trust.
    :param url: where releases are served.
    :param work: an empty folder.
    """
    tree, site = work / "tree", work / "site"
    committed = datetime.datetime.fromtimestamp(int(_git("show", "-s", "--format=%ct", "HEAD")), datetime.UTC)
    environment = {**os.environ, "SOURCE_DATE_EPOCH": str(int(committed.timestamp())), "PYTHONHASHSEED": "0"}
    tree.mkdir()
    subprocess.run(["tar", "-x", "-C", str(tree)], check=True, input=_git_bytes("archive", "HEAD"))
    _set_version(tree / "wireleap_relay" / "__init__.py", version)
    dist.mkdir(parents=True, exist_ok=True)
    changelog = _changelog(tree, version, committed, dist)
    built = work / "built"
    _run([sys.executable, "-m", "hatchling", "build", "-d", str(built)], tree, environment)
    packages = [Path(shutil.copy(file, dist)) for file in sorted(built.iterdir())]
    [wheel] = (file for file in packages if file.suffix == ".whl")
    _fill(site, wheel, tree)
    _make_release(site, keys, url)
    for path in site.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    program = dist / file_name()
    _run(_shiv(site, program), tree, environment)
    program.chmod(0o755)
    _try(program, version, work, environment)
    return [program, *packages, changelog]


def _default_url() -> str:
    with (ROOT / "pyproject.toml").open("rb") as file:
        return str(tomllib.load(file)["project"]["urls"]["Releases"])


def _set_version(file: Path, version: Version) -> None:
    text, count = re.subn(r'^__version__ = ".*"$', f'__version__ = "{version}"', file.read_text(), flags=re.MULTILINE)
    if count != 1:
        raise Failed(f"{file.name} does not have one __version__")
    file.write_text(text)


def _changelog(tree: Path, version: Version, date: datetime.datetime, dist: Path) -> Path:
    command = [sys.executable, "-m", "towncrier", "build", "--draft", "--version", str(version)]
    shown = subprocess.run([*command, "--date", f"{date:%Y-%m-%d}"], cwd=tree, check=True, stdout=subprocess.PIPE)
    file = dist / "changelogs" / f"{version}.md"
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(shown.stdout.strip() + b"\n")
    return file


def _fill(site: Path, wheel: Path, tree: Path) -> None:
    """Put the relay and all that it needs into a folder."""
    pip = [
        sys.executable,
        "-m",
        "pip",
        "--disable-pip-version-check",
        "install",
        "--quiet",
        "--no-deps",
        "--no-compile",
    ]
    only = ["--only-binary=:all:", "--require-hashes", "--requirement", _REQUIREMENTS]
    _run([*pip, *only, "--target", str(site)], tree, dict(os.environ))
    # What pip leaves there tells of this machine: paths in scripts, and how it was called.
    shutil.rmtree(site / "bin", ignore_errors=True)
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)


def _make_release(site: Path, keys: str, url: str) -> None:
    package, base = site / "wireleap_relay" / "upgrade", url.rstrip("/")
    templates = {
        "file": f"{base}/{{version}}/{{name}}",
        "changelog": f"{base}/changelogs/{{version}}.md",
        "successor": f"{base}/keys/{{fingerprint}}.asc",
    }
    (package / SITE_FILE).write_text(json.dumps(templates, indent=4) + "\n")
    (package / KEY_FILE).write_text(keys)


def _shiv(site: Path, program: Path) -> list[str]:
    python = f"/usr/bin/env python{sys.version_info.major}.{sys.version_info.minor}"
    shiv = [sys.executable, "-m", "shiv", "--site-packages", str(site), "--reproducible", "--python", python]
    return [*shiv, "--entry-point", "wireleap_relay.cli.main:main", "--output-file", str(program)]


def _try(program: Path, version: Version, work: Path, environment: dict[str, str]) -> None:
    """See whether it runs."""
    found = {**environment, "SHIV_ROOT": str(work / "tried")}
    said = subprocess.run(
        [program, "version"], env=found, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    if said.stdout.decode().strip() != str(version):
        raise Failed(f"what was built does not run:\n{said.stdout.decode()}")


def _read_key(file: Path) -> Tsk:
    try:
        return Tsk.from_file(str(file))
    except RuntimeError as e:
        raise Failed(f"{file}: {str(e).splitlines()[0]}") from None


def _signer(key: Tsk) -> PySigner:
    try:
        return key.signer()
    except RuntimeError:
        password = getpass.getpass("Password of the release key: ")
    try:
        return key.signer(password)
    except RuntimeError as e:
        raise Failed(f"the key can't sign: {str(e).splitlines()[0]}") from None


def _sign(made: list[Path], version: Version, signer: PySigner, dist: Path) -> Path:
    listing = write_listing(version, {file.name: sum_of_file(file) for file in made})
    file = dist / f"{file_name()}.hash"
    file.write_bytes(sign(signer, listing, mode=SignatureMode.CLEAR))
    return file


def _git(*words: str) -> str:
    return _git_bytes(*words).decode().strip()


def _git_bytes(*words: str) -> bytes:
    return subprocess.run(["git", *words], cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout


def _run(command: list[str], folder: Path, environment: dict[str, str]) -> None:
    subprocess.run(command, cwd=folder, env=environment, check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


if __name__ == "__main__":
    sys.exit(main())
