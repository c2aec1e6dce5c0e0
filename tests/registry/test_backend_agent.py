"""Agents as tools, for callers outside of a task: a call becomes a task under its key, and ends with it."""

import asyncio
import json

import grpc
import pytest

from meshwright.agents.agent import Agent
from meshwright.core.errors import MeshError, SetupError
from meshwright.core.settings import Settings
from meshwright.gen.agents.v1.grant_pb2 import Grant
from meshwright.gen.agents.v1.task_pb2 import TASK_STATUS_CANCELLED, TASK_STATUS_COMPLETED
from meshwright.gen.agents.v1.task_service_pb2 import GetTaskRequest
from meshwright.gen.agents.v1.task_service_pb2_grpc import TaskServiceStub
from meshwright.gen.registry.v1.tool_registry_service_pb2 import EFFECT_IDEMPOTENT, InvokeToolRequest
from meshwright.registry.backends.agent import AgentTool
from meshwright.registry.invocation import INVOCATION, Invocation

PIN = "research.ask@1.0.0"


@pytest.fixture
def ask(declared, hosting, registry):
    """Serves the tool of an agent and calls it as somebody outside does: `(await ask(...))("prompt", "key")`."""

    async def served(**fields):
        outer = {"name": "research.ask", "timeout_s": 20} | fields
        options = {"agent_id": outer.pop("agent_id", "researcher")}
        (tool,) = declared({"agent": options}, settings=Settings(registry=registry.target), **outer)
        hosted = await hosting(tool)

        async def call(prompt, key, timeout_s=20.0):
            request = InvokeToolRequest(name="research.ask", idempotency_key=key)
            request.arguments.update({"prompt": prompt})
            try:
                return await registry.tools.InvokeTool(request, timeout=timeout_s)
            except grpc.aio.AioRpcError as error:
                raise MeshError.from_rpc(error) from None

        call.host, call.tool = hosted.host, tool
        return call

    return served


def script(*replies):
    return json.dumps({"agents": {"default": list(replies)}})


async def test_a_call_becomes_a_task_under_its_key_and_its_answer_is_the_result(mesh, ask):
    process = await mesh.agent(Agent("researcher", "Find it."), script=script({"text": "Forty-two."}))
    call = await ask()
    assert isinstance(call.tool, AgentTool)
    assert call.tool.contract().effect == EFFECT_IDEMPOTENT
    answer = await call("What is it?", "key-1")
    assert answer.result.string_value == "Forty-two."
    async with grpc.aio.insecure_channel(process.server.target) as channel:
        task = await TaskServiceStub(channel).GetTask(GetTaskRequest(task_id="key-1"))
    assert (task.status, task.output, task.agent_id) == (TASK_STATUS_COMPLETED, "Forty-two.", "researcher")
    again = await call("What is it?", "key-1")
    assert (again.result.string_value, again.replayed) == ("Forty-two.", True)


async def test_a_task_does_not_outlive_its_call(mesh, ask):
    slow = script({"text": "Too late.", "latency_ms": 30_000})
    process = await mesh.agent(Agent("researcher", "Find it."), script=slow)
    call = await ask(timeout_s=1)
    with pytest.raises(MeshError, match=r"research\.ask took longer than 1 s") as caught:
        await call("What is it?", "key-1")
    assert caught.value.reason == "TASK_TIMEOUT"  # not to be tried again: the task was cancelled
    async with grpc.aio.insecure_channel(process.server.target) as channel, asyncio.timeout(10):
        stub = TaskServiceStub(channel)
        while (await stub.GetTask(GetTaskRequest(task_id="key-1"))).status != TASK_STATUS_CANCELLED:
            await asyncio.sleep(0.05)


async def test_a_task_that_fails_or_asks_a_person_is_a_failure_that_says_so(mesh, ask):
    broken = script({"error": {"code": "INVALID_ARGUMENT", "message": "no such model"}})
    await mesh.agent(Agent("researcher", "Find it."), script=broken)
    asking = script({"tool_calls": [{"name": "ask.person", "arguments": {"question": "Which one?"}}]}, {"text": "x"})
    await mesh.agent(Agent("curious", "Ask.", asks_people=True), script=asking)
    with pytest.raises(MeshError, match=r"the task of researcher ended FAILED: .*no such model") as caught:
        await (await ask())("What is it?", "key-1")
    assert caught.value.reason == "TOOL_FAILED"
    with pytest.raises(MeshError, match="curious asks a person, which a tool cannot wait for"):
        await (await ask(agent_id="curious", version="2.0.0"))("What is it?", "key-2")


async def test_an_agent_that_is_not_here_is_told(ask):
    with pytest.raises(MeshError, match="no agent researcher is here"):
        await (await ask())("What is it?", "key-1")


@pytest.mark.parametrize(
    ("grant", "told"),
    [
        (Grant(tenant="default", principal="default", task_id="task-1", tools=[PIN]), "list researcher in `delegates`"),
        (Grant(tenant="acme", principal="default", task_id="call-key-1", tools=[PIN]), "in another's name"),
        (Grant(tenant="default", principal="eve", task_id="call-key-1", tools=[PIN]), "in another's name"),
    ],
)
async def test_a_task_delegates_by_events_and_nobody_acts_in_another_s_name(ask, grant, told):
    call = await ask()
    outcome = await call.host.invoke(grant, PIN, '{"prompt": "x"}', "key-1")
    error = MeshError.from_status(outcome.error)
    assert error.reason == "PERMISSION_DENIED"
    assert told in error.message


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"agent_id": "No Agent"}, r"backend\.agent\.agent_id: "),
        ({"effect": "pure"}, "effect: pure does not fit"),
        ({"input_schema": {"type": "object"}}, "input_schema: leave it out: an agent takes a prompt"),
    ],
)
async def test_mistakes_are_told_with_their_field(ask, fields, told):
    with pytest.raises(SetupError, match=told):
        await ask(**fields)


async def test_a_call_that_is_given_up_takes_its_task_back(mesh, ask):
    slow = script({"text": "Too late.", "latency_ms": 30_000})
    process = await mesh.agent(Agent("researcher", "Find it."), script=slow)
    tool = (await ask()).tool
    token = INVOCATION.set(Invocation("default", "default", "call-key-1", "key-1"))
    call = asyncio.create_task(tool.run({"prompt": "What is it?"}))
    INVOCATION.reset(token)
    async with grpc.aio.insecure_channel(process.server.target) as channel, asyncio.timeout(10):
        stub = TaskServiceStub(channel)
        while not process.worker.running:
            await asyncio.sleep(0.05)
        call.cancel()
        while (await stub.GetTask(GetTaskRequest(task_id="key-1"))).status != TASK_STATUS_CANCELLED:
            await asyncio.sleep(0.05)
    await asyncio.wait([call])
    assert call.cancelled()
