"""Configs before and after."""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from wireleap_relay.config import parse_config
from wireleap_relay.home import Home, HomeError
from wireleap_relay.upgrade.migrations import MIGRATIONS, Fields, Migration, migrate, migrate_home
from wireleap_relay.wire.versions import Version

GO = Version(0, 6, 1)


def contract(**fields: object) -> Fields:
    return {"address": "wireleap://relay.example:443", "role": "backing", **fields}


def config(*contracts: Fields) -> Fields:
    return {
        "address": "0.0.0.0:443",
        "contracts": {f"https://c{number}.example": fields for number, fields in enumerate(contracts)},
        "what_nobody_knows": [1],
    }


class UpgradeChannel(SynchronousTestCase):
    def check(self, before: Fields, after: Fields) -> None:
        kept = copy.deepcopy(before)
        migrated, names = migrate(before, GO)
        self.assertEqual(migrated, after)
        self.assertEqual(before, kept)
        self.assertEqual(names, ["update_channel is called upgrade_channel"] if before != after else [])
        self.assertEqual(migrate(after, GO), (after, []))

    def test_a_channel_keeps_its_value_under_its_new_name(self) -> None:
        before = config(contract(update_channel="beta"), contract())
        self.check(before, config(contract(upgrade_channel="beta"), contract()))
        new, warnings = parse_config(json.dumps(migrate(before, GO)[0]))
        self.assertEqual(new, parse_config(json.dumps(before))[0])
        self.assertEqual(warnings, ["what_nobody_knows: unknown key"])

    def test_the_new_name_wins_where_both_are_there(self) -> None:
        both = contract(update_channel="beta", upgrade_channel="default")
        self.check(config(both), config(contract(upgrade_channel="default")))
        empty = contract(upgrade_channel="", update_channel="beta")
        self.check(config(empty), config(contract(upgrade_channel="beta")))

    def test_a_config_of_today_stays_as_it_is(self) -> None:
        self.check(config(contract(upgrade_channel="default")), config(contract(upgrade_channel="default")))

    def test_what_is_no_config_stays_as_it_is(self) -> None:
        for before in ({}, {"contracts": None}, {"contracts": {"u": 3}}, {"contracts": []}):
            self.check(before, before)


class Order(SynchronousTestCase):
    def note(self, number: int) -> Migration:
        def change(fields: Fields) -> Fields:
            return {**fields, "seen": [*fields.get("seen", []), number]}

        return Migration(Version(0, number, 0), str(number), change)

    def test_those_newer_than_the_old_version_are_done_in_order(self) -> None:
        migrations = [self.note(1), self.note(2), self.note(3)]
        self.assertEqual(migrate({}, Version(0, 1, 0), migrations), ({"seen": [2, 3]}, ["2", "3"]))
        self.assertEqual(migrate({}, Version(0, 3, 9), migrations), ({}, []))

    def test_ours_are_in_order(self) -> None:
        versions = [migration.version for migration in MIGRATIONS]
        self.assertEqual(versions, sorted(versions))


class InAHome(SynchronousTestCase):
    def setUp(self) -> None:
        self.home = Home(Path(self.mktemp()).absolute())
        self.home.path.mkdir()
        self.next = self.home.path / "config.json.next"

    def test_the_migrated_config_stands_beside_the_old_one(self) -> None:
        text = json.dumps(config(contract(update_channel="beta")))
        self.home.config.write_text(text)
        self.home.config.chmod(0o600)
        self.assertEqual(migrate_home(self.home, GO), ["update_channel is called upgrade_channel"])
        self.assertEqual(self.home.config.read_text(), text)
        self.assertEqual(json.loads(self.next.read_text()), config(contract(upgrade_channel="beta")))
        self.assertEqual(os.stat(self.next).st_mode & 0o777, 0o600)

    def test_it_is_written_where_nothing_changes_too(self) -> None:
        self.home.config.write_text(json.dumps(config(contract())))
        self.assertEqual(migrate_home(self.home, Version(99, 0, 0)), [])
        self.assertEqual(json.loads(self.next.read_text()), config(contract()))

    def test_a_config_that_cannot_be_read_is_told(self) -> None:
        self.assertRaises(HomeError, migrate_home, self.home, GO)
        for text in ("{", "[]", '{"a": 1, "a": 2}'):
            self.home.config.write_text(text)
            error = self.assertRaises(HomeError, migrate_home, self.home, GO)
            self.assertIn("config.json", str(error))
        self.assertFalse(self.next.exists())
