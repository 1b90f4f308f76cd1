"""What is taken for a release, and what isn't."""

from __future__ import annotations

import datetime
import hashlib
import shutil
import subprocess
import tempfile
from pathlib import Path

from pysequoia import SignatureMode, sign
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.upgrade.keys import NOW, Signer
from wireleap_relay.upgrade.release import (
    Listing,
    NotGenuine,
    ReleaseSite,
    check_file,
    file_name,
    read_keys,
    read_listing,
    read_successor,
    sum_of_file,
    this_build,
    write_listing,
)
from wireleap_relay.wire.versions import Version

VERSION = Version(0, 7, 1)
SUM = hashlib.sha512(b"the file").digest()


class Listings(SynchronousTestCase):
    signer = Signer()

    def read(self, signed: bytes, *keys: object) -> Listing:
        return read_listing(signed, keys or [self.signer.cert], NOW)  # type: ignore[arg-type]

    def refused(self, why: str, signed: bytes, *keys: object) -> None:
        error = self.assertRaises(NotGenuine, self.read, signed, *keys)
        self.assertIn(why, str(error))
        self.assertNotIn("\n", str(error))

    def test_a_signed_list_is_read(self) -> None:
        listing = self.read(self.signer.listing("0.7.1", name=SUM, other=bytes(64)))
        self.assertEqual(listing, Listing(VERSION, {"name": SUM, "other": bytes(64)}))
        self.assertEqual(listing.sum_of("name", VERSION), SUM)

    def test_a_file_that_is_not_listed_and_a_list_of_another_version_are_refused(self) -> None:
        listing = self.read(self.signer.listing("0.7.1", name=SUM))
        self.assertRaises(NotGenuine, listing.sum_of, "other", VERSION)
        error = self.assertRaises(NotGenuine, listing.sum_of, "name", Version(0, 7, 2))
        self.assertEqual(str(error), "the signed list is of version 0.7.1, not of 0.7.2")

    def test_text_around_the_signed_block_counts_for_nothing(self) -> None:
        signed = self.signer.listing("0.7.1", name=SUM)
        evil = write_listing(Version(9, 9, 9), {"name": bytes(64)})
        for around in (evil + b"\n" + signed, signed + evil, evil + signed + evil):
            self.assertEqual(self.read(around), Listing(VERSION, {"name": SUM}))

    def test_of_two_signed_blocks_only_one_of_a_known_key_counts(self) -> None:
        ours, theirs = self.signer.listing("0.7.1", name=SUM), Signer().listing("9.9.9", name=bytes(64))
        self.assertEqual(self.read(ours + theirs).version, VERSION)
        self.refused("no signature of a known key", theirs + ours)

    def test_changed_text_is_refused(self) -> None:
        signed = self.signer.listing("0.7.1", name=SUM)
        for old, new in ((b"0.7.1", b"0.7.2"), (b"name", b"mane"), (SUM.hex().encode(), b"e" * 128), (b"  name", b"")):
            self.assertIn(old, signed)
            self.refused("no signature of a known key", signed.replace(old, new))

    def test_what_is_cut_off_or_no_list_at_all_is_refused(self) -> None:
        signed = self.signer.listing("0.7.1", name=SUM)
        for size in range(0, len(signed) - 40, 37):
            self.refused("", signed[:size])
        for text in (b"", b"\x00" * 100, b"<html>404</html>", SUM.hex().encode() + b"  name\n"):
            self.refused("no signature of a known key", text)

    def test_another_key_is_refused(self) -> None:
        self.refused("no signature of a known key", Signer().listing("0.7.1", name=SUM))

    def test_any_of_several_keys_will_do(self) -> None:
        second = Signer()
        self.assertEqual(self.read(second.listing("0.7.1", name=SUM), self.signer.cert, second.cert).version, VERSION)

    def test_a_revoked_key_is_refused(self) -> None:
        signer = Signer()
        self.refused("no signature of a known key", signer.listing("0.7.1", name=SUM), signer.revoked())

    def test_a_key_that_has_expired_since_is_refused(self) -> None:
        signer = Signer(seconds=3600)
        signed = signer.listing("0.7.1", name=SUM)
        self.assertEqual(self.read(signed, signer.cert).version, VERSION)
        later = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=3601)
        error = self.assertRaises(NotGenuine, read_listing, signed, [signer.cert], later)
        self.assertEqual(str(error), "it was signed with a key that has expired")

    def test_what_is_signed_has_to_be_a_list(self) -> None:
        good = f"{SUM.hex()}  name\n"
        for text in (
            good,
            "# wireleap-relay x\n" + good,
            "# other-program 0.7.1\n" + good,
            "# wireleap-relay 0.7.1\n" + good + good,
            "# wireleap-relay 0.7.1\n" + good.replace("name", "../name"),
            "# wireleap-relay 0.7.1\n" + good[1:],
            "# wireleap-relay 0.7.1\n# a remark\n" + good,
            "# wireleap-relay 0.7.1\nä\n",
        ):
            self.refused("the signed list", self.signer.sign(text.encode()))

    def test_a_signed_message_that_is_not_clear_text_is_read_as_well(self) -> None:
        text = write_listing(VERSION, {"name": SUM})
        signed = sign(self.signer.secret.signer(), text, mode=SignatureMode.INLINE)
        self.assertEqual(self.read(signed).version, VERSION)

    def test_gpg_and_sha512sum_agree(self) -> None:
        if shutil.which("gpg") is None:
            raise SkipTest("gpg is not installed")
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        (folder / "name").write_bytes(b"the file")
        (folder / "name.hash").write_bytes(self.signer.listing("0.7.1", name=SUM))
        (folder / "key").write_bytes(bytes(self.signer.cert))
        with tempfile.TemporaryDirectory() as gnupg:
            gpg = ["gpg", "--batch", "--quiet", "--homedir", gnupg]
            subprocess.run([*gpg, "--import", "key"], cwd=folder, check=True, capture_output=True)
            shown = subprocess.run([*gpg, "--decrypt", "name.hash"], cwd=folder, check=True, capture_output=True)
        subprocess.run(["sha512sum", "--check", "-"], cwd=folder, check=True, input=shown.stdout, capture_output=True)


class Subkeys(SynchronousTestCase):
    """Keys as gpg makes them, with a signing subkey that ends before the key does."""

    def setUp(self) -> None:
        if shutil.which("gpg") is None:
            raise SkipTest("gpg is not installed")
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.gpg = [
            "gpg",
            "--batch",
            "--quiet",
            "--homedir",
            folder.name,
            "--passphrase",
            "",
            "--pinentry-mode=loopback",
        ]
        self.addCleanup(subprocess.run, ["gpgconf", "--homedir", folder.name, "--kill", "gpg-agent"])
        self.run_gpg("--quick-generate-key", "A publisher", "ed25519", "cert", "0")
        shown = self.run_gpg("--with-colons", "--list-keys").decode()
        self.key = next(line.split(":")[9] for line in shown.splitlines() if line.startswith("fpr"))
        self.run_gpg("--quick-add-key", self.key, "ed25519", "sign", "2d")

    def run_gpg(self, *arguments: str, text: bytes | None = None) -> bytes:
        return subprocess.run([*self.gpg, *arguments], check=True, capture_output=True, input=text).stdout

    def exported(self) -> object:
        [key] = read_keys(self.run_gpg("--armor", "--export", self.key))
        return key

    def test_an_expired_signing_subkey_is_refused(self) -> None:
        signed = self.run_gpg("--clearsign", text=write_listing(VERSION, {"name": SUM}))
        key = self.exported()
        self.assertEqual(read_listing(signed, [key], NOW).version, VERSION)  # type: ignore[list-item]
        later = NOW + datetime.timedelta(days=3)
        error = self.assertRaises(NotGenuine, read_listing, signed, [key], later)
        self.assertEqual(str(error), "it was signed with a key that has expired")


class Keys(SynchronousTestCase):
    def test_a_successor_is_signed_by_the_key_before(self) -> None:
        old, new = Signer(), Signer()
        [key] = read_successor(old.sign(bytes(str(new.cert), "ascii")), old.cert, NOW)
        self.assertEqual(key.fingerprint, new.cert.fingerprint)

    def test_a_successor_that_signs_itself_or_is_no_key_is_refused(self) -> None:
        old, new = Signer(), Signer()
        self.assertRaises(NotGenuine, read_successor, new.sign(bytes(str(new.cert), "ascii")), old.cert, NOW)
        self.assertRaises(NotGenuine, read_successor, old.sign(b"no key\n"), old.cert, NOW)

    def test_keys_are_read_armored_and_plain_and_several(self) -> None:
        keys = [Signer().cert, Signer().cert]
        wanted = [key.fingerprint for key in keys]
        armored = "".join(map(str, keys)).encode()
        self.assertEqual([key.fingerprint for key in read_keys(b"".join(map(bytes, keys)))], wanted)
        self.assertEqual([key.fingerprint for key in read_keys(armored)], wanted)
        for text in (b"", b"nothing"):
            self.assertRaises(NotGenuine, read_keys, text)


class Files(SynchronousTestCase):
    def test_a_file_is_compared_with_its_sum(self) -> None:
        path = Path(self.mktemp())
        content = b"x" * 3_000_000
        path.write_bytes(content)
        self.assertEqual(sum_of_file(path), hashlib.sha512(content).digest())
        check_file(path, hashlib.sha512(content).digest())
        for other in (content[:-1], content + b"x", b"y" + content[1:], b""):
            path.write_bytes(other)
            self.assertRaises(NotGenuine, check_file, path, hashlib.sha512(content).digest())

    def test_the_name_tells_the_processor(self) -> None:
        self.assertRegex(file_name(), r"^wireleap-relay_linux-[a-z0-9_]+$")

    def test_addresses_are_made_of_templates(self) -> None:
        site = ReleaseSite("https://x/{version}/{name}", "https://x/{version}.md", "https://x/{fingerprint}.asc")
        self.assertEqual(site.file_url(VERSION, "f"), "https://x/0.7.1/f")
        self.assertEqual(site.changelog_url(VERSION), "https://x/0.7.1.md")
        self.assertEqual(site.successor_url("ab"), "https://x/ab.asc")

    def test_this_copy_is_no_release(self) -> None:
        self.assertIsNone(this_build())
