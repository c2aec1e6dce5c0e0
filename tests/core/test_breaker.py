"""The circuit breaker: when it opens, who is let through, and that a trial is made by one call alone."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshwright.core.breaker import FEWEST_CALLS, OPEN_S, WINDOW_CALLS, WINDOW_S, Breaker, Circuit

TRIAL_S = 7.0


class Bench:
    """A breaker, its clock, and what it told."""

    def __init__(self):
        self.now = 100.0
        self.told = []
        self.breaker = Breaker(lambda: self.now, TRIAL_S, lambda state, _: self.told.append(state))

    def calls(self, *failures):
        for is_failure in failures:
            epoch = self.breaker.enter()
            assert epoch is not None
            self.breaker.record(epoch, is_failure=is_failure)
            self.breaker.leave(epoch)

    def open(self):
        self.calls(*[True] * FEWEST_CALLS)
        assert self.breaker.state is Circuit.OPEN


@pytest.fixture
def bench():
    return Bench()


def test_a_backend_that_works_is_called(bench):
    bench.calls(*[False] * 100)
    assert (bench.breaker.state, bench.told) == (Circuit.CLOSED, [])


def test_a_few_failures_open_nothing_and_half_of_the_calls_do(bench):
    bench.calls(*[True] * (FEWEST_CALLS - 1))
    assert bench.breaker.state is Circuit.CLOSED
    bench.calls(True)
    assert bench.breaker.state is Circuit.OPEN
    assert bench.told == [Circuit.OPEN]


def test_it_is_the_share_that_counts(bench):
    bench.calls(*[False] * 20, *[True] * 19)
    assert bench.breaker.state is Circuit.CLOSED
    bench.calls(True)
    assert bench.breaker.state is Circuit.OPEN


def test_old_failures_are_forgotten(bench):
    bench.calls(*[True] * (FEWEST_CALLS - 1))
    bench.now += WINDOW_S
    bench.calls(True)
    assert bench.breaker.state is Circuit.CLOSED


def test_a_long_past_of_success_does_not_hide_failures(bench):
    bench.calls(*[False] * 10 * WINDOW_CALLS)
    bench.calls(*[True] * (WINDOW_CALLS // 2))
    assert bench.breaker.state is Circuit.OPEN


def test_an_open_circuit_lets_nobody_through_until_its_time_is_over(bench):
    bench.open()
    assert bench.breaker.enter() is None
    assert bench.breaker.retry_after_s == OPEN_S
    bench.now += OPEN_S - 0.01
    assert bench.breaker.enter() is None
    bench.now += 0.02
    assert bench.breaker.enter() is not None
    assert bench.told == [Circuit.OPEN, Circuit.ON_TRIAL]


def test_a_trial_is_made_by_one_call_and_its_success_closes(bench):
    bench.open()
    bench.now += OPEN_S
    trial = bench.breaker.enter()
    assert [bench.breaker.enter() for _ in range(9)] == [None] * 9
    assert 0 < bench.breaker.retry_after_s <= 1
    bench.breaker.record(trial, is_failure=False)
    assert bench.breaker.state is Circuit.CLOSED
    bench.calls(*[True] * (FEWEST_CALLS - 1))
    assert bench.breaker.state is Circuit.CLOSED


def test_a_trial_that_fails_opens_for_as_long_again(bench):
    bench.open()
    bench.now += OPEN_S
    bench.breaker.record(bench.breaker.enter(), is_failure=True)
    assert bench.breaker.state is Circuit.OPEN
    assert bench.breaker.retry_after_s == OPEN_S


def test_a_trial_that_told_nothing_makes_room_for_another(bench):
    bench.open()
    bench.now += OPEN_S
    first = bench.breaker.enter()
    bench.breaker.leave(first)
    second = bench.breaker.enter()
    assert second not in (None, first)


def test_a_trial_that_never_comes_back_is_given_up(bench):
    bench.open()
    bench.now += OPEN_S
    lost = bench.breaker.enter()
    bench.now += TRIAL_S
    second = bench.breaker.enter()
    assert second is not None
    bench.breaker.record(lost, is_failure=False)
    bench.breaker.leave(lost)
    assert bench.breaker.state is Circuit.ON_TRIAL
    assert bench.breaker.enter() is None


def test_an_answer_from_before_says_nothing_about_now(bench):
    late = bench.breaker.enter()
    bench.open()
    bench.breaker.record(late, is_failure=False)
    assert bench.breaker.state is Circuit.OPEN
    bench.now += OPEN_S
    bench.breaker.enter()
    bench.breaker.record(late, is_failure=False)
    assert bench.breaker.state is Circuit.ON_TRIAL


STEPS = st.lists(
    st.one_of(
        st.just(("enter",)),
        st.tuples(st.just("end"), st.integers(0, 30), st.sampled_from([True, False, None])),
        st.tuples(st.just("wait"), st.floats(0, 1.5 * OPEN_S)),
    ),
    max_size=200,
)


@settings(deadline=None)
@given(steps=STEPS)
def test_outside_of_a_closed_circuit_there_is_at_most_one_call_at_a_time(steps):
    bench = Bench()
    breaker, under_way = bench.breaker, []
    for step, *rest in steps:
        if step == "enter":
            was_closed = breaker.state is Circuit.CLOSED
            epoch = breaker.enter()
            if epoch is not None:
                under_way.append((epoch, bench.now, was_closed))
            trials = [at for _, at, closed in under_way if not closed and at > bench.now - TRIAL_S]
            assert len(trials) <= 1
            assert (epoch is not None) or not was_closed
        elif step == "wait":
            bench.now += rest[0]
        elif under_way:
            epoch, _, _ = under_way.pop(rest[0] % len(under_way))
            if rest[1] is not None:
                breaker.record(epoch, is_failure=rest[1])
            breaker.leave(epoch)


def test_states_are_called_by_the_words_of_the_field():
    assert [state.word for state in Circuit] == ["closed", "half-open", "open"]


def test_what_opened_it_is_said(bench):
    bench.open()
    assert bench.breaker.cause == f"{FEWEST_CALLS} failures of {FEWEST_CALLS} calls in {WINDOW_S:g} s"
    bench.now += OPEN_S
    bench.calls(True)
    assert bench.breaker.cause == "a trial that failed"
