"""What makes a release genuine: an OpenPGP signature over the SHA-512 sums of its files (PROTOCOL: *Upgrades*)."""

from __future__ import annotations

import datetime
import hashlib
import hmac
import platform
import re
from collections.abc import Iterator, Sequence
from importlib.resources import files
from pathlib import Path

import attrs
from pysequoia import Cert, verify
from pysequoia.packet import PacketPile, SignatureType, Tag

from wireleap_relay.wire.errors import WireError
from wireleap_relay.wire.structure import read
from wireleap_relay.wire.versions import Version

#: The resources that a release build has, and no other copy.
SITE_FILE, KEY_FILE = "release.json", "release-key.asc"

_SUM = re.compile(r"([0-9a-f]{128}) [ *]([^/\s]+)", re.ASCII)
_TITLE = re.compile(r"# wireleap-relay (\S+)", re.ASCII)
_BLOCK = 1 << 20
#: Go's names of processors, which the names of release files have.
_PROCESSORS = {"x86_64": "amd64", "aarch64": "arm64"}


class NotGenuine(Exception):
    """Something is not what its publisher has signed; the text says what."""


@attrs.frozen
class ReleaseSite:
    """Where releases are published.

    In each template ``{version}``, ``{name}`` and ``{fingerprint}`` stand for what they say.

    :ivar file: of a release file, or of the ``.hash`` beside it.
    :ivar changelog: of what is new in a version, Markdown.
    :ivar successor: of the key that follows the one with a fingerprint, clearsigned by that.
    """

    file: str
    changelog: str
    successor: str

    def file_url(self, version: Version, name: str) -> str:
        """Tell where a file of a version is."""
        return self.file.format(version=version, name=name)

    def changelog_url(self, version: Version) -> str:
        """Tell where a version's changelog is."""
        return self.changelog.format(version=version)

    def successor_url(self, fingerprint: str) -> str:
        """Tell where the key after another one is."""
        return self.successor.format(fingerprint=fingerprint)


@attrs.frozen
class Build:
    """A release build: what its makers have put into it.

    :ivar keys: whose signatures count.
    """

    site: ReleaseSite
    keys: tuple[Cert, ...]


@attrs.frozen
class Listing:
    """The signed list of a release's files.

    :ivar sums: SHA-512, by file name.
    """

    version: Version
    sums: dict[str, bytes]

    def sum_of(self, name: str, version: Version) -> bytes:
        """Give a file's sum.

        :raises NotGenuine: where the list is of another version, or does not have the file.
        """
        if self.version != version:
            raise NotGenuine(f"the signed list is of version {self.version}, not of {version}")
        if name not in self.sums:
            raise NotGenuine(f"the signed list does not have {name}")
        return self.sums[name]


def this_build() -> Build | None:
    """Give what this release build knows of releases; None where this copy isn't one.

    :raises WireError: where it was built wrongly.
    """
    package = files("wireleap_relay.upgrade")
    site, keys = package / SITE_FILE, package / KEY_FILE
    if not (site.is_file() and keys.is_file()):
        return None
    return Build(read(site.read_bytes(), ReleaseSite), read_keys(keys.read_bytes()))


def file_name() -> str:
    """Give the name of the release file for this machine."""
    machine = platform.machine()
    return f"wireleap-relay_linux-{_PROCESSORS.get(machine, machine)}"


def read_keys(text: bytes) -> tuple[Cert, ...]:
    """Read public keys, armored or not.

    :raises NotGenuine: where there are none, or something else.
    """
    try:
        keys = tuple(Cert.split_bytes(text))
    except RuntimeError as e:
        raise NotGenuine(f"it is no OpenPGP key: {_said(e)}") from None
    if not keys:
        raise NotGenuine("there is no OpenPGP key in it")
    return keys


def read_listing(signed: bytes, keys: Sequence[Cert], now: datetime.datetime) -> Listing:
    """Read a clearsigned list of sums; text outside of what was signed counts for nothing. It blocks.

    :param now: with a time zone.
    :raises NotGenuine: where no key that is valid now has signed it, or it can't be read.
    """
    text = signed_bytes(signed, keys, now)
    try:
        lines = text.decode("ascii").splitlines()
    except UnicodeDecodeError:
        raise NotGenuine("the signed list is not ASCII text") from None
    title = _TITLE.fullmatch(lines[0]) if lines else None
    if title is None:
        raise NotGenuine('the signed list does not begin with "# wireleap-relay" and a version')
    try:
        version = Version.from_text(title[1])
    except WireError as e:
        raise NotGenuine(f"the signed list's version: {e}") from None
    sums: dict[str, bytes] = {}
    for line in lines[1:]:
        match = _SUM.fullmatch(line)
        if match is None or match[2] in sums:
            raise NotGenuine("the signed list has a line that is no SHA-512 sum of another file")
        sums[match[2]] = bytes.fromhex(match[1])
    return Listing(version, sums)


def write_listing(version: Version, sums: dict[str, bytes]) -> bytes:
    """Write a list of sums, to be signed; ``sha512sum -c`` reads it too."""
    lines = [f"# wireleap-relay {version}", *(f"{digest.hex()}  {name}" for name, digest in sorted(sums.items()))]
    return ("\n".join(lines) + "\n").encode("ascii")


def read_successor(signed: bytes, key: Cert, now: datetime.datetime) -> tuple[Cert, ...]:
    """Read the key that follows ``key``, out of what that one has signed. It blocks.

    :raises NotGenuine: where it hasn't, or where it is no key.
    """
    return read_keys(signed_bytes(signed, [key], now))


def signed_bytes(signed: bytes, keys: Sequence[Cert], now: datetime.datetime) -> bytes:
    """Give the bytes that a signature covers, and nothing around them. It blocks.

    :raises NotGenuine: where no key has signed them that is neither expired nor revoked now.
    """
    trusted = {key.fingerprint: key for key in keys}
    try:
        found = verify(signed, lambda _: list(trusted.values()))
    except RuntimeError as e:
        raise NotGenuine(f"no signature of a known key is on it: {_said(e)}") from None
    if found.bytes is None or not found.valid_sigs:
        raise NotGenuine("no signature of a known key is on it")
    # Sequoia asks whether a key was good when it signed; here it has to be good still.
    objections = [_objection(trusted[sig.certificate], sig.signing_key, now) for sig in found.valid_sigs]
    if all(objections):
        raise NotGenuine(f"it was signed with a key that {objections[0]}")
    return bytes(found.bytes)


def sum_of_file(path: Path) -> bytes:
    """Give a file's SHA-512 sum. It blocks.

    :raises OSError: where it can't be read.
    """
    digest = hashlib.sha512()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.digest()


def check_file(path: Path, wanted: bytes) -> None:
    """Compare a file with its sum. It blocks.

    :raises NotGenuine: where it is another.
    :raises OSError: where it can't be read.
    """
    if not hmac.compare_digest(sum_of_file(path), wanted):
        raise NotGenuine(f"{path.name} does not have the sum that was signed: it was changed or is not whole")


def _objection(key: Cert, signing_key: str, now: datetime.datetime) -> str:
    """Say what is wrong with a key by now; empty where nothing is."""
    if key.is_revoked:
        return "was revoked"
    if key.expiration is not None and key.expiration <= now:
        return "has expired"
    bound = list(_bindings(key, signing_key))
    if any(kind == SignatureType.SubkeyRevocation for kind, _, _ in bound):
        return "was revoked"
    if bound:
        # The last statement about a subkey holds.
        _, _, ends = max(bound, key=lambda binding: binding[1])
        if ends is not None and ends <= now:
            return "has expired"
    return ""


def _bindings(
    key: Cert, signing_key: str
) -> Iterator[tuple[SignatureType, datetime.datetime, datetime.datetime | None]]:
    """Give what a key says of one of its subkeys: what it does, when, and when the subkey ends."""
    subject, made = "", None
    for packet in PacketPile.from_bytes(bytes(key)):
        if packet.tag in (Tag.PublicKey, Tag.PublicSubkey):
            subject, made = packet.fingerprint or "", packet.key_created
        elif packet.tag == Tag.UserID:
            subject = ""
        elif packet.tag == Tag.Signature and subject == signing_key and made is not None:
            kind, said = packet.signature_type, packet.signature_created
            if kind in (SignatureType.SubkeyBinding, SignatureType.SubkeyRevocation) and said is not None:
                lasts = packet.key_validity_period
                yield kind, said, made + lasts if lasts else None


def _said(error: RuntimeError) -> str:
    # What follows the first line is a trace through the library.
    return str(error).partition("\n")[0].rstrip(".")
