"""TaskService over real gRPC: submit, read, list, watch and cancel tasks."""

import asyncio
import base64
import json

import grpc
import pytest
from google.protobuf import json_format
from google.protobuf.timestamp_pb2 import Timestamp

from meshwright.agents.agent import Agent
from meshwright.agents.feed import Feeds
from meshwright.core.store import partition_key
from meshwright.gen.agents.v1.step_event_pb2 import StepEvent
from meshwright.gen.agents.v1.task_pb2 import (
    FINISH_REASON_CANCELLED,
    TASK_STATUS_CANCELLED,
    TASK_STATUS_COMPLETED,
    TASK_STATUS_PENDING,
    TASK_STATUS_RUNNING,
    TaskRequest,
)
from meshwright.gen.agents.v1.task_service_pb2 import (
    ListTasksRequest,
    WatchTaskEventsRequest,
    WatchTaskRequest,
)

SCRIPT = """
agents:
  default:
    - tool_calls: [{name: hold, arguments: {key: a}}]
    - {text: one two, latency_ms: 120}
"""
QUICK = """
agents:
  default: [{text: Done.}]
"""


@pytest.fixture
async def holder(mesh, dial, gate):
    """An agent whose tasks wait for the gate."""
    return dial(await mesh.agent(Agent("holder", "Hold.", tools=[gate.tool]), script=SCRIPT, concurrency=2))


@pytest.fixture
async def quick(mesh, dial):
    return dial(await mesh.agent(Agent("quick", "Be quick."), script=QUICK))


class TestSubmit:
    async def test_a_submitted_task_is_accepted_at_once_and_done_later(self, holder, gate):
        call = holder.tasks.SubmitTask(TaskRequest(prompt="Go.", task_id="t1"))
        response = await call
        assert dict(await call.initial_metadata())["x-task-id"] == "t1"
        assert response.status in (TASK_STATUS_PENDING, TASK_STATUS_RUNNING)
        await gate.holds()
        assert (await holder.get("t1")).status == TASK_STATUS_RUNNING
        gate.open()
        assert (await holder.ended("t1")).output == "one two"

    async def test_submitting_again_returns_the_task_as_it_stands(self, quick):
        await quick.submit(task_id="t1")
        ended = await quick.ended("t1")
        assert await quick.submit(task_id="t1") == ended

    async def test_a_full_queue_is_said_to_be_full(self, mesh, dial, gate, refusal):
        agent = Agent("holder", "Hold.", tools=[gate.tool])
        client = dial(await mesh.agent(agent, script=SCRIPT, concurrency=1, max_ready=1))
        await client.submit(task_id="t1")
        await gate.holds()
        await client.submit(task_id="t2")
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await client.submit(task_id="t3")
        assert refused.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert refusal(refused.value).reason == "QUEUE_FULL"
        assert refusal(refused.value).retry_after_s
        gate.open()
        assert (await client.ended("t2")).status == TASK_STATUS_COMPLETED

    async def test_a_task_for_another_agent_is_queued_for_it_and_followed(self, quick, holder, gate, kinds):
        running = asyncio.create_task(quick.run(task_id="t1", agent_id="holder"))
        await gate.holds()
        gate.open()
        response = await running
        assert (response.agent_id, response.output) == ("holder", "one two")
        assert kinds(await quick.steps(task_id="t1", agent_id="holder"))[-1] == "result"

    async def test_a_known_task_is_attached_to_even_while_its_agent_is_away(self, mesh, quick, refusal, becomes):
        other = await mesh.agent(Agent("other", "Help."), script=QUICK)
        request = {"task_id": "t1", "agent_id": "other"}
        ended = await quick.run(**request)
        await mesh.stop(other)
        await becomes(lambda: "other" not in mesh.agents["quick"].registry.known)
        assert await quick.submit(**request) == ended
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await quick.submit(task_id="t2", agent_id="other")
        assert refusal(refused.value).reason == "AGENT_NOT_FOUND"


class TestGet:
    async def test_an_unknown_task_is_not_found(self, quick, refusal):
        for method in (quick.get, quick.watch, quick.cancel):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await method("nobody")
            assert refusal(refused.value).reason == "TASK_NOT_FOUND"

    async def test_what_is_no_task_id_is_said_so(self, quick, refusal):
        for task_id in ("", "a b", "a.b.c"):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await quick.get(task_id)
            assert set(refusal(refused.value).fields) == {"task_id"}


class TestList:
    async def listed(self, client, **filters):
        found, token = [], ""
        while True:
            reply = await client.tasks.ListTasks(ListTasksRequest(page_token=token, **filters))
            assert len(reply.tasks) <= (filters.get("page_size") or 50)
            found += [task.task_id for task in reply.tasks]
            token = reply.next_page_token
            if not token:
                return found

    async def test_tasks_are_listed_newest_first_page_by_page(self, quick):
        for number in range(7):
            await quick.run(task_id=f"t{number}")
        expected = [f"t{number}" for number in reversed(range(7))]
        for size in (0, 1, 3, 7, 200):
            assert await self.listed(quick, page_size=size) == expected

    async def test_filters_are_joined(self, quick, holder, gate):
        await quick.run(task_id="a", session_id="s1")
        await quick.run(task_id="b")
        await holder.submit(task_id="c", session_id="s1")
        await gate.holds()
        assert await self.listed(quick, agent_id="quick") == ["b", "a"]
        assert await self.listed(quick, session_id="s1") == ["c", "a"]
        assert await self.listed(quick, session_id="s1", agent_id="quick", page_size=1) == ["a"]
        assert await self.listed(quick, statuses=[TASK_STATUS_RUNNING]) == ["c"]
        assert await self.listed(quick, statuses=[TASK_STATUS_RUNNING, TASK_STATUS_COMPLETED]) == ["c", "b", "a"]
        assert await self.listed(quick, parent_task_id="a") == []

    async def test_bounds_of_time_are_exclusive(self, quick, store):
        for number in range(3):
            await quick.run(task_id=f"t{number}")
            task_key = partition_key(0, "task", f"default/default/t{number}")
            await store.client.hset(task_key, "created", 1_000 + number)  # long ago
            await store.client.zadd(partition_key(0, "index", "default/default"), {f"t{number}": 1_000 + number})
        first, last = Timestamp(), Timestamp()
        first.FromMilliseconds(1_000)
        last.FromMilliseconds(1_002)
        assert await self.listed(quick, created_after=first) == ["t2", "t1"]
        assert await self.listed(quick, created_before=last) == ["t1", "t0"]
        assert await self.listed(quick, created_after=first, created_before=last) == ["t1"]

    async def test_a_filter_that_finds_little_still_comes_to_an_end(self, journal, made, quick, monkeypatch):
        monkeypatch.setattr("meshwright.agents.task_service.SCANNED", 10)
        for number in range(45):
            agent_id = "rare" if number == 3 else "common"
            await journal.accept(made.task(f"t{number:02}", agent_id=agent_id), claim=False)
        reply = await quick.tasks.ListTasks(ListTasksRequest(agent_id="rare", page_size=5))
        assert (list(reply.tasks), bool(reply.next_page_token)) == ([], True)
        assert await self.listed(quick, agent_id="rare", page_size=5) == ["t03"]

    async def test_tasks_that_are_gone_do_not_stop_a_listing(self, journal, made, quick, store):
        for number in range(6):
            await journal.accept(made.task(f"t{number}"), claim=False)
            if number:
                await store.client.delete(partition_key(0, "task", f"default/default/t{number}"))
        assert await self.listed(quick, page_size=2) == ["t0"]

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("page_size", -1),
            ("page_size", 201),
            ("page_token", "nonsense"),
            ("page_token", base64.urlsafe_b64encode(b"x t1").decode()),
            ("page_token", base64.urlsafe_b64encode(b"1 a b").decode()),
            ("page_token", "ü"),
        ],
    )
    async def test_a_page_that_is_none_is_refused(self, quick, refusal, field, value):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await quick.tasks.ListTasks(ListTasksRequest(**{field: value}))
        assert set(refusal(refused.value).fields) == {field}


class TestWatch:
    async def test_a_watch_replays_after_a_sequence_and_follows_to_the_end(self, holder, gate, numbers):
        await holder.submit(task_id="t1")
        await gate.holds()
        watching = [asyncio.create_task(holder.watch("t1", after)) for after in (0, 2, 3)]
        gate.open()
        for watched, after in zip(watching, (0, 2, 3), strict=True):
            assert numbers(await watched) == list(range(after + 1, 7))
        assert numbers(await holder.watch("t1", 5)) == [6]
        assert numbers(await holder.watch("t1", 6)) == []

    async def test_the_last_event_id_wins_over_the_field(self, quick):
        await quick.run(task_id="t1")
        request = WatchTaskRequest(task_id="t1", after_sequence=1)
        call = quick.tasks.WatchTask(request, metadata=(("last-event-id", "2"),))
        assert [event.sequence async for event in call] == [3]
        assert dict(await call.initial_metadata())["x-task-id"] == "t1"

    async def test_text_passes_only_to_those_who_ask_for_it(self, holder, gate, numbers, until, heard, made):
        await holder.submit(task_id="t1")
        await gate.holds()
        streams = [
            holder.tasks.WatchTask(WatchTaskRequest(task_id="t1", include_deltas=is_asked))
            for is_asked in (True, False)
        ]
        for stream in streams:
            await until(stream, lambda event: event.sequence == 3)
        await heard(made.name("t1"))
        gate.open()
        with_text, without = [[event async for event in stream] for stream in streams]
        assert "".join(event.delta.text for event in with_text if event.HasField("delta")) == "one two"
        assert [event.sequence for event in without] == numbers(with_text) == [4, 5, 6]

    @pytest.fixture
    def beating(self, monkeypatch):
        monkeypatch.setitem(Feeds.__init__.__kwdefaults__, "heartbeat_s", 0.02)

    async def test_a_silent_watch_is_kept_open_by_heartbeats(self, beating, holder, gate, until):
        await holder.submit(task_id="t1")
        await gate.holds()
        stream = holder.tasks.WatchTask(WatchTaskRequest(task_id="t1", after_sequence=1))
        beat = await until(stream, lambda event: event.HasField("heartbeat"))
        assert (beat.task_id, beat.sequence, beat.heartbeat.last_sequence) == ("t1", 0, 3)
        frames = holder.tasks.WatchTaskEvents(WatchTaskEventsRequest(task_id="t1"))
        assert (await until(frames, lambda frame: frame.data.startswith(b":"))).data == b": ping\n\n"
        gate.open()
        assert (await until(stream, lambda event: event.HasField("result"))).sequence == 6


def parsed(frame):
    """Reads one Server-Sent Event."""
    text = frame.data.decode()
    assert frame.content_type == "text/event-stream"
    assert text.endswith("\n\n")
    return dict(line.partition(": ")[::2] for line in text[:-2].split("\n"))


class TestWatchEvents:
    async def frames(self, client, metadata=(), **fields):
        call = client.tasks.WatchTaskEvents(WatchTaskEventsRequest(task_id="t1", **fields), metadata=metadata)
        found = [parsed(frame) async for frame in call]
        return found, dict(await call.initial_metadata())

    async def test_every_kept_event_is_a_frame_with_its_number_and_the_last_one_is_the_result(self, quick):
        await quick.run(task_id="t1")
        (retry, *frames), metadata = await self.frames(quick)
        assert retry == {"retry": "500"}
        assert [frame["id"] for frame in frames] == ["1", "2", "3"]
        assert [frame.get("event") for frame in frames] == [None, None, "result"]
        events = [json_format.ParseDict(json.loads(frame["data"]), StepEvent()) for frame in frames]
        assert events == await quick.watch("t1")
        result = json.loads(frames[-1]["data"])["result"]
        assert result["status"] == "TASK_STATUS_COMPLETED"
        assert (result["tool_calls"], result["output"]) == (0, "Done.")
        assert (metadata["x-task-id"], "x-mesh-stream-end" in metadata) == ("t1", False)

    async def test_text_comes_without_a_number(self, holder, gate, heard, made):
        await holder.submit(task_id="t1")
        await gate.holds()
        watching = asyncio.create_task(self.frames(holder, include_deltas=True))
        await heard(made.name("t1"))
        gate.open()
        frames, _ = await watching
        texts = [frame for frame in frames if '"delta":' in frame.get("data", "")]
        assert texts
        assert not any("id" in frame for frame in texts)

    async def test_where_nothing_follows_the_end_is_told_and_nothing_sent(self, quick):
        await quick.run(task_id="t1")
        for fields, sent in (({"after_sequence": 3}, ()), ({"after_sequence": 1}, (("last-event-id", "3"),))):
            frames, metadata = await self.frames(quick, sent, **fields)
            assert frames == []
            assert metadata["x-mesh-stream-end"] == "1"
        frames, _ = await self.frames(quick, (("last-event-id", "2"),))
        assert [frame.get("id") for frame in frames] == [None, "3"]


class TestCancel:
    async def test_a_waiting_task_ends_at_once(self, mesh, dial, gate, kinds):
        client = dial(await mesh.agent(Agent("holder", "Hold.", tools=[gate.tool]), script=SCRIPT, concurrency=1))
        await client.submit(task_id="t1")
        await gate.holds()
        await client.submit(task_id="t2")
        response = await client.cancel("t2", "not needed")
        assert (response.status, response.finish_reason) == (TASK_STATUS_CANCELLED, FINISH_REASON_CANCELLED)
        assert kinds(await client.watch("t2")) == ["result"]

    async def test_a_running_tool_call_is_broken_off(self, holder, gate, kinds):
        await holder.submit(task_id="t1")
        await gate.holds()
        await holder.cancel("t1")
        response = await holder.ended("t1")
        assert (response.status, response.finish_reason) == (TASK_STATUS_CANCELLED, FINISH_REASON_CANCELLED)
        assert not response.HasField("error")
        assert gate.waiting == 0
        assert kinds(await holder.watch("t1")) == ["started", "llm_call", "tool_call", "result"]

    async def test_a_running_model_call_is_broken_off(self, mesh, dial, becomes):
        script = "agents: {default: [{text: late, latency_ms: 60000}]}"
        client = dial(await mesh.agent(Agent("thinker", "Think."), script=script))
        running = asyncio.create_task(client.run(task_id="t1"))

        async def is_running():
            reply = await client.tasks.ListTasks(ListTasksRequest(statuses=[TASK_STATUS_RUNNING]))
            return len(reply.tasks) == 1

        await becomes(is_running)
        await client.cancel("t1")
        response = await running
        assert (response.status, response.steps_used) == (TASK_STATUS_CANCELLED, 0)
        assert await client.cancel("t1", "again") == response

    async def test_a_finished_task_stays_as_it_is(self, quick):
        ended = await quick.run(task_id="t1")
        assert await quick.cancel("t1") == ended
