"""What operators get for Prometheus and Grafana names metrics and labels that there are."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from prometheus_client.parser import text_string_to_metric_families
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.admin.views import make_view
from wireleap_relay.admin.metrics import NAMESPACE, exposition

CONTRIB = Path(__file__).parents[2] / "contrib"
RULES = CONTRIB / "prometheus" / "wireleap-relay.rules.yml"
DASHBOARD = CONTRIB / "grafana" / "wireleap-relay.json"
PROMTOOL = shutil.which("promtool")

_SELECTOR = re.compile(NAMESPACE + r"(\w+)(?:\{([^}]*)\})?")
_LABELS = re.compile(r"(\w+)\s*=~?\s*\"")
_GROUPED = re.compile(r"\b(?:by|on)\s*\(([^)]*)\)")
#: What Prometheus itself adds.
_ADDED = {"instance", "job"}


def there_are() -> dict[str, set[str]]:
    """Give every series' name, and its labels."""
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(exposition(make_view()).decode()):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def queries() -> Iterator[str]:
    """Give every expression, in rules and on the dashboard."""
    yield from (rule["expr"] for rule in rules())
    dashboard = json.loads(DASHBOARD.read_text())
    yield from (target["expr"] for panel in dashboard["panels"] for target in panel["targets"])
    yield from (variable["query"] for variable in dashboard["templating"]["list"] if variable["type"] == "query")


class Contrib(SynchronousTestCase):
    def test_every_metric_exists_with_its_labels(self) -> None:
        series = there_are()
        asked = 0
        for query in queries():
            names: set[str] = set()
            for name, selector in _SELECTOR.findall(query):
                asked += 1
                self.assertIn(NAMESPACE + name, series, query)
                self.assertLessEqual(set(_LABELS.findall(selector)), series[NAMESPACE + name] | _ADDED, query)
                names |= series[NAMESPACE + name]
            for group in _GROUPED.findall(query):
                self.assertLessEqual(set(re.findall(r"\w+", group)), names | _ADDED, query)
        self.assertGreater(asked, 30)

    def test_texts_name_labels_that_their_alert_has(self) -> None:
        series = there_are()
        for rule in rules():
            labels = {label for name, _ in _SELECTOR.findall(rule["expr"]) for label in series[NAMESPACE + name]}
            for text in rule["annotations"].values():
                self.assertLessEqual(set(re.findall(r"\$labels\.(\w+)", text)), labels | _ADDED, rule["alert"])

    def test_prometheus_takes_them(self) -> None:
        if PROMTOOL is None:
            raise SkipTest("there is no promtool: apt-get install prometheus")
        for command, file in (("rules", RULES), ("config", RULES.with_name("prometheus.yml"))):
            done = subprocess.run([PROMTOOL, "check", command, str(file)], capture_output=True, text=True)
            self.assertEqual(done.returncode, 0, done.stderr)
        checked = subprocess.run([PROMTOOL, "check", "metrics"], input=exposition(make_view()), capture_output=True)
        self.assertEqual((checked.returncode, checked.stdout, checked.stderr), (0, b"", b""))

    def test_alerts_fire_when_they_should(self) -> None:
        if PROMTOOL is None:
            raise SkipTest("there is no promtool: apt-get install prometheus")
        text = Path(__file__).with_name("rules_test.yml").read_text().replace("RULES", str(RULES))
        file = Path(self.mktemp())
        file.write_text(text)
        done = subprocess.run([PROMTOOL, "test", "rules", str(file)], capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
