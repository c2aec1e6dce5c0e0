"""Tests for agents: a mesh of their own, in this process, without an edge."""

import asyncio
import dataclasses
from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

from meshwright.agents.agent import Agent
from meshwright.agents.library.bundle import BUNDLED, bundled
from meshwright.agents.models.model import Model
from meshwright.agents.models.rules.citations import without_mark
from meshwright.agents.serving import AgentProcess
from meshwright.agents.settings import AgentSettings
from meshwright.agents.supervisor import PREFIX
from meshwright.agents.task import leaf
from meshwright.core import channel
from meshwright.core.canonical import from_struct
from meshwright.core.channel import Channels
from meshwright.core.errors import MeshError, SetupError, UnavailableError
from meshwright.core.ids import uuid7
from meshwright.core.settings import Settings
from meshwright.gen.agents.v1.step_event_pb2 import LlmCall, StepEvent
from meshwright.gen.agents.v1.task_pb2 import FinishReason, PendingInput, TaskRequest, TaskResponse
from meshwright.gen.agents.v1.task_service_pb2 import CancelTaskRequest, WatchTaskRequest
from meshwright.gen.agents.v1.task_service_pb2_grpc import TaskServiceStub
from meshwright.registry.catalog import split_selector
from meshwright.registry.serving import RegistryProcess
from meshwright.registry.testing import start_store

START_S = 60.0
CALL_S = 10.0
GRACE_S = 15.0
"""So much longer than its task a watch may take."""
POLL_S = 0.01
DRAIN_S = 0.05
"""Enough for connections to end in good order: nothing is at work any more."""
INPUT_REQUIRED = "input_required"
"""How a task ended that asked a person: a bench has none, and cancels it."""


@dataclass(frozen=True, slots=True)
class MadeCall:
    """A tool call that was made, or work that was handed on.

    Attributes:
        agent: Who made it: the agent itself or one below it.
        tool: Name; `ask.NAME` where it is a delegation.
        arguments: As the tool got them; of a delegation, its prompt.
    """

    agent: str
    tool: str
    arguments: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Played:
    """A task from its prompt to its end.

    Attributes:
        task: As it ended.
        events: Its journal, children's events inside of it.
        asked: Questions to a person, for which it was cancelled.
    """

    task: TaskResponse
    events: tuple[StepEvent, ...]
    asked: tuple[PendingInput, ...] = ()

    @property
    def output(self) -> str:
        """The answer, without the offline model's mark."""
        return without_mark(self.task.output)

    @property
    def finish(self) -> str:
        """Why it ended, in lower case: `stop`, `max_steps`, `error` ...; `input_required`: it asked a person."""
        if self.asked:
            return INPUT_REQUIRED
        return FinishReason.Name(self.task.finish_reason).removeprefix("FINISH_REASON_").lower()

    @property
    def error(self) -> MeshError | None:
        """Why it failed; None: it did not."""
        return MeshError.from_status(self.task.error) if self.task.HasField("error") else None

    @property
    def calls(self) -> list[MadeCall]:
        """Lists the calls of the task and of those below it, in the order of the journal."""
        agents: dict[str, str] = {}
        planned: dict[tuple[str, str], dict[str, Any]] = {}
        made: list[MadeCall] = []
        for event in map(leaf, self.events):
            task = event.task_id
            if event.HasField("started"):
                agents[task] = event.started.agent_id
            elif event.HasField("llm_call"):
                planned |= {(task, call_id): arguments for call_id, arguments in _planned(event.llm_call)}
            elif event.HasField("tool_call"):
                arguments = from_struct(event.tool_call.arguments, "arguments")
                made.append(MadeCall(agents.get(task, ""), event.tool_call.tool, arguments))
            elif event.HasField("delegation"):
                tool = PREFIX + event.delegation.agent_id.replace("-", "_")
                arguments = planned.get((task, event.delegation.call_id), {})
                made.append(MadeCall(agents.get(task, ""), tool, arguments))
        return made


class AgentBench:
    """An agent in a mesh of its own: store, registry, the agents it needs; needs `meshwright[local]`.

    Everything but the edge is the mesh's own, part for part, with real servers between the parts. Bundled agents that
    it delegates to, or whose tools it uses, come by themselves.

    Args:
        agent: What is tested.
        others: Further agents that it delegates to, or whose tools it uses.
        model: Model or spec in place of the agents' own; None: theirs, by default `offline`.
        docs: Folder that the researcher searches; None: what the environment names.
        concurrency: Tasks that each agent runs at once.
    """

    def __init__(
        self,
        agent: Agent,
        *,
        others: Sequence[Agent] = (),
        model: str | Model | None = None,
        docs: Path | None = None,
        concurrency: int = 8,
    ) -> None:
        self._agent = agent
        self._others = others
        self._model = model
        self._docs = docs
        self._concurrency = concurrency
        self._target = ""
        self._channels = Channels()
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Starts.

        Raises:
            SetupError: An agent it needs is not there or cannot start, or there is no Valkey to run.
        """
        team = gathered(self._agent, self._others, self._docs)
        async with AsyncExitStack() as stack:
            folder = stack.enter_context(TemporaryDirectory(prefix="meshwright-", ignore_cleanup_errors=True))
            store_url = start_store(stack, Path(folder))
            registry = RegistryProcess(Settings(store_url=store_url, drain_s=DRAIN_S, tracing=False))
            stack.push_async_callback(registry.stop)
            registry_target = await registry.start()
            settings = AgentSettings(
                store_url=store_url,
                registry=registry_target,
                drain_s=DRAIN_S,
                tracing=False,
                concurrency=self._concurrency,
            )
            processes = [AgentProcess(self._with_model(agent), settings) for agent in team]
            for process in processes:
                stack.push_async_callback(process.stop)
            await _started(processes)
            self._target = processes[0].server.target
            stack.push_async_callback(self._channels.close)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._target = ""
        await self._stack.aclose()

    def _with_model(self, agent: Agent) -> Agent:
        return agent if self._model is None else dataclasses.replace(agent, model=self._model)

    async def ask(self, prompt: str, *, max_steps: int = 0, token_budget: int = 0, timeout_s: float = 60.0) -> Played:
        """Gives the agent a task and follows it to its end; one that asks a person is cancelled.

        Args:
            prompt: What to do.
            max_steps: Plan-act-observe rounds, 1..25; 0: 10.
            token_budget: Tokens, 512..32768; 0: 8192.
            timeout_s: Seconds for the task.

        Raises:
            SetupError: The bench was not entered: write `async with`.
            MeshError: The task was not accepted, or cannot be followed.
        """
        if not self._target:
            raise SetupError("the bench is not running: write `async with AgentBench(agent) as bench`")
        request = TaskRequest(
            task_id=uuid7(),
            agent_id=self._agent.name,
            prompt=prompt,
            max_steps=max_steps,
            token_budget=token_budget,
        )
        request.timeout.FromMilliseconds(int(timeout_s * 1_000))
        stub = TaskServiceStub(self._channels.to(self._target))
        await channel.patient(stub.SubmitTask, request, timeout_s=CALL_S)
        return await _followed(stub, request.task_id, timeout_s + GRACE_S)


async def _followed(stub: TaskServiceStub, task_id: str, timeout_s: float) -> Played:
    events: list[StepEvent] = []
    asked: dict[str, PendingInput] = {}
    async for event in channel.stream(stub.WatchTask, WatchTaskRequest(task_id=task_id), timeout_s=timeout_s):
        inner = leaf(event)
        if event.sequence:
            events.append(event)
        if inner.HasField("input_requested"):
            asked[inner.input_requested.input_id] = inner.input_requested
            cancel = CancelTaskRequest(task_id=task_id, reason="nobody is here to answer")
            await channel.patient(stub.CancelTask, cancel, timeout_s=CALL_S)
        if event.HasField("result"):
            return Played(event.result, tuple(events), tuple(asked.values()))
    raise UnavailableError("the stream ended without a result")


async def _started(processes: Sequence[AgentProcess]) -> None:
    """Starts agents at once, since they wait for each other's tools, and waits until each knows all.

    Raises:
        SetupError: One cannot start, or takes too long.
    """
    names = {process.agent.name for process in processes}
    try:
        async with asyncio.timeout(START_S), asyncio.TaskGroup() as group:
            for process in processes:
                group.create_task(process.start())
        async with asyncio.timeout(START_S):
            while any(names - set(process.registry.known) for process in processes):  # noqa: ASYNC110 - not announced
                await asyncio.sleep(POLL_S)
    except* MeshError as failures:
        raise _first(failures) from None
    except* TimeoutError:
        raise SetupError(f"{', '.join(sorted(names))}: not ready within {START_S:.0f} s") from None


def _first(failures: BaseExceptionGroup[MeshError]) -> MeshError:
    found = failures.exceptions[0]
    return _first(found) if isinstance(found, BaseExceptionGroup) else found


def gathered(agent: Agent, others: Sequence[Agent], docs: Path | None) -> list[Agent]:
    """Returns an agent and all that it needs: its delegates, theirs, and those that run its tools.

    Args:
        agent: The first of the result.
        others: Known beside the bundled ones, and before them.
        docs: Folder of the researcher.

    Raises:
        SetupError: One of them is nowhere.
    """
    known = {one.name: one for one in others}
    if docs and agent is bundled("researcher"):
        agent = bundled("researcher", docs)
    team = {agent.name: agent}
    pending = [agent]
    while pending:
        asking = pending.pop()
        for name in (*asking.delegates, *_hosts(asking, [*team.values(), *others])):
            if name in team:
                continue
            if name not in known and name not in BUNDLED:
                raise SetupError(f"agent {asking.name} hands work to {name}, which is not here: name it beside it")
            team[name] = known.get(name) or bundled(name, docs)
            pending.append(team[name])
    return list(team.values())


def _hosts(agent: Agent, there: Iterable[Agent]) -> list[str]:
    """Names the agents that run the tools which an agent only selects.

    Raises:
        SetupError: Nobody does.
    """
    selected = [split_selector(one)[0] for one in agent.tools if isinstance(one, str)]
    if not selected:
        return []
    hosts = {tool.name: one.name for one in [*map(bundled, BUNDLED), *there] for tool in one.local_tools}
    missing = [name for name in selected if name not in hosts]
    if missing:
        raise SetupError(f"no agent here runs the tool {missing[0]}, which {agent.name} selects: name one that does")
    return [hosts[name] for name in selected]


def _planned(answer: LlmCall) -> Iterable[tuple[str, dict[str, Any]]]:
    return [(call.call_id, from_struct(call.arguments, "arguments")) for call in answer.planned_calls]
