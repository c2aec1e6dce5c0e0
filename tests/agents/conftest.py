"""What the runtime's tests share: journals, tasks and events to write to them."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path
from typing import Any

import grpc
import pytest

from meshwright.agents.costs import Costs
from meshwright.agents.erasure import Erasure
from meshwright.agents.escrow import Escrow
from meshwright.agents.journal import LIBRARY, Claim, Journal
from meshwright.agents.memory import Memory, Outbox
from meshwright.agents.recall import Origins
from meshwright.agents.session import Sessions
from meshwright.agents.shared_limits import SharedLimits
from meshwright.agents.task import NewTask, TaskName
from meshwright.core.codec import Codec
from meshwright.core.errors import MeshError
from meshwright.core.ids import child_id
from meshwright.core.settings import Settings
from meshwright.core.store import Store, partition_key
from meshwright.gen.agents.v1.agent_service_pb2_grpc import AgentServiceStub
from meshwright.gen.agents.v1.step_event_pb2 import LlmCall, RunnerNotice, StepEvent, ToolResult
from meshwright.gen.agents.v1.task_pb2 import (
    TASK_STATUS_COMPLETED,
    TASK_STATUS_INPUT_REQUIRED,
    PendingInput,
    TaskRequest,
    TaskResponse,
    Usage,
)
from meshwright.gen.agents.v1.task_service_pb2 import (
    CancelTaskRequest,
    GetTaskRequest,
    ResolveInputRequest,
    WatchTaskRequest,
)
from meshwright.gen.agents.v1.task_service_pb2_grpc import TaskServiceStub
from meshwright.registry import tool

HOUR_MS = 3_600_000


class Made:
    """Builds tasks and events."""

    def name(self, task_id: str = "t1", principal: str = "default", tenant: str = "default") -> TaskName:
        return TaskName(tenant, principal, task_id)

    def task(self, task_id: str = "t1", *, principal: str = "default", **facts: Any) -> NewTask:
        request = TaskRequest(prompt="Do it.", max_steps=10, token_budget=8192)
        chosen = {"agent_id": "worker", "hash": "h", "request": request, "timeout_ms": HOUR_MS, "root_id": task_id}
        return NewTask(self.name(task_id, principal), **(chosen | facts))

    def child(self, parent: NewTask, call_id: str = "c1", **facts: Any) -> NewTask:
        task_id = child_id(parent.root_id, parent.name.task_id, 1, call_id)
        chosen = {
            "parent_id": parent.name.task_id,
            "root_id": parent.root_id,
            "depth": parent.depth + 1,
            "principal": parent.name.principal,
        }
        return self.task(task_id, **(chosen | facts))

    def notice(self, detail: str = "") -> StepEvent:
        return StepEvent(notice=RunnerNotice(detail=detail))

    def asks(self, input_id: str = "in-1", **facts: Any) -> StepEvent:
        pending = PendingInput(input_id=input_id, **facts)
        pending.expire_time.FromMilliseconds(facts.get("lapses", 2**42))
        return StepEvent(input_requested=pending)

    def said(self, text: str = "Well.", *, step: int = 1, tokens: tuple[int, int] = (3, 2)) -> StepEvent:
        usage = Usage(input_tokens=tokens[0], output_tokens=tokens[1], model_calls=1)
        return StepEvent(step=step, llm_call=LlmCall(text=text, usage=usage))

    def outcome(self, call_id: str = "c1") -> StepEvent:
        return StepEvent(tool_result=ToolResult(call_id=call_id))

    def result(self, output: str = "Done.", status: Any = TASK_STATUS_COMPLETED) -> StepEvent:
        return StepEvent(result=TaskResponse(status=status, output=output))


@pytest.fixture
def made() -> Made:
    """A builder of tasks and events."""
    return Made()


@pytest.fixture
def journal(store: Store) -> Journal:
    """A journal, owned by `one`."""
    return Journal(store, "one")


@pytest.fixture
def outbox(journal: Journal) -> Outbox:
    """What ended tasks leave behind, as a process relays it that is told of no shared budgets."""
    escrow = Escrow(journal, SharedLimits())
    return Outbox(journal, Sessions(journal), Memory(journal.store), escrow=escrow, costs=Costs(journal))


@pytest.fixture
def erasure(journal: Journal, outbox: Outbox) -> Erasure:
    """Deletes sessions."""
    return Erasure(journal, Memory(journal.store), Origins(journal.store), outbox)


@pytest.fixture
def claimed(journal: Journal) -> Callable[..., Any]:
    """Accepts a task and claims it at once."""

    async def accept(task: NewTask, *events: StepEvent, by: Journal | None = None) -> Claim:
        accepted = await (by or journal).accept(task, claim=True, events=events)
        assert accepted.claim
        return accepted.claim

    return accept


@pytest.fixture
def keys(store: Store) -> Callable[[], Any]:
    """Lists all keys of the store that belong to tasks."""

    async def listed() -> set[str]:
        return {key.decode() async for key in store.client.scan_iter() if b"{mesh}" not in key}

    return listed


async def first(events: AsyncIterator[Any], wanted: Callable[[Any], bool], patience_s: float = 10) -> Any:
    async with asyncio.timeout(patience_s):
        async for event in events:
            if wanted(event):
                return event
    raise AssertionError("the stream ended before")


@pytest.fixture
def until() -> Callable[..., Any]:
    """Reads a stream until an event is as wanted, and returns that event."""
    return first


async def come_true(condition: Callable[[], Any], patience_s: float = 10) -> None:
    async with asyncio.timeout(patience_s):
        while True:
            found = condition()
            if asyncio.iscoroutine(found):
                found = await found
            if found:
                return
            await asyncio.sleep(0.01)


@pytest.fixture
def becomes() -> Callable[..., Any]:
    """Waits for a condition that nobody announces."""
    return come_true


async def is_heard(store: Store, name: TaskName) -> bool:
    channel = partition_key(name.partition(store.partitions), "tail", name.ref)
    return bool((await store.client.execute_command("PUBSUB", "SHARDNUMSUB", channel))[1])


@pytest.fixture
def heard(store: Store) -> Callable[..., Any]:
    """Waits until somebody listens to what is written to a task."""

    async def wait(name: TaskName, at: Store = store) -> None:
        await come_true(lambda: is_heard(at, name))

    return wait


class Client:
    """What a caller of an agent holds."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.agent = AgentServiceStub(channel)
        self.tasks = TaskServiceStub(channel)

    async def run(self, prompt: str = "Go.", **fields: Any) -> TaskResponse:
        return await self.agent.RunTask(TaskRequest(prompt=prompt, **fields))

    async def steps(self, prompt: str = "Go.", **fields: Any) -> list[StepEvent]:
        request = TaskRequest(prompt=prompt, **fields)
        return [event async for event in self.agent.StreamSteps(request) if event.sequence]

    async def submit(self, prompt: str = "Go.", **fields: Any) -> TaskResponse:
        return await self.tasks.SubmitTask(TaskRequest(prompt=prompt, **fields))

    async def get(self, task_id: str) -> TaskResponse:
        return await self.tasks.GetTask(GetTaskRequest(task_id=task_id))

    async def watch(self, task_id: str, after: int = 0, **fields: Any) -> list[StepEvent]:
        request = WatchTaskRequest(task_id=task_id, after_sequence=after, **fields)
        return [event async for event in self.tasks.WatchTask(request)]

    async def cancel(self, task_id: str, reason: str = "") -> TaskResponse:
        return await self.tasks.CancelTask(CancelTaskRequest(task_id=task_id, reason=reason))

    async def asked(self, task_id: str) -> list[PendingInput]:
        """Waits until a task asks, and returns what."""

        async def is_asking() -> bool:
            return (await self.get(task_id)).status == TASK_STATUS_INPUT_REQUIRED

        await come_true(is_asking)
        return list((await self.get(task_id)).pending_inputs)

    async def resolve(self, task_id: str, pending: PendingInput, decision: Any, **fields: Any) -> TaskResponse:
        """Decides on what a task asks, quoting its digest."""
        chosen = {"intent_digest": pending.intent_digest} | fields
        request = ResolveInputRequest(task_id=task_id, input_id=pending.input_id, decision=decision, **chosen)
        return await self.tasks.ResolveInput(request)

    async def ended(self, task_id: str) -> TaskResponse:
        await self.watch(task_id)
        return await self.get(task_id)


@pytest.fixture
async def dial() -> AsyncIterator[Callable[[Any], Client]]:
    """Connects to an agent, by its process or its host:port."""
    channels = []

    def connected(place: Any) -> Client:
        target = place if isinstance(place, str) else place.server.target
        channels.append(grpc.aio.insecure_channel(target))
        return Client(channels[-1])

    yield connected
    for channel in channels:
        await channel.close()


@pytest.fixture
def refusal() -> Callable[[grpc.aio.AioRpcError], MeshError]:
    """Reads the error behind a failed call, with its details."""
    return MeshError.from_rpc


@pytest.fixture
def kinds() -> Callable[[Iterable[StepEvent]], list[str]]:
    """Names what happened in the durable events among some; a child's as `child.<kind>`."""

    def kind(event: StepEvent) -> str:
        name = event.WhichOneof("event") or ""
        return f"child.{kind(event.child.event)}" if name == "child" else name

    return lambda events: [kind(event) for event in events if event.sequence]


@pytest.fixture
def numbers() -> Callable[[Iterable[StepEvent]], list[int]]:
    """Returns the sequences of the durable events among some."""
    return lambda events: [event.sequence for event in events if event is not None and event.sequence]


class Gate:
    """A tool that holds its caller until it is opened."""

    def __init__(self) -> None:
        self.is_open = asyncio.Event()
        self.waiting = 0
        self.most = 0
        self.calls: list[str] = []

        @tool(effect="pure", name="hold")
        async def hold(key: str = "") -> str:
            """Waits for the gate to open."""
            self.calls.append(key)
            self.waiting += 1
            self.most = max(self.most, self.waiting)
            try:
                await self.is_open.wait()
            finally:
                self.waiting -= 1
            return f"passed {key}"

        self.tool = hold

    def open(self) -> None:
        self.is_open.set()

    async def holds(self, many: int = 1) -> None:
        await come_true(lambda: self.waiting == many)


@pytest.fixture
def gate() -> Gate:
    """A tool whose calls stay open as long as the test wants."""
    return Gate()


class OwnStore:
    """A store on a Valkey that a test may kill."""

    def __init__(self, valkey: Any) -> None:
        self.valkey = valkey
        self.url = valkey.url
        self.store = Store(valkey.url, LIBRARY, codec=Codec.of(Settings.load().content_keys_file))

    async def start(self) -> None:
        self.valkey.start()
        await self.store.open()

    def kill(self) -> None:
        self.valkey.kill()


@pytest.fixture
async def own_store(run_valkey: Callable[..., Any], tmp_path: Path) -> AsyncIterator[OwnStore]:
    """A store of the test's own."""
    own = OwnStore(run_valkey(tmp_path))
    await own.store.open()
    yield own
    await own.store.close()


@pytest.fixture
def overheard(mesh):
    """Remembers the prompts that an agent's model gets."""

    def listen(name):
        prompts, model = [], mesh.agents[name].router.candidates[0].model
        answer = model.answer

        async def remembered(prompt, on_text):
            prompts.append(prompt)
            return await answer(prompt, on_text)

        model.answer = remembered
        return prompts

    return listen
