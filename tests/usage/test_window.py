"""Where windows begin and end, by length and by the calendar."""

from __future__ import annotations

from datetime import UTC, datetime, tzinfo
from zoneinfo import ZoneInfo

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from wireleap_relay.configvalues import CalendarStart
from wireleap_relay.usage.window import CalendarFrame, TimeFrame, Window

BERLIN = ZoneInfo("Europe/Berlin")
YEAR = 366 * 86_400_000

calendar_starts = st.one_of(
    st.builds(CalendarStart, st.just("day"), st.just(0), st.integers(0, 23), st.integers(0, 59)),
    st.builds(CalendarStart, st.just("week"), st.integers(0, 6), st.integers(0, 23), st.integers(0, 59)),
    st.builds(CalendarStart, st.just("month"), st.integers(1, 31), st.integers(0, 23), st.integers(0, 59)),
)
zones = st.sampled_from([UTC, BERLIN, ZoneInfo("Pacific/Kiritimati"), ZoneInfo("America/St_Johns")])
moments = st.integers(0, 100 * YEAR)


def ms(text: str, zone: tzinfo = UTC) -> int:
    """Give the Unix milliseconds of a local time."""
    return round(datetime.fromisoformat(text).replace(tzinfo=zone).timestamp() * 1000)


class ByLength(SynchronousTestCase):
    def test_follows_on_and_starts_anew(self) -> None:
        frame = TimeFrame(100)
        window = Window.from_start(frame.first(1000), frame)
        for now, expected in [
            (1000, window),
            (1099, window),
            (1100, Window(1100, 1200)),
            (1199, Window(1100, 1200)),
            (1200, Window(1200, 1300)),
            (5555, Window(5555, 5655)),
            (0, window),
        ]:
            self.assertEqual(window.at(now, frame), expected)


class ByCalendar(SynchronousTestCase):
    def window(self, anchor: CalendarStart, now: str, zone: tzinfo = UTC) -> Window:
        frame = CalendarFrame(anchor)
        return Window.from_start(frame.first(ms(now, zone)), frame)

    def test_days(self) -> None:
        window = self.window(CalendarStart("day", 0, 6, 30), "2026-03-01T06:29")
        self.assertEqual(window, Window(ms("2026-02-28T06:30"), ms("2026-03-01T06:30")))

    def test_weeks(self) -> None:
        # 2026-11-23 is a Monday.
        for day, start, end in [(0, "2026-11-23", "2026-11-30"), (1, "2026-11-17", "2026-11-24")]:
            window = self.window(CalendarStart("week", day), "2026-11-23T00:00")
            self.assertEqual(window, Window(ms(start), ms(end)))

    def test_months(self) -> None:
        window = self.window(CalendarStart("month", 15), "2026-12-20T12:00")
        self.assertEqual(window, Window(ms("2026-12-15"), ms("2027-01-15")))

    def test_a_shorter_month_begins_on_its_last_day(self) -> None:
        frame = CalendarFrame(CalendarStart("month", 31))
        starts, start = [], ms("2026-01-31")
        for _ in range(4):
            start = frame.end(start)
            starts.append(start)
        self.assertEqual(starts, [ms("2026-02-28"), ms("2026-03-31"), ms("2026-04-30"), ms("2026-05-31")])

    def test_a_day_of_daylight_saving_has_23_hours(self) -> None:
        window = self.window(CalendarStart("day", 0, zone=BERLIN), "2026-03-29T12:00", BERLIN)
        self.assertEqual(window.end - window.start, 23 * 3_600_000)

    def test_after_a_long_absence_the_calendar_is_kept(self) -> None:
        frame = CalendarFrame(CalendarStart("month", 1))
        window = Window(ms("2026-01-01"), ms("2026-02-01"))
        self.assertEqual(window.at(ms("2026-07-20"), frame), Window(ms("2026-07-01"), ms("2026-08-01")))

    def test_a_window_by_length_goes_on_to_the_next_day_of_the_calendar(self) -> None:
        window = Window.from_start(ms("2026-01-10T05:00"), CalendarFrame(CalendarStart("month", 1)))
        self.assertEqual(window.end, ms("2026-02-01"))

    @given(calendar_starts, zones, moments, moments)
    def test_windows_follow_each_other_without_gaps(
        self, anchor: CalendarStart, zone: tzinfo, then: int, later: int
    ) -> None:
        frame = CalendarFrame(CalendarStart(anchor.every, anchor.day, anchor.hour, anchor.minute, zone))
        start = frame.first(then)
        window = Window.from_start(start, frame)
        self.assertTrue(start <= then < window.end)
        self.assertEqual(frame.first(start), start)
        self.assertEqual(window.at(window.end, frame).start, window.end)
        other = window.at(max(then, later), frame)
        self.assertTrue(other.start <= max(then, later) < other.end)
