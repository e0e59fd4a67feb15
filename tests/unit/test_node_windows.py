"""Downloads, fitting windows, and clocks that jump, on a node."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from edge_day2.domain.node_windows import (
    ClockJudgement,
    ClockMemory,
    ClockRules,
    ClockState,
    download_start,
    judge_clock,
    window_fit,
)
from edge_day2.domain.schedules import RepeatedSchedule, SingleSchedule, Window

START = datetime(2026, 11, 24, 2, tzinfo=UTC)
HOUR, MINUTE, DAY = timedelta(hours=1), timedelta(minutes=1), timedelta(days=1)
WINDOW = Window(START, START + HOUR)
NIGHTLY = RepeatedSchedule("0", "2", day_week="*")
RULES = ClockRules(earliest=datetime(2026, 1, 1, tzinfo=UTC))
LONG = timedelta(days=30)


def guid(number: int) -> str:
    return f"00000000-0000-0000-0000-{number:012x}"


@given(st.integers(0, 2**48 - 1), st.text(max_size=5))
def test_a_download_starts_in_the_six_hours_before_the_last_ten_minutes(number: int, salt: str) -> None:
    begins = download_start(WINDOW, guid(number), salt)

    assert START - 6 * HOUR - 10 * MINUTE <= begins < START - 10 * MINUTE
    assert download_start(WINDOW, guid(number).upper(), salt) == begins


def test_downloads_of_a_fleet_are_spread_evenly() -> None:
    begins = [download_start(WINDOW, guid(number), "salt") for number in range(6000)]

    for hour in range(6):
        first = START - 10 * MINUTE - (6 - hour) * HOUR
        # 1,000 are expected; five standard deviations are 144.
        assert 856 < sum(first <= begin < first + HOUR for begin in begins) < 1144


def test_another_window_and_another_salt_deal_anew() -> None:
    other = Window(START + DAY, START + DAY + HOUR)
    first = [download_start(WINDOW, guid(number), "a") for number in range(20)]

    assert [download_start(other, guid(number), "a") - DAY for number in range(20)] != first
    assert [download_start(WINDOW, guid(number), "b") for number in range(20)] != first


def test_the_spread_is_the_same_on_every_machine_and_in_every_version() -> None:
    assert download_start(WINDOW, guid(1), "salt") == datetime.fromisoformat("2026-11-23T23:28:23.135147+00:00")


def test_a_window_open_since_the_calendar_began_downloads_at_once() -> None:
    always = Window(datetime.min.replace(tzinfo=UTC))

    assert download_start(always, guid(1), "") == always.start


def test_an_update_that_needs_longer_than_the_window_stays_open_is_not_started_and_says_so() -> None:
    tight = window_fit(WINDOW, START + 51 * MINUTE, 10 * MINUTE)

    assert not tight.fits
    assert tight.sentence == "not started: the update needs 10 min, the window closes in 9 min"
    assert window_fit(WINDOW, START + 50 * MINUTE, 10 * MINUTE).fits
    assert "stays open for 10 min" in window_fit(WINDOW, START + 50 * MINUTE, 10 * MINUTE).sentence


def test_a_window_without_an_end_fits_everything_and_one_that_is_over_nothing() -> None:
    endless = window_fit(Window(START), START + DAY, DAY)

    assert endless.fits
    assert endless.sentence == "the update needs 1440 min, the window never closes"
    assert not window_fit(WINDOW, START + HOUR, timedelta(seconds=30)).fits


def judged(memory: ClockMemory, now: datetime, steady: timedelta = LONG) -> ClockJudgement:
    return judge_clock(memory, now, steady, NIGHTLY, RULES)


def test_a_window_is_begun_once_however_often_the_agent_restarts_in_it() -> None:
    first = judged(ClockMemory(), START + 5 * MINUTE)
    again = judged(first.memory, START + 6 * MINUTE, steady=timedelta(0))

    assert first.begins
    assert again.window == WINDOW
    assert not again.begins
    assert judged(again.memory, START + DAY).begins


def test_a_clock_at_1970_opens_nothing_and_is_used_once_it_is_set_in_a_window() -> None:
    unset = judged(ClockMemory(), datetime(1970, 1, 6, 2, 30, tzinfo=UTC), steady=MINUTE)
    after = judged(unset.memory, START + 30 * MINUTE, steady=timedelta(0))

    assert unset.state is ClockState.UNSET
    assert unset.window is None
    assert after.begins


def test_a_clock_put_back_into_a_window_does_not_begin_it_again() -> None:
    begun = judged(ClockMemory(), START + 30 * MINUTE)

    soon = judged(begun.memory, START + 10 * MINUTE, steady=timedelta(0))
    settled = judged(begun.memory, START + 10 * MINUTE, steady=2 * HOUR)

    assert soon.state is ClockState.BEHIND
    assert soon.window is None
    assert settled.window == WINDOW
    assert not settled.begins


def test_a_clock_put_back_to_before_a_window_does_not_double_it() -> None:
    begun = judged(ClockMemory(), START + MINUTE)
    before = judged(begun.memory, START - 2 * HOUR)
    again = judged(before.memory, START)

    assert before.window is None
    assert not again.begins
    assert judged(again.memory, START + DAY).begins


def test_a_clock_that_was_years_ahead_skips_no_window_once_it_is_right() -> None:
    ahead = judged(ClockMemory(), START + 5000 * DAY)
    assert ahead.begins

    unsettled = judged(ahead.memory, START - 2 * HOUR, steady=MINUTE)
    settled = judged(unsettled.memory, START + MINUTE, steady=2 * HOUR)

    assert unsettled.state is ClockState.BEHIND
    assert settled.begins


def test_a_clock_put_forward_over_windows_says_which_ones_were_missed() -> None:
    before = judged(ClockMemory(), START - 10 * MINUTE)
    after = judged(before.memory, START + DAY + 2 * HOUR)

    assert after.missed == (WINDOW, Window(START + DAY, START + DAY + HOUR))
    assert after.window is None
    assert judged(after.memory, START + DAY + 3 * HOUR).missed == ()


def test_a_window_that_was_begun_is_not_missed() -> None:
    begun = judged(ClockMemory(), START + MINUTE)

    assert judged(begun.memory, START + 2 * HOUR).missed == ()


def test_years_of_silence_list_a_hundred_missed_windows_at_the_most() -> None:
    before = judged(ClockMemory(), START)

    assert len(judged(before.memory, START + 3000 * DAY).missed) == 100


def test_an_open_window_that_is_edited_is_not_a_new_one() -> None:
    begun = judge_clock(ClockMemory(), START + MINUTE, LONG, SingleSchedule(START, START + HOUR), RULES)
    longer = SingleSchedule(START + MINUTE, START + 2 * HOUR)

    edited = judge_clock(begun.memory, START + 2 * MINUTE, LONG, longer, RULES)

    assert edited.window == longer.window
    assert not edited.begins


def test_a_window_begun_before_the_clock_went_astray_is_not_begun_again() -> None:
    begun = judged(ClockMemory(), START + MINUTE)
    astray = judged(begun.memory, START + 50 * DAY)

    assert astray.begins
    assert not judged(astray.memory, START + 2 * MINUTE).begins


@given(st.lists(st.integers(-3 * 1440, 4 * 1440), min_size=1, max_size=40))
def test_no_window_is_begun_twice_unless_it_lay_a_day_in_the_clocks_future(minutes: list[int]) -> None:
    memory = ClockMemory()
    begun: list[Window] = []
    for minute in minutes:
        now = START + minute * MINUTE
        judgement = judged(memory, now)
        memory = judgement.memory
        begun = [window for window in begun if window.start - now <= DAY]
        if judgement.begins:
            assert judgement.window is not None
            assert judgement.window not in begun
            begun.append(judgement.window)
