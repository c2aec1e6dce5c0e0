"""A run: which attempt a journal says was before it, and under which grant it acts."""

import pytest

from meshwright.agents.journal import Claim
from meshwright.agents.models.model import Call
from meshwright.agents.run import Run, attempt_of
from meshwright.agents.shared_limits import SharedLimits
from meshwright.agents.task import Record
from meshwright.core.grant import approval_of
from meshwright.core.tracing import Attempt
from meshwright.gen.agents.v1.step_event_pb2 import RunnerNotice, StepEvent, TaskStarted, ToolCall

STARTED = {"started": TaskStarted()}
A, B = "a" * 16, "b" * 16


def folded(*events):
    """Folds events: milliseconds, attempt, span, and what they are; a notice if nothing is said."""
    known = None
    for time_ms, attempt, span_id, kind in events:
        event = StepEvent(attempt=attempt, span_id=span_id, **(kind or {"notice": RunnerNotice()}))
        event.time.FromMilliseconds(time_ms)
        known = attempt_of(event, known)
    return known


def test_an_attempt_begins_with_the_first_event_of_its_task_though_that_names_no_span():
    assert folded((1_000, 1, "", STARTED), (9_060, 1, A, None), (9_080, 1, A, None)) == Attempt(A, 1, 1_000, 9_080)


def test_an_attempt_after_a_lost_one_begins_with_its_own_first_event():
    lost = (1_000, 1, "", STARTED)
    assert folded(lost, (9_060, 2, B, None)) == Attempt(B, 2, 9_060, 9_060)
    assert folded(lost, (2_000, 1, A, None), (9_060, 2, B, None)) == Attempt(B, 2, 9_060, 9_060)
    assert folded(lost, (2_000, 1, A, None), (9_060, 1, B, None)) == Attempt(B, 1, 9_060, 9_060)


def test_what_others_write_into_a_journal_is_no_attempt():
    assert folded((1_000, 0, "", None)) is None
    assert folded((1_000, 1, A, None), (5_000, 0, "", None)) == Attempt(A, 1, 1_000, 1_000)


def test_an_attempt_that_was_lost_before_it_named_a_span_has_none():
    assert folded((1_000, 1, "", STARTED)) == Attempt("", 1, 1_000, 1_000)


@pytest.fixture
def run(made):
    return Run(Claim(made.name(), "1-a"), Record.fresh(made.task(), 1_000, SharedLimits()), None, None, None)


def test_a_grant_stands_while_nothing_of_it_changes(run):
    grant = run.grant()
    run.state.usage.input_tokens, run.state.sequence = 5, 9
    assert run.grant() is grant


def test_a_grant_tells_at_once_that_others_content_has_entered(run):
    assert not run.grant().tainted
    run.state.is_tainted = True
    assert run.grant().tainted
    assert run.grant() is run.grant()


def test_a_grant_holds_a_call_once_a_person_has_allowed_it(run):
    run.state.planned = (Call("c1", "mail.send", {}),)
    run.state.intents["c1"] = ToolCall(call_id="c1", tool="mail.send", idempotency_key="k1")
    assert not run.grant().approved
    run.state.approved["c1"] = "digest"
    assert run.grant().approved == [approval_of("k1", "digest")]
    run.state.approved.clear()
    assert not run.grant().approved


def test_a_grant_grows_with_the_budget_that_a_person_raises(run):
    run.record.request.cost_budget_micros = 10
    assert (run.grant().token_budget, run.grant().cost_budget_micros) == (8_192, 10)
    run.state.raised["token_budget"] = 20_000
    assert (run.grant().token_budget, run.grant().cost_budget_micros) == (20_000, 10)
    run.state.raised["cost_budget_micros"] = 30
    assert (run.grant().token_budget, run.grant().cost_budget_micros) == (20_000, 30)


def test_a_grant_is_made_anew_at_half_of_its_age(run, monkeypatch):
    grant = run.grant()
    monkeypatch.setattr("meshwright.agents.run.MAX_AGE_S", 0)
    assert run.grant() is not grant
    assert run.grant() == grant
