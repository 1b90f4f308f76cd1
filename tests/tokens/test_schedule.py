"""When sharetokens are handed in."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.tokens.test_store import Mint
from wireleap_relay.tokens.schedule import first_attempt, is_urgent, next_attempt
from wireleap_relay.wire.keys import SigningKey
from wireleap_relay.wire.sharetoken import ContractStatement


class ScheduleTests(SynchronousTestCase):
    def test_a_network_of_relays_spreads(self) -> None:
        mint = Mint(opens=1000, closes=1000 + 86_400)
        times = []
        for _ in range(200):
            mint.relay = SigningKey.generate()
            times.append(first_attempt(mint.token()))
        self.assertGreaterEqual(min(times), 1001)
        self.assertLess(max(times), 1301)
        self.assertGreater(len({int(time) for time in times}), 100)

    def test_tokens_of_one_servicekey_go_together(self) -> None:
        mint = Mint(opens=1000, closes=2000)
        self.assertEqual(len({first_attempt(mint.token()) for _ in range(10)}), 1)
        before = first_attempt(mint.token())
        mint.statement = ContractStatement.sign(mint.contract, 1000, 2001)
        self.assertNotEqual(first_attempt(mint.token()), before)

    def test_a_window_without_length(self) -> None:
        self.assertEqual(first_attempt(Mint(opens=1000, closes=1000).token()), 1001)
        self.assertEqual(first_attempt(Mint(opens=1000, closes=10).token()), 1001)

    def test_every_interval_and_once_more_before_the_end(self) -> None:
        self.assertEqual(next_attempt(1200, 300, 1000, 2000), 1500)
        self.assertEqual(next_attempt(1800, 300, 1000, 2000), 1940)
        self.assertEqual(next_attempt(1200, 1e6, 1000, 2000), 1940)
        self.assertEqual(next_attempt(1940, 300, 1000, 2000), 1970)
        self.assertEqual(next_attempt(1999, 300, 1000, 2000), 2000)

    @given(st.floats(0, 5000), st.floats(0.1, 1e7), st.integers(1, 5000))
    def test_it_ends(self, now: float, interval: float, length: int) -> None:
        last_minute = 0
        for _ in range(100_000):
            following = next_attempt(now, interval, 0, length)
            self.assertGreater(following, now)
            last_minute += now >= length - min(length / 10, 60)
            now = following
            if now >= length:
                break
        self.assertLess(last_minute, 10)

    def test_urgent_in_the_last_tenth(self) -> None:
        self.assertFalse(is_urgent(1899, 1000, 2000))
        self.assertTrue(is_urgent(1900, 1000, 2000))
