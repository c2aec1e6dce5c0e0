"""Budgets: what is left, what stops a task, what children get."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshwright.agents.budget import (
    BYTES_A_TOKEN,
    LEAST_CHILD_TOKENS,
    MAX_OUTPUT,
    MAX_TOKENS,
    Budget,
    most_input_tokens,
)
from meshwright.agents.models import anthropic_request, openai_request
from meshwright.agents.models.model import Call, Message, Prompt, ToolSpec
from meshwright.agents.models.names import WireNames
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


IDS = st.text("abc_-0", min_size=1, max_size=64)
CALLS = st.builds(Call, IDS, st.just("docs.search"), st.dictionaries(st.text(max_size=9), st.text(max_size=30)))
MESSAGES = st.one_of(
    st.builds(Message, st.just("user"), st.text(max_size=60)),
    st.builds(Message, st.just("assistant"), st.text(max_size=60), st.lists(CALLS, max_size=3).map(tuple)),
    st.builds(Message, st.just("tool"), st.text(max_size=60), st.just(()), IDS),
)


def words(value):
    """Lists all text within a request."""
    if isinstance(value, str):
        return [value]
    values = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [word for one in values for word in words(one)]


@given(st.text(max_size=60), st.lists(MESSAGES, max_size=6), st.sampled_from(["", "0123456789abcdef"]))
def test_a_prompt_has_no_more_tokens_than_are_set_aside_for_it_as_it_is_sent(instructions, messages, boundary):
    tool = ToolSpec("docs.search", "Searches.", {"type": "object", "properties": {"query": {"type": "string"}}})
    prompt = Prompt("a", instructions, tuple(messages), (tool,), 0, 100, {"type": "object"}, boundary)
    names = WireNames([tool.name])
    for request in (
        openai_request.request_of(prompt, "m", names, "max_tokens"),
        anthropic_request.request_of(prompt, "m", names),
    ):
        size = sum(len(word.encode(errors="replace")) for word in words(request))
        assert size <= BYTES_A_TOKEN * most_input_tokens(prompt)
