"""The relay's folder: its files' names, durable writes, and the relay's identity."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import secrets
import sys
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs
from cryptography import x509
from cryptography.exceptions import InternalError, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from wireleap_relay.wire.encoding import read_json
from wireleap_relay.wire.errors import WireError
from wireleap_relay.wire.keys import SigningKey

HOME_VARIABLE = "WIRELEAP_RELAY_HOME"
#: Names the process whose place a daemon is about to take: they may run beside each other.
SUCCEEDS_VARIABLE = "WIRELEAP_RELAY_SUCCEEDS"
_SECRET = 0o600
_PUBLIC = 0o644
_NOTHING_CHANGED = (
    "nothing was changed. A relay's key is its identity and its claim to its balance; move it away yourself"
    " if you mean it"
)


class HomeError(Exception):
    """The relay's folder is not as it has to be; the text names the file and what is wrong."""


@attrs.frozen
class Identity:
    """Who the relay is.

    :ivar key: signs what it says to contracts and directories; its public half is its name.
    :ivar certificate: what it shows in TLS, where nobody verifies it.
    :ivar tls_key: the certificate's.
    """

    key: SigningKey
    certificate: x509.Certificate
    tls_key: Ed25519PrivateKey = attrs.field(repr=False)


@attrs.frozen
class Home:
    """The relay's folder (PROTOCOL: *The relay's directory on disk*).

    :ivar upgrading: whether it is the next config that counts, where there is one.
    """

    path: Path
    upgrading: bool = False

    @property
    def config(self) -> Path:
        """What the operator wants."""
        return self.path / "config.json"

    @property
    def config_example(self) -> Path:
        """What it may look like."""
        return self.path / "config.example.json"

    @property
    def key_seed(self) -> Path:
        """The relay's private key."""
        return self.path / "key.seed"

    @property
    def key_pub(self) -> Path:
        """The relay's public key."""
        return self.path / "key.pub"

    @property
    def certificate(self) -> Path:
        """The relay's TLS certificate."""
        return self.path / "relay-cert.pem"

    @property
    def tls_key(self) -> Path:
        """The certificate's private key."""
        return self.path / "relay-key.pem"

    @property
    def pid(self) -> Path:
        """The daemon's process id."""
        return self.path / "wireleap-relay.pid"

    @property
    def lock(self) -> Path:
        """Held by the daemon as long as it lives."""
        return self.path / "wireleap-relay.lock"

    @property
    def control(self) -> Path:
        """The socket at which the daemon tells commands how it gets on."""
        return self.path / "wireleap-relay.sock"

    @property
    def log(self) -> Path:
        """What the daemon has to say."""
        return self.path / "wireleap-relay.log"

    @property
    def stats(self) -> Path:
        """What was carried in the present window."""
        return self.path / "stats.json"

    @property
    def sharetokens(self) -> Path:
        """What the relay is paid with."""
        return self.path / "sharetokens"

    @property
    def token_database(self) -> Path:
        """Where they are kept."""
        return self.sharetokens / "sharetokens.db"

    def withdrawal(self, contract: str) -> Path:
        """What a contract was asked to pay and has not answered to."""
        return self.path / f".withdrawal-{contract}.json"

    @property
    def program(self) -> Path:
        """The release file that runs, where it is one."""
        return self.path / "wireleap-relay"

    @property
    def skip_upgrade_version(self) -> Path:
        """The version that no upgrade is to be tried to again."""
        return self.path / ".skip-upgrade-version"

    @property
    def quarantine(self) -> Path:
        """Where releases wait to be verified."""
        return self.path / "quarantine"

    @property
    def upgrade_record(self) -> Path:
        """How far an upgrade has come."""
        return self.path / "upgrade.json"

    @property
    def upgrade_lock(self) -> Path:
        """Held by the process that works on an upgrade."""
        return self.path / ".upgrade.lock"

    @property
    def manhole_key(self) -> Path:
        """What the manhole's SSH server is known by."""
        return self.path / "manhole-key"

    def read_config(self) -> bytes:
        """Give the text of the config: of the next one, on the probation of an upgrade.

        :raises HomeError: where there is none, or it can't be read.
        """
        try:
            if self.upgrading and self.next(self.config).exists():
                return self.next(self.config).read_bytes()
            return self.config.read_bytes()
        except FileNotFoundError:
            raise HomeError(f"{self.config} is missing: make it out of {self.config_example.name}") from None
        except OSError as e:
            raise HomeError(f"{self.config}: {e.strerror}") from None

    def inside(self, name: str) -> Path:
        """Give a folder that the config names relative to the home."""
        return self.path / name

    def next(self, file: Path) -> Path:
        """Name the successor of a file, while an upgrade is under way."""
        return file.with_name(f"{file.name}.next")

    def previous(self, file: Path) -> Path:
        """Name what a file was before the last upgrade."""
        return file.with_name(f"{file.name}.prev")

    def create_identity(self, now: datetime.datetime) -> Identity:
        """Make the relay's key and certificate.

        :param now: from when the certificate is valid.
        :raises HomeError: where any of the files is there already, or can't be written.
        """
        files = (self.key_seed, self.key_pub, self.certificate, self.tls_key)
        identity = _make_identity(SigningKey.generate(), now)
        with _written_in(self.path):
            there = [file.name for file in files if file.exists()]
            if there:
                raise HomeError(f"{self.path} has {' and '.join(there)} already: {_NOTHING_CHANGED}")
            self.path.mkdir(parents=True, exist_ok=True)
            # First, because the others can be made of it; and over no other, even one that came this instant.
            write_durably(self.key_seed, _quoted(identity.key.seed_text), _SECRET, replace=False)
            self._write_derived(identity, files)
        return identity

    def complete_identity(self, now: datetime.datetime) -> list[Path]:
        """Make what is missing beside ``key.seed`` out of the key in it, as after a restore of that file alone.

        :param now: from when the certificate is valid.
        :returns: the files that were made.
        :raises HomeError: where nothing is missing, where what is there is of
            another key, or where the disk won't do; nothing is ever overwritten.
        """
        key = self.load_key()
        with _written_in(self.path):
            missing = [file for file in (self.key_pub, self.certificate, self.tls_key) if not file.exists()]
            if not missing:
                raise HomeError(f"{self.path} has {self.key_seed.name} and all that goes with it: {_NOTHING_CHANGED}")
            for file, load in ((self.certificate, self._load_certificate), (self.tls_key, self._load_tls_key)):
                if file not in missing and load().public_key() != key.private.public_key():
                    raise HomeError(f"{file} is not of the key in {self.key_seed.name}: {_NOTHING_CHANGED}")
            self._write_derived(_make_identity(key, now), missing)
        return missing

    def _write_derived(self, identity: Identity, wanted: Collection[Path]) -> None:
        pem = identity.tls_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        for file, content, mode in (
            (self.tls_key, pem, _SECRET),
            (self.certificate, identity.certificate.public_bytes(Encoding.PEM), _PUBLIC),
            (self.key_pub, _quoted(str(identity.key.public_key)), _PUBLIC),
        ):
            if file in wanted:
                write_durably(file, content, mode, replace=False)

    def load_key(self) -> SigningKey:
        """Read ``key.seed``; an old one without quotes is rewritten with them.

        :raises HomeError: where it is missing or not a key.
        """
        text = self._read(self.key_seed)
        try:
            if not text.startswith('"'):
                key = SigningKey.from_text(text.strip())
                write_durably(self.key_seed, _quoted(key.seed_text), _SECRET)
                return key
            return SigningKey.from_text(str(read_json(text)))
        except WireError as e:
            raise HomeError(f"{self.key_seed}: {e}") from None
        except OSError as e:
            raise HomeError(f"{self.key_seed}: can't be rewritten: {e.strerror}") from None

    def load_identity(self) -> Identity:
        """Read the relay's key, certificate and its key.

        :raises HomeError: where one is missing, can't be read or doesn't match another.
        """
        key, certificate, tls_key = self.load_key(), self._load_certificate(), self._load_tls_key()
        if certificate.public_key() != tls_key.public_key():
            raise HomeError(f"{self.tls_key}: it is not the key of {self.certificate.name}")
        return Identity(key, certificate, tls_key)

    def _load_certificate(self) -> x509.Certificate:
        try:
            return x509.load_pem_x509_certificate(self._read(self.certificate).encode())
        except (ValueError, UnsupportedAlgorithm, InternalError):
            raise HomeError(f"{self.certificate}: expected a certificate in PEM") from None

    def _load_tls_key(self) -> Ed25519PrivateKey:
        try:
            key = load_pem_private_key(self._read(self.tls_key).encode(), None)
        except (ValueError, TypeError, UnsupportedAlgorithm, InternalError):
            raise HomeError(f"{self.tls_key}: expected an unencrypted private key in PEM") from None
        if not isinstance(key, Ed25519PrivateKey):
            raise HomeError(f"{self.tls_key}: expected an Ed25519 key")
        return key

    def _read(self, file: Path) -> str:
        try:
            return file.read_text("utf-8")
        except FileNotFoundError:
            raise HomeError(f"{file} is missing: `wireleap-relay init` makes it") from None
        except (OSError, UnicodeDecodeError) as e:
            raise HomeError(f"{file}: {getattr(e, 'strerror', None) or 'expected text'}") from None


def _quoted(text: str) -> bytes:
    return json.dumps(text).encode()


def _make_identity(key: SigningKey, now: datetime.datetime) -> Identity:
    """Make a certificate as PROTOCOL (*The tunnel*) describes it."""
    name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Wireleap")])
    usage = dict.fromkeys(
        ("content_commitment", "data_encipherment", "key_agreement", "key_cert_sign", "crl_sign"), False
    )
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .serial_number(secrets.randbits(128) | 1)
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=100 * 365))
        .public_key(key.private.public_key())
        .add_extension(
            x509.KeyUsage(
                digital_signature=True, key_encipherment=True, encipher_only=False, decipher_only=False, **usage
            ),
            critical=True,
        )
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("wireleap.com")]), critical=False)
    )
    return Identity(key, builder.sign(key.private, None), key.private)


@contextlib.contextmanager
def _written_in(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as e:
        raise HomeError(f"{e.filename2 or folder} can't be written: {e.strerror}") from None


def write_durably(file: Path, content: bytes, mode: int = _PUBLIC, *, replace: bool = True) -> None:
    """Write a file so that after a crash there is the old one or the new one, whole.

    :param mode: of the file, from its first moment on.
    :param replace: whether there may be an old one.
    :raises OSError: where the disk won't do, or an old file is in the way; it is as it was.
    """
    temporary = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with open(descriptor, "wb") as out:
            os.fchmod(out.fileno(), mode)
            out.write(content)
            out.flush()
            os.fsync(out.fileno())
        if replace:
            temporary.replace(file)
        else:
            file.hardlink_to(temporary)
            temporary.unlink()
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    sync_folder(file.parent)


def sync_folder(path: Path) -> None:
    """Have the names in a folder on disk.

    :raises OSError: where the disk won't do.
    """
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def write_json_durably(file: Path, value: Any, mode: int = _PUBLIC) -> None:
    """Write JSON, indented by four as the network's own files are, by :func:`write_durably`."""
    write_durably(file, (json.dumps(value, indent=4) + "\n").encode(), mode)


def find_home(option: str | None, environment: Mapping[str, str], program: Path) -> Home:
    """Tell which folder is the relay's.

    :param option: what ``--home`` says.
    :param program: the file that runs; a release is one file, and lives in the home.
    :raises HomeError: where no folder can be told.
    """
    if option == "":
        raise HomeError("--home has to name a folder")
    named = option or environment.get(HOME_VARIABLE)
    try:
        path = Path(named).absolute() if named else program.resolve().parent if is_release(program) else Path.cwd()
    except OSError:
        raise HomeError("the current folder is gone: say where the relay's home is with --home") from None
    return Home(path, upgrading=SUCCEEDS_VARIABLE in environment)


def is_release(program: Path) -> bool:
    """Tell whether the program runs out of a single release file."""
    return program.is_file() and str(program.resolve()) in map(os.path.realpath, sys.path)


def command(program: Path) -> list[str]:
    """Give the words that run this software once more.

    :param program: the file that runs.
    """
    return [sys.executable, *([str(program.resolve())] if is_release(program) else ["-m", "wireleap_relay"])]
