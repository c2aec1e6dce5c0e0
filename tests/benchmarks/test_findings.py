"""What the benchmarks conclude from what they have measured."""

import asyncio
import random

import pytest

from benchmarks.findings import Finding, percentile, slope
from benchmarks.load import checked, closed_loop, random_phases
from benchmarks.parts import BenchmarkError
from benchmarks.report import drifted, plot, table
from benchmarks.rounds import Effort


def finding(**facts):
    chosen = {"name": "durable", "what": "a task", "unit": "ms", "ours": [3.0, 2.0, 9.0], "theirs": [1.0, 1.0, 2.0]}
    return Finding(**(chosen | facts))


def test_a_ratio_is_that_of_one_round():
    assert finding().ratios == [3.0, 2.0, 4.5]
    assert finding().median == 3.0


def test_without_another_side_the_values_themselves_are_held_against_the_goal():
    assert finding(theirs=(), goal=3.0).verdict == "met"
    assert finding(theirs=(), goal=2.9).verdict == "missed"


@pytest.mark.parametrize(("recorded", "many"), [(2.4, 0), (2.3, 1)])
def test_more_than_a_quarter_beyond_the_baseline_is_drift(recorded, many):
    assert len(drifted([finding(is_gated=True)], {"durable": recorded})) == many


def test_what_is_not_gated_or_not_recorded_does_not_drift():
    assert drifted([finding()], {"durable": 0.1}) == []
    assert drifted([finding(is_gated=True)], {}) == []


def test_negative_and_missing_latencies_are_refused():
    with pytest.raises(BenchmarkError, match="ran backwards"):
        checked([0.1, -0.1], 2)
    with pytest.raises(BenchmarkError, match="1 answers to 2"):
        checked([0.1], 2)


async def test_both_loads_act_as_often_as_they_are_told():
    acted = 0

    async def act():
        nonlocal acted
        acted += 1
        await asyncio.sleep(0)

    assert len(await closed_loop(act, 10, 3)) == 10
    assert len(await random_phases(act, 10, 10_000, random.Random(1))) == 10
    assert acted == 20


async def test_sides_take_turns_in_random_order_after_warming_up():
    order = []

    def side(name):
        async def run():
            order.append(name)

        return run

    await Effort(rounds=6, rng=random.Random(3)).interleaved({"a": side("a"), "b": side("b")})
    pairs = {tuple(order[at : at + 2]) for at in range(0, len(order), 2)}
    assert pairs == {("a", "b"), ("b", "a")}
    assert len(order) == 14


def test_slope_and_percentile():
    assert slope([(1, 10), (2, 30), (3, 50)]) == pytest.approx(20)
    assert percentile([3.0, 1.0, 2.0], 0.99) == 3.0


def test_the_report_says_what_was_missed():
    missed = finding(goal=2.5)
    assert "| missed |" in table([missed])
    assert "missed</text>" in plot([missed])
