"""From a version's name to a verified file: servers that misbehave, files that are not genuine, keys that change."""

from __future__ import annotations

import datetime
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.ssl import Certificate, trustRootFromCertificates
from twisted.internet.task import deferLater
from twisted.internet.threads import blockingCallFromThread, deferToThread
from twisted.trial.unittest import TestCase
from twisted.web.client import BrowserLikePolicyForHTTPS

from tests.tunnel.world import reactor
from tests.upgrade.keys import Signer
from tests.upgrade.site import ReleaseServer
from wireleap_relay.home import Home
from wireleap_relay.upgrade import prepare
from wireleap_relay.upgrade.download import Downloader
from wireleap_relay.upgrade.prepare import Preparation
from wireleap_relay.upgrade.release import Build, file_name, read_keys
from wireleap_relay.wire.versions import Version

OURS, NEW = Version(0, 7, 0), "0.7.1"
PROGRAM = b"#!/bin/sh\nexit 0\n" + bytes(100_000)
NAME = file_name()


class Preparing(TestCase):
    timeout = 30

    def setUp(self) -> None:
        folder = Path(self.mktemp()).absolute()
        self.server = ReleaseServer(folder / "site")
        self.addCleanup(self.server.stop)
        self.home = Home(folder / "home")
        self.home.path.mkdir()
        self.home.program.write_text("old")
        self.server.publish(NEW, PROGRAM)
        self.build = Build(self.server.site, read_keys(str(self.server.signer.cert).encode()))
        roots = trustRootFromCertificates([Certificate.loadPEM(self.server.ca.read_bytes())])
        self.downloader = Downloader(reactor, BrowserLikePolicyForHTTPS(roots), idle_timeout=2.0)
        self.supervised = 0
        self.addCleanup(deferLater, reactor, 0.2)  # connections end a little later than what came over them

    def make(self) -> Preparation:
        def fetch(url: str, file: Path, limit: int) -> None:
            wait: Any = blockingCallFromThread
            wait(reactor, lambda: Deferred.fromCoroutine(self.downloader.fetch(url, file, limit)))

        def supervise() -> None:
            self.supervised += 1

        return Preparation(
            *(self.home, self.build, OURS, fetch),
            lambda: datetime.datetime.now(datetime.UTC),
            approve=lambda work: work.machine.approved(),
            supervise=supervise,
        )

    async def prepare(self, version: str = NEW) -> Preparation:
        work = self.make()
        await deferToThread(work.machine.noticed, Version.from_text(version))
        return work

    async def refused(self, why: str, version: str = NEW) -> None:
        work = await self.prepare(version)
        self.assertEqual(work.record.state, "noticed", work.record)
        self.assertIn(why, work.trouble)
        self.assertEqual(self.supervised, 0)
        self.assertEqual(self.home.program.read_text(), "old")
        self.assertFalse(self.home.next(self.home.program).exists())
        self.assertFalse(self.home.quarantine.exists())
        self.assertFalse(self.home.skip_upgrade_version.exists(), "no version is to blame for its download")

    async def staged(self) -> None:
        work = await self.prepare()
        self.assertEqual((work.record.state, work.trouble), ("staged", ""))
        self.assertEqual(self.supervised, 1)
        self.assertEqual(self.home.next(self.home.program).read_bytes(), PROGRAM)
        self.assertTrue(os.access(self.home.next(self.home.program), os.X_OK))

    def misbehave(self, name: str, how: bytes | int | str) -> None:
        self.server.misbehaves[f"/{NEW}/{name}"] = how

    def change(self, name: str, change: Callable[[bytes], bytes]) -> None:
        file = self.server.folder / NEW / name
        file.write_bytes(change(file.read_bytes()))

    async def test_a_genuine_release_is_staged(self) -> None:
        await self.staged()
        self.assertEqual(self.server.asked, [f"/{NEW}/{NAME}.hash", f"/{NEW}/{NAME}"])

    async def test_a_slow_server_is_waited_for(self) -> None:
        self.misbehave(NAME, "is slow")
        await self.staged()

    async def test_servers_that_misbehave(self) -> None:
        for how, why in ((404, "HTTP status 404"), (500, "HTTP status 500"), ("hangs", "nothing has come for 2 s")):
            self.misbehave(f"{NAME}.hash", how)
            await self.refused(why)
        self.server.misbehaves.clear()
        self.misbehave(f"{NAME}.hash", "never ends")
        await self.refused("more than 1048576 bytes")
        self.server.misbehaves.clear()
        self.misbehave(NAME, "breaks off")
        await self.refused("lost before it was whole")

    async def test_a_file_of_ten_gigabytes(self) -> None:
        self.patch(prepare, "LARGEST_FILE", 5_000_000)
        self.misbehave(NAME, "never ends")
        await self.refused("more than 5000000 bytes")

    async def test_a_server_that_is_down(self) -> None:
        self.server.stop()
        await self.refused("Connection refused")

    async def test_a_server_that_nobody_vouches_for(self) -> None:
        self.downloader = Downloader(reactor)
        await self.refused("certificate verify failed")

    async def test_an_address_without_tls(self) -> None:
        self.build = Build(type(self.build.site)("http://localhost/{version}/{name}", "", ""), self.build.keys)
        await self.refused("is not an https address")

    async def test_files_that_are_not_genuine(self) -> None:
        genuine = (self.server.folder / NEW / f"{NAME}.hash").read_bytes()
        for change, why in (
            (lambda text: text.replace(b"  wireleap", b"  wirelaep"), "no signature of a known key"),
            (lambda text: b"no signature", "no signature of a known key"),
            (lambda text: b"", "no signature of a known key"),
            (lambda text: text[: len(text) // 2], "no signature of a known key"),
        ):
            self.change(f"{NAME}.hash", change)
            await self.refused(why)
            (self.server.folder / NEW / f"{NAME}.hash").write_bytes(genuine)
        for change in (lambda text: text[:-1], lambda text: text + b"!", lambda text: bytes(len(text)), lambda _: b""):
            self.change(NAME, change)
            await self.refused("does not have the sum that was signed")
        self.server.sign(NEW, Signer())
        await self.refused("no signature of a known key")

    async def test_text_before_the_signed_block_counts_for_nothing(self) -> None:
        sums = b"# wireleap-relay 0.7.1\n" + b"0" * 128 + b"  " + NAME.encode() + b"\n"
        self.change(f"{NAME}.hash", lambda text: sums + text)
        await self.staged()

    async def test_another_version_s_list(self) -> None:
        self.server.sign(NEW, said="0.7.2")
        await self.refused("the signed list is of version 0.7.2")

    async def test_versions_that_are_not_newer(self) -> None:
        for version, why in (("0.7.0", "what runs already"), ("0.6.1", "upgrades never go back")):
            await self.refused(why, version)
        self.assertEqual(self.server.asked, [])

    async def test_a_disk_that_is_full(self) -> None:
        real = Path.open

        def full(path: Path, *arguments: Any, **keywords: Any) -> Any:
            return real(Path("/dev/full") if path.parent == self.home.quarantine else path, *arguments, **keywords)

        self.patch(Path, "open", full)
        await self.refused("No space left on device")

    async def test_a_home_that_can_not_be_written(self) -> None:
        self.home.quarantine.write_text("in the way")
        work = await self.prepare()
        self.assertIn("quarantine", work.trouble)
        self.assertEqual(work.record.state, "noticed")

    async def test_the_key_that_follows_ours(self) -> None:
        """One that ours has signed will do, and so will the one that follows that; no other."""
        second, third, stranger = Signer(), Signer(), Signer()
        keys = self.server.folder / "keys"
        keys.mkdir()
        first = self.server.signer
        (keys / f"{first.cert.fingerprint}.asc").write_bytes(first.sign(str(second.cert).encode()))
        (keys / f"{second.cert.fingerprint}.asc").write_bytes(second.sign(str(third.cert).encode()))
        self.server.sign(NEW, stranger)
        await self.refused("no signature of a known key")
        (keys / f"{third.cert.fingerprint}.asc").write_bytes(stranger.sign(str(stranger.cert).encode()))
        await self.refused("no signature of a known key")
        self.server.sign(NEW, third)
        await self.staged()
