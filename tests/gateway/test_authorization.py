"""Who is calling: API keys at a real edge, in front of a real agent."""

import asyncio
import base64
import http.client
import json
import re
import subprocess
import time

import grpc
import pytest
from google.rpc.status_pb2 import Status

from meshwright.core.api_key import KNOWN_MS, place_of
from meshwright.core.errors import DETAILS_KEY, MeshError
from meshwright.core.store import Store
from meshwright.gateway.authorization import is_neighbour
from meshwright.gateway.config import ACCESS_LOG, ADMIN
from meshwright.gen.agents.v1.agent_service_pb2_grpc import AgentServiceStub
from meshwright.gen.agents.v1.task_pb2 import TaskRequest
from meshwright.gen.agents.v1.task_service_pb2 import GetTaskRequest
from meshwright.gen.agents.v1.task_service_pb2_grpc import TaskServiceStub
from tests.gateway.conftest import running_edge

QUESTION = {"prompt": "What is 2 + 2?"}


async def refused(call):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return MeshError.from_rpc(caught.value)


async def test_a_key_opens_what_its_scopes_name_in_its_tenants_name(edge):
    key = await edge.key("tasks:write", "tasks:read")
    done = await edge.ask("POST", "/run", QUESTION, x_api_key=key)
    assert (done.status, done.json["status"]) == (200, "TASK_STATUS_COMPLETED"), done.body
    path = f"/v1/tasks/{done.json['task_id']}"
    assert (await edge.ask("GET", path, authorization=f"Bearer {key}")).status == 200
    lacking = await edge.ask("GET", "/v1/costs", x_api_key=key)
    assert (lacking.status, lacking.reason) == (403, "SCOPE_MISSING")
    for tenant, principal in (("other", "ann"), ("acme", "bob")):
        stranger = await edge.key("*", tenant=tenant, principal=principal)
        answer = await edge.ask("GET", path, x_api_key=stranger)
        assert (answer.status, answer.reason) == (404, "TASK_NOT_FOUND")
    read = TaskServiceStub(edge.channel).GetTask(
        GetTaskRequest(task_id=done.json["task_id"]), metadata=[("authorization", f"Bearer {key}")]
    )
    assert (await read).output == done.json["output"]


async def test_who_says_nothing_or_something_false_is_told_what_is_wrong(edge, store):
    good = await edge.key("*")
    expired, revoked = await edge.key("*", life_s=60), await edge.key("*")
    await store.client.hset(place_of(expired.split("_")[1]), "expires", int(time.time() * 1000) - 1)
    await edge.keys.revoke(revoked.split("_")[1])
    wrong = good[:-1] + ("0" if good[-1] != "0" else "1")
    for key, reason in (
        ("", "CREDENTIALS_MISSING"),
        (wrong, "KEY_UNKNOWN"),
        (f"mwk_{'f' * 12}_{'0' * 64}", "KEY_UNKNOWN"),
        ("nonsense", "KEY_UNKNOWN"),
        ("x" * 8_000, "KEY_UNKNOWN"),
        (expired, "KEY_EXPIRED"),
        (revoked, "KEY_REVOKED"),
    ):
        answer = await edge.ask("POST", "/run", QUESTION, **({"x_api_key": key} if key else {}))
        assert (answer.status, answer.json["code"], answer.reason) == (401, 16, reason), answer.body
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["www-authenticate"].startswith('Bearer realm="meshwright"')
        assert answer.json["details"][0]["metadata"]["request_id"]
        metadata = [("x-api-key", key)] if key else []
        error = await refused(AgentServiceStub(edge.channel).RunTask(TaskRequest(**QUESTION), metadata=metadata))
        assert (error.code, error.reason) == (grpc.StatusCode.UNAUTHENTICATED, reason)
        assert error.message == answer.json["message"]


@pytest.mark.parametrize(
    ("content_type", "body"), [("application/grpc-web+proto", bytes(5)), ("application/grpc-web-text", b"AAAAAAA=")]
)
async def test_a_page_that_speaks_grpc_web_reads_the_same_refusal(edge, content_type, body):
    def call():
        connection = http.client.HTTPConnection("127.0.0.1", edge.port, timeout=20)
        headers = {"content-type": content_type, "x-api-key": "nonsense"}
        connection.request("POST", "/agents.v1.TaskService/GetTask", body, headers)
        response = connection.getresponse()
        found = response.status, response.headers, response.read()
        connection.close()
        return found

    status, headers, _ = await asyncio.to_thread(call)
    assert (status, headers["grpc-status"]) == (401, "16")
    details = headers[DETAILS_KEY]
    told = Status.FromString(base64.b64decode(details + "=" * (-len(details) % 4)))
    assert MeshError.from_status(told).reason == "KEY_UNKNOWN"


async def test_a_key_of_other_letters_is_no_key(edge):
    for key in ("cl\u00e9", "\u00ff" * 100, "a,b", "mwk_%00_"):
        answer = await edge.ask("GET", "/v1/tasks", x_api_key=key)
        assert (answer.status, answer.reason) == (401, "KEY_UNKNOWN"), answer.body


async def test_a_revoked_key_is_refused_by_the_very_next_call(edge):
    key = await edge.key("*")
    assert (await edge.ask("GET", "/v1/tasks", x_api_key=key)).status == 200
    await edge.keys.revoke(key.split("_")[1])
    assert (await edge.ask("GET", "/v1/tasks", x_api_key=key)).status == 401


async def test_what_only_the_mesh_may_say_is_not_believed(edge):
    mine, other = await edge.key("*"), await edge.key("*", tenant="other")
    task_id = (await edge.ask("POST", "/run", QUESTION, x_api_key=other)).json["task_id"]
    spoofed = {"x_mesh_tenant": "other", "x_mesh_principal": "ann", "x_mesh_scopes": "*"}
    answer = await edge.ask("GET", f"/v1/tasks/{task_id}", x_api_key=mine, **spoofed)
    assert answer.status == 404
    assert (await edge.ask("GET", f"/v1/tasks/{task_id}", **spoofed)).status == 401
    stub = TaskServiceStub(edge.channel)
    for name in ("x-mesh-identity-bin", "x-mesh-grant-bin"):
        error = await refused(stub.GetTask(GetTaskRequest(task_id=task_id), metadata=[(name, b"forged")]))
        assert error.reason == "CREDENTIALS_MISSING"
        metadata = [(name, b"forged"), ("x-api-key", mine)]
        error = await refused(stub.GetTask(GetTaskRequest(task_id=task_id), metadata=metadata))
        assert error.reason == "TASK_NOT_FOUND"


async def test_a_line_of_the_log_says_who_called_or_why_nobody_may(edge, tmp_path):
    known, revoked = await edge.key("*"), await edge.key("*")
    await edge.keys.revoke(revoked.split("_")[1])
    shown = ({}, {"x_api_key": revoked}, {"x_api_key": known})
    answers = [await edge.ask("GET", "/v1/tasks", **headers) for headers in shown]
    call = TaskServiceStub(edge.channel).GetTask(GetTaskRequest(task_id="a"), metadata=[("x-api-key", revoked)])
    assert (await refused(call)).metadata["request_id"] == dict(await call.trailing_metadata())["x-request-id"]
    for answer in answers[:2]:
        assert answer.json["details"][0]["metadata"]["request_id"] == answer.headers["x-request-id"]
    flush = ("curl", "-sS", "-X", "POST", "--unix-socket", tmp_path / "envoy" / ADMIN, "http://envoy/reopen_logs")
    subprocess.run(flush, check=True, timeout=10, capture_output=True)
    asked = [answer.headers["x-request-id"] for answer in answers]
    async with asyncio.timeout(20):  # Envoy writes lines on a thread of its own
        while True:
            written, end, _ = (tmp_path / "envoy" / ACCESS_LOG).read_text().rpartition("\n")
            lines = [json.loads(line) for line in (written + end).splitlines()]
            by_id = {line["request_id"]: line for line in lines}
            if by_id.keys() >= set(asked):
                break
            await asyncio.sleep(0.05)
    told = [by_id[request_id] for request_id in asked]
    for field in ("unauthenticated", "refused"):
        assert [line[field] for line in told] == ["CREDENTIALS_MISSING", "KEY_REVOKED", None]
    assert [(line["tenant"], line["principal"]) for line in told] == [(None, None), (None, None), ("acme", "ann")]
    assert {line["address"] for line in told} == {"127.0.0.1"}
    assert known not in str(lines)
    assert revoked not in str(lines)


async def test_a_token_where_keys_are_taken_is_told_from_nothing(edge):
    answer = await edge.ask("GET", "/v1/tasks", authorization="Bearer eyJhbGciOiJub25lIn0.e30.")
    assert (answer.status, answer.reason) == (401, "CREDENTIALS_MISSING")
    assert answer.json["message"] == "no tokens are taken here: send an API key (header x-api-key)"


async def test_the_health_of_the_edge_counts_against_nobody(edge):
    answer = await edge.ask("GET", "/health")
    assert not [name for name in answer.headers if "ratelimit" in name or "envoy" in name]


async def test_probes_and_the_page_are_open_and_nothing_else_is(edge):
    for path in ("/health", "/ready", "/", "/assets/descriptors.binpb"):
        assert (await edge.ask("GET", path)).status == 200, path
        assert (await edge.ask("GET", path, x_api_key="nonsense")).status == 200, path
    for path in (
        "/v1/tasks",
        "/v1/agents",
        "/v1/tools",
        "/v1/costs",
        "/v1/sessions",
        "/assets/../v1/tasks",
        "/v1/tasks?/health",
        "//v1/tasks",
    ):
        assert (await edge.ask("GET", path)).status == 401, path


async def test_an_agent_takes_no_call_that_did_not_come_through_the_edge(edge):
    target = edge.mesh.agents["clerk"].server.target
    async with grpc.aio.insecure_channel(target) as channel:
        error = await refused(AgentServiceStub(channel).RunTask(TaskRequest(**QUESTION)))
    assert (error.code, error.reason) == (grpc.StatusCode.UNAUTHENTICATED, "CREDENTIALS_MISSING")


async def test_without_the_gateways_process_nobody_is_let_in(edge):
    key = await edge.key("*")
    await edge.gateway.stop()
    answer = await edge.ask("GET", "/v1/tasks", x_api_key=key)
    assert (answer.status, answer.json["code"], answer.reason) == (503, 14, "UNAVAILABLE")
    assert answer.headers["retry-after"] == "1"
    error = await refused(TaskServiceStub(edge.channel).GetTask(GetTaskRequest(task_id="a"), timeout=10))
    assert error.code == grpc.StatusCode.UNAVAILABLE
    assert (await edge.ask("GET", "/health")).status == 200


async def test_without_the_store_nobody_is_let_in(run_valkey, tmp_path):
    own = run_valkey(tmp_path / "store")
    store = Store(own.url)
    await store.open()
    async with running_edge(store, tmp_path, auth="keys") as edge:
        key = await edge.key("*")
        assert (await edge.ask("GET", "/v1/agents", x_api_key=key)).status == 200
        own.kill()
        await asyncio.sleep(KNOWN_MS / 1000)  # until then the edge knows whose the key is
        answer = await edge.ask("GET", "/v1/agents", x_api_key=key)
        assert (answer.status, answer.json["code"], answer.reason) == (503, 14, "UNAVAILABLE")
        assert answer.headers["retry-after"] == "1"
        assert answer.json["details"][1]["retry_delay"] == "1s"
        ready = await edge.ask("GET", "/ready")
        assert ready.status == 503
        assert "the store does not answer" in ready.json["message"]
        assert not re.search(r"127\.0\.0\.1|\.sock|:\d{4}", ready.body.decode())
        call = TaskServiceStub(edge.channel).GetTask(GetTaskRequest(task_id="a"), metadata=[("x-api-key", key)])
        error = await refused(call)
        assert (error.reason, error.message) == ("UNAVAILABLE", answer.json["message"])  # and nothing of the store
        own.start()
        async with asyncio.timeout(20):
            while (await edge.ask("GET", "/v1/agents", x_api_key=key)).status != 200:
                await asyncio.sleep(0.05)
    await store.close()


@pytest.mark.parametrize(
    ("peer", "is_near"),
    [
        ("ipv4:127.0.0.1:4711", True),
        ("ipv6:%5B::1%5D:4711", True),
        ("unix:", True),
        ("ipv4:10.0.0.7:4711", True),
        ("ipv4:10.0.0.8:4711", False),
        ("ipv6:%5B2001:db8::1%5D:4711", False),
        ("", False),
        ("nonsense", False),
    ],
)
def test_only_who_is_on_the_same_machine_may_ask_who_is_calling(peer, is_near):
    assert is_neighbour(peer, "10.0.0.7") is is_near
