"""Versions of software and interfaces."""

from __future__ import annotations

from hypothesis import given
from twisted.trial.unittest import SynchronousTestCase

from tests.wire import strategies
from wireleap_relay import __version__
from wireleap_relay.wire.errors import WireError
from wireleap_relay.wire.structure import converter, structure
from wireleap_relay.wire.versions import CLIENT_RELAY, INTERFACES, RELAY_CONTRACT, RELAY_DIR, RELAY_RELAY, Version


class VersionTests(SynchronousTestCase):
    @given(strategies.versions)
    def test_round_trip(self, version: Version) -> None:
        self.assertEqual(Version.from_text(str(version)), version)
        self.assertEqual(structure(converter.unstructure(version), Version), version)

    def test_read(self) -> None:
        for text, version in {
            "0.2.0": Version(0, 2, 0),
            "v1.22.333": Version(1, 22, 333),
            "0.7.0-rc.1+build.5": Version(0, 7, 0),
            "0.7.0+5": Version(0, 7, 0),
        }.items():
            self.assertEqual(Version.from_text(text), version)

    def test_refusals(self) -> None:
        for text in (
            "",
            "0.2",
            "0.2.0.0",
            "0.2.x",
            " 0.2.0",
            "0.2.0\n",
            "-0.2.0",
            "0.2.0-",
            "0.2.0rc1",
            "٠.2.0",
            "0..0",
            "1" * 10 + ".0.0",
        ):
            with self.assertRaises(WireError, msg=text) as caught:
                Version.from_text(text)
            self.assertEqual(str(caught.exception), 'expected a version such as "0.2.0"')
        for value in (None, 2, 0.2, ["0.2.0"], {}):
            with self.assertRaises(WireError, msg=repr(value)) as caught:
                structure(value, Version)
            self.assertEqual(str(caught.exception), "expected text")

    def test_order(self) -> None:
        """By numbers, not by text."""
        texts = ["0.6.1", "0.7.0", "0.7.2", "0.7.10", "0.10.0", "1.0.0"]
        self.assertEqual(sorted(map(Version.from_text, reversed(texts))), list(map(Version.from_text, texts)))

    def test_compatible(self) -> None:
        ours = Version(0, 2, 0)
        for text, compatible in {"0.2.0": True, "0.2.9": True, "0.1.0": False, "0.3.0": False, "1.2.0": False}.items():
            self.assertIs(ours.compatible_with(Version.from_text(text)), compatible, text)
            self.assertIs(Version.from_text(text).compatible_with(ours), compatible, text)

    def test_interfaces(self) -> None:
        """What the network's relays speak today."""
        self.assertEqual(
            {name: str(version) for name, version in INTERFACES.items()},
            {"client-relay": "0.2.0", "relay-relay": "0.2.0", "relay-dir": "0.2.0", "relay-contract": "0.1.0"},
        )
        self.assertEqual(tuple(INTERFACES.values()), (CLIENT_RELAY, RELAY_RELAY, RELAY_DIR, RELAY_CONTRACT))

    def test_of_this_software(self) -> None:
        """Newer than the last version of the line it continues, whatever a directory's default channel says."""
        self.assertGreater(Version.from_text(__version__), Version(0, 6, 1))
