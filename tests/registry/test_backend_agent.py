"""Agents as tools, for callers outside of a task: a call becomes a task under its key, and ends with it."""

import asyncio
import json
from types import SimpleNamespace

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from meshwright.agents.agent import Agent
from meshwright.agents.task import NewTask, TaskName
from meshwright.core.call import METADATA_KEY
from meshwright.core.errors import MeshError, SetupError, TaskNotFoundError
from meshwright.core.interceptors import CALLER, Caller
from meshwright.core.settings import Settings
from meshwright.core.signed_token import CLOCKS_S
from meshwright.gen.agents.v1.agent_service_pb2_grpc import AgentServiceStub
from meshwright.gen.agents.v1.grant_pb2 import Grant
from meshwright.gen.agents.v1.task_pb2 import TASK_STATUS_CANCELLED, TASK_STATUS_COMPLETED, TaskRequest
from meshwright.gen.agents.v1.task_service_pb2 import (
    CancelTaskRequest,
    GetTaskRequest,
    ListTasksRequest,
    ResolveInputRequest,
    RetryDeadLetterRequest,
    WatchTaskRequest,
)
from meshwright.gen.agents.v1.task_service_pb2_grpc import TaskServiceStub
from meshwright.gen.registry.v1.tool_registry_service_pb2 import (
    EFFECT_IDEMPOTENT,
    InvokeToolRequest,
    RegisterToolRequest,
    Tool,
)
from meshwright.gen.tools.v1.tool_service_pb2 import InvokeRequest
from meshwright.registry.backends.agent import AgentTool
from meshwright.registry.invocation import INVOCATION, Invocation
from meshwright.registry.service import call_grant

PIN = "research.ask@1.0.0"


@pytest.fixture
async def registry(mesh, connect):
    """The registry that the mesh's agents ask for the keys of grants."""
    async with connect(mesh.registry, mesh.target) as running:
        yield running


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

        call.host, call.tool, call.tools, call.target = hosted.host, tool, hosted.tools, hosted.target
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


async def test_within_a_task_it_is_refused_since_tasks_delegate(ask):
    call = await ask()
    within = Grant(tenant="default", principal="default", agent_id="boss", task_id="call-key-1", tools=[PIN])
    outcome = await call.host.invoke(within, PIN, '{"prompt": "x"}', "key-1")
    error = MeshError.from_status(outcome.error)
    assert error.reason == "PERMISSION_DENIED"
    assert "list researcher in `delegates`" in error.message


ANN = Caller("acme", "ann", scopes=frozenset({"mail", "docs.read"}))


@pytest.fixture
def ann(registry, ask):
    """Serves the tool and returns what Ann's calls need: `token, call, record = await ann(key)`."""

    async def prepared(key, **fields):
        served = await ask(**fields)
        tool = await registry.client.register(served.tool.contract(served.target))
        return served, registry.process.signer.sign(call_grant(ANN, tool, key))

    return prepared


def as_ann(token):
    return [(METADATA_KEY, token)]


async def invoked(served, token, key):
    request = InvokeRequest(
        tool="research.ask", version="1.0.0", arguments_json='{"prompt": "What is it?"}', idempotency_key=key
    )
    outcome = None
    async for response in served.tools.Invoke(request, metadata=as_ann(token), timeout=20):
        outcome = response.outcome
    return outcome


async def test_the_task_is_its_callers_with_tenant_principal_and_scopes(mesh, ann):
    process = await mesh.agent(
        Agent("researcher", "Find it.", callable_by=["outside"]), script=script({"text": "Forty-two."})
    )
    served, token = await ann("key-1")
    outcome = await invoked(served, token, "key-1")
    assert outcome.result_json == '"Forty-two."'
    record = await process.journal.record(TaskName("acme", "ann", "key-1"))
    assert (record.scopes, record.parent_id, record.root_id, record.depth) == (("docs.read", "mail"), "", "key-1", 0)
    with pytest.raises(TaskNotFoundError):
        await process.journal.record(TaskName("default", "default", "key-1"))


async def test_an_agent_that_does_not_list_the_outside_refuses_the_call(mesh, ann):
    await mesh.agent(Agent("researcher", "Find it.", callable_by=["boss"]), script=script({"text": "x"}))
    served, token = await ann("key-1")
    assert MeshError.from_status((await invoked(served, token, "key-1")).error).reason == "NOT_CALLABLE"


class TestAHostThatMeansIll:
    """What a host can do beside its work with the grant of a call that it got."""

    @pytest.fixture
    async def held(self, mesh, ann):
        """An agent, another one, a task of Ann's own at the first, and the grant of her call `key-1`."""
        found = await mesh.agent(Agent("researcher", "Find it."), script=script({"text": "Forty-two."}))
        banker = await mesh.agent(Agent("banker", "Pay."), script=script({"text": "Paid."}))
        _, token = await ann("key-1")
        own = NewTask(
            TaskName("acme", "ann", "own"), "researcher", "h", TaskRequest(prompt="Mine."), 60_000, root_id="own"
        )
        await found.journal.accept(own, claim=False)
        async with (
            grpc.aio.insecure_channel(found.server.target) as first,
            grpc.aio.insecure_channel(banker.server.target) as second,
        ):
            yield SimpleNamespace(token=token, first=first, second=second, journal=found.journal)

    async def reason(self, call):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        return MeshError.from_rpc(caught.value).reason

    async def test_it_starts_no_task_at_another_agent(self, held):
        for channel in (held.first, held.second):
            submit = TaskServiceStub(channel).SubmitTask
            for request in (
                TaskRequest(task_id="key-1", agent_id="banker", prompt="Pay me."),
                TaskRequest(task_id="key-1.x", agent_id="banker", prompt="Pay me."),
            ):
                reason = await self.reason(submit(request, metadata=as_ann(held.token)))
                assert reason in {"PERMISSION_DENIED", "INVALID_REQUEST"}
        run = AgentServiceStub(held.second).RunTask(
            TaskRequest(task_id="key-1", prompt="Pay me."), metadata=as_ann(held.token)
        )
        assert await self.reason(run) == "PERMISSION_DENIED"

    async def test_it_starts_one_task_that_bears_the_calls_key(self, held):
        submit = TaskServiceStub(held.first).SubmitTask
        for task_id in ("", "key-2", "own", "call-key-1"):
            request = TaskRequest(task_id=task_id, prompt="More.")
            assert await self.reason(submit(request, metadata=as_ann(held.token))) == "PERMISSION_DENIED"
        await submit(TaskRequest(task_id="key-1", prompt="Work."), metadata=as_ann(held.token))
        again = submit(TaskRequest(task_id="key-1", prompt="Other work."), metadata=as_ann(held.token))
        assert await self.reason(again) == "TASK_CONFLICT"

    async def test_its_task_ends_in_the_calls_time_and_reads_no_session(self, held):
        submit = TaskServiceStub(held.first).SubmitTask
        long = TaskRequest(task_id="key-1", prompt="Work.", timeout=Duration(seconds=80_000))
        await submit(long, metadata=as_ann(held.token))
        record = await held.journal.record(TaskName("acme", "ann", "key-1"))
        assert record.deadline - record.created <= (20 + CLOCKS_S) * 1000
        prying = TaskRequest(task_id="key-1", prompt="What did she say?", session_id="hers")
        assert await self.reason(submit(prying, metadata=as_ann(held.token))) == "PERMISSION_DENIED"

    async def test_it_sees_and_ends_no_task_of_its_callers_own(self, held):
        tasks, ill = TaskServiceStub(held.first), as_ann(held.token)
        for call in (
            tasks.GetTask(GetTaskRequest(task_id="own"), metadata=ill),
            tasks.CancelTask(CancelTaskRequest(task_id="own"), metadata=ill),
            tasks.ListTasks(ListTasksRequest(), metadata=ill),
            tasks.WatchTask(WatchTaskRequest(task_id="own"), metadata=ill).read(),
            tasks.RetryDeadLetter(RetryDeadLetterRequest(task_id="own"), metadata=ill),
            tasks.ResolveInput(ResolveInputRequest(task_id="own"), metadata=ill),
        ):
            assert await self.reason(call) == "PERMISSION_DENIED"

    async def test_without_an_agent_behind_its_tool_it_starts_and_sees_none(self, held, registry):
        plain = registry.process.signer.sign(call_grant(ANN, Tool(name="sums.add", version="1.0.0"), "own"))
        tasks = TaskServiceStub(held.first)
        start = tasks.SubmitTask(TaskRequest(task_id="own", prompt="Work."), metadata=as_ann(plain))
        assert await self.reason(start) == "PERMISSION_DENIED"
        read = tasks.GetTask(GetTaskRequest(task_id="own"), metadata=as_ann(plain))
        assert await self.reason(read) == "PERMISSION_DENIED"

    async def test_it_changes_no_catalog_and_calls_no_other_tool(self, held, registry):
        contract = Tool(name="mail.send", version="1.0.0", description="Sends.", endpoint="127.0.0.1:7")
        contract.input_schema.update({"type": "object"})
        publish = registry.tools.RegisterTool(RegisterToolRequest(tool=contract), metadata=as_ann(held.token))
        assert await self.reason(publish) == "PERMISSION_DENIED"


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


async def test_a_call_that_is_given_up_takes_its_task_back(mesh, ask, registry):
    slow = script({"text": "Too late.", "latency_ms": 30_000})
    process = await mesh.agent(Agent("researcher", "Find it."), script=slow)
    served = await ask()
    grant = call_grant(Caller(), await registry.client.register(served.tool.contract(served.target)), "key-1")
    running = INVOCATION.set(Invocation("default", "default", "call-key-1", "key-1", "registry"))
    calling = CALLER.set(Caller(grant=grant, token=registry.process.signer.sign(grant)))
    call = asyncio.create_task(served.tool.run({"prompt": "What is it?"}))
    CALLER.reset(calling)
    INVOCATION.reset(running)
    async with grpc.aio.insecure_channel(process.server.target) as channel, asyncio.timeout(10):
        stub = TaskServiceStub(channel)
        while not process.worker.running:
            await asyncio.sleep(0.05)
        call.cancel()
        while (await stub.GetTask(GetTaskRequest(task_id="key-1"))).status != TASK_STATUS_CANCELLED:
            await asyncio.sleep(0.05)
    await asyncio.wait([call])
    assert call.cancelled()
