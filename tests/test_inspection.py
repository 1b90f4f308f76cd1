"""What is found in a home before a relay runs out of it."""

from __future__ import annotations

import datetime
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from wireleap_relay.home import Home
from wireleap_relay.inspection import Findings, examine
from wireleap_relay.sandbox.relays import free_port


class InspectionTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.home = Home(Path(self.mktemp()).absolute())
        self.home.create_identity(datetime.datetime.now(datetime.UTC))
        self.home.path.chmod(0o755)
        self.port = free_port()

    def find(self, contract: dict[str, Any] | None = None, runs: bool = False, **changes: Any) -> Findings:
        served = {"address": "wireleap://relay.example", "role": "backing", **(contract or {})}
        config = {"address": f"127.0.0.1:{self.port}", "contracts": {"https://c": served}, **changes}
        self.home.config.write_text(json.dumps(config))
        return examine(self.home, runs=runs)

    def mistakes(self, *args: Any, **changes: Any) -> list[str]:
        return self.find(*args, **changes).mistakes

    def warnings(self, *args: Any, **changes: Any) -> list[str]:
        found = self.find(*args, **changes)
        self.assertEqual(found.mistakes, [])
        return found.warnings


class ExamineTests(InspectionTestCase):
    def test_all_is_well(self) -> None:
        self.assertEqual(self.find(), Findings())

    def test_everything_at_once(self) -> None:
        self.home.tls_key.unlink()
        self.home.log.mkdir()
        found = self.find(timeout=5, timeot=1)
        self.assertEqual(found.warnings, ["timeot: unknown key; did you mean timeout?"])
        self.assertEqual(
            found.mistakes,
            [
                'config.json: timeout: expected text such as "5m0s"',
                f"{self.home.tls_key} is missing: `wireleap-relay init` makes it",
            ],
        )

    def test_the_pair_of_certificate_and_key(self) -> None:
        other = Home(self.home.path / "other")
        other.create_identity(datetime.datetime.now(datetime.UTC))
        self.home.tls_key.write_bytes(other.tls_key.read_bytes())
        self.assertEqual(self.mistakes(), [f"{self.home.tls_key}: it is not the key of relay-cert.pem"])

    def test_the_public_key(self) -> None:
        public = self.home.load_key().public_key
        self.home.key_pub.write_text('"x"')
        self.assertEqual(
            self.mistakes(), [f"{self.home.key_pub} is not the public key of key.seed: it has to be {public}"]
        )

    def test_secrets_that_others_may_read(self) -> None:
        for file, mode, told in [
            (self.home.key_seed, 0o640, True),
            (self.home.tls_key, 0o604, True),
            (self.home.tls_key, 0o600, False),
        ]:
            file.chmod(mode)
            self.assertEqual(any(str(file) in warning for warning in self.warnings()), told, (file, mode))
        self.home.key_seed.chmod(0o400)
        self.home.config.chmod(0o644)
        self.assertEqual(self.warnings(), [])
        [warning] = self.warnings({"key": "user:password"})
        self.assertIn(f"chmod 600 {self.home.config}", warning)
        self.home.config.chmod(0o640)
        self.assertEqual(self.warnings({"key": "user:password"}), [])
        self.home.path.chmod(0o777)
        self.assertEqual(self.warnings(), [f"{self.home.path} may be written by any user: chmod o-w {self.home.path}"])

    def test_folders_that_are_none(self) -> None:
        (self.home.path / "archive").write_text("in the way")
        self.home.sharetokens.write_text("in the way")
        self.assertEqual(
            self.mistakes(archive_dir="archive"),
            [f"{self.home.sharetokens}: expected a folder", f"{self.home.path}/archive: expected a folder"],
        )

    def test_a_home_that_can_not_be_written(self) -> None:
        if os.geteuid() != 0 or shutil.which("setpriv") is None:
            raise SkipTest("it takes root and setpriv to be somebody else for a while")
        folder = tempfile.mkdtemp()  # where others may look, unlike in a test's own
        self.addCleanup(shutil.rmtree, folder)
        Path(folder).chmod(0o755)
        self.home = Home(Path(folder))
        self.home.create_identity(datetime.datetime.now(datetime.UTC))
        self.find()
        self.home.key_seed.chmod(0o644)
        self.home.tls_key.chmod(0o644)
        program = (
            "import sys; from pathlib import Path; from wireleap_relay.home import Home;"
            "from wireleap_relay.inspection import examine;"
            "print('\\n'.join(examine(Home(Path(sys.argv[1])), runs=False).mistakes))"
        )
        command = ["setpriv", "--reuid=65534", "--clear-groups", sys.executable, "-B", "-c", program]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        said = subprocess.run([*command, str(self.home.path)], capture_output=True, text=True, env=environment)
        if "ModuleNotFoundError" in said.stderr or "Permission denied" in said.stderr:
            raise SkipTest("this software is closed to others")
        self.assertEqual(
            said.stdout.splitlines(),
            [
                f"{self.home.path} can't be written by the user with id 65534",
                f"{self.home.path} can't be written by the user with id 65534, so {self.home.sharetokens} can't be made",
            ],
            said.stderr,
        )


class AddressTests(InspectionTestCase):
    def test_addresses_that_are_taken(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            address = f"127.0.0.1:{taken.getsockname()[1]}"
            mistake = f"{address} can't be listened at: Address already in use"
            self.assertEqual(self.mistakes(address=address), [f"config.json: address: {mistake}"])
            self.assertEqual(self.mistakes(address=address, runs=True), [])
            rest = {"address": f"http://{address}"}
            self.assertEqual(self.mistakes(rest_api=rest), [f"config.json: rest_api.address: {mistake}"])

    def test_an_address_of_another_machine(self) -> None:
        [mistake] = self.mistakes(address="192.0.2.1:80")
        self.assertIn("192.0.2.1:80 can't be listened at: Cannot assign requested address", mistake)

    def test_one_address_for_two_purposes(self) -> None:
        [mistake] = self.mistakes(rest_api={"address": f"http://127.0.0.1:{self.port}"})
        self.assertIn("rest_api.address", mistake)

    def test_unix_sockets(self) -> None:
        folder = tempfile.mkdtemp()  # its name is shorter than a test's own
        self.addCleanup(shutil.rmtree, folder)
        place = Path(folder, "s")
        self.assertEqual(self.mistakes(address=f"unix:{place}"), [])
        place.touch()
        self.assertEqual(self.mistakes(address=f"unix:{place}"), [f"config.json: address: {place} is no socket"])
        [mistake] = self.mistakes(rest_api={"address": "file:///no/such/s"})
        self.assertEqual(mistake, "config.json: rest_api.address: there is no folder /no/such")


class ConsistencyTests(InspectionTestCase):
    def test_limits(self) -> None:
        for usage, contract, wanted in [
            ({"timeframe": "30d", "global_limit": "1TB"}, {"network_usage_limit": "1TB"}, []),
            (
                {"timeframe": "30d", "global_limit": "1TB"},
                {"network_usage_limit": "2TB"},
                ['contracts["https://c"].network_usage_limit: is never reached: network_usage.global_limit is 1TB'],
            ),
            (
                {"timeframe": "30s", "write_interval": "1m"},
                {},
                ["network_usage.write_interval: is longer than network_usage.timeframe"],
            ),
        ]:
            self.assertEqual(self.warnings(contract, network_usage=usage), wanted)

    def test_limits_of_several_contracts(self) -> None:
        fields = {"address": "wireleap://relay.example", "role": "backing", "network_usage_limit": "600GB"}
        contracts = {"https://a": {**fields, "upgrade_channel": "default"}, "https://b": fields}
        usage = {"timeframe": "30d", "global_limit": "1TB"}
        self.assertEqual(
            self.warnings(contracts=contracts, network_usage=usage),
            ["network_usage.global_limit: is less than the contracts' limits together, which are 1200GB"],
        )

    def test_addresses_that_nobody_reaches(self) -> None:
        for host in ("127.0.0.1", "10.0.0.1", "[fd00::1]"):
            [warning] = self.warnings({"address": f"wireleap://{host}:1"})
            self.assertIn("can't be reached from the internet", warning)
        self.assertEqual(self.warnings({"address": "wireleap://127.0.0.1:1"}, danger_zone={"allow_loopback": True}), [])
