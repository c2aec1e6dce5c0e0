"""Failures that come again and again: the first is told, then one a minute, then that they are over."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from meshwright.core.recurring import EVERY_S, STEADY_S, Recurring


class Clock:
    """A clock that a test sets."""

    now = 1_000.0

    def __call__(self):
        return self.now


def test_the_first_failure_is_told_then_one_a_minute():
    clock = Clock()
    failing = Recurring(clock)
    told = []
    for _ in range(1_000):
        told += [clock.now - 1_000] * failing.is_news()
        clock.now += 0.5
    assert told == [60.0 * minute for minute in range(9)]


def test_the_end_of_failures_is_told_once():
    failing = Recurring(Clock())
    assert not failing.is_over()
    assert failing.is_news()
    assert failing.is_over()
    assert not failing.is_over()


def test_a_failure_after_a_steady_time_is_told_at_once():
    clock = Clock()
    failing = Recurring(clock)
    assert failing.is_news()
    assert failing.is_over()
    clock.now += STEADY_S
    assert not failing.is_over()
    assert failing.is_news()


@given(st.lists(st.tuples(st.floats(0, STEADY_S * 0.99), st.floats(0, 100)), max_size=200))
def test_what_goes_well_for_moments_is_told_no_more_often_than_once_a_minute(times):
    clock = Clock()
    failing = Recurring(clock)
    told = [clock.now] * failing.is_news()
    for well_s, away_s in times:
        clock.now += away_s
        failing.is_over()
        clock.now += well_s
        told += [clock.now] * failing.is_news()
    assert all(later - earlier >= EVERY_S for earlier, later in pairwise(told))
