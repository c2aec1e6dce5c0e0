"""The account: folded from a journal it says what the store's counters say, whoever spent it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshwright.agents.account import MOST_ROWS, Account, Payer
from meshwright.agents.state import RunState
from meshwright.core.store import partition_key
from meshwright.gen.agents.v1.step_event_pb2 import (
    RESERVATION_STATE_CHARGED,
    RESERVATION_STATE_OPEN,
    RESERVATION_STATE_RELEASED,
    ChildStep,
    LlmCall,
    ModelReservation,
    StepEvent,
    TaskStarted,
    ToolCall,
    ToolResult,
)
from meshwright.gen.agents.v1.task_pb2 import (
    COST_TYPE_EMBEDDING,
    COST_TYPE_LLM,
    COST_TYPE_TOOL,
    COST_TYPE_UNSPECIFIED,
    EmbeddingUsage,
    TaskResponse,
    Usage,
)


def reserved(micros, state=RESERVATION_STATE_OPEN):
    return StepEvent(reservation=ModelReservation(model="m", cost_micros=micros, state=state))


def answered(cost, held):
    return StepEvent(llm_call=LlmCall(model="m", usage=Usage(cost_micros=cost), reserved_micros=held))


def called(call_id, micros):
    return StepEvent(tool_call=ToolCall(call_id=call_id, tool="t", cost_micros=micros))


def settled(call_id, cost, held):
    return StepEvent(tool_result=ToolResult(call_id=call_id, cost_micros=cost, reserved_micros=held))


def embedding(event, cost, *, is_estimated=False):
    """Has an event that costs money say that text was embedded, too."""
    spent = EmbeddingUsage(model="e", tokens=100 * cost, cost_micros=cost, estimated=is_estimated)
    getattr(event, event.WhichOneof("event")).embedding.CopyFrom(spent)
    return event


def below(event, *path):
    for child in reversed(path):
        event = StepEvent(child=ChildStep(child_task_id=child, event=event))
    return event


STARTED = StepEvent(started=TaskStarted(agent_id="worker"))
ENDED = StepEvent(result=TaskResponse())


def folded(*events):
    state = RunState()
    for event in (STARTED, *events):
        state.apply(event)
    return state


def test_an_answer_settles_what_was_set_aside_for_it():
    state = folded(reserved(100))
    assert (state.account.reserved, state.usage.cost_micros) == (100, 0)
    assert state.account.model_call.micros == 100
    state.apply(answered(30, 100))
    assert (state.account.reserved, state.usage.cost_micros) == (0, 30)
    assert state.account.rows[Payer("worker", "m")].cost_micros == 30


@pytest.mark.parametrize(("state", "cost"), [(RESERVATION_STATE_CHARGED, 100), (RESERVATION_STATE_RELEASED, 0)])
def test_a_lost_call_is_charged_and_a_refused_one_is_not(state, cost):
    run = folded(reserved(100), reserved(100, state))
    assert run.account.reserved == 0
    assert (run.usage.cost_micros, run.usage.estimated_cost_micros) == (cost, cost)


def test_a_tool_that_a_person_has_run_again_is_set_aside_and_paid_twice():
    state = folded(called("c", 7), called("c", 7))
    assert state.account.held_for("c") == 14
    state.apply(settled("c", 14, 14))
    assert (state.account.reserved, state.usage.cost_micros) == (0, 14)


def test_what_a_child_leaves_open_is_charged_at_its_end_with_what_is_below_it():
    state = folded(
        below(STARTED, "a"),
        below(reserved(100), "a"),
        below(reserved(50), "a", "b"),
        below(reserved(20), "ab"),
        below(ENDED, "a"),
    )
    assert (state.account.reserved, state.usage.cost_micros, state.usage.estimated_cost_micros) == (20, 150, 150)


def test_shares_say_what_was_paid_for():
    state = folded(embedding(answered(30, 0), 7), called("c", 5), settled("c", 5, 5))
    rows = {(row.model, row.tool, row.type): row.usage.cost_micros for row in state.account.shares()}
    assert rows == {("m", "", COST_TYPE_LLM): 30, ("e", "", COST_TYPE_EMBEDDING): 7, ("", "t", COST_TYPE_TOOL): 5}
    assert Payer("a").type == COST_TYPE_UNSPECIFIED


def test_rows_are_bounded_and_still_add_up():
    account = Account()
    for number in range(3 * MOST_ROWS):
        account.apply(StepEvent(llm_call=LlmCall(model=f"m{number}", usage=Usage(cost_micros=1))))
    assert len(account.rows) == MOST_ROWS + 1
    assert sum(row.usage.cost_micros for row in account.shares()) == 3 * MOST_ROWS


MICROS = st.integers(0, 1_000)
PATHS = st.sampled_from([(), ("a",), ("a", "b"), ("c",)])
EVENTS = st.one_of(
    st.builds(embedding, st.builds(answered, MICROS, MICROS), MICROS, is_estimated=st.booleans()),
    st.builds(embedding, st.builds(settled, st.sampled_from("xy"), MICROS, MICROS), MICROS),
    st.builds(reserved, MICROS),
    st.builds(reserved, MICROS, st.just(RESERVATION_STATE_CHARGED)),
    st.builds(answered, MICROS, MICROS),
    st.builds(called, st.sampled_from("xy"), MICROS),
    st.builds(settled, st.sampled_from("xy"), MICROS, MICROS),
    st.just(ENDED),
)


@given(st.lists(st.tuples(EVENTS, PATHS), max_size=40))
def test_whatever_happens_shares_add_up_to_what_is_left_open_charged(drawn):
    account = Account()
    for event, path in drawn:
        account.apply(below(event, *path))
    before, open_micros = sum(row.cost_micros for row in account.rows.values()), account.reserved
    assert account.end().get("cost_micros", 0) == open_micros
    assert account.reserved == 0
    assert sum(row.usage.cost_micros for row in account.shares()) == before + open_micros


async def test_record_and_fold_agree(journal, made, claimed, store):
    root = made.task()
    claim, child = await claimed(root), made.child(root)
    working = await claimed(child)
    await journal.append(claim, "0", [reserved(500)])
    await journal.append(claim, "1", [answered(200, 500), called("c", 70)])
    await journal.append(working, "0", [STARTED, reserved(300)])
    await journal.append(working, "1", [reserved(300, RESERVATION_STATE_CHARGED), reserved(90)])
    await journal.append(claim, "2", [embedding(settled("c", 70, 70), 4)])
    await journal.append(working, "2", [embedding(settled("z", 0, 0), 5, is_estimated=True)])
    await journal.append(claim, "3", [reserved(60)])
    await journal.append(claim, "4", [embedding(reserved(60, RESERVATION_STATE_RELEASED), 6)])
    await journal.finish(working, "FAILED", [made.result()])
    state = RunState()
    async for entry in journal.replay(made.name()):
        state.apply(entry.event("t1"))
    record = await journal.record(made.name())
    held = await store.client.hget(partition_key(0, "task", made.name().ref), "reserved_micros")
    assert state.usage == record.usage
    assert record.usage.cost_micros == 200 + 300 + 70 + 90 + 4 + 5 + 6
    assert (record.usage.estimated_cost_micros, record.usage.embedding_tokens) == (395, 1_500)
    assert int(held) == state.account.reserved == 0
