"""Budgets: what is left, what stops a task, what children get."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshwright.agents.budget import LEAST_CHILD_TOKENS, MAX_OUTPUT, MAX_TOKENS, Budget
from meshwright.agents.models.model import Message
from meshwright.agents.state import RunState
from meshwright.core.errors import BudgetExceededError, PermissionDeniedError
from meshwright.gen.agents.v1.step_event_pb2 import Delegation
from meshwright.gen.agents.v1.task_pb2 import (
    FINISH_REASON_MAX_STEPS,
    FINISH_REASON_TOKEN_BUDGET_EXCEEDED,
    TaskRequest,
    Usage,
)


def spent(tokens, step=0):
    return RunState(step=step, usage=Usage(input_tokens=tokens // 2, output_tokens=tokens - tokens // 2))


def said(characters):
    return [Message("user", "x" * characters)]


def test_limits_are_read_from_the_request():
    assert Budget.of(TaskRequest(max_steps=3, token_budget=600), {}) == Budget(3, 600)


@pytest.mark.parametrize(
    ("tokens", "step", "reason"),
    [
        (0, 0, None),
        (999, 4, None),
        (999, 5, FINISH_REASON_MAX_STEPS),
        (1000, 0, FINISH_REASON_TOKEN_BUDGET_EXCEEDED),
        (1001, 5, FINISH_REASON_TOKEN_BUDGET_EXCEEDED),
    ],
)
def test_a_task_stops_where_a_limit_is_reached(tokens, step, reason):
    assert Budget(5, 1000).exhausted(spent(tokens, step)) == reason


def test_a_budget_may_be_used_up_to_its_last_token():
    assert not Budget(5, 1000).overspent(spent(1000))
    assert Budget(5, 1000).overspent(spent(1001))
    assert Budget(5, 1000).left(spent(1200)) == 0


def test_an_answer_is_bounded_by_what_is_left_after_the_prompt():
    assert Budget(5, 1000).room(spent(0), "", said(400)) == 1000 - 101 - 1
    assert Budget(5, 1000).room(spent(0), "y" * 40, said(400)) == 1000 - 101 - 11
    assert Budget(5, 30_000).room(spent(0), "", said(400)) == MAX_OUTPUT
    assert Budget(5, 1000).room(spent(900), "", said(400)) == 0
    assert Budget(5, 1000).room(spent(0), "", said(4000)) == 0


def grant(budget, state, children, spent, cost=0):
    delegation = Delegation()
    budget.allowance(state, children, spent, cost).grant(delegation)
    return delegation


def test_children_and_the_parent_share_what_is_left_alike():
    assert grant(Budget(5, 8000), spent(1000), 3, 1000).granted_tokens == 1500
    assert grant(Budget(5, 10**6), spent(0), 1, 0).granted_tokens == MAX_TOKENS
    assert grant(Budget(5, 2 * LEAST_CHILD_TOKENS), spent(0), 1, 0).granted_tokens == LEAST_CHILD_TOKENS
    with pytest.raises(PermissionDeniedError, match="too little of the token budget"):
        grant(Budget(5, 2 * LEAST_CHILD_TOKENS), spent(1), 1, 0)


@given(
    micros=st.integers(1, 10**9),
    spent_micros=st.integers(0, 10**9),
    cost=st.integers(0, 10**6),
    calls=st.integers(0, 1_000),
    children=st.integers(0, 32),
    prices=st.lists(st.integers(0, 10**8), max_size=32),
)
def test_what_the_calls_of_an_answer_get_is_never_more_than_there_is(
    micros, spent_micros, cost, calls, children, prices
):
    budget = Budget(5, 32_768, micros, calls)
    state = RunState(usage=Usage(cost_micros=spent_micros))
    allowance = budget.allowance(state, children, 0, cost)
    granted, taken = [Delegation() for _ in range(children)], []
    for delegation in granted:
        with contextlib.suppress(PermissionDeniedError):
            allowance.grant(delegation)
    for price in prices:
        with contextlib.suppress(BudgetExceededError):
            allowance.take("dear", price)
            taken.append(price)
    left = max(0, micros - spent_micros - cost)
    assert sum(one.granted_cost_micros for one in granted) + sum(taken) <= left
    if calls:
        assert sum(one.granted_tool_calls for one in granted) + len(taken) <= calls
