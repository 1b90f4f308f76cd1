"""What a running relay takes on from a new config, and what it doesn't."""

from __future__ import annotations

import json
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from wireleap_relay.config import Config, parse_config
from wireleap_relay.reload import applicable

CONTRACT = {"address": "wireleap://relay.example.com:443", "role": "backing", "upgrade_channel": "default"}


def config(**changes: Any) -> Config:
    fields = {"address": "127.0.0.1:1", "contracts": {"http://c": CONTRACT}, "network_usage": {"timeframe": "1d"}}
    return parse_config(json.dumps({**fields, **changes}))[0]


class Applicable(SynchronousTestCase):
    def test_most_of_it(self) -> None:
        for changes in (
            {},
            {"timeout": "1s", "maxtime": "1h", "drain_timeout": "3s", "auto_submit_interval": "0s", "archive_dir": "a"},
            {"network_usage": {"timeframe": "2d", "global_limit": "1TB"}},
            {"network_usage": {"start": "daily"}},
            {"contracts": {"http://c": {**CONTRACT, "key": "a:b", "network_usage_limit": "1TB"}}},
            {"contracts": {"http://d": {**CONTRACT, "role": "fronting"}}},
            {"danger_zone": {"allow_loopback": True}},
        ):
            new = config(**changes)
            self.assertEqual(applicable(config(), new), (new, []))

    def test_what_needs_a_restart_is_named_and_stays(self) -> None:
        for changes, path in [
            ({"address": "127.0.0.1:2"}, "address"),
            ({"workers": 3}, "workers"),
            ({"rest_api": {"address": "http://127.0.0.1:3"}}, "rest_api"),
            ({"manhole": {"address": "127.0.0.1:4", "authorized_keys": "keys"}}, "manhole"),
            ({"network_usage": {}}, "network_usage.timeframe and network_usage.start (measuring on or off)"),
            ({"contracts": {"http://c": {**CONTRACT, "role": "fronting"}}}, 'contracts["http://c"].role'),
        ]:
            self.assertEqual(applicable(config(), config(**changes)), (config(), [path]))

    def test_the_rest_is_taken_on_beside_it(self) -> None:
        new, kept = applicable(config(), config(address="127.0.0.1:2", timeout="1s"))
        self.assertEqual((new, len(kept)), (config(timeout="1s"), 1))
