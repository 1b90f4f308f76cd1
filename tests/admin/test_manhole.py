"""The manhole: reached with a real ssh, and what there is inside."""

from __future__ import annotations

import io
import shutil
import stat
import subprocess
import sys
import tempfile
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests import test_relay
from tests.admin.views import make_view
from wireleap_relay.admin.namespace import make_namespace
from wireleap_relay.config import ConfigError, parse_config
from wireleap_relay.configvalues import manhole_address
from wireleap_relay.relay import Relay
from wireleap_relay.sandbox.relays import free_port
from wireleap_relay.wire.errors import WireError

SSH, KEYGEN = shutil.which("ssh"), shutil.which("ssh-keygen")

#: Carries an SSH connection to a unix socket.
PROXY = (
    "import socket,sys,threading,os\n"
    "s=socket.socket(socket.AF_UNIX);s.connect(sys.argv[1])\n"
    "def out():\n"
    "  while (d:=s.recv(65536)): os.write(1,d)\n"
    "  os._exit(0)\n"
    "threading.Thread(target=out).start()\n"
    "while (d:=os.read(0,65536)): s.sendall(d)\n"
)


class Config(SynchronousTestCase):
    def test_addresses(self) -> None:
        self.assertEqual(str(manhole_address("127.0.0.1:2222").tcp), "127.0.0.1:2222")
        self.assertEqual(str(manhole_address("[::1]:2222").tcp), "[::1]:2222")
        self.assertEqual(manhole_address("unix:/run/x.sock").path, "/run/x.sock")

    def test_nobody_from_outside(self) -> None:
        for text in ("0.0.0.0:2222", ":2222", "192.0.2.1:2222", "[::]:2222", "host.example:22", "unix:", "unix:x", 5):
            with self.assertRaises(WireError):
                manhole_address(text)

    def test_keys_have_to_be_named(self) -> None:
        config = '{"address": ":1", "contracts": {"http://a.example": {"address": "wireleap://b:1", "role": "backing"}}, "manhole": {"address": "127.0.0.1:2"}}'
        with self.assertRaises(ConfigError) as caught:
            parse_config(config)
        self.assertEqual([mistake.path for mistake in caught.exception.mistakes], ["manhole.authorized_keys"])


class Controlled:
    def __init__(self) -> None:
        self.reloads = 0

    def reload(self) -> bool:
        self.reloads += 1
        return True

    def report(self) -> object:
        return None


class Namespace(SynchronousTestCase):
    def setUp(self) -> None:
        self.relay = Controlled()
        self.names: dict[str, Any] = make_namespace(self.relay, make_view)

    def test_they_show_how_things_stand(self) -> None:
        self.assertEqual(set(self.names), {"relay", "contracts", "tokens", "usage", "tunnels", "help"})
        self.assertEqual(
            repr(self.names["contracts"]),
            "https://contract.example  backing  enrolled  8.00 GB of 40.0 GB (20.0 %)  owes 12 USD",
        )
        self.assertIn("held 40, being handed in 5, taken 900", repr(self.names["tokens"]))
        self.assertIn("8.00 GB, 15.2 GB at the end in 1d", repr(self.names["usage"]))
        self.assertIn('refused  {"token": 3, "policy": 1}', repr(self.names["tunnels"]()))
        self.assertEqual(self.names["tunnels"]()["open"], 17)
        self.assertIn("healthy", repr(self.names["relay"]))

    def test_they_give_values(self) -> None:
        [contract] = self.names["contracts"]()
        self.assertTrue(contract.enrolled)
        self.assertTrue(self.names["relay"].health()["healthy"])
        self.assertTrue(self.names["relay"].reload())
        self.assertEqual(self.relay.reloads, 1)

    def test_help(self) -> None:
        for about, words in (
            ((), "tunnels()"),
            ((self.names["relay"],), "reload()"),
            ((self.names["tokens"],), "ledger"),
        ):
            out = io.StringIO()
            with redirect_stdout(out):
                self.names["help"](*about)
            self.assertIn(words, out.getvalue())

    def test_where_nothing_is_measured(self) -> None:
        names = make_namespace(self.relay, lambda: make_view(measured=False, workers=0))
        self.assertIn("nothing is measured", repr(names["usage"]))


class Entering(test_relay.RelayTestCase):
    """With OpenSSH's own client."""

    def setUp(self) -> None:
        if SSH is None or KEYGEN is None:
            raise SkipTest("there is no ssh: apt-get install openssh-client")
        super().setUp()
        folder = tempfile.TemporaryDirectory()  # trial's own folders have names too long for sockets
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        for name in ("listed", "other"):
            subprocess.run([KEYGEN, "-q", "-t", "ed25519", "-N", "", "-f", str(self.folder / name)], check=True)
        (self.home.path / "keys").write_text("# mine\n\n" + (self.folder / "listed.pub").read_text())
        self.door = free_port()

    async def running(self, address: str | None = None) -> Relay:
        relay = self.make(manhole={"address": address or f"127.0.0.1:{self.door}", "authorized_keys": "keys"})
        self.start(relay)
        await self.enrolled(relay)
        return relay

    async def ssh(self, lines: str, *options: str, key: str = "listed") -> subprocess.CompletedProcess[str]:
        command = [
            SSH or "",
            "-tt",
            "-F", "none",
            "-p", str(self.door),
            "-i", str(self.folder / key),
            "-o", "IdentitiesOnly=yes",
            "-o", "BatchMode=yes",
            "-o", f"UserKnownHostsFile={self.folder / 'hosts'}",
            "-o", "StrictHostKeyChecking=accept-new",
            *options,
            "operator@127.0.0.1",
        ]  # fmt: skip

        def work() -> subprocess.CompletedProcess[str]:
            return subprocess.run(command, input=lines, capture_output=True, text=True, timeout=30)

        done: subprocess.CompletedProcess[str] = await deferToThread(work)
        return done

    async def test_whoever_is_listed_gets_in(self) -> None:
        relay = await self.running()
        done = await self.ssh("contracts\ntunnels()\n6*7\nrelay\n\x04")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn(f"{self.network.contract.endpoint}  backing  enrolled", done.stdout)
        self.assertIn("opened  0", done.stdout)
        self.assertIn("42", done.stdout)
        self.assertIn(f"relay {self.identity.key.public_key}", done.stdout)
        [entered, *_] = relay._admin.view().events
        self.assertTrue(entered.text.startswith("Somebody has entered the manhole with the key SHA256:"), entered.text)
        key = self.home.manhole_key
        self.assertEqual(stat.S_IMODE(key.stat().st_mode), 0o600)
        self.assertIn("ssh-ed25519", (self.folder / "hosts").read_text())
        # The same key after a restart, or ssh would refuse.
        await relay.stopService()
        again = await self.running()
        self.assertEqual((await self.ssh("\x04")).returncode, 0)
        await again.stopService()

    async def test_whoever_is_not_listed_does_not(self) -> None:
        await self.running()
        done = await self.ssh("contracts\n\x04", key="other")
        self.assertEqual((done.returncode, done.stdout), (255, ""))
        self.assertIn("Permission denied (publickey)", done.stderr)

    async def test_passwords_are_no_way_in(self) -> None:
        await self.running()
        done = await self.ssh("\x04", "-o", "PubkeyAuthentication=no", "-o", "PreferredAuthentications=password")
        self.assertIn("Permission denied (publickey)", done.stderr)

    async def test_a_list_that_others_may_write_to_lets_nobody_in(self) -> None:
        await self.running()
        (self.home.path / "keys").chmod(0o666)
        self.assertEqual((await self.ssh("\x04")).returncode, 255)
        (self.home.path / "keys").unlink()
        self.assertEqual((await self.ssh("\x04")).returncode, 255)

    async def test_over_a_unix_socket(self) -> None:
        path = self.folder / "door"
        await self.running(f"unix:{path}")
        self.assertEqual(stat.S_IMODE(path.stat().st_mode), 0o600)
        (self.folder / "proxy.py").write_text(PROXY)
        proxy = f"ProxyCommand={sys.executable} {self.folder / 'proxy.py'} {path}"
        done = await self.ssh("6*7\n\x04", "-o", proxy)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("42", done.stdout)

    async def test_it_is_off_by_default(self) -> None:
        relay = self.make()
        self.assertNotIn("manhole", [service.name for service in relay])  # type: ignore[attr-defined]

    def test_who_has_none_does_not_wait_for_ssh(self) -> None:
        program = "import sys, wireleap_relay.tap; sys.exit('twisted.conch.ssh' in sys.modules)"
        subprocess.run([sys.executable, "-c", program], check=True)
