"""Authority: who may give an agent a task, and how far a child's own reaches."""

import json

import grpc
import pytest

from meshwright.agents.agent import Agent
from meshwright.agents.authority import check_cycle, narrow
from meshwright.agents.task import TaskName, leaf
from meshwright.core.call import METADATA_KEY
from meshwright.core.errors import DelegationCycleError, MeshError, PermissionDeniedError, SetupError
from meshwright.core.grant import REGISTRY
from meshwright.core.interceptors import Caller
from meshwright.gen.agents.v1.grant_pb2 import Grant
from meshwright.gen.agents.v1.step_event_pb2 import TOOL_OUTCOME_DENIED
from meshwright.gen.agents.v1.task_pb2 import TASK_STATUS_COMPLETED, TaskRequest
from meshwright.registry import tool

DONE = {"text": "Done."}
HOLD = {"tool_calls": [{"name": "hold", "arguments": {}}]}


@tool(effect="pure")
async def echo(n: int) -> int:
    """Gives a number back."""
    return n


@pytest.fixture
def start(mesh, gate):
    async def started(name, *replies, **facts):
        author = Agent(name, f"I am {name}.", tools=[gate.tool, echo], **facts)
        return await mesh.agent(author, script=json.dumps({"agents": {name: list(replies)}}))

    return started


def asks(agent):
    return {"tool_calls": [{"name": f"ask.{agent}", "arguments": {"prompt": "Help."}}]}


def reason_of(error):
    return MeshError.from_rpc(error).reason


async def refused(call):
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await call
    return reason_of(failed.value)


def outcomes(events):
    return [leaf(event).tool_result for event in events if leaf(event).HasField("tool_result")]


class TestCycle:
    chain = Caller(grant=Grant(ancestors=["boss"], agent_id="helper", root_task_id="t1"))

    @pytest.mark.parametrize("agent_id", ["boss", "helper"])
    def test_an_agent_that_is_above_is_not_asked_unless_it_allows_it(self, agent_id):
        with pytest.raises(DelegationCycleError, match="boss -> helper -> "):
            check_cycle(agent_id, self.chain, is_recursive=False)
        check_cycle(agent_id, self.chain, is_recursive=True)

    @pytest.mark.parametrize("caller", [chain, Caller(), Caller(grant=Grant(agent_id=REGISTRY))])
    def test_all_others_are(self, caller):
        check_cycle("registry", caller, is_recursive=False)


class TestNarrow:
    def test_what_the_parent_has_bounds_what_a_child_gets(self):
        request = TaskRequest(token_budget=5_000, allowed_tools=["a", "b"])
        narrow(request, Grant(token_budget=700, allowed_tools=["b", "c"]))
        assert (request.token_budget, list(request.allowed_tools)) == (700, ["b"])

    def test_who_asks_for_less_gets_that(self):
        request = TaskRequest(token_budget=600, allowed_tools=["a"])
        narrow(request, Grant(token_budget=700))
        assert (request.token_budget, list(request.allowed_tools)) == (600, ["a"])

    def test_who_names_no_tools_may_use_what_the_parent_may(self):
        request = TaskRequest(token_budget=600)
        narrow(request, Grant(token_budget=700, allowed_tools=["b", "c"]))
        assert list(request.allowed_tools) == ["b", "c"]

    def test_tools_of_which_the_parent_has_none_are_no_list_without_end(self):
        with pytest.raises(PermissionDeniedError):
            narrow(TaskRequest(allowed_tools=["a"]), Grant(token_budget=700, allowed_tools=["b"]))


class TestCallers:
    async def test_an_agent_that_lists_agents_takes_no_tasks_from_outside(self, start, dial):
        worker = dial(await start("worker", DONE, callable_by=["boss"]))
        boss = dial(await start("boss", asks("worker"), DONE, delegates=["worker"]))
        for call in (worker.run, worker.submit, worker.steps):
            assert await refused(call()) == "NOT_CALLABLE"
        for call in (boss.run, boss.submit, boss.steps):
            assert await refused(call(agent_id="worker")) == "NOT_CALLABLE"
        assert (await boss.run()).status == TASK_STATUS_COMPLETED

    async def test_an_agent_that_lists_the_outside_takes_no_tasks_from_agents(self, start, dial):
        worker = dial(await start("worker", DONE, callable_by=["outside"]))
        boss = dial(await start("boss", asks("worker"), DONE, delegates=["worker"]))
        assert (await worker.run()).status == TASK_STATUS_COMPLETED
        (denied,) = [event.tool_result for event in await boss.steps() if event.HasField("tool_result")]
        assert MeshError.from_status(denied.error).reason == "NOT_CALLABLE"

    async def test_who_is_not_listed_is_told_who_is(self, start, dial):
        worker = dial(await start("worker", DONE, callable_by=["boss", "chief"]))
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await worker.run()
        assert "boss, chief" in (failed.value.details() or "")

    @pytest.mark.parametrize("facts", [{"callable_by": ["Not a name"]}, {"delegates": [""]}])
    def test_a_list_of_what_are_no_agents_is_refused(self, facts):
        with pytest.raises(SetupError):
            Agent("worker", "Work.", **facts)


class TestChildren:
    @pytest.fixture
    async def held(self, start, gate):
        """A parent that works on t1, a worker, and how to give the worker a child of t1 under a grant of the parent."""
        boss = await start("boss", HOLD, DONE, delegates=["worker"])
        worker = await start("worker", DONE)
        async with (
            grpc.aio.insecure_channel(boss.server.target) as dialled,
            grpc.aio.insecure_channel(worker.server.target) as other,
        ):
            from meshwright.gen.agents.v1.task_service_pb2_grpc import TaskServiceStub

            await TaskServiceStub(dialled).SubmitTask(TaskRequest(task_id="t1", prompt="Go."))
            await gate.holds()

            async def child(request=None, **granted):
                facts = {"tenant": "default", "principal": "default", "agent_id": "boss", "task_id": "t1"}
                facts |= {"root_task_id": "t1", "fence": 1, "token_budget": 2_000, "delegates": ["worker"]}
                token = boss.signer.sign(Grant(**(facts | granted)))
                asked = TaskRequest(**({"task_id": "t1.child", "prompt": "Help."} | (request or {})))
                await TaskServiceStub(other).SubmitTask(asked, metadata=[(METADATA_KEY, token)])
                return (await worker.journal.record(TaskName("default", "default", "t1.child"))).request

            yield child
            gate.open()

    async def test_a_child_that_asks_for_more_than_its_parent_has_gets_less(self, held):
        stored = await held({"token_budget": 9_000, "allowed_tools": ["echo", "hold"]}, allowed_tools=["echo"])
        assert (stored.token_budget, list(stored.allowed_tools)) == (2_000, ["echo"])

    async def test_the_same_child_is_attached_to_when_less_is_left(self, held):
        await held({"token_budget": 1_500})
        assert (await held({"token_budget": 1_500}, token_budget=3)).token_budget == 1_500

    async def test_another_agents_name_is_no_authority(self, held):
        assert await refused(held(agent_id="chief")) == "GRANT_INVALID"

    async def test_a_grant_names_no_delegate_that_was_not_announced(self, held):
        assert await refused(held(delegates=["worker", "chief"])) == "GRANT_INVALID"

    async def test_a_child_has_its_parents_scopes_whatever_the_grant_says(self, held):
        assert await refused(held(scopes=["*", "mail"])) == "GRANT_INVALID"
        assert await refused(held(scopes=["tools:write"])) == "GRANT_INVALID"
        await held(scopes=["*"])

    async def test_work_is_handed_to_delegates_only(self, held):
        assert await refused(held(delegates=[])) == "PERMISSION_DENIED"

    async def test_what_a_request_allows_holds_for_its_children(self, start, dial):
        await start("worker", HOLD, DONE)
        boss = dial(await start("boss", asks("worker"), DONE, delegates=["worker"]))
        events = await boss.steps(allowed_tools=["ask.worker", "echo"])
        (denied,) = [one for one in outcomes(events) if one.outcome == TOOL_OUTCOME_DENIED]
        assert "has no tool hold" in denied.error.message
        assert events[-1].result.status == TASK_STATUS_COMPLETED

    async def test_a_request_may_leave_out_delegates_as_well(self, start, dial):
        await start("worker", DONE)
        boss = dial(await start("boss", asks("worker"), DONE, delegates=["worker"]))
        (denied,) = outcomes(await boss.steps(allowed_tools=["echo"]))
        assert (denied.outcome, "ask.worker" in denied.error.message) == (TOOL_OUTCOME_DENIED, True)


class TestGrant:
    """What a run's grant says, as the host of its tools sees it."""

    @pytest.fixture
    def seen(self, monkeypatch):
        from meshwright.registry.host import ToolHost

        grants, call = [], ToolHost.call

        async def watched(self, grant, *arguments, **facts):
            grants.append(Grant.FromString(grant.SerializeToString()))
            return await call(self, grant, *arguments, **facts)

        monkeypatch.setattr(ToolHost, "call", watched)
        return grants

    async def test_it_tells_of_budget_time_and_taint(self, start, dial, seen):
        call = {"tool_calls": [{"name": "echo", "arguments": {"n": 1}}], "usage": {"input_tokens": 100}}
        client = dial(await start("worker", call, call, DONE))
        await client.run(token_budget=1_000, allowed_tools=["echo"])
        first, second = seen
        assert (first.token_budget, first.tainted, second.tainted) == (1_000, False, True)
        assert list(first.allowed_tools) == ["echo"]
        assert first.deadline.seconds > 0

    async def test_two_calls_of_one_step_were_chosen_untainted_both(self, start, dial, seen):
        pair = {"tool_calls": [{"name": "echo", "arguments": {"n": n}} for n in (1, 2)]}
        client = dial(await start("worker", pair, DONE))
        await client.run()
        assert [grant.tainted for grant in seen] == [False, False]

    async def test_what_a_person_allowed_is_named_by_its_digest(self, start, dial, seen):
        from meshwright.gen.agents.v1.task_pb2 import DECISION_APPROVE, DECISION_EDIT

        pair = {"tool_calls": [{"name": "echo", "arguments": {"n": n}} for n in (1, 2)]}
        client = dial(await start("worker", pair, DONE, approvals={"echo": "always"}))
        await client.submit(task_id="t1")
        first, second = await client.asked("t1")
        await client.resolve("t1", first, DECISION_APPROVE)
        await client.resolve("t1", second, DECISION_EDIT, edited_arguments={"n": 3})
        await client.ended("t1")
        keys, digests = zip(*(one.split(":") for one in seen[-1].approved), strict=True)
        assert first.intent_digest in digests
        assert second.intent_digest not in digests
        assert len(set(keys)) == 2

    async def test_the_same_call_planned_twice_runs_once_by_one_decision(self, start, dial, seen):
        from meshwright.gen.agents.v1.task_pb2 import DECISION_APPROVE, DECISION_REJECT

        twice = {"tool_calls": [{"name": "echo", "arguments": {"n": 1}} for _ in range(2)]}
        client = dial(await start("worker", twice, DONE, approvals={"echo": "always"}))
        await client.submit(task_id="t1")
        first, second = await client.asked("t1")
        assert first.intent_digest == second.intent_digest
        await client.resolve("t1", first, DECISION_APPROVE)
        await client.resolve("t1", second, DECISION_REJECT)
        await client.ended("t1")
        (grant,) = seen
        (allowed,) = grant.approved
        assert allowed.endswith(f":{first.intent_digest}")

    async def test_it_names_session_and_scopes_of_whoever_asked(self, start, dial, seen):
        call = {"tool_calls": [{"name": "echo", "arguments": {"n": 1}}]}
        client = dial(await start("worker", call, DONE))
        await client.run(session_id="s-1")
        assert (seen[0].session_id, list(seen[0].scopes)) == ("s-1", ["*"])

    async def test_a_childs_is_that_of_its_root_without_the_session(self, start, dial, seen):
        call = {"tool_calls": [{"name": "echo", "arguments": {"n": 1}}]}
        await start("worker", call, DONE)
        boss = dial(await start("boss", asks("worker"), DONE, delegates=["worker"]))
        await boss.run(session_id="s-1")
        assert [(grant.agent_id, grant.session_id, list(grant.scopes)) for grant in seen] == [("worker", "", ["*"])]
