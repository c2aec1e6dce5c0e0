"""Takeover: an agent's process is killed in the middle of a task, another one goes on where its journal ends."""

import asyncio
import contextlib
import json
import os
import sys
from dataclasses import dataclass

import grpc
import pytest

from meshwright.agents.agent import Agent
from meshwright.agents.models.model import Answer, Usage
from meshwright.cli.trace_tree import Tree, time_of
from meshwright.core.errors import MeshError, ModelRejectedError
from meshwright.gen.agents.v1.step_event_pb2 import NOTICE_KIND_TAKEN_OVER, TOOL_OUTCOME_OK, TOOL_OUTCOME_UNKNOWN
from meshwright.gen.agents.v1.task_pb2 import (
    DECISION_SKIP,
    INPUT_KIND_UNKNOWN_OUTCOME,
    TASK_STATUS_COMPLETED,
    TASK_STATUS_FAILED,
)
from meshwright.gen.agents.v1.task_service_pb2 import (
    DropDeadLetterRequest,
    ListTasksRequest,
    RetryDeadLetterRequest,
    WatchTaskRequest,
)

AGENT = '''
"""An agent whose effects are lines in a file."""

import asyncio
import os
from pathlib import Path

from meshwright.agents import Agent
from meshwright.registry import tool

EFFECTS = Path(os.environ["EFFECTS"])


def note(line: str) -> None:
    with EFFECTS.open("a") as file:
        file.write(line + "\\n")


@tool(effect="non_idempotent", timeout_s=1)
async def send(to: str) -> str:
    """Sends a letter."""
    note(f"send {to}")
    return f"sent to {to}"


@tool(effect="non_idempotent", timeout_s=1)
async def crash(to: str) -> str:
    """Sends a letter and brings its own process down before it can say so."""
    note(f"crash {to}")
    os.kill(os.getpid(), 9)
    return "never"


@tool(effect="pure")
async def look(at: str) -> str:
    """Looks for a while, and brings its own process down the first time."""
    await asyncio.sleep(0.1)  # its step is journaled meanwhile
    is_first = f"look {at}" not in EFFECTS.read_text().split("\\n")
    note(f"look {at}")
    if is_first:
        os.kill(os.getpid(), 9)
    return f"saw {at}"


@tool(effect="pure")
async def doom() -> str:
    """Brings its own process down, always."""
    note("doom")
    os.kill(os.getpid(), 9)
    return "never"


agent = Agent(
    "courier", "Deliver.", tools=[send, crash, look, doom], delegates=["helper"], on_child_failure="retry"
)
'''


@dataclass
class Instance:
    """One process of the agent."""

    process: asyncio.subprocess.Process
    target: str

    async def kill(self):
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        await self.process.wait()


class Courier:
    """Processes of one agent, each on a script of its own; `effects` are what its tools did."""

    def __init__(self, mesh, folder):
        self._mesh = mesh
        self._file = folder / "courier.py"
        self._file.write_text(AGENT)
        self._folder = folder
        self._effects = folder / "effects"
        self._effects.touch()
        self._instances = []

    @property
    def effects(self):
        return self._effects.read_text().split("\n")[:-1]

    async def start(self, name, *replies):
        script = self._folder / f"{name}.yaml"
        script.write_text(json.dumps({"agents": {"courier": list(replies)}}))
        settings = {
            "STORE_URL": self._mesh.url,
            "CONTENT_KEYS_FILE": self._mesh.keys_file,
            "REGISTRY": self._mesh.target,
            "LEASE_S": "1",
            "MODEL": f"scripted:{script}",
            "DRAIN_S": "0",
            "LOG_LEVEL": "error",
            "TRACING": "false",
        }
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("MESHWRIGHT_")}
        environment = inherited | {f"MESHWRIGHT_{name}": value for name, value in settings.items()}
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "meshwright.agents", f"{self._file}:agent"),
            stdout=asyncio.subprocess.PIPE,
            env=environment | {"EFFECTS": str(self._effects)},
        )
        self._instances.append(process)
        return Instance(process, json.loads(await process.stdout.readline())["target"])

    async def pair(self, first, second):
        """Starts two processes, each on its replies."""
        return await asyncio.gather(self.start("first", *first), self.start("second", *second))

    async def stop(self):
        for process in self._instances:
            await Instance(process, "").kill()


@pytest.fixture
async def courier(mesh, tmp_path):
    """Starts processes of the agent `courier`."""
    opened = Courier(mesh, tmp_path)
    yield opened
    await opened.stop()


@pytest.fixture
async def elsewhere(mesh, dial):
    """A process of another agent, through which tasks can be watched."""
    script = json.dumps({"agents": {"default": [{"text": "Hm."}]}})
    return dial(await mesh.agent(Agent("observer", "Observe."), script=script))


@pytest.fixture
async def begin(dial):
    """Runs a task in the process that is called; the call may break."""
    calls = []

    async def run(instance, **fields):
        calls.append(asyncio.create_task(dial(instance.target).steps(task_id="t1", **fields)))

    yield run
    await asyncio.gather(*calls, return_exceptions=True)


SEND = {"tool_calls": [{"name": "send", "arguments": {"to": "ann"}}], "text": "First."}
FAILS = {"error": {"code": "UNAVAILABLE", "message": "asked again"}}
SLOW = {"text": "late", "latency_ms": 60_000}
DONE = {"text": "Done."}


async def has_outcomes(client, many):
    """Waits until a task's tools have given so many outcomes."""
    async with asyncio.timeout(10):
        while True:
            with contextlib.suppress(grpc.aio.AioRpcError):  # not accepted yet
                if (await client.get("t1")).tool_calls >= many:
                    return
            await asyncio.sleep(0.01)


async def has_written(client, kind):
    """Waits until a task's journal has an event of a kind."""
    async with asyncio.timeout(10):
        while True:
            with contextlib.suppress(grpc.aio.AioRpcError):  # not accepted yet
                async for event in client.tasks.WatchTask(WatchTaskRequest(task_id="t1")):
                    if event.HasField(kind):
                        return
            await asyncio.sleep(0.01)


def time_lost(task, events):
    """Lists what `meshwright trace` says of lost workers: who went on, from when to when."""
    tree = Tree(task)
    for event in events:
        tree.add(event)
    return [(node.name, node.start_ms, node.end_ms) for node in tree.root.below if node.kind == "takeover"]


def by_kind(events, kind):
    return [getattr(event, kind) for event in events if event.WhichOneof("event") == kind]


async def test_another_process_finishes_without_asking_or_acting_twice(courier, elsewhere, begin, becomes, kinds):
    first, _ = await courier.pair((SEND, SLOW), (FAILS, DONE))  # asked for the first answer again, it would fail
    await begin(first)
    await becomes(lambda: courier.effects)
    watching = asyncio.create_task(elsewhere.watch("t1"))
    streaming = asyncio.create_task(elsewhere.steps(task_id="t1", agent_id="courier"))
    await has_outcomes(elsewhere, 1)
    await first.kill()
    events = await watching
    assert await streaming == events
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert kinds(events) == [*("started", "llm_call", "tool_call", "tool_result", "notice", "llm_call", "result")]
    assert by_kind(events, "notice")[0].kind == NOTICE_KIND_TAKEN_OVER
    assert time_lost(await elsewhere.get("t1"), events) == [("attempt 2", time_of(events[3]), time_of(events[4]))]
    result = events[-1].result
    assert (result.status, result.output, result.attempt, result.steps_used) == (TASK_STATUS_COMPLETED, "Done.", 2, 2)
    assert courier.effects == ["send ann"]


async def test_an_effect_whose_outcome_was_lost_is_not_doubled(courier, elsewhere, begin):
    crash = {"tool_calls": [{"name": "crash", "arguments": {"to": "bob"}}, SEND["tool_calls"][0]]}
    first, _ = await courier.pair((crash, DONE), (FAILS, DONE))
    await begin(first)
    await first.process.wait()
    asked = {pending.tool: pending for pending in await elsewhere.asked("t1")}
    assert {pending.kind for pending in asked.values()} == {INPUT_KIND_UNKNOWN_OUTCOME}
    assert asked["crash"].arguments["to"] == "bob"
    assert courier.effects.count("crash bob") == 1
    for pending in asked.values():  # the other call may have been on its way, too
        await elsewhere.resolve("t1", pending, DECISION_SKIP)
    response = await elsewhere.ended("t1")
    assert (response.status, response.output, response.attempt) == (TASK_STATUS_COMPLETED, "Done.", 2)
    assert courier.effects.count("crash bob") == 1
    assert courier.effects.count("send ann") <= 1
    outcomes = {result.call_id: result for result in by_kind(await elsewhere.watch("t1"), "tool_result")}
    assert outcomes["call_0_0"].outcome == TOOL_OUTCOME_UNKNOWN
    assert MeshError.from_status(outcomes["call_0_0"].error).reason == "OUTCOME_UNKNOWN"


async def test_a_call_without_effect_is_simply_made_again(courier, elsewhere, begin):
    look = {"tool_calls": [{"name": "look", "arguments": {"at": "sky"}}]}
    first, _ = await courier.pair((look, DONE), (FAILS, DONE))
    await begin(first)
    await first.process.wait()
    response = await elsewhere.ended("t1")
    assert (response.output, response.attempt) == ("Done.", 2)
    (result,) = by_kind(await elsewhere.watch("t1"), "tool_result")
    assert (result.outcome, result.result.string_value) == (TOOL_OUTCOME_OK, "saw sky")


async def test_an_answer_that_was_handed_back_is_not_asked_for_again(courier, elsewhere, begin, kinds):
    first, _ = await courier.pair(({"text": "No JSON."}, SLOW), (FAILS, {"text": '{"a": 1}'}))
    await begin(first, output_schema={"type": "object", "required": ["a"]})
    await has_written(elsewhere, "correction")
    await first.kill()
    response = await elsewhere.ended("t1")
    assert (response.output, response.attempt, response.steps_used) == ('{"a": 1}', 2, 2)
    told = kinds(await elsewhere.watch("t1"))
    assert told == ["started", "llm_call", "correction", "notice", "llm_call", "result"]


class Stumbling:
    """A model that fails the first task it is asked in, when it is told to, and answers in all others."""

    provider = name = "stumbling"

    def __init__(self):
        self.may_fail = asyncio.Event()
        self.asked = 0

    async def answer(self, prompt, on_text):
        self.asked += 1
        if self.asked == 1:
            await self.may_fail.wait()
            raise ModelRejectedError("stumbled")
        return Answer("Here.", (), Usage(1, 1), self.provider, self.name)

    async def close(self):
        pass


async def test_a_child_that_fails_while_its_parent_has_no_worker_is_replaced(courier, elsewhere, begin, mesh, becomes):
    model = Stumbling()
    await mesh.agent(Agent("helper", "Help.", model=model))
    ask = {"tool_calls": [{"name": "ask.helper", "arguments": {"prompt": "Help."}}]}
    first, _ = await courier.pair((ask, DONE), (FAILS, DONE))
    await begin(first)
    await becomes(lambda: model.asked)
    await first.kill()
    model.may_fail.set()
    response = await elsewhere.ended("t1")
    assert (response.status, response.output, response.attempt) == (TASK_STATUS_COMPLETED, "Done.", 2)
    failed, second = by_kind(await elsewhere.watch("t1"), "delegation")
    assert second.replaces_task_id == failed.child_task_id
    assert model.asked == 2


async def test_a_process_that_is_told_to_stop_hands_its_task_back(courier, elsewhere, begin):
    first, _ = await courier.pair((SEND, SLOW), (FAILS, DONE))
    await begin(first)
    await has_outcomes(elsewhere, 1)
    first.process.terminate()
    assert await first.process.wait() == 0
    response = await elsewhere.ended("t1")
    assert (response.output, response.attempt) == ("Done.", 1)
    assert courier.effects == ["send ann"]


async def test_a_task_that_kills_every_worker_is_given_up_and_can_be_started_anew(courier, elsewhere, refusal):
    doom = {"tool_calls": [{"name": "doom", "arguments": {}}]}
    script = (doom, DONE)
    instances = await asyncio.gather(*(courier.start(f"i{number}", *script) for number in range(6)))
    await elsewhere.submit(task_id="t1", agent_id="courier")
    response = await elsewhere.ended("t1")
    assert response.status == TASK_STATUS_FAILED
    assert MeshError.from_status(response.error).reason == "POISON_TASK"
    assert courier.effects == ["doom"] * 6  # the first one got as far as planning it
    assert [await instance.process.wait() for instance in instances] == [-9] * 6
    listed = await elsewhere.tasks.ListTasks(ListTasksRequest(dead_letters_only=True))
    assert [task.task_id for task in listed.tasks] == ["t1"]
    await courier.start("good", DONE)
    again = [await elsewhere.tasks.RetryDeadLetter(RetryDeadLetterRequest(task_id="t1")) for _ in range(2)]
    assert again[0].task_id == again[1].task_id != "t1"
    assert (await elsewhere.ended(again[0].task_id)).output == "Done."
    assert list((await elsewhere.tasks.ListTasks(ListTasksRequest(dead_letters_only=True))).tasks) == []
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await elsewhere.tasks.RetryDeadLetter(RetryDeadLetterRequest(task_id=again[0].task_id))
    assert refusal(refused.value).reason == "NO_DEAD_LETTER"
    assert (await elsewhere.tasks.DropDeadLetter(DropDeadLetterRequest(task_id="t1"))).task_id == "t1"
