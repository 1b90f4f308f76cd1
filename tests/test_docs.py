"""Documents that have to agree with the code."""

from __future__ import annotations

import runpy
from pathlib import Path

import attrs
from twisted.trial.unittest import SynchronousTestCase

from wireleap_relay.config import Config, ContractConfig, DangerZone, LogSettings, Manhole, NetworkUsage, RestApi

DOCS = Path(__file__).parent.parent / "docs"


class Documents(SynchronousTestCase):
    def test_the_machines_are_drawn_as_they_are(self) -> None:
        drawn = runpy.run_path(str(DOCS / "diagrams.py"))["page"]()
        self.assertEqual((DOCS / "machines.md").read_text(), drawn, "run python docs/diagrams.py")

    def test_every_key_of_the_config_is_explained(self) -> None:
        explained = (DOCS / "configuration.md").read_text()
        sections: list[tuple[str, type[attrs.AttrsInstance]]] = [
            ("", Config),
            ("contracts.URL.", ContractConfig),
            ("network_usage.", NetworkUsage),
            ("rest_api.", RestApi),
            ("manhole.", Manhole),
            ("danger_zone.", DangerZone),
            ("log.", LogSettings),
        ]
        below = {"network_usage", "rest_api", "manhole", "danger_zone", "log"}
        for prefix, kind in sections:
            for field in attrs.fields(kind):
                if field.name not in below:
                    self.assertIn(f"`{prefix}{field.name}`", explained)
