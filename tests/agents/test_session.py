"""Sessions: the tasks of one conversation take turns, whoever runs them and whoever dies."""

import asyncio
import json

import grpc
import pytest

from meshwright.agents.agent import Agent
from meshwright.agents.session import ACCEPTED_WITHIN_MS, Sessions, session_of
from meshwright.core.store import partition_key
from meshwright.gen.agents.v1.step_event_pb2 import NOTICE_KIND_PARKED
from meshwright.gen.agents.v1.task_pb2 import (
    SESSION_POLICY_REJECT,
    TASK_STATUS_CANCELLED,
    TASK_STATUS_COMPLETED,
    TaskRequest,
)

DONE = {"text": "Done."}


@pytest.fixture
def sessions(journal):
    return Sessions(journal)


@pytest.fixture
def start(mesh, dial, gate):
    """Starts an agent whose first step holds at the gate, and connects to it."""

    async def started(*replies, **settings):
        script = json.dumps({"agents": {"default": list(replies)}})
        return dial(await mesh.agent(Agent("worker", "Work.", tools=[gate.tool]), script=script, **settings))

    return started


HOLD = {"tool_calls": [{"name": "hold", "arguments": {}}]}


async def is_parked(client, task_id):
    return [e for e in await replayed(client, task_id) if e.notice.kind == NOTICE_KIND_PARKED]


async def replayed(client, task_id):
    """Reads what there is so far."""
    last = (await client.get(task_id)).last_sequence
    events = []
    if last:
        from meshwright.gen.agents.v1.task_service_pb2 import WatchTaskRequest

        async for event in client.tasks.WatchTask(WatchTaskRequest(task_id=task_id)):
            events.append(event)
            if event.sequence >= last:
                break
    return events


class TestTurns:
    async def test_tasks_of_one_session_run_one_after_the_other_in_their_order(self, start, gate, becomes):
        client = await start(HOLD, DONE)
        for number in range(4):
            await client.submit(f"Prompt {number}", task_id=f"t{number}", session_id="s1")
        await gate.holds(1)
        for number in range(1, 4):
            await becomes(lambda task_id=f"t{number}": is_parked(client, task_id))
        assert gate.most == 1
        gate.open()
        responses = [await client.ended(f"t{number}") for number in range(4)]
        ends = [response.end_time.ToMilliseconds() for response in responses]
        assert ends == sorted(ends)
        assert {response.status for response in responses} == {TASK_STATUS_COMPLETED}
        assert gate.most == 1

    async def test_a_task_that_waits_for_its_turn_holds_no_place(self, start, gate, becomes):
        client = await start(HOLD, DONE, concurrency=2)
        for task_id in ("t1", "t2", "t3"):
            await client.submit(task_id=task_id, session_id="s1")
        await becomes(lambda: is_parked(client, "t3"))
        other = asyncio.create_task(client.run(task_id="other"))
        await gate.holds(2)
        gate.open()
        assert (await other).status == TASK_STATUS_COMPLETED
        assert (await client.ended("t3")).status == TASK_STATUS_COMPLETED

    async def test_each_turn_reads_the_ones_before(self, start, journal, made):
        client = await start(DONE)
        for number in range(3):
            await client.run(f"Prompt {number}", task_id=f"t{number}", session_id="s1")
        tokens = [(await client.get(f"t{number}")).usage.input_tokens for number in range(3)]
        assert tokens[0] < tokens[1] < tokens[2]

    async def test_a_task_that_waits_can_be_cancelled_and_the_others_go_on(self, start, gate, becomes):
        client = await start(HOLD, DONE)
        for task_id in ("t1", "t2", "t3"):
            await client.submit(task_id=task_id, session_id="s1")
        await becomes(lambda: is_parked(client, "t3"))
        assert (await client.cancel("t2")).status == TASK_STATUS_CANCELLED
        gate.open()
        assert (await client.ended("t3")).status == TASK_STATUS_COMPLETED

    async def test_sessions_of_others_are_other_sessions(self, sessions, made):
        for principal in ("ann", "bob"):
            assert await sessions.is_turn(made.name(principal=principal), "s1")
        assert await sessions.is_turn(made.name(tenant="acme"), "s1")


class TestLine:
    async def test_the_first_one_is_at_its_head_until_it_leaves(self, sessions, made, journal, claimed):
        request = TaskRequest(prompt="Go.", session_id="s1")
        first, second = made.name("t1"), made.name("t2")
        claim = await claimed(made.task("t1", request=request))
        assert await sessions.is_turn(first, "s1")
        assert not await sessions.is_turn(second, "s1")
        assert await sessions.is_turn(first, "s1")
        await journal.finish(claim, "COMPLETED", [made.result("Yes.")])
        assert await sessions.is_turn(second, "s1")

    async def test_a_task_that_was_never_accepted_makes_room_after_a_while(self, sessions, made, store):
        lost, name = made.name("lost"), made.name("t1")
        assert await sessions.is_turn(lost, "s1")
        assert not await sessions.is_turn(name, "s1")
        key = partition_key(session_of(name, "s1"), "turns", "since")
        entered = int(await store.client.hget(key, lost.ref))
        await store.client.hset(key, lost.ref, entered - ACCEPTED_WITHIN_MS - 1)
        assert await sessions.is_turn(name, "s1")

    async def test_a_task_that_was_deleted_in_front_of_others_makes_room(self, sessions, made, store):
        names = [made.name(f"t{number}") for number in range(3)]
        for name in names:
            await sessions.enter(name, "s1")
        key = partition_key(session_of(names[0], "s1"), "turns", "since")
        for name in names[:2]:
            await store.client.hset(key, name.ref, 1)
        assert await sessions.is_turn(names[2], "s1")

    async def test_the_next_one_is_woken_exactly_once_however_often_the_end_is_told(
        self, sessions, made, journal, claimed
    ):
        request = TaskRequest(prompt="Go.", session_id="s1")
        first = await claimed(made.task("t1", request=request))
        second = await claimed(made.task("t2", request=request))
        for claim in (first, second):
            await sessions.enter(claim.name, "s1")
        assert await journal.park(second, 0, made.notice(), is_turn=True)
        await journal.finish(first, "COMPLETED", [made.result("Yes.")])
        response = await journal.response(first.name)
        await asyncio.gather(*(sessions.leave(first.name, request, response) for _ in range(5)))
        again = (await journal.claim(0, "worker")).claim
        assert again.name == second.name
        assert (await journal.claim(0, "worker")).claim is None

    async def test_a_wish_to_wake_that_comes_before_the_parking_is_not_lost(self, made, journal, claimed):
        claim = await claimed(made.task("t1"))
        await journal.nudge(claim.name)
        assert not await journal.park(claim, 0, made.notice(), is_turn=True)
        assert await journal.park(claim, 0, made.notice(), is_turn=True)
        await journal.nudge(claim.name)
        assert (await journal.claim(0, "worker")).claim.name == claim.name


class TestReject:
    async def test_a_task_that_is_not_to_wait_is_refused_while_another_runs(self, start, gate, refusal):
        client = await start(HOLD, DONE)
        await client.submit(task_id="t1", session_id="s1")
        await gate.holds(1)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await client.run(task_id="t2", session_id="s1", session_policy=SESSION_POLICY_REJECT)
        assert refused.value.code() == grpc.StatusCode.FAILED_PRECONDITION
        assert refusal(refused.value).reason == "SESSION_BUSY"
        with pytest.raises(grpc.aio.AioRpcError):
            await client.get("t2")
        gate.open()
        await client.ended("t1")
        assert (
            await client.run(task_id="t3", session_id="s1", session_policy=SESSION_POLICY_REJECT)
        ).status == TASK_STATUS_COMPLETED

    async def test_a_refused_namesake_leaves_the_line_as_it_is(self, start, gate, refusal, sessions, made):
        client = await start(HOLD, DONE)
        fields = {"task_id": "t1", "session_id": "s1", "session_policy": SESSION_POLICY_REJECT}
        await client.submit("One.", **fields)
        await gate.holds(1)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await client.submit("Another.", **fields)
        assert refusal(refused.value).reason == "TASK_CONFLICT"
        assert not await sessions.is_turn(made.name("t2"), "s1"), "the first one still has its turn"
        gate.open()
        assert (await client.ended("t1")).status == TASK_STATUS_COMPLETED

    async def test_the_same_request_again_attaches_whatever_runs(self, start, gate):
        client = await start(HOLD, DONE)
        fields = {"task_id": "t1", "session_id": "s1", "session_policy": SESSION_POLICY_REJECT}
        await client.submit(**fields)
        await gate.holds(1)
        assert (await client.submit(**fields)).task_id == "t1"
        gate.open()
        assert (await client.ended("t1")).status == TASK_STATUS_COMPLETED
        assert (await client.submit(**fields)).status == TASK_STATUS_COMPLETED
