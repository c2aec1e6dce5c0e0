"""Whose: every id that one caller may use is tried by others, through a real edge and at real services."""

import grpc
import pytest

from meshwright.agents.agent import Agent
from meshwright.core.access import RULES
from meshwright.core.identity import IDENTITY_KEY, sign
from meshwright.registry.tool import tool
from tests.gateway.conftest import running_edge

QUESTION = {"prompt": "Send it."}
SCRIPT = """
agents:
  default:
    - tool_calls: [{name: post, arguments: {text: hello}}]
    - {text: Sent.}
"""


@tool(effect="idempotent", approval="always")
def post(text: str) -> str:
    """Posts a text."""
    return f"posted {text}"


@pytest.fixture
async def edge(store, tmp_path):
    """An edge whose agent `clerk` is joined by `poster`, which waits for a second pair of eyes."""
    async with running_edge(store, tmp_path, auth="keys") as running:
        agent = Agent("poster", "Post.", tools=[post], four_eyes=True)
        await running.mesh.agent(agent, script=SCRIPT)
        yield running


async def waiting(edge, key):
    """Runs a task of `poster` until it waits for a decision."""
    path = "/v1/agents/poster/run"
    answer = await edge.ask("POST", path, QUESTION | {"session_id": "talk"}, x_api_key=key)
    assert answer.status == 200, answer.body
    assert answer.json["status"] == "TASK_STATUS_INPUT_REQUIRED"
    return answer.json


def decision(task, **more):
    (pending,) = task["pending_inputs"]
    quoted = {"input_id": pending["input_id"], "intent_digest": pending["intent_digest"]}
    return {"decision": "DECISION_APPROVE"} | quoted | more


async def test_another_tenants_ids_are_not_found_whatever_the_scopes(edge):
    ann = await edge.key("*")
    task = await waiting(edge, ann)
    path = f"/v1/tasks/{task['task_id']}"
    pinned = await edge.ask("POST", "/v1/sessions/talk/facts", {"text": "It is hers."}, x_api_key=ann)
    assert pinned.status == 200
    for stranger in (await edge.key("*", tenant="other"), await edge.key("*", principal="bob")):
        for method, place, body in (
            ("GET", path, None),
            ("GET", f"{path}/steps", None),
            ("GET", f"{path}/events", None),
            ("POST", f"{path}:cancel", {}),
            ("POST", f"{path}:resolve", decision(task)),
            ("POST", f"{path}:retry", {}),
            ("POST", f"{path}:drop", {}),
            ("GET", "/v1/sessions/talk", None),
            ("GET", "/v1/sessions/talk:export", None),
        ):
            answer = await edge.ask(method, place, body, x_api_key=stranger)
            assert answer.status == 404, (method, place, answer.body)
        gone = await edge.ask("DELETE", "/v1/sessions/talk", x_api_key=stranger)
        assert gone.json == {"tasks": 0, "memories": 0}  # deleting what is not there is no error: nothing is told by it
        assert (await edge.ask("GET", "/v1/tasks", x_api_key=stranger)).json["tasks"] == []
        assert (await edge.ask("GET", "/v1/sessions", x_api_key=stranger)).json["sessions"] == []
    other = await edge.key("*", tenant="other")
    assert (await edge.ask("GET", "/v1/costs", x_api_key=other)).json["rows"] == []
    assert (await edge.ask("GET", f"{path}?principal=ann", x_api_key=other)).status == 404
    assert (await edge.ask("GET", "/v1/tasks?principal=ann", x_api_key=other)).json["tasks"] == []
    assert (await edge.ask("GET", "/v1/sessions/talk", x_api_key=ann)).status == 200
    assert (await edge.ask("GET", path, x_api_key=ann)).json["status"] == "TASK_STATUS_INPUT_REQUIRED"


async def test_another_principals_tasks_need_a_scope_and_its_decisions_another_pair_of_eyes(edge):
    ann = await edge.key("*")
    task = await waiting(edge, ann)
    path = f"/v1/tasks/{task['task_id']}"
    own = await edge.ask("POST", f"{path}:resolve", decision(task), x_api_key=ann)
    assert (own.status, own.reason) == (403, "PERMISSION_DENIED")
    named = decision(task, principal="ann")
    reader = await edge.key("tasks:read", "tasks:approve", principal="bob")
    for method, place, body in (
        ("GET", f"{path}?principal=ann", None),
        ("GET", f"{path}/steps?principal=ann", None),
        ("GET", f"{path}/events?principal=ann", None),
        ("GET", "/v1/tasks?principal=ann", None),
        ("POST", f"{path}:resolve", named),
    ):
        answer = await edge.ask(method, place, body, x_api_key=reader)
        assert (answer.status, answer.reason) == (403, "SCOPE_MISSING"), (place, answer.body)
    auditor = await edge.key("tasks:read", "tasks:read_all", principal="eve")
    answer = await edge.ask("POST", f"{path}:resolve", named, x_api_key=auditor)
    assert (answer.status, answer.reason) == (403, "SCOPE_MISSING")
    listed = await edge.ask("GET", "/v1/tasks?principal=ann&statuses=TASK_STATUS_INPUT_REQUIRED", x_api_key=auditor)
    assert [one["task_id"] for one in listed.json["tasks"]] == [task["task_id"]]
    assert listed.json["tasks"][0]["pending_inputs"][0]["four_eyes"] is True
    approver = await edge.key("tasks:read", "tasks:read_all", "tasks:approve", principal="bob")
    answer = await edge.ask("POST", f"{path}:resolve", named, x_api_key=approver)
    assert answer.status == 200, answer.body
    lines = await edge.ask("GET", f"{path}/steps", x_api_key=ann)
    assert b'"decided_by":"bob"' in lines.body
    assert (await edge.ask("GET", path, x_api_key=ann)).json["output"] == "Sent."


async def test_another_principals_task_is_cancelled_by_whoever_may_see_and_stop_it(edge):
    ann = await edge.key("*")
    task = await waiting(edge, ann)
    path = f"/v1/tasks/{task['task_id']}"
    stranger = await edge.key("*", principal="bob")
    unnamed = await edge.ask("POST", f"{path}:cancel", {}, x_api_key=stranger)
    assert (unnamed.status, unnamed.reason) == (404, "TASK_NOT_FOUND")
    for scopes, lacking in (
        (["tasks:write"], "tasks:admin tasks:read_all"),
        (["tasks:write", "tasks:read_all"], "tasks:admin"),
        (["tasks:write", "tasks:admin"], "tasks:read_all"),
    ):
        key = await edge.key(*scopes, principal="bob")
        refused = await edge.ask("POST", f"{path}:cancel", {"principal": "ann"}, x_api_key=key)
        assert (refused.status, refused.reason) == (403, "SCOPE_MISSING"), refused.body
        info = next(one for one in refused.json["details"] if one["@type"].endswith("ErrorInfo"))
        assert info["metadata"]["scopes"] == lacking
    other = await edge.key("*", tenant="other")
    assert (await edge.ask("POST", f"{path}:cancel", {"principal": "ann"}, x_api_key=other)).status == 404
    assert (await edge.ask("GET", path, x_api_key=ann)).json["status"] == "TASK_STATUS_INPUT_REQUIRED"
    operator = await edge.key("tasks:write", "tasks:read_all", "tasks:admin", principal="bob")
    done = await edge.ask("POST", f"{path}:cancel", {"principal": "ann"}, x_api_key=operator)
    assert (done.status, done.json["status"]) == (200, "TASK_STATUS_CANCELLED"), done.body
    assert (await edge.ask("GET", path, x_api_key=ann)).json["status"] == "TASK_STATUS_CANCELLED"


async def test_every_call_over_http_needs_its_scope_and_no_other_one(edge):
    scopes = {rule.scope for rule in RULES.values() if rule.scope}
    calls = [
        ("POST", "/run", QUESTION, "tasks:write"),
        ("POST", "/steps", QUESTION, "tasks:write"),
        ("POST", "/tasks", QUESTION, "tasks:write"),
        ("POST", "/v1/tasks/a:cancel", {}, "tasks:write"),
        ("GET", "/v1/tasks", None, "tasks:read"),
        ("GET", "/v1/tasks/a", None, "tasks:read"),
        ("GET", "/v1/tasks/a/steps", None, "tasks:read"),
        ("GET", "/v1/tasks/a/events", None, "tasks:read"),
        ("POST", "/v1/tasks/a:resolve", {}, "tasks:approve"),
        ("POST", "/v1/tasks/a:retry", {}, "tasks:admin"),
        ("POST", "/v1/tasks/a:drop", {}, "tasks:admin"),
        ("GET", "/v1/costs", None, "costs:read"),
        ("GET", "/v1/sessions", None, "sessions:read"),
        ("GET", "/v1/sessions/a", None, "sessions:read"),
        ("GET", "/v1/sessions/a:export", None, "sessions:read"),
        ("DELETE", "/v1/sessions/a", None, "sessions:write"),
        ("POST", "/v1/sessions/a/facts", {"text": "b"}, "sessions:write"),
        ("DELETE", "/v1/sessions/a/facts/b", None, "sessions:write"),
        ("GET", "/v1/webhooks/deliveries", None, "webhooks:read"),
        ("POST", "/v1/webhooks/deliveries/a:redeliver", {}, "webhooks:write"),
        ("GET", "/v1/agents", None, "agents:read"),
        ("GET", "/v1/agents/poster", None, "agents:read"),
        ("GET", "/v1/agents/poster/health", None, "agents:read"),
        ("GET", "/v1/tools", None, "tools:read"),
        ("GET", "/v1/tools/post", None, "tools:read"),
        ("POST", "/v1/tools", {"name": "a"}, "tools:write"),
        ("POST", "/v1/tools/post:invoke", {}, "tools:invoke"),
    ]
    lacking = {scope: await edge.key(*(scopes - {scope})) for scope in scopes}
    holding = {scope: await edge.key(scope) for scope in scopes}
    for method, path, body, scope in calls:
        refused = await edge.ask(method, path, body, x_api_key=lacking[scope])
        assert (refused.status, refused.reason) == (403, "SCOPE_MISSING"), (method, path, refused.body)
        info = next(one for one in refused.json["details"] if one["@type"].endswith("ErrorInfo"))
        assert info["metadata"]["scopes"] == scope
        assert (await edge.ask(method, path, body, x_api_key=holding[scope])).status not in (401, 403), (method, path)


async def test_tools_are_registered_by_whoever_holds_the_scope_for_their_name(edge):
    mine = await edge.key("tools:write:mine.")
    contract = {"version": "1.0.0", "description": "d", "effect": "EFFECT_PURE", "endpoint": "127.0.0.1:1"}
    contract |= {"input_schema": {"type": "object"}, "output_schema": {"type": "object"}, "timeout": "1s"}
    taken = await edge.ask("POST", "/v1/tools", {"tool": contract | {"name": "mine.one"}}, x_api_key=mine)
    assert taken.status == 200, taken.body
    other = await edge.ask("POST", "/v1/tools", {"tool": contract | {"name": "yours.one"}}, x_api_key=mine)
    assert (other.status, other.reason) == (403, "PERMISSION_DENIED")


async def test_what_processes_of_the_mesh_ask_each_other_is_closed_from_outside(edge):
    key = await edge.key("*")
    for method in ("AnnounceAgent", "WithdrawAgent", "GetKey", "WatchAgents"):
        call = edge.channel.unary_unary(f"/registry.v1.AgentDirectoryService/{method}")
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call(b"", metadata=[("x-api-key", key)], timeout=10)
        assert refused.value.code() in (grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.NOT_FOUND)
    async with grpc.aio.insecure_channel(edge.mesh.target) as registry:
        token = sign(edge.gateway._doorman._signer, "acme", "ann", ["*"])
        call = registry.unary_unary("/registry.v1.AgentDirectoryService/GetKey")
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call(b"", metadata=[(IDENTITY_KEY, token)], timeout=10)
    assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
