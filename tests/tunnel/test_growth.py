"""Windows that grow with the path, and what they may grow by together: sans-IO, over a path of simulated time."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.tunnel.peers import REQUEST, RESPONSE, Recorder
from wireleap_relay.tunnel import frames
from wireleap_relay.tunnel.session import Session
from wireleap_relay.tunnel.stream import Headers, Stream
from wireleap_relay.tunnel.windows import LARGEST_STREAM_WINDOW, STREAM_WINDOW, ReceiveWindow, WindowPool

MB = 1_000_000


class Source(Recorder):
    """Sends for as long as it is not paused."""

    def pump(self) -> None:
        while self.paused == self.resumed:
            self.stream.send(bytes(64 * 1024))

    def resume(self) -> None:
        super().resume()
        self.pump()


class Sink(Recorder):
    """Gives credit for what it takes: at once, or so many bytes a second."""

    def __init__(self, clock: Clock, rate: float | None) -> None:
        super().__init__()
        self.received = 0
        self.stopped = False
        self._clock = clock
        self._rate = rate
        self._busy_until = 0.0

    def data_received(self, data: bytes, frame_done: bool) -> None:
        size = len(data)
        self.received += size
        if self.stopped:
            return None
        if self._rate is None:
            return self.stream.credit(size)
        self._busy_until = max(self._clock.seconds(), self._busy_until) + size / self._rate
        self._clock.callLater(self._busy_until - self._clock.seconds(), self.stream.credit, size)
        return None


class Path:
    """A client, a path that has a round trip and a bandwidth, and a relay's session at its end."""

    def __init__(
        self,
        *,
        round_trip: float,
        bandwidth: float = 10_000 * MB,
        tunnels: int = 1,
        target: float | None = None,
        pool: WindowPool | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.clock = clock or Clock()
        self.sinks: list[Sink] = []
        self.pings = 0
        self._delay = round_trip / 2
        self._bandwidth = bandwidth
        self._free_at = 0.0
        self._target = target
        seconds = self.clock.seconds
        self.server = Session(wake=lambda: self._from_server(), opened=self._opened, pool=pool, clock=seconds)
        self.client = Session(wake=lambda: self._from_client(), clock=seconds)
        self._from_client()
        self._from_server()
        self.run(round_trip)
        self.sources = []
        for _ in range(tunnels):
            source = Source()
            source.stream = self.client.open(REQUEST)
            source.stream.handler = source
            self.sources.append(source)
            source.pump()

    def run(self, seconds: float) -> None:
        until = self.clock.seconds() + seconds
        while (calls := self.clock.getDelayedCalls()) and (due := min(c.getTime() for c in calls)) <= until:
            self.clock.advance(max(due - self.clock.seconds(), 0))
        self.clock.advance(max(until - self.clock.seconds(), 0))

    def rate(self, seconds: float) -> float:
        """Bytes per second that arrive from here on."""
        before = sum(sink.received for sink in self.sinks)
        self.run(seconds)
        return (sum(sink.received for sink in self.sinks) - before) / seconds

    def _opened(self, stream: Stream, headers: Headers) -> None:
        sink = Sink(self.clock, self._target)
        sink.stream = stream
        stream.handler = sink
        self.sinks.append(sink)
        stream.respond(RESPONSE)

    def _from_client(self) -> None:
        while data := self.client.take():
            self._free_at = max(self._free_at, self.clock.seconds()) + len(data) / self._bandwidth
            self._carry(self._free_at - self.clock.seconds() + self._delay, self.server, data, self._from_server)

    def _from_server(self) -> None:
        while data := self.server.take():
            self.pings += data.count(frames.ping(b"windowed"))
            self._carry(self._delay, self.client, data, self._from_client)

    def _carry(self, delay: float, to: Session, data: bytes, then: Callable[[], None]) -> None:
        def arrive() -> None:
            to.receive(data)
            then()

        self.clock.callLater(delay, arrive)


class GrowthTests(SynchronousTestCase):
    def test_an_upload_over_a_long_path_gets_what_the_path_gives(self) -> None:
        path = Path(round_trip=0.1, bandwidth=100 * MB)
        path.run(2)
        self.assertGreater(path.rate(1), 97 * MB)
        size = path.sinks[0].stream.receiving.size
        self.assertLessEqual(size, LARGEST_STREAM_WINDOW)

    def test_a_window_becomes_no_larger_than_the_path_needs(self) -> None:
        for round_trip, bandwidth in ((0.1, 10 * MB), (0.02, 50 * MB), (0.2, 2 * MB)):
            path = Path(round_trip=round_trip, bandwidth=bandwidth)
            path.run(20 * round_trip)
            self.assertGreater(path.rate(10 * round_trip), 0.95 * bandwidth)
            product = round_trip * bandwidth
            self.assertLess(path.sinks[0].stream.receiving.size, max(6 * product, 5 * STREAM_WINDOW))

    def test_a_slow_target_gets_no_large_window(self) -> None:
        path = Path(round_trip=0.05, target=0.2 * MB)
        path.run(5)
        self.assertLessEqual(path.sinks[0].stream.receiving.size, 4 * STREAM_WINDOW)

    def test_a_tunnel_that_is_hardly_used_asks_nothing(self) -> None:
        path = Path(round_trip=0.05, tunnels=0)
        source = Source()
        source.stream = path.client.open(REQUEST)
        source.stream.handler = source
        source.stream.send(bytes(STREAM_WINDOW // 4))
        path.run(1)
        self.assertEqual(path.pings, 0)
        self.assertEqual(path.sinks[0].stream.receiving.size, STREAM_WINDOW)

    def test_windows_share_a_pool(self) -> None:
        pool = WindowPool(4 * 2**20)
        path = Path(round_trip=0.1, tunnels=10, pool=pool)
        path.run(3)
        sizes = [sink.stream.receiving.size for sink in path.sinks]
        excess = sum(sink.stream.receiving.excess for sink in path.sinks)
        self.assertEqual(sum(sizes) + excess - 10 * STREAM_WINDOW, pool.granted)
        self.assertLessEqual(pool.granted, pool.total)
        self.assertGreater(sum(sizes), 10 * STREAM_WINDOW + pool.total // 3)
        for source in path.sources:
            source.stream.reset()
        path.run(1)
        self.assertEqual(pool.granted, 0)

    def test_a_pool_that_is_used_up_is_asked_once_a_second(self) -> None:
        path = Path(round_trip=0.1, pool=WindowPool(7 * STREAM_WINDOW))
        path.run(5)
        self.assertLess(path.sinks[0].stream.receiving.size, 5 * STREAM_WINDOW)
        self.assertLessEqual(path.pings, 6)

    def test_silent_windows_are_narrowed_first(self) -> None:
        pool = WindowPool(16 * 2**20)
        clock = Clock()
        silent = Path(round_trip=0.1, pool=pool, clock=clock)
        silent.run(2)
        grown = silent.sinks[0].stream.receiving
        self.assertGreater(grown.size, 4 * 2**20)
        self.assertGreater(pool.granted, pool.total // 4)
        silent.sinks[0].stopped = True
        busy = Path(round_trip=0.1, pool=pool, clock=clock)
        busy.run(3)
        self.assertEqual(grown.size, STREAM_WINDOW)
        # What the silent one was promised can't be had before it is used, but there is enough for a first step.
        window = busy.sinks[0].stream.receiving
        self.assertGreaterEqual(window.size, 4 * STREAM_WINDOW)
        self.assertLessEqual(pool.granted, pool.total)
        silent.sources[0].stream.reset()
        busy.run(3)
        self.assertGreater(window.size, 4 * 2**20)

    def test_answers_that_nobody_asked_for_mean_nothing(self) -> None:
        path = Path(round_trip=0.1)
        path.run(0.3)
        size = path.sinks[0].stream.receiving.size
        for _ in range(100):
            path.server.receive(frames.ping_answer(frames.ping(b"whatever")))
        self.assertEqual(path.sinks[0].stream.receiving.size, size)


class PoolTests(SynchronousTestCase):
    @given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from("wtcf"), st.integers(1, 10**6)), max_size=60))
    def test_books_balance(self, steps: list[tuple[int, str, int]]) -> None:
        """Whatever happens, what is granted is what windows promise beyond their beginning, and never too much."""
        pool = WindowPool(2 * 2**20)
        first = 64 * 1024
        windows = [ReceiveWindow(first, first, pool) for _ in range(6)]
        for index, step, amount in steps:
            window = windows[index]
            if step == "w":
                pool.widen(window, amount)
            elif step == "t":
                pool.turned_over(window)
            elif step == "c":
                taken = min(amount, window.left)
                self.assertTrue(window.spend(taken))
                window.credit(taken)
            else:
                pool.forget(window)
                windows[index] = ReceiveWindow(first, first, pool)
            promised = sum(each.size + each.excess - first for each in windows)
            self.assertEqual(pool.granted, promised)
            self.assertLessEqual(pool.granted, pool.total)
            for each in windows:
                self.assertGreaterEqual(each.size, first)
                self.assertLessEqual(each.left, each.size + each.excess)
                self.assertEqual(each.held, 0)

    def test_a_narrowed_window_gives_nothing_back_before_it_is_used(self) -> None:
        pool = WindowPool(2 * 2**20)
        window, other = ReceiveWindow(1000, 1000, pool), ReceiveWindow(1000, 1000, pool)
        grown = pool.widen(window, 2**20)
        self.assertEqual(grown, 2**20)
        self.assertLess(pool.widen(other, 2**20), 2**20)
        self.assertEqual(window.size, 1000)
        self.assertTrue(window.spend(2**20))
        self.assertEqual(window.credit(2**20), 0)
        self.assertTrue(window.spend(1000))
        self.assertEqual(window.credit(1000), 1000)
        self.assertFalse(window.spend(1001))
