"""Money in a mesh: set aside before a call, settled after it, never more than there is, shared among children."""

import json

import grpc
import pytest

from meshwright.agents.agent import Agent
from meshwright.agents.embedders.hashing import HashingEmbedder
from meshwright.agents.embedders.metering import MeteredEmbedder
from meshwright.agents.escrow import Escrow
from meshwright.agents.feed import Feeds
from meshwright.agents.journal import Journal
from meshwright.agents.models.candidate import candidate
from meshwright.agents.models.model import Message, Prompt
from meshwright.agents.models.prices import Price, Prices
from meshwright.agents.models.scripted import ScriptedModel
from meshwright.agents.purse import Purse
from meshwright.agents.run import Run
from meshwright.agents.shared_limits import SharedLimits
from meshwright.agents.task import leaf
from meshwright.core.errors import BudgetExceededError, MeshError, TaskCancelledError
from meshwright.core.grant import Signer
from meshwright.core.store import partition_key
from meshwright.gen.agents.v1.step_event_pb2 import (
    RESERVATION_STATE_CHARGED,
    RESERVATION_STATE_OPEN,
    TOOL_OUTCOME_DENIED,
    TOOL_OUTCOME_OK,
    ModelReservation,
    StepEvent,
    TaskStarted,
    ToolCall,
)
from meshwright.gen.agents.v1.task_pb2 import (
    BUDGET_ACTION_ASK,
    BUDGET_ACTION_DEGRADE,
    BUDGET_ACTION_FAIL,
    DECISION_ANSWER,
    DECISION_FAIL,
    DECISION_RAISE_BUDGET,
    FINISH_REASON_COST_BUDGET_EXCEEDED,
    FINISH_REASON_MAX_STEPS,
    FINISH_REASON_STOP,
    INPUT_KIND_BUDGET,
    TASK_STATUS_COMPLETED,
    TASK_STATUS_FAILED,
    TaskRequest,
    Usage,
)
from meshwright.gen.agents.v1.task_service_pb2 import WatchTaskRequest
from meshwright.registry import tool

DEAR = {"input": 1_000_000, "output": 1_000_000}
"""One micro a token."""
NAMES = ("worker", "boss", "helper", "left", "right")


@tool(effect="pure", cost_micros=700)
def dear(n: int = 0) -> int:
    """Costs 700 micros."""
    return n


@tool(effect="pure")
def free(n: int = 0) -> int:
    """Costs nothing."""
    return n


def reply(*calls, text="", tokens=(100, 50)):
    usage = {"input_tokens": tokens[0], "output_tokens": tokens[1]}
    asked = [{"name": name, "arguments": arguments} for name, arguments in calls]
    return {"text": text, "tool_calls": asked, "usage": usage}


DONE = reply(text="Done.")
ON = reply(("free", {}), text="On and on.")


@pytest.fixture
def prices(tmp_path):
    """A file in which every scripted model costs a micro a token."""
    path = tmp_path / "prices.yaml"
    path.write_text(json.dumps({f"{name}.yaml": DEAR for name in NAMES}))
    return str(path)


@pytest.fixture
def start(mesh, dial, prices):
    """Starts an agent whose scripted model costs a micro a token, and connects to it."""

    async def started(name, *replies, delegates=(), **settings):
        author = Agent(name, "Work.", tools=[dear, free], delegates=delegates)
        chosen = {"prices": prices} | settings
        return dial(await mesh.agent(author, script=json.dumps({"agents": {name: list(replies)}}), **chosen))

    return started


def shares(response):
    return {(row.agent_id, row.model, row.tool): row.usage.cost_micros for row in response.usage_shares}


async def test_a_call_is_set_aside_before_it_and_costs_what_it_cost(start, kinds):
    client = await start("worker", reply(("dear", {}), ("free", {})), DONE)
    events = await client.steps(cost_budget_micros=50_000)
    assert kinds(events) == [
        *("started", "reservation", "llm_call", "tool_call", "tool_call", "tool_result", "tool_result"),
        *("reservation", "llm_call", "result"),
    ]
    result = events[-1].result
    assert (result.finish_reason, result.usage.cost_micros) == (FINISH_REASON_STOP, 150 + 700 + 150)
    assert result.usage.estimated_cost_micros == 0
    assert shares(result) == {
        ("worker", "worker.yaml", ""): 300,
        ("worker", "", "dear"): 700,
        ("worker", "", "free"): 0,
    }
    reservation = events[1].reservation
    assert (reservation.model, reservation.state) == ("worker.yaml", RESERVATION_STATE_OPEN)
    assert events[2].llm_call.reserved_micros == reservation.cost_micros > 150
    assert (await client.get(result.task_id)).usage == result.usage


async def test_without_a_budget_of_money_nothing_is_set_aside_but_all_is_counted(start, kinds):
    client = await start("worker", reply(("dear", {})), DONE)
    events = await client.steps()
    assert "reservation" not in kinds(events)
    assert events[-1].result.usage.cost_micros == 1000


@pytest.mark.parametrize("action", [0, BUDGET_ACTION_FAIL, BUDGET_ACTION_DEGRADE])
async def test_a_task_ends_before_its_money_does(start, action):
    client = await start("worker", *(reply(("free", {"n": n}), text="On and on.") for n in range(25)))
    response = await client.run(cost_budget_micros=3_000, on_budget_exceeded=action, max_steps=25, token_budget=32_768)
    assert response.finish_reason == FINISH_REASON_COST_BUDGET_EXCEEDED
    assert 0 < response.usage.cost_micros <= 3_000
    assert response.output == "On and on."
    is_failure = action == BUDGET_ACTION_FAIL
    assert response.status == (TASK_STATUS_FAILED if is_failure else TASK_STATUS_COMPLETED)
    assert not is_failure or MeshError.from_status(response.error).reason == "BUDGET_EXCEEDED"


async def test_a_budget_for_which_the_prompt_alone_is_too_dear_buys_nothing(start, kinds):
    client = await start("worker", DONE)
    events = await client.steps("x" * 4_000, cost_budget_micros=1_000)
    assert kinds(events) == ["started", "result"]
    assert events[-1].result.finish_reason == FINISH_REASON_COST_BUDGET_EXCEEDED


async def test_a_tool_that_costs_more_than_is_left_is_refused_and_the_model_goes_on(start):
    client = await start("worker", reply(*[("dear", {"n": n}) for n in range(9)], ("free", {})), DONE)
    events = await client.steps(cost_budget_micros=5_000)
    outcomes = [event.tool_result for event in events if event.HasField("tool_result")]
    assert [outcome.outcome for outcome in outcomes].count(TOOL_OUTCOME_OK) == 7  # 5000 - 150 buy six of the dear ones
    refused = [outcome for outcome in outcomes if outcome.outcome == TOOL_OUTCOME_DENIED]
    assert {MeshError.from_status(outcome.error).reason for outcome in refused} == {"BUDGET_EXCEEDED"}
    assert events[-1].result.usage.cost_micros <= 5_000


async def test_tool_calls_have_a_limit_of_their_own(start):
    client = await start("worker", reply(*[("free", {"n": n}) for n in range(4)]), DONE)
    events = await client.steps(max_tool_calls=3)
    outcomes = [event.tool_result.outcome for event in events if event.HasField("tool_result")]
    assert (outcomes.count(TOOL_OUTCOME_OK), outcomes.count(TOOL_OUTCOME_DENIED)) == (3, 1)
    assert events[-1].result.output == "Done."


async def test_a_model_that_nobody_has_priced_is_refused_only_where_money_counts(mesh, dial):
    class Strange(ScriptedModel):
        provider = "openai"

    file = mesh.folder / "strange-model"
    file.write_text(json.dumps({"agents": {"default": [DONE]}}))
    client = dial(await mesh.agent(Agent("worker", "Work.", model=Strange(file))))
    response = await client.run(cost_budget_micros=1_000)
    error = MeshError.from_status(response.error)
    assert (response.status, error.reason) == (TASK_STATUS_FAILED, "PRICE_UNKNOWN")
    assert "MESHWRIGHT_PRICES" in error.message
    assert (await client.run()).usage.cost_micros == 0


async def test_watchers_are_warned_once_near_the_end_of_a_limit(start):
    client = await start("worker", ON)
    events = await client.steps(max_steps=5)
    notices = [(event.budget.limit, event.budget.used_fraction) for event in events if event.HasField("budget")]
    assert notices == [("steps", 0.8), ("steps", 1.0)]


class TestAsking:
    async def test_a_task_waits_for_more_money_and_goes_on_with_it(self, start):
        client = await start("worker", ON, ON, ON, DONE)
        await client.submit(task_id="t1", cost_budget_micros=700, on_budget_exceeded=BUDGET_ACTION_ASK)
        (pending,) = await client.asked("t1")
        assert (pending.kind, list(pending.choices)) == (INPUT_KIND_BUDGET, [DECISION_RAISE_BUDGET, DECISION_FAIL])
        assert "700" in pending.prompt
        enough = int(pending.prompt.partition("raise it to ")[2].partition(" ")[0])
        assert 700 < enough <= 20_000
        before = (await client.get("t1")).usage.cost_micros
        assert 0 < before <= 700
        await client.resolve("t1", pending, DECISION_RAISE_BUDGET, cost_budget_micros=20_000)
        response = await client.ended("t1")
        assert (response.output, response.finish_reason) == ("Done.", FINISH_REASON_STOP)
        assert response.usage.cost_micros == 600

    async def test_steps_and_tokens_are_raised_alike(self, start):
        client = await start("worker", ON, ON, DONE)
        await client.submit(task_id="t1", max_steps=1, token_budget=512, on_budget_exceeded=BUDGET_ACTION_ASK)
        (pending,) = await client.asked("t1")
        await client.resolve("t1", pending, DECISION_RAISE_BUDGET, max_steps=30, token_budget=40_000)
        assert (await client.ended("t1")).output == "Done."

    async def test_too_little_more_asks_again_and_fail_ends_the_task(self, start):
        client = await start("worker", ON)
        await client.submit(task_id="t1", max_steps=1, on_budget_exceeded=BUDGET_ACTION_ASK)
        (first,) = await client.asked("t1")
        await client.resolve("t1", first, DECISION_RAISE_BUDGET, max_steps=2)
        (second,) = await asked_again(client, "t1", first)
        await client.resolve("t1", second, DECISION_FAIL, reason="enough")
        response = await client.ended("t1")
        assert (response.status, MeshError.from_status(response.error).message) == (TASK_STATUS_FAILED, "enough")

    async def test_silence_ends_it_with_what_there_is(self, mesh, dial, prices):
        author = Agent("worker", "Work.", tools=[free], answer_within_s=1)
        client = dial(await mesh.agent(author, script=json.dumps({"agents": {"worker": [ON]}}), prices=prices))
        await client.submit(task_id="t1", max_steps=1, on_budget_exceeded=BUDGET_ACTION_ASK)
        response = await client.ended("t1")
        assert (response.status, response.finish_reason) == (TASK_STATUS_COMPLETED, FINISH_REASON_MAX_STEPS)
        assert response.output == "On and on."

    @pytest.mark.parametrize(
        ("decision", "fields", "wrong"),
        [
            (DECISION_RAISE_BUDGET, {}, "token_budget"),
            (DECISION_RAISE_BUDGET, {"token_budget": 1_000_001}, "token_budget"),
            (DECISION_RAISE_BUDGET, {"cost_budget_micros": -1}, "cost_budget_micros"),
            (DECISION_RAISE_BUDGET, {"max_steps": 101}, "max_steps"),
            (DECISION_RAISE_BUDGET, {"max_steps": 1}, "max_steps"),
            (DECISION_ANSWER, {}, "decision"),
        ],
    )
    async def test_a_raise_that_is_none_is_refused(self, start, refusal, decision, fields, wrong):
        client = await start("worker", ON)
        await client.submit(task_id="t1", max_steps=1, on_budget_exceeded=BUDGET_ACTION_ASK)
        (pending,) = await client.asked("t1")
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await client.resolve("t1", pending, decision, **fields)
        assert wrong in refusal(failed.value).fields
        assert (await client.get("t1")).pending_inputs


async def asked_again(client, task_id, first):
    while True:
        pending = await client.asked(task_id)
        if pending and pending[0].input_id != first.input_id:
            return pending


class TestTrees:
    async def test_children_spend_shares_and_leave_the_rest(self, start):
        for name in ("left", "right"):
            await start(name, reply(text=f"I am {name}."))
        calls = [(f"ask.{name}", {"prompt": "Help."}) for name in ("left", "right")]
        boss = await start("boss", reply(*calls), DONE, delegates=["left", "right"])
        events = await boss.steps(cost_budget_micros=9_150)
        granted = [event.delegation.granted_cost_micros for event in events if event.HasField("delegation")]
        assert granted == [3_000, 3_000]
        result = events[-1].result
        assert result.usage.cost_micros == 4 * 150
        assert shares(result) == {
            ("boss", "boss.yaml", ""): 300,
            ("left", "left.yaml", ""): 150,
            ("right", "right.yaml", ""): 150,
        }

    async def test_a_child_ends_at_its_share_and_the_parent_goes_on(self, start):
        await start("helper", ON)
        boss = await start("boss", reply(("ask.helper", {"prompt": "Help."})), DONE, delegates=["helper"])
        events = await boss.steps(cost_budget_micros=2_150, token_budget=32_768)
        ended = [leaf(event).result for event in events if event.HasField("child") and leaf(event).HasField("result")]
        assert [end.finish_reason for end in ended] == [FINISH_REASON_COST_BUDGET_EXCEEDED]
        assert 0 < ended[0].usage.cost_micros <= 1_000
        assert events[-1].result.output == "Done."
        assert events[-1].result.usage.cost_micros == 300 + ended[0].usage.cost_micros


async def reserved(journal, claim):
    key = partition_key(0, "task", claim.name.ref)
    return int(await journal.store.client.hget(key, "reserved_micros"))


class TestLosses:
    async def test_a_call_that_a_lost_worker_had_begun_is_charged_in_full_and_made_again(
        self, start, store, made, kinds
    ):
        ghost = Journal(store, "ghost", lease_s=0.05)
        request = TaskRequest(prompt="Go.", max_steps=3, token_budget=8_192, cost_budget_micros=50_000)
        task = made.task(request=request)
        accepted = await ghost.accept(task, claim=True, events=[StepEvent(started=TaskStarted(agent_id="worker"))])
        lost = ModelReservation(model="worker.yaml", cost_micros=4_000, state=RESERVATION_STATE_OPEN)
        await ghost.spend(accepted.claim, "r", [StepEvent(reservation=lost)], "", is_progress=False)
        client = await start("worker", DONE, lease_s=0.5)
        response = await client.ended("t1")
        events = await client.watch("t1")
        assert kinds(events) == [
            *("started", "reservation", "notice", "reservation", "reservation", "llm_call", "result")
        ]
        assert [event.reservation.state for event in events if event.HasField("reservation")] == [
            *(RESERVATION_STATE_OPEN, RESERVATION_STATE_CHARGED, RESERVATION_STATE_OPEN)
        ]
        assert (response.usage.cost_micros, response.usage.estimated_cost_micros) == (4_150, 4_000)

    @pytest.mark.parametrize(("code", "cost"), [("RESOURCE_EXHAUSTED", 0), ("UNAVAILABLE", 1)])
    async def test_a_call_that_was_refused_costs_nothing_and_one_that_broke_is_charged(self, start, code, cost):
        client = await start("worker", {"error": {"code": code}})
        response = await client.run(cost_budget_micros=50_000)
        assert response.status == TASK_STATUS_FAILED
        assert bool(response.usage.estimated_cost_micros) == bool(cost)
        assert response.usage == (await client.get(response.task_id)).usage

    async def test_a_task_that_is_cancelled_in_its_call_pays_for_it(self, start, until):
        client = await start("worker", {"text": "late", "latency_ms": 30_000})
        await client.submit(task_id="t1", cost_budget_micros=50_000)
        watch = client.tasks.WatchTask(WatchTaskRequest(task_id="t1"))
        opened = (await until(watch, lambda event: event.HasField("reservation"))).reservation
        await client.cancel("t1")
        response = await client.ended("t1")
        assert response.usage.cost_micros == response.usage.estimated_cost_micros == opened.cost_micros
        assert shares(response) == {("worker", "worker.yaml", ""): opened.cost_micros}

    async def test_a_call_that_is_not_made_since_somebody_cancelled_costs_nothing(
        self, journal, made, claimed, tmp_path
    ):
        request = TaskRequest(prompt="Go.", max_steps=3, token_budget=8_192, cost_budget_micros=50_000)
        claim = await claimed(made.task(request=request))
        run = Run(claim, await journal.record(claim.name), journal, Feeds(journal), Signer("one"))
        await journal.cancel(claim.name, "enough")
        file = tmp_path / "model"
        file.write_text(json.dumps({"agents": {"default": [DONE]}}))
        prices = Prices({"model": Price(input=1_000_000, output=1_000_000)})
        embedder = MeteredEmbedder(HashingEmbedder(), prices)
        purse = Purse([candidate(ScriptedModel(file))], prices, Escrow(journal, SharedLimits()), embedder)
        with pytest.raises(TaskCancelledError):
            await purse.opened(run, Prompt("worker", "Work.", (Message("user", "Go."),)), "")
        assert (run.state.account.reserved, run.state.usage.cost_micros) == (0, 0)

    async def test_a_call_that_is_made_again_is_paid_again_where_there_is_money(self, journal, made, claimed, tmp_path):
        request = TaskRequest(prompt="Go.", max_steps=3, token_budget=8_192, cost_budget_micros=1_500)
        claim = await claimed(made.task(request=request))
        run = Run(claim, await journal.record(claim.name), journal, Feeds(journal), Signer("one"))
        prices = Prices({})
        embedder = MeteredEmbedder(HashingEmbedder(), prices)
        purse = Purse([], prices, Escrow(journal, SharedLimits()), embedder)
        intent = StepEvent(tool_call=ToolCall(call_id="c1", tool="dear", cost_micros=700))
        await purse.journal(run, "step", [intent])
        await purse.afford(run, "intent:1", intent)
        await purse.afford(run, "intent:1", intent)
        assert run.state.account.reserved == (await reserved(journal, claim)) == 1_400
        with pytest.raises(BudgetExceededError):
            await purse.afford(run, "intent:2", intent)
        assert run.state.account.reserved == (await reserved(journal, claim)) == 1_400

    async def test_a_parked_task_that_ends_keeps_its_account(self, start):
        client = await start("worker", ON)
        await client.submit(task_id="t1", max_steps=1, on_budget_exceeded=BUDGET_ACTION_ASK)
        await client.asked("t1")
        response = await client.cancel("t1")
        assert response.usage.cost_micros == 150
        assert shares(response)["worker", "worker.yaml", ""] == 150


@pytest.mark.parametrize(
    ("action", "usage", "wants"),
    [
        (BUDGET_ACTION_DEGRADE, {"input_tokens": 799}, False),
        (BUDGET_ACTION_DEGRADE, {"input_tokens": 800}, True),
        (BUDGET_ACTION_DEGRADE, {"cost_micros": 80}, True),
        (BUDGET_ACTION_ASK, {"cost_micros": 99}, False),
    ],
)
async def test_near_the_end_a_task_that_may_degrade_wants_a_cheaper_model(journal, made, claimed, action, usage, wants):
    fields = {"token_budget": 1_000, "cost_budget_micros": 100, "max_steps": 5, "on_budget_exceeded": action}
    claim = await claimed(made.task(request=TaskRequest(prompt="Go.", **fields)))
    run = Run(claim, await journal.record(claim.name), journal, Feeds(journal), Signer("one"))
    run.state.usage.MergeFrom(Usage(**usage))
    assert (run.wish.model == "fast") == wants
