"""Goals taken apart: what becomes a step, who gets it, what it waits for."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshwright.agents.library.planner.policy import HELPERS
from meshwright.agents.outline import MOST_STEPS, Helper, outline


def planned(goal, helpers=HELPERS):
    return [(step.action, step.who, step.after) for step in outline(goal, helpers)]


def test_joined_imperatives_become_steps_that_wait_for_what_they_need():
    goal = "Find out what the docs say about leases, then summarise the findings and send the summary to the team."
    assert planned(goal) == [
        ("Find out what the docs say about leases", "researcher", ()),
        ("Summarise the findings", "summarizer", (1,)),
        ("Send the summary to the team", "", (2,)),
    ]


def test_finding_waits_for_nothing_and_what_follows_for_all_of_it():
    assert planned("- find the price of Valkey\n- find the price of Envoy\n- order the cheaper one") == [
        ("Find the price of Valkey", "researcher", ()),
        ("Find the price of Envoy", "researcher", ()),
        ("Order the cheaper one", "", (1, 2)),
    ]


def test_writing_begins_with_finding_and_ends_with_checking():
    assert planned("Please write a report on our backups.") == [
        ("Find what is known for: a report on our backups", "researcher", ()),
        ("Write a report on our backups", "", (1,)),
        ("Check the claims of the result against their sources", "reviewer", (2,)),
    ]


def test_nothing_is_added_that_nobody_can_do():
    assert planned("Write a report on our backups.", [Helper("writer", "writes reports")]) == [
        ("Write a report on our backups", "writer", ())
    ]


def test_what_the_plan_is_called_is_no_step():
    goal = "Plan the move of our office: find three movers and book the cheapest one."
    assert planned(goal) == [("Find three movers", "researcher", ()), ("Book the cheapest one", "", (1,))]


@pytest.mark.parametrize("goal", ["Make a plan to release version 2.0", "plan how to release version 2.0."])
def test_the_words_that_ask_for_a_plan_are_no_step(goal):
    assert planned(goal) == [("Release version 2.0", "", ())]


def test_conjunctions_inside_of_a_step_do_not_cut_it():
    assert planned("Order bread and butter.") == [("Order bread and butter", "", ())]


@pytest.mark.parametrize("goal", ["", "   ", "...", "\n- \n"])
def test_a_goal_without_words_has_no_steps(goal):
    assert planned(goal) == []


@settings(deadline=None)
@given(
    st.text(max_size=400)
    | st.lists(st.sampled_from(["find x", "write y", "then", "and", ";", ".", "\n- z"])).map(" ".join)
)
def test_steps_are_numbered_bounded_and_wait_for_earlier_ones_only(goal):
    steps = outline(goal, HELPERS)
    assert [step.number for step in steps] == list(range(1, len(steps) + 1))
    assert len(steps) <= MOST_STEPS
    assert all(0 < one < step.number for step in steps for one in step.after)
    assert {step.who for step in steps} <= {"", *(helper.name for helper in HELPERS)}
    assert all(step.action for step in steps)


def test_finding_that_refers_back_waits():
    assert planned("Order a disk, then find out when it comes.") == [
        ("Order a disk", "", ()),
        ("Find out when it comes", "researcher", (1,)),
    ]


def test_writing_about_what_is_there_needs_no_finding():
    assert planned("Compare their prices.")[0] == ("Compare their prices", "", ())


def test_what_is_to_be_made_is_nobodys_who_only_finds_or_checks():
    assert planned("Send the claims to Bob.") == [("Send the claims to Bob", "", ())]
