"""Questions to people in words, and the commands that decide on them."""

from datetime import UTC, datetime, timedelta

import pytest

from meshwright.cli.inbox import lapses
from meshwright.cli.question import commands, sentence
from meshwright.gen.agents.v1.task_pb2 import (
    DECISION_APPROVE,
    DECISION_EDIT,
    DECISION_RAISE_BUDGET,
    DECISION_REJECT,
    DECISION_RETRY,
    DECISION_SKIP,
    PendingInput,
)


def test_what_lets_a_call_run_quotes_its_digest_and_nothing_else_does():
    choices = [DECISION_APPROVE, DECISION_EDIT, DECISION_RETRY, DECISION_REJECT, DECISION_SKIP]
    assert commands("t1", PendingInput(choices=choices, intent_digest="3f2a91c07b44" * 5)) == [
        "meshwright task resolve t1 approve --digest 3f2a91c07b44",
        "meshwright task resolve t1 edit '{…}' --digest 3f2a91c07b44",
        "meshwright task resolve t1 retry --digest 3f2a91c07b44",
        "meshwright task resolve t1 reject",
        "meshwright task resolve t1 skip",
    ]


def test_a_question_about_no_call_needs_no_digest():
    (retry, more) = commands("t1", PendingInput(choices=[DECISION_RETRY, DECISION_RAISE_BUDGET]))
    assert retry == "meshwright task resolve t1 retry"
    assert more.endswith("raise_budget --cost-budget|--token-budget|--max-steps TOTAL")


@pytest.mark.parametrize(("text", "ended"), [("Which", "Which."), ("Which? ", "Which?"), ("So.", "So.")])
def test_a_question_ends_as_a_sentence_ends(text, ended):
    assert sentence(text) == ended


@pytest.mark.parametrize(
    ("left_s", "told"),
    [(-5, ("now",)), (30, ("in 29 s", "in 30 s")), (200, ("in 0 h 3 min",)), (90_100, ("in 1 d 1 h",))],
)
def test_the_time_left_is_told_as_finely_as_it_matters(left_s, told):
    pending = PendingInput()
    pending.expire_time.FromDatetime(datetime.now(UTC) + timedelta(seconds=left_s))
    assert lapses(pending) in told
