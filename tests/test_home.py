"""The relay's folder, on a real disk."""

from __future__ import annotations

import datetime
import json
import os
import shutil
import subprocess
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from wireleap_relay import home as home_module
from wireleap_relay.home import HOME_VARIABLE, Home, HomeError, find_home, write_durably, write_json_durably

NOW = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)


class HomeTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.home = Home(Path(self.mktemp()).absolute())

    def refused(self, text: str) -> None:
        with self.assertRaises(HomeError) as caught:
            self.home.load_identity()
        self.assertIn(text, str(caught.exception))


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
        self.assertTrue(found["basicConstraints"].critical)
        self.assertFalse(found["basicConstraints"].value.ca)  # type: ignore[attr-defined]
        usage = found["keyUsage"].value
        self.assertTrue(usage.digital_signature and usage.key_encipherment)  # type: ignore[attr-defined]
        self.assertFalse(usage.key_cert_sign or usage.key_agreement)  # type: ignore[attr-defined]
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
        for text in ("ED25519", "O = Wireleap", "DNS:wireleap.com", "TLS Web Server Authentication", "CA:FALSE"):
            self.assertIn(text, said)

    def test_an_existing_key_is_never_overwritten(self) -> None:
        self.home.create_identity(NOW)
        for present in (self.home.key_seed, self.home.key_pub, self.home.certificate, self.home.tls_key):
            before = {file: file.read_bytes() for file in self.home.path.iterdir()}
            with self.assertRaises(HomeError) as caught:
                self.home.create_identity(NOW)
            self.assertIn(present.name, str(caught.exception))
            self.assertEqual(before, {file: file.read_bytes() for file in self.home.path.iterdir()})
            present.unlink()

    def test_an_old_seed_is_rewritten_quoted(self) -> None:
        made = self.home.create_identity(NOW)
        for old in (made.key.seed_text, made.key.seed_text + "\n"):
            self.home.key_seed.write_text(old)
            self.assertEqual(self.home.load_key(), made.key)
            self.assertEqual(self.home.key_seed.read_text(), f'"{made.key.seed_text}"')
            self.assertEqual(self.home.key_seed.stat().st_mode & 0o777, 0o600)

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
        for seed in ("{}", '"short"', '"', "not base64url at all"):
            self.home.key_seed.write_text(seed)
            self.refused("key.seed: ")

    def test_a_key_of_another_kind(self) -> None:
        from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
        from cryptography.hazmat.primitives.serialization import NoEncryption, PrivateFormat

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
        for name in ("fsync", "fchmod"):

            def fail(*_: object) -> None:
                raise OSError(28, "No space left on device")

            self.patch(home_module.os, name, fail)
            with self.assertRaises(OSError):
                write_durably(self.file, b"new")
            self.assertEqual(self.file.read_bytes(), b"old")
            self.assertEqual(os.listdir(self.home.path), ["stats.json"])


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
