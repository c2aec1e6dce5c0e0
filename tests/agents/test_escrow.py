"""Budgets that trees share: taken in chunks, returned at the end, refused to new tasks when they are used up."""

import asyncio
import json
import random
import time

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshwright.agents.agent import Agent
from meshwright.agents.escrow import Escrow, day_of, trace_of
from meshwright.agents.journal import LIBRARY, Journal
from meshwright.agents.reply import Short
from meshwright.agents.shared_limits import SharedLimits
from meshwright.agents.task import TaskName
from meshwright.core.errors import MeshError
from meshwright.core.store import partition_key, segment
from meshwright.gen.agents.v1.step_event_pb2 import (
    RESERVATION_STATE_OPEN,
    LlmCall,
    ModelReservation,
    StepEvent,
    TaskStarted,
)
from meshwright.gen.agents.v1.task_pb2 import (
    BUDGET_ACTION_ASK,
    BUDGET_ACTION_FAIL,
    DECISION_FAIL,
    DECISION_RETRY,
    FINISH_REASON_COST_BUDGET_EXCEEDED,
    FINISH_REASON_STOP,
    INPUT_KIND_BUDGET,
    TASK_STATUS_FAILED,
    TaskRequest,
    Usage,
)
from meshwright.gen.agents.v1.task_service_pb2 import WatchTaskRequest
from meshwright.registry import tool

DEAR = {"input": 1_000_000, "output": 1_000_000}
LONG = 8_192
"""Of so many tokens, an answer may cost 4096 micros and more."""


@tool(effect="pure")
def look(n: int = 0) -> int:
    """Looks."""
    return n


@tool(effect="pure", cost_micros=4_000)
def dear(n: int = 0) -> int:
    """Costs 4000 micros."""
    return n


def saying(text="", *calls):
    usage = {"input_tokens": 100, "output_tokens": 50}
    return {"text": text, "usage": usage, "tool_calls": [{"name": name, "arguments": {"n": n}} for name, n in calls]}


@pytest.fixture
def start(mesh, dial, tmp_path):
    """Starts an agent whose answers cost 150 micros, under shared budgets."""

    async def started(*replies, name="worker", delegates=(), **settings):
        prices = tmp_path / "prices.yaml"
        prices.write_text(json.dumps({"worker.yaml": DEAR, "boss.yaml": DEAR}))
        author = Agent(name, "Work.", tools=[look, dear], delegates=delegates)
        script = json.dumps({"agents": {name: list(replies)}})
        return dial(await mesh.agent(author, script=script, prices=str(prices), **settings))

    return started


@pytest.fixture
def taken(store):
    """Reads what trees have taken from the budget of a day or a session."""

    async def read(slot):
        return int(await store.client.get(partition_key(segment(slot), "escrow")) or 0)

    return read


def session_slot(session_id):
    return f"session/{trace_of(TaskName('default', 'default', session_id))}"


def today():
    return day_of(int(time.time() * 1000))


DONE = saying("Done.")


def opened(micros):
    return StepEvent(reservation=ModelReservation(model="m", cost_micros=micros, state=RESERVATION_STATE_OPEN))


class TestScripts:
    @pytest.fixture
    def call(self, store):
        async def called(function, *arguments):
            key = partition_key("shared", "escrow")
            return await store.call(LIBRARY.function(function), key, "shared", *arguments)

        return called

    async def test_a_chunk_is_taken_once_by_its_number(self, call):
        assert await call("take", "a", 1, 10, 50, 100, 10_000) == [50, 50]
        assert await call("take", "a", 1, 10, 50, 100, 10_000) == [50, 50]
        assert await call("take", "b", 1, 60, 60, 100, 10_000) == [0, 50]
        assert await call("take", "b", 1, 10, 60, 100, 10_000) == [50, 100]
        assert await call("take", "a", 2, 1, 50, 100, 10_000) == [0, 100]

    async def test_the_rest_is_returned_once_and_nothing_is_taken_after_it(self, call):
        await call("take", "a", 1, 10, 50, 100, 10_000)
        await call("take", "a", 2, 10, 50, 100, 10_000)
        assert await call("give_back", "a", 30) == 1
        assert await call("give_back", "a", 30) == 0
        assert await call("take", "a", 3, 1, 10, 100, 10_000) == [0, 30]
        assert await call("take", "b", 1, 70, 99, 100, 10_000) == [70, 100]

    async def test_many_trees_at_once_never_take_more_than_there_is(self, call):
        dice = random.Random(1)
        held = {}

        async def tree(name):
            for chunk in range(1, 9):
                need = dice.randint(1, 40)
                granted, all_taken = await call("take", name, chunk, need, 60, 1_000, 10_000)
                again, _ = await call("take", name, chunk, need, 60, 1_000, 10_000)
                assert again == granted
                assert all_taken <= 1_000
                assert granted == 0 or granted >= need
                held[name] = held.get(name, 0) + granted
                if not granted:
                    break

        names = [f"t{number}" for number in range(20)]
        await asyncio.gather(*map(tree, names))
        assert 960 < sum(held.values()) <= 1_000
        for name in names:
            await call("give_back", name, held[name] // 2)
        assert (await call("take", "new", 1, 1, 1, 1_000, 10_000))[1] == sum(n // 2 for n in held.values()) + 1


async def test_a_tree_returns_what_it_did_not_spend(start, taken, becomes):
    client = await start(saying("", ("look", 0)), DONE, budget_tenant_day_micros=1_000_000)
    response = await client.run(token_budget=512)
    assert response.usage.cost_micros == 300

    async def is_returned():
        return await taken(f"tenant/default/{today()}") == 300

    await becomes(is_returned)


async def test_tasks_at_once_never_spend_more_than_the_day_has(start, taken, becomes):
    client = await start(
        *(saying("On.", ("look", n)) for n in range(30)), budget_global_day_micros=6_000, concurrency=20
    )
    responses = await asyncio.gather(
        *(client.run(task_id=f"t{n}", max_steps=25, token_budget=32_768) for n in range(12)), return_exceptions=True
    )
    ended = [response for response in responses if not isinstance(response, BaseException)]
    spent = sum(response.usage.cost_micros for response in ended)
    assert 0 < spent <= 6_000
    assert {response.finish_reason for response in ended} == {FINISH_REASON_COST_BUDGET_EXCEEDED}

    async def is_returned():
        return await taken(f"mesh/{today()}") == spent

    await becomes(is_returned)


async def test_children_spend_what_their_root_took(start, taken, becomes):
    await start(saying("I help."), budget_user_day_micros=100_000)
    asks = {"tool_calls": [{"name": "ask.worker", "arguments": {"prompt": "Help."}}] * 3, "usage": DONE["usage"]}
    boss = await start(asks, DONE, name="boss", delegates=["worker"], budget_user_day_micros=100_000)
    response = await boss.run(token_budget=8_000)
    assert (response.usage.cost_micros, response.finish_reason) == (5 * 150, FINISH_REASON_STOP)

    async def is_returned():
        return await taken(f"user/default/default/{today()}") == 750

    await becomes(is_returned)


async def test_a_dear_tool_is_held_against_shared_budgets_too(start):
    client = await start(saying("", *[("dear", 0)] * 4), DONE, budget_tenant_day_micros=14_000)
    response = await client.run(token_budget=2_000)
    assert (response.usage.cost_micros, response.tool_calls, response.output) == (300, 4, "Done.")


async def test_a_tool_for_which_there_is_too_little_is_not_called_though_it_is_pure(mesh, dial, tmp_path):
    calls = []

    @tool(effect="pure", cost_micros=4_000)
    def paid(n: int = 0) -> int:
        """Costs 4000 micros."""
        calls.append(n)
        return n

    (tmp_path / "prices.yaml").write_text(json.dumps({"worker.yaml": DEAR}))
    script = json.dumps({"agents": {"worker": [saying("", ("paid", 1), ("paid", 2)), DONE]}})
    told = {"prices": str(tmp_path / "prices.yaml"), "budget_tenant_day_micros": 6_000}
    client = dial(await mesh.agent(Agent("worker", "Work.", tools=[paid]), script=script, **told))
    response = await client.run(token_budget=1_000)
    assert (response.usage.cost_micros, response.output, calls) == (300, "Done.", [])


async def test_where_a_budget_is_used_up_new_tasks_are_refused_and_known_ones_attached_to(
    start, store, taken, becomes, refusal
):
    client = await start(DONE, budget_tenant_day_micros=10_000, budget_session_micros=10_000)
    await client.run(task_id="t1", session_id="s1", token_budget=512)

    async def is_returned():
        return await taken(f"tenant/default/{today()}") == 150

    await becomes(is_returned)
    await store.client.set(partition_key(segment(f"tenant/default/{today()}"), "escrow"), 10_000)
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await client.run(task_id="t2")
    error = refusal(failed.value)
    assert (failed.value.code(), error.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "BUDGET_EXCEEDED")
    assert "opens at" in error.message
    assert 0 < error.retry_after_s <= 86_400
    assert (await client.run(task_id="t1", session_id="s1", token_budget=512)).output == "Done."
    await store.client.set(partition_key(segment(f"tenant/default/{today()}"), "escrow"), 0)
    await store.client.set(partition_key(segment(session_slot("s1")), "escrow"), 10_000)
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await client.run(task_id="t3", session_id="s1")
    assert "session s1 is used up" in refusal(failed.value).message
    assert (await client.run(task_id="t4", session_id="s2", token_budget=512)).output == "Done."


async def test_a_task_that_may_ask_waits_until_there_is_more(start, store):
    client = await start(DONE, budget_tenant_day_micros=10_000)
    slot = partition_key(segment(f"tenant/default/{today()}"), "escrow")
    await store.client.set(slot, 9_999)
    for task_id in ("t1", "t2"):
        await client.submit(task_id=task_id, token_budget=512, on_budget_exceeded=BUDGET_ACTION_ASK)
    (first,), (second,) = await client.asked("t1"), await client.asked("t2")
    assert (first.kind, list(first.choices)) == (INPUT_KIND_BUDGET, [DECISION_RETRY, DECISION_FAIL])
    assert f"the budget of default on {today()} has too little left" in first.prompt
    await store.client.set(slot, 0)
    await client.resolve("t1", first, DECISION_RETRY)
    assert (await client.ended("t1")).output == "Done."
    await client.resolve("t2", second, DECISION_FAIL)
    assert (await client.ended("t2")).status == TASK_STATUS_FAILED


SLOTS = {
    "session": session_slot("s1"),
    "user_day": "user/default/default/{day}",
    "tenant_day": "tenant/default/{day}",
    "global_day": "mesh/{day}",
}


class TestScarce:
    """A budget that is mostly unspent answers, though an answer may cost more than it has left."""

    async def test_an_answer_is_shorter_where_the_day_has_less_left_than_it_may_cost(self, start, until):
        client = await start(DONE, budget_tenant_day_micros=3_000)
        response = await client.run(task_id="t1", token_budget=LONG)
        assert (response.output, response.finish_reason) == ("Done.", FINISH_REASON_STOP)
        watch = client.tasks.WatchTask(WatchTaskRequest(task_id="t1"))
        held = (await until(watch, lambda event: event.HasField("reservation"))).reservation.cost_micros
        assert held == 1_500  # half of it is left to others

    async def test_task_after_task_is_answered_until_the_day_is_spent(self, start, taken, monkeypatch):
        monkeypatch.setattr("meshwright.agents.worker.SWEEP_S", 50)
        client = await start(DONE, budget_tenant_day_micros=3_000)
        ends = [await client.run(task_id=f"t{number}", token_budget=LONG) for number in range(15)]
        assert {(end.output, end.finish_reason) for end in ends} == {("Done.", FINISH_REASON_STOP)}
        assert await taken(f"tenant/default/{today()}") == 15 * 150

    async def test_tasks_at_once_leave_each_other_something(self, start):
        slow = {**DONE, "latency_ms": 1_000}
        client = await start(slow, budget_tenant_day_micros=6_000, budget_user_day_micros=5_000, concurrency=4)
        ends = await asyncio.gather(*(client.run(task_id=f"t{number}", token_budget=LONG) for number in range(3)))
        assert {end.output for end in ends} == {"Done."}

    async def test_a_task_that_gets_too_little_says_of_which_budget(self, start, store):
        client = await start(DONE, budget_tenant_day_micros=3_000, budget_user_day_micros=9_000)
        await store.client.set(partition_key(segment(f"tenant/default/{today()}"), "escrow"), 2_999)
        response = await client.run(on_budget_exceeded=BUDGET_ACTION_FAIL, token_budget=LONG)
        assert response.finish_reason == FINISH_REASON_COST_BUDGET_EXCEEDED
        assert f"the budget of default on {today()} has too little left" in response.error.message


class TestDifferentSettings:
    """One process accepts tasks, another one works on them; they are told different budgets."""

    @pytest.fixture
    def pair(self, start):
        """Starts both; returns the client of the one that accepts."""

        async def started(*replies, accepting, working):
            def settings(told):
                return {f"budget_{name}_micros": micros for name, micros in told.items()}

            client = await start(*replies, role="server", **settings(accepting))
            await start(*replies, role="worker", **settings(working))
            return client

        return started

    @pytest.mark.parametrize(
        ("accepting", "working"),
        [
            ({"tenant_day": 10**6}, {}),
            ({}, {"tenant_day": 10**6}),
            ({"tenant_day": 10**6}, {"user_day": 10**6}),
            ({"session": 10**6, "user_day": 10**5}, {"global_day": 10**6, "user_day": 10**4}),
            ({"session": 10**5, "user_day": 10**5, "tenant_day": 10**5, "global_day": 10**5}, {"session": 10**6}),
        ],
    )
    async def test_a_tree_takes_from_and_returns_to_what_it_was_accepted_with(
        self, pair, taken, becomes, store, accepting, working
    ):
        client = await pair(saying("", ("look", 0)), DONE, accepting=accepting, working=working)
        await client.submit(task_id="t1", session_id="s1", token_budget=512)
        spent = (await client.ended("t1")).usage.cost_micros
        assert spent == 300

        async def is_relayed():
            return not await store.client.xlen(partition_key(0, "outbox"))

        await becomes(is_relayed)
        left = {name: await taken(slot.format(day=today())) for name, slot in SLOTS.items()}
        assert left == {name: spent if name in accepting else 0 for name in SLOTS}

    async def test_a_worker_that_is_told_of_no_budget_keeps_to_the_one_of_its_task(self, pair):
        on = [saying("On.", ("look", n)) for n in range(30)]
        client = await pair(*on, accepting={"tenant_day": 6_000}, working={})
        await client.submit(task_id="t1", max_steps=25, token_budget=32_768)
        response = await client.ended("t1")
        assert response.finish_reason == FINISH_REASON_COST_BUDGET_EXCEEDED
        assert 0 < response.usage.cost_micros <= 6_000

    async def test_a_worker_that_is_told_of_more_may_spend_more(self, pair):
        on = [saying("On.", ("look", n)) for n in range(25)]
        client = await pair(*on, DONE, accepting={"tenant_day": 3_000}, working={"tenant_day": 10**6})
        await client.submit(task_id="t1", max_steps=25, token_budget=32_768)
        assert (await client.ended("t1")).usage.cost_micros > 3_000

    async def test_children_share_what_their_root_does_wherever_they_run(self, start, taken, becomes):
        await start(saying("I help."), budget_global_day_micros=10**5)
        asks = {"tool_calls": [{"name": "ask.worker", "arguments": {"prompt": "Help."}}] * 3, "usage": DONE["usage"]}
        boss = await start(asks, DONE, name="boss", delegates=["worker"], budget_user_day_micros=10**5)
        assert (await boss.run(token_budget=8_000)).usage.cost_micros == 750

        async def is_returned():
            return await taken(f"user/default/default/{today()}") == 750

        await becomes(is_returned)
        assert await taken(f"mesh/{today()}") == 0


class TestEnds:
    """Whatever becomes of a task, its shared budgets lack in the end what it has cost, and nothing more."""

    LIMITS = SharedLimits(tenant_day=10**6)
    SLOT = SLOTS["tenant_day"]

    @pytest.fixture
    def escrow(self, journal):
        return Escrow(journal, SharedLimits())

    @pytest.fixture
    def lost(self, store, made):
        """A worker that has a task of the tree, and dies."""

        async def accepted():
            ghost = Journal(store, "ghost", lease_s=0.05)
            request = TaskRequest(prompt="Go.", max_steps=3, token_budget=512)
            task = made.task(request=request, shared=self.LIMITS)
            started = StepEvent(started=TaskStarted(agent_id="worker"))
            accepted = await ghost.accept(task, claim=True, events=[started])
            return ghost, accepted.claim

        return accepted

    async def is_left(self, taken, micros, day=None):
        return await taken(self.SLOT.format(day=day or today())) == micros

    async def test_a_chunk_that_a_lost_worker_took_and_did_not_write_down_is_taken_once(
        self, lost, escrow, start, taken, becomes
    ):
        ghost, claim = await lost()
        assert await ghost.spend(claim, "r", [opened(100)], "0 0", is_progress=False) == Short(chunk=1, missing=100)
        assert await escrow.take(await ghost.record(claim.name), 1, 100) == 50_000
        client = await start(saying("", ("look", 0)), DONE, lease_s=0.5)
        response = await client.ended("t1")
        assert (response.output, response.usage.cost_micros) == ("Done.", 300)
        await becomes(lambda: self.is_left(taken, 300))

    async def test_a_task_that_is_given_up_pays_for_its_last_call(self, lost, escrow, start, store, taken, becomes):
        ghost, claim = await lost()
        assert await escrow.take(await ghost.record(claim.name), 1, 600) == 50_000
        await ghost.spend(claim, "r", [opened(600)], "1 50000", is_progress=False)
        await store.client.hset(partition_key(0, "task", claim.name.ref), "barren", 5)
        client = await start(DONE, lease_s=0.5)
        response = await client.ended("t1")
        assert MeshError.from_status(response.error).reason == "POISON_TASK"
        assert response.usage.cost_micros == response.usage.estimated_cost_micros == 600
        await becomes(lambda: self.is_left(taken, 600))

    async def test_a_task_that_is_cancelled_pays_for_its_call(self, start, taken, becomes, until):
        client = await start({"text": "late", "latency_ms": 30_000}, budget_tenant_day_micros=10**6)
        await client.submit(task_id="t1", token_budget=512)
        watch = client.tasks.WatchTask(WatchTaskRequest(task_id="t1"))
        held = (await until(watch, lambda event: event.HasField("reservation"))).reservation.cost_micros
        await client.cancel("t1")
        assert (await client.ended("t1")).usage.cost_micros == held
        await becomes(lambda: self.is_left(taken, held))

    async def test_a_child_that_its_parent_does_not_wait_for_spends_nothing_more(
        self, journal, escrow, made, claimed, taken
    ):
        root = made.task(shared=self.LIMITS)
        claim, child = await claimed(root), await claimed(made.child(root))
        record = await journal.record(child.name)
        assert record.shared == self.LIMITS
        assert await escrow.take(record, 1, 600) == 50_000
        await journal.spend(child, "r", [opened(600)], "1 50000", is_progress=False)
        await journal.finish(claim, "COMPLETED", [made.result()])
        await escrow.give_back(await journal.record(root.name))
        assert await self.is_left(taken, 600)
        late = await journal.append(child, "a", [StepEvent(llm_call=LlmCall(usage=Usage(cost_micros=100)))])
        assert late.cancel
        ended = await journal.record(root.name)
        assert (ended.usage.cost_micros, ended.usage.estimated_cost_micros) == (600, 600)
        assert await escrow.take(record, 2, 1) == 0
        await escrow.give_back(ended)
        assert await self.is_left(taken, 600)

    async def test_a_task_that_runs_past_midnight_counts_for_the_day_of_its_acceptance(
        self, journal, escrow, made, claimed, store, taken
    ):
        claim = await claimed(made.task(shared=self.LIMITS))
        midnight = int(time.time()) // 86_400 * 86_400_000
        await store.client.hset(partition_key(0, "task", claim.name.ref), "created", midnight - 1)
        record = await journal.record(claim.name)
        assert await escrow.take(record, 1, 100) == 50_000
        await journal.append(claim, "a", [StepEvent(llm_call=LlmCall(usage=Usage(cost_micros=100)))])
        await journal.finish(claim, "COMPLETED", [made.result()])
        await escrow.give_back(await journal.record(claim.name))
        assert await self.is_left(taken, 100, day_of(midnight - 1))
        assert await self.is_left(taken, 0, day_of(midnight))


@given(*[st.builds(SharedLimits, *[st.integers(0, 10**15)] * 4)] * 2)
def test_limits_are_read_as_they_are_written_and_raised_without_adding_any(limits, told):
    assert SharedLimits.parse(str(limits)) == limits
    assert bool(str(limits)) == bool(limits)
    for name in SharedLimits.__slots__:
        own, raised = getattr(limits, name), getattr(limits.raised(told), name)
        assert raised == (max(own, getattr(told, name)) if own else 0)
