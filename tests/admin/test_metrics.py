"""What Prometheus scrapes."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families
from twisted.trial.unittest import SynchronousTestCase

from tests.admin.views import CONTRACT, make_view
from tests.admin.world import RestTestCase, ask
from tests.tunnel.world import Target
from wireleap_relay.admin.metrics import CONTENT_TYPE, NAMESPACE, exposition
from wireleap_relay.admin.view import View

#: Every label, and whether what it may say is bounded by the config and by this software.
LABELS = {
    "contract", "currency", "direction", "le", "process", "python", "reason", "result", "state", "version", "worker"
}  # fmt: skip


def samples(view: View) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {
        (sample.name.removeprefix(NAMESPACE), frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(exposition(view).decode())
        for sample in family.samples
    }


class Metrics(SynchronousTestCase):
    def value(self, view: View, name: str, **labels: str) -> float:
        return samples(view)[name, frozenset(labels.items())]

    def test_every_family_is_of_the_namespace_and_explained(self) -> None:
        for family in text_string_to_metric_families(exposition(make_view()).decode()):
            self.assertTrue(family.name.startswith(NAMESPACE), family.name)
            self.assertGreater(len(family.documentation), 5)
            self.assertTrue(family.samples, family.name)
            for sample in family.samples:
                self.assertLessEqual(set(sample.labels), LABELS)

    def test_what_could_show_one_user_is_coarse(self) -> None:
        few = make_view(carried=(1, 2**20 + 1), open=1, opened=9, held=1)
        url = CONTRACT
        self.assertEqual(self.value(few, "traffic_bytes_total", contract=url, direction="from_clients"), 2**20)
        self.assertEqual(self.value(few, "traffic_bytes_total", contract=url, direction="from_targets"), 2**21)
        self.assertEqual(self.value(few, "window_bytes", contract=url), 2**21)
        self.assertEqual(self.value(few, "tunnels_open"), 8)
        self.assertEqual(self.value(few, "tunnels_opened_total"), 16)
        self.assertEqual(self.value(few, "tokens", contract=url, state="held"), 8)
        none = make_view(carried=(0, 0), open=0, opened=0, held=0)
        self.assertEqual(self.value(none, "traffic_bytes_total", contract=url, direction="from_clients"), 0)
        self.assertEqual(self.value(none, "tunnels_open"), 0)

    def test_money_is_exact(self) -> None:
        view = make_view(refused=1)
        self.assertEqual(self.value(view, "tokens", contract=CONTRACT, state="refused"), 1)
        self.assertEqual(self.value(view, "balance", contract=CONTRACT, currency="USD"), 12)

    def test_dial_times_are_a_histogram(self) -> None:
        view = make_view()
        found = {
            dict(labels).get("le"): value
            for (name, labels), value in samples(view).items()
            if name == "dial_seconds_bucket"
        }
        self.assertEqual(sorted(found.values()), list(found.values()))
        self.assertEqual((found["0.005"], found["+Inf"]), (16, 24))
        self.assertEqual(self.value(view, "dial_seconds_count"), 24)

    def test_one_state_of_each_contract(self) -> None:
        found = {
            dict(labels)["state"]: value
            for (name, labels), value in samples(make_view()).items()
            if name == "contract_state"
        }
        self.assertEqual(found.pop("enrolled"), 1)
        self.assertEqual(set(found.values()), {0.0})


class TrafficShows(RestTestCase):
    async def test_traffic_shows(self) -> None:
        relay = await self.running()
        circuit = await self.circuit_through(relay)
        reader = await self.tunnel(circuit, self.target(Target))
        reader.tunnel.write(bytes(1_500_000))
        await reader.at_least(1_500_000)

        async def shows() -> bool:
            body = (await ask(self.rest, "/metrics")).body.decode()
            label = f'contract="{self.network.contract.endpoint}",direction="from_targets"'
            return f"{NAMESPACE}traffic_bytes_total{{{label}}} 2.097152e+06" in body

        await self.eventually(shows)


class Scraping(RestTestCase):
    async def test_a_relay_is_scraped(self) -> None:
        await self.running(network_usage={"timeframe": "1d", "global_limit": "1GB"})
        got = await ask(self.rest, "/metrics")
        self.assertEqual((got.code, got.headers["content-type"]), (200, CONTENT_TYPE))
        names = {family.name for family in text_string_to_metric_families(got.body.decode())}
        self.assertLessEqual(
            {NAMESPACE + name for name in ("enrolled", "limit_bytes", "event_loop_lag_seconds")}, names
        )


class ScrapingWithWorkers(TrafficShows):
    workers = 1
