"""The relay's folder, on a real disk."""

from __future__ import annotations

import datetime
import errno
import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import zipapp
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from wireleap_relay import home as home_module
from wireleap_relay.home import HOME_VARIABLE, Home, HomeError, find_home, write_durably, write_json_durably
from wireleap_relay.wire.keys import SigningKey

ROOT = Path(__file__).parents[1]
NOW = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)


def _no_space(*_: object) -> None:
    raise OSError(28, "No space left on device")


class HomeTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.home = Home(Path(self.mktemp()).absolute())

    def contents(self) -> dict[str, bytes]:
        return {file.name: file.read_bytes() for file in self.home.path.iterdir()}

    def refused(self, text: str) -> None:
        with self.assertRaises(HomeError) as caught:
            self.home.load_identity()
        self.assertIn(text, str(caught.exception))


class NamesTests(SynchronousTestCase):
    def test_names_that_operators_know(self) -> None:
        home = Home(Path("/h"))
        names = {
            home.config: "config.json",
            home.config_example: "config.example.json",
            home.key_seed: "key.seed",
            home.key_pub: "key.pub",
            home.certificate: "relay-cert.pem",
            home.tls_key: "relay-key.pem",
            home.pid: "wireleap-relay.pid",
            home.log: "wireleap-relay.log",
            home.stats: "stats.json",
            home.sharetokens: "sharetokens",
            home.inside("archive/usage"): "archive/usage",
            home.skip_upgrade_version: ".skip-upgrade-version",
            home.quarantine: "quarantine",
            home.program: "wireleap-relay",
            home.next(home.program): "wireleap-relay.next",
            home.previous(home.program): "wireleap-relay.prev",
            home.next(home.config): "config.json.next",
            home.previous(home.config): "config.json.prev",
        }
        for path, name in names.items():
            self.assertEqual(path, Path("/h") / name)
        self.assertEqual(home.inside("/var/archive"), Path("/var/archive"))


class IdentityTests(HomeTestCase):
    def test_files_and_their_modes(self) -> None:
        identity = self.home.create_identity(NOW)
        modes = {file.name: file.stat().st_mode & 0o777 for file in self.home.path.iterdir()}
        self.assertEqual(modes, {"key.seed": 0o600, "key.pub": 0o644, "relay-cert.pem": 0o644, "relay-key.pem": 0o600})
        self.assertEqual(self.home.key_seed.read_text(), f'"{identity.key.seed_text}"')
        self.assertEqual(self.home.key_pub.read_text(), f'"{identity.key.public_key}"')
        self.assertTrue(self.home.tls_key.read_text().startswith("-----BEGIN PRIVATE KEY-----"))
        self.assertTrue(self.home.certificate.read_text().startswith("-----BEGIN CERTIFICATE-----"))

    def test_what_was_made_is_read_back(self) -> None:
        made, read = self.home.create_identity(NOW), self.home.load_identity()
        self.assertEqual(read.key, made.key)
        self.assertEqual(read.certificate, made.certificate)
        self.assertNotIn(made.key.seed_text, repr(read))

    def test_certificate(self) -> None:
        identity = self.home.create_identity(NOW)
        certificate = identity.certificate
        self.assertEqual(certificate.subject.rfc4514_string(), "O=Wireleap")
        self.assertEqual(certificate.issuer, certificate.subject)
        self.assertEqual(certificate.public_key(), identity.key.private.public_key())
        self.assertEqual(certificate.not_valid_before_utc, NOW)
        self.assertEqual(certificate.not_valid_after_utc - NOW, datetime.timedelta(days=36500))
        self.assertGreater(certificate.serial_number.bit_length(), 96)
        self.assertLessEqual(certificate.serial_number.bit_length(), 128)
        found = {extension.oid._name: extension for extension in certificate.extensions}
        self.assertEqual(found["subjectAltName"].value.get_values_for_type(x509.DNSName), ["wireleap.com"])  # type: ignore[attr-defined]
        self.assertEqual(
            {name: extension.critical for name, extension in found.items()},
            {"keyUsage": True, "basicConstraints": True, "extendedKeyUsage": False, "subjectAltName": False},
        )
        self.assertFalse(found["basicConstraints"].value.ca)  # type: ignore[attr-defined]
        usage = found["keyUsage"].value
        self.assertTrue(usage.digital_signature and usage.key_encipherment)  # type: ignore[attr-defined]
        self.assertFalse(usage.key_cert_sign or usage.key_agreement or usage.crl_sign)  # type: ignore[attr-defined]
        self.assertFalse(usage.content_commitment or usage.data_encipherment)  # type: ignore[attr-defined]
        self.assertEqual([oid._name for oid in found["extendedKeyUsage"].value], ["serverAuth"])  # type: ignore[attr-defined]
        certificate.verify_directly_issued_by(certificate)

    def test_openssl_reads_it(self) -> None:
        openssl = shutil.which("openssl")
        if openssl is None:
            raise SkipTest("openssl is not installed")
        self.home.create_identity(NOW)
        said = subprocess.run(
            [openssl, "x509", "-in", str(self.home.certificate), "-noout", "-text"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        said = said.replace(" = ", "=")  # OpenSSL's versions differ
        for text in (
            "Public Key Algorithm: ED25519",
            "Signature Algorithm: ED25519",
            "Issuer: O=Wireleap\n",
            "Subject: O=Wireleap\n",
            "Not Before: Jan  2 03:04:05 2026 GMT",
            "Not After : Dec  9 03:04:05 2125 GMT",
            "X509v3 Key Usage: critical\n                Digital Signature, Key Encipherment\n",
            "X509v3 Extended Key Usage: \n                TLS Web Server Authentication\n",
            "X509v3 Basic Constraints: critical\n                CA:FALSE\n",
            "X509v3 Subject Alternative Name: \n                DNS:wireleap.com\n",
        ):
            self.assertIn(text, said)
        checked = subprocess.run(
            [openssl, "pkey", "-in", str(self.home.tls_key), "-pubout"], capture_output=True, text=True, check=True
        )
        shown = subprocess.run(
            [openssl, "x509", "-in", str(self.home.certificate), "-noout", "-pubkey"],
            capture_output=True,
            text=True,
            check=True,
        )
        self.assertEqual(checked.stdout, shown.stdout)

    def test_serial_numbers_are_random(self) -> None:
        key = SigningKey.generate()
        serials = {home_module._make_identity(key, NOW).certificate.serial_number for _ in range(50)}
        self.assertEqual(len(serials), 50)
        self.assertTrue(all(0 < serial < 2**128 for serial in serials))
        self.assertGreater(max(serials), 2**126)

    def test_an_existing_key_is_never_overwritten(self) -> None:
        self.home.create_identity(NOW)
        for present in (self.home.key_seed, self.home.key_pub, self.home.certificate, self.home.tls_key):
            before = {file: file.read_bytes() for file in self.home.path.iterdir()}
            with self.assertRaises(HomeError) as caught:
                self.home.create_identity(NOW)
            self.assertIn(present.name, str(caught.exception))
            self.assertEqual(before, {file: file.read_bytes() for file in self.home.path.iterdir()})
            present.unlink()

    def test_a_key_that_comes_at_the_same_instant_is_not_overwritten(self) -> None:
        """Two inits at once: neither sees the other's key, and yet one of them stays."""
        self.home.create_identity(NOW)
        before = self.contents()
        self.patch(Path, "exists", lambda *_: False)
        with self.assertRaises(HomeError) as caught:
            self.home.create_identity(NOW)
        self.assertEqual(str(caught.exception), f"{self.home.key_seed} can't be written: File exists")
        self.assertEqual(self.contents(), before)

    def test_what_is_missing_beside_a_key_is_made_of_it(self) -> None:
        made = self.home.create_identity(NOW)
        derived = [self.home.key_pub, self.home.certificate, self.home.tls_key]
        for choice in range(1, 8):
            missing = [file for bit, file in enumerate(derived) if choice & 1 << bit]
            for file in missing:
                file.unlink()
            kept = self.contents()
            self.assertEqual(self.home.complete_identity(NOW), missing)
            self.assertEqual({**self.contents(), **kept}, self.contents())
            read = self.home.load_identity()
            self.assertEqual(read.key, made.key)
            self.assertEqual(read.certificate.public_key(), made.key.private.public_key())
            self.assertEqual(self.home.key_pub.read_text(), f'"{made.key.public_key}"')
            self.assertEqual(self.home.tls_key.stat().st_mode & 0o777, 0o600)

    def test_nothing_is_made_beside_what_is_of_another_key(self) -> None:
        self.home.create_identity(NOW)
        other = Home(Path(self.mktemp()).absolute())
        other.create_identity(NOW)
        for name, gone in (("relay-cert.pem", "relay-key.pem"), ("relay-key.pem", "relay-cert.pem")):
            own = (self.home.path / name).read_bytes()
            (self.home.path / name).write_bytes((other.path / name).read_bytes())
            (self.home.path / gone).unlink()
            before = self.contents()
            with self.assertRaises(HomeError) as caught:
                self.home.complete_identity(NOW)
            self.assertIn(f"{name} is not of the key in key.seed", str(caught.exception))
            self.assertEqual(self.contents(), before)
            (self.home.path / name).write_bytes(own)
            self.home.complete_identity(NOW)

    def test_a_whole_identity_has_nothing_to_complete(self) -> None:
        self.home.create_identity(NOW)
        before = self.contents()
        with self.assertRaises(HomeError) as caught:
            self.home.complete_identity(NOW)
        self.assertIn("has key.seed and all that goes with it: nothing was changed", str(caught.exception))
        self.assertEqual(self.contents(), before)

    def test_an_init_that_broke_off_can_be_completed(self) -> None:
        for writes in (1, 2, 3):
            self.home = Home(Path(self.mktemp()).absolute())
            left = [None] * writes

            def write(*args: Any, left: list[None] = left, **options: Any) -> None:
                if not left:
                    raise OSError(28, "No space left on device")
                left.pop()
                write_durably(*args, **options)

            patch = self.patch(home_module, "write_durably", write)
            with self.assertRaises(HomeError) as caught:
                self.home.create_identity(NOW)
            self.assertEqual(str(caught.exception), f"{self.home.path} can't be written: No space left on device")
            patch.restore()
            self.assertEqual(len(self.contents()), writes)
            self.assertEqual(len(self.home.complete_identity(NOW)), 4 - writes)
            self.home.load_identity()

    def test_an_old_seed_is_rewritten_quoted(self) -> None:
        made = self.home.create_identity(NOW)
        for old in (made.key.seed_text, made.key.seed_text + "\n", made.key.seed_text + "\r\n"):
            self.home.key_seed.write_text(old)
            self.assertEqual(self.home.load_key(), made.key)
            self.assertEqual(self.home.key_seed.read_text(), f'"{made.key.seed_text}"')
            self.assertEqual(self.home.key_seed.stat().st_mode & 0o777, 0o600)

    def test_a_quoted_seed_is_left_alone(self) -> None:
        made = self.home.create_identity(NOW)
        self.home.key_seed.write_text(f'"{made.key.seed_text}"\n')
        before = self.home.key_seed.stat()
        self.assertEqual(self.home.load_key(), made.key)
        after = self.home.key_seed.stat()
        self.assertEqual((after.st_ino, after.st_mtime_ns), (before.st_ino, before.st_mtime_ns))

    def test_an_old_seed_that_can_not_be_rewritten(self) -> None:
        made = self.home.create_identity(NOW)
        self.home.key_seed.write_text(made.key.seed_text)
        self.patch(home_module.os, "fsync", _no_space)
        self.refused("key.seed: can't be rewritten: No space left on device")
        self.assertEqual(self.home.key_seed.read_text(), made.key.seed_text)

    def test_missing_files(self) -> None:
        self.home.create_identity(NOW)
        for file in (self.home.tls_key, self.home.certificate, self.home.key_seed):
            file.unlink()
            self.refused(f"{file} is missing")

    def test_broken_files(self) -> None:
        self.home.create_identity(NOW)
        good = self.home.tls_key.read_bytes()
        self.home.tls_key.write_text("junk")
        self.refused("relay-key.pem: expected an unencrypted private key")
        other = Home(Path(self.mktemp()).absolute())
        other.create_identity(NOW)
        self.home.tls_key.write_bytes(other.tls_key.read_bytes())
        self.refused("it is not the key of relay-cert.pem")
        self.home.tls_key.write_bytes(good)
        self.home.certificate.write_bytes(b"\xff\xfe")
        self.refused("relay-cert.pem: expected text")
        self.home.certificate.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
        self.refused("relay-cert.pem: expected a certificate")
        for seed in ("{}", '"short"', '"', "not base64url at all", "", '"\\u0000"', "null", f'"{43 * "A"}" x'):
            self.home.key_seed.write_text(seed)
            self.refused("key.seed: ")
            self.assertEqual(self.home.key_seed.read_text(), seed)
        self.home.key_seed.unlink()
        self.home.key_seed.mkdir()
        self.refused("key.seed: Is a directory")

    def test_a_locked_key(self) -> None:
        made = self.home.create_identity(NOW)
        pem = made.tls_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
        self.home.tls_key.write_bytes(pem)
        self.refused("relay-key.pem: expected an unencrypted private key")

    def test_a_key_of_another_kind(self) -> None:
        self.home.create_identity(NOW)
        pem = generate_private_key(SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        self.home.tls_key.write_bytes(pem)
        self.refused("expected an Ed25519 key")

    def test_a_home_that_can_not_be_made(self) -> None:
        file = Path(self.mktemp())
        file.write_text("in the way")
        with self.assertRaises(HomeError):
            Home(file / "home").create_identity(NOW)


class WritingTests(HomeTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.home.path.mkdir(parents=True)
        self.file = self.home.path / "stats.json"

    def test_replaces_the_whole_file(self) -> None:
        write_durably(self.file, b"a long first version")
        write_durably(self.file, b"short", 0o600)
        self.assertEqual(self.file.read_bytes(), b"short")
        self.assertEqual(self.file.stat().st_mode & 0o777, 0o600)
        self.assertEqual(os.listdir(self.home.path), ["stats.json"])

    def test_json(self) -> None:
        write_json_durably(self.file, {"a": [1]})
        self.assertEqual(json.loads(self.file.read_text()), {"a": [1]})
        self.assertIn('    "a"', self.file.read_text())

    def test_is_on_disk_before_it_takes_the_name(self) -> None:
        order: list[str] = []
        for name in ("fsync", "replace"):
            original = getattr(os, name)
            self.patch(os, name, lambda *a, o=original, n=name, **k: (order.append(n), o(*a, **k))[1])
        self.patch(Path, "replace", lambda source, to: os.replace(source, to))
        write_durably(self.file, b"x")
        self.assertEqual(order, ["fsync", "replace", "fsync"])

    def test_a_failure_leaves_the_old_file_and_nothing_else(self) -> None:
        write_durably(self.file, b"old")
        for name in ("fsync", "fchmod", "link"):
            patch = self.patch(home_module.os, name, _no_space)
            with self.assertRaises(OSError):
                write_durably(self.file, b"new", replace=name != "link")
            patch.restore()
            self.assertEqual(self.contents(), {"stats.json": b"old"})

    def test_a_disk_that_takes_half_of_it(self) -> None:
        """A real failure of a real write: the kernel stops the file at 100 bytes."""
        write_durably(self.file, b"old")
        script = (
            "import resource, sys; from pathlib import Path; from wireleap_relay.home import write_durably\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"
            "try: write_durably(Path(sys.argv[1]), b'x' * 1000)\n"
            "except OSError as e: print(e.errno)"
        )
        ended = subprocess.run(
            [sys.executable, "-c", script, str(self.file)],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        self.assertEqual((ended.stdout, ended.stderr), (f"{errno.EFBIG}\n", ""))
        self.assertEqual(self.contents(), {"stats.json": b"old"})

    def test_a_name_that_can_not_be_taken(self) -> None:
        self.file.mkdir()
        for replace in (True, False):
            with self.assertRaises(OSError):
                write_durably(self.file, b"new", replace=replace)
            self.assertEqual(os.listdir(self.home.path), ["stats.json"])
        with self.assertRaises(FileNotFoundError):
            write_durably(self.home.path / "no folder" / "file", b"new")

    def test_an_old_file_in_the_way(self) -> None:
        write_durably(self.file, b"first", replace=False)
        with self.assertRaises(FileExistsError):
            write_durably(self.file, b"second", replace=False)
        self.assertEqual(self.contents(), {"stats.json": b"first"})
        self.assertEqual(self.file.stat().st_nlink, 1)

    def test_a_secret_is_one_from_its_first_moment(self) -> None:
        seen: list[tuple[int, int]] = []
        opened = os.open

        def watch(path: Any, flags: int, mode: int = 0o777, **options: Any) -> int:
            descriptor = opened(path, flags, mode, **options)
            if flags & os.O_CREAT:
                status = os.fstat(descriptor)
                seen.append((stat.S_IMODE(status.st_mode), status.st_size))
            return descriptor

        self.patch(home_module.os, "open", watch)
        self.addCleanup(os.umask, os.umask(0))
        write_durably(self.file, b"secret", 0o600)
        self.assertEqual(seen, [(0o600, 0)])

    def test_the_mode_is_what_was_asked_for(self) -> None:
        self.addCleanup(os.umask, os.umask(0o077))
        write_durably(self.file, b"public")
        self.assertEqual(stat.S_IMODE(self.file.stat().st_mode), 0o644)

    def test_a_folder_that_is_not_ours(self) -> None:
        folder = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, folder)
        folder.chmod(0o555)
        if os.geteuid() == 0:
            # Root may write anywhere.
            os.seteuid(65534)
            self.addCleanup(os.seteuid, 0)
        with self.assertRaises(HomeError) as caught:
            Home(folder).create_identity(NOW)
        self.assertEqual(str(caught.exception), f"{folder} can't be written: Permission denied")
        self.assertEqual(os.listdir(folder), [])


class FindHomeTests(SynchronousTestCase):
    def test_order(self) -> None:
        program = Path("/usr/bin/wireleap-relay")
        environment = {HOME_VARIABLE: "/from/environment"}
        self.assertEqual(find_home("/from/option", environment, program).path, Path("/from/option"))
        self.assertEqual(find_home("relative", {}, program).path, Path.cwd() / "relative")
        self.assertEqual(find_home(None, environment, program).path, Path("/from/environment"))
        self.assertEqual(find_home(None, {HOME_VARIABLE: ""}, program).path, Path.cwd())
        self.assertEqual(find_home(None, {}, program).path, Path.cwd())

    def test_a_release_file_lives_in_its_home(self) -> None:
        release = Path(self.mktemp()).absolute() / "wireleap-relay"
        release.parent.mkdir()
        release.write_bytes(b"PK")
        self.assertEqual(find_home(None, {}, release).path, Path.cwd())
        self.patch(home_module.sys, "path", [str(release), *home_module.sys.path])
        self.assertEqual(find_home(None, {}, release).path, release.resolve().parent)

    def test_a_real_release_file(self) -> None:
        source, home = Path(self.mktemp()).absolute(), Path(self.mktemp()).absolute()
        source.mkdir()
        home.mkdir()
        (source / "__main__.py").write_text(
            "import sys; from pathlib import Path; from wireleap_relay.home import find_home\n"
            "print(find_home(None, {}, Path(sys.argv[0])).path)"
        )
        release = home / "wireleap-relay"
        zipapp.create_archive(source, release, interpreter=sys.executable)
        link = source / "link"
        link.symlink_to(release)
        for program in (
            [sys.executable, str(release)],
            [str(release)],
            [str(link)],
            [os.path.relpath(release, source)],
        ):
            ended = subprocess.run(
                program, capture_output=True, text=True, cwd=source, env={**os.environ, "PYTHONPATH": str(ROOT)}
            )
            self.assertEqual((ended.stdout, ended.stderr), (f"{home.resolve()}\n", ""))

    def test_nowhere(self) -> None:
        with self.assertRaises(HomeError) as caught:
            find_home("", {}, Path("x"))
        self.assertEqual(str(caught.exception), "--home has to name a folder")
        gone = Path(self.mktemp()).absolute()
        gone.mkdir()
        self.addCleanup(os.chdir, Path.cwd())
        os.chdir(gone)
        gone.rmdir()
        for option in (None, "relative"):
            with self.assertRaises(HomeError) as caught:
                find_home(option, {}, Path("/usr/bin/wireleap-relay"))
            self.assertIn("the current folder is gone", str(caught.exception))
        self.assertEqual(find_home("/h", {}, Path("x")).path, Path("/h"))
