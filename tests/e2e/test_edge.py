"""The edge as curl, a browser and gRPC clients see it."""

import json
import subprocess
import sys
import time
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from meshwright.agents.library.bundle import BUNDLED
from meshwright.gen.agents.v1.agent_service_pb2_grpc import AgentServiceStub
from meshwright.gen.agents.v1.task_pb2 import TASK_STATUS_COMPLETED, TaskRequest
from tests.e2e.conftest import events, frames

BUF = Path(sys.executable).with_name("buf")
QUESTION = "What is a fence and how long is a lease?"


def kinds(stream):
    """Kinds of a task's own events, without what depends on timing."""
    own = [next(key for key in event if key in KINDS) for event in stream if int(event["sequence"])]
    return [kind for kind in own if kind not in ("child", "notice")]


KINDS = ("started", "llm_call", "tool_call", "tool_result", "delegation", "child", "notice", "result")


def test_steps_come_as_server_sent_events_without_gap_and_end_with_the_result(dev):
    with dev.stream(
        "POST", "/v1/agents/orchestrator/steps", {"prompt": QUESTION}, accept="text/event-stream"
    ) as response:
        assert response.status == 200
        assert response.getheader("content-type") == "text/event-stream"
        assert response.getheader("x-task-id")
        seen = list(events(response))
    durable = [event for event in seen if event["sequence"]]
    assert [event["sequence"] for event in durable] == list(range(1, len(durable) + 1))
    assert "result" in durable[-1]
    asked = {
        event["child"]["event"]["started"]["agent_id"]
        for event in durable
        if "started" in event.get("child", {}).get("event", {})
    }
    assert asked == {"researcher", "summarizer"}
    output = durable[-1]["result"]["output"]
    assert "fence.md" in output
    assert "lease.md" in output
    assert output.rstrip().endswith("model: offline")


def test_events_arrive_while_the_agent_still_works(dev):
    with dev.stream("POST", "/v1/agents/slow/steps", {"prompt": "count"}, accept="text/event-stream") as response:
        arrivals = [(time.monotonic(), event) for event in events(response)]
    first, last = arrivals[0][0], arrivals[-1][0]
    assert last - first > 0.8  # the script takes 1.2 s in all


def test_lines_of_json_come_without_the_accept_header(dev):
    answer = dev.request("POST", "/steps", {"prompt": "What is 2 + 2?"})
    lines = [json.loads(line) for line in answer.body.splitlines()]
    assert "result" in lines[-1]
    assert "4" in lines[-1]["result"]["output"]


def test_run_answers_with_the_task(dev):
    task = dev.request("POST", "/v1/agents/orchestrator/run", {"prompt": "What is 12 * 7?"}).json
    assert task["status"] == "TASK_STATUS_COMPLETED"
    assert "84" in task["output"]
    assert task["steps_used"] == 1
    assert task["tokens_used"] > 0
    assert task["duration_ms"] >= 0


def test_submit_answers_202_and_the_task_completes(dev):
    answer = dev.request("POST", "/tasks", {"prompt": QUESTION})
    assert answer.status == 202
    assert dev.request("POST", "/v1/agents/slow/tasks", {"prompt": "count"}).status == 202
    task = dev.finished(answer.json["task_id"])
    assert task["status"] == "TASK_STATUS_COMPLETED"


def test_events_resume_after_the_last_id_without_gap_or_repetition(dev):
    task_id = dev.request("POST", "/v1/agents/slow/tasks", {"prompt": "count"}).json["task_id"]
    seen, last = [], "0"
    for _ in range(40):
        with dev.stream("GET", f"/v1/tasks/{task_id}/events", last_event_id=last) as response:
            if response.status == 204:
                break
            for frame in frames(response):
                if "id" in frame:
                    last = frame["id"]
                    seen.append(int(last))
                    break  # the connection is dropped after every single event
    assert seen == list(range(1, len(seen) + 1))
    assert len(seen) == dev.finished(task_id)["last_sequence"]


def test_a_stream_with_nothing_to_follow_answers_204_which_stops_an_event_source(dev):
    task = dev.request("POST", "/run", {"prompt": "What is 1 + 1?"}).json
    path = f"/v1/tasks/{task['task_id']}/events"
    assert dev.request("GET", path, last_event_id=str(task["last_sequence"])).status == 204
    assert dev.request(
        "GET", f"/v1/tasks/{task['task_id']}/steps?after_sequence={task['last_sequence']}"
    ).body.strip() in (b"", b"[]")


def test_the_frames_of_both_kinds_of_streams_hold_the_same_json(dev):
    with dev.stream("POST", "/steps", {"prompt": "What is 3 + 3?"}, accept="text/event-stream") as response:
        live = [frame for frame in frames(response) if "data" in frame]
    durable = [event for frame in live if (event := json.loads(frame["data"]))["sequence"]]
    task_id = durable[0]["task_id"]
    with dev.stream("GET", f"/v1/tasks/{task_id}/events") as response:
        replayed = [frame for frame in frames(response) if "data" in frame]
    assert [json.loads(frame["data"]) for frame in replayed] == durable
    assert [frame["id"] for frame in replayed] == [frame["id"] for frame in live if "id" in frame]
    assert replayed[-1]["event"] == "result"


def test_three_ways_in_give_the_same_answer_and_the_same_kinds_of_steps(dev):
    run = dev.request("POST", "/run", {"prompt": QUESTION}).json
    with dev.stream("POST", "/steps", {"prompt": QUESTION}, accept="text/event-stream") as response:
        streamed = list(events(response))
    submitted = dev.request("POST", "/tasks", {"prompt": QUESTION}).json["task_id"]
    outputs = {run["output"], streamed[-1]["result"]["output"], dev.finished(submitted)["output"]}
    assert len(outputs) == 1
    journals = [
        [json.loads(line) for line in dev.request("GET", f"/v1/tasks/{task}/steps").body.splitlines()]
        for task in (run["task_id"], streamed[-1]["task_id"], submitted)
    ]
    assert kinds(journals[0]) == kinds(journals[1]) == kinds(journals[2])


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "prompt"),
        ({"prompt": " "}, "prompt"),
        ({"prompt": "x", "max_steps": 26}, "max_steps"),
        ({"prompt": "x", "token_budget": 32769}, "token_budget"),
        ({"prompt": "x", "token_budget": 511}, "token_budget"),
        ({"prompt": "x", "timeout": "90000s"}, "timeout"),
    ],
)
def test_a_wrong_request_names_the_field(dev, body, field):
    answer = dev.request("POST", "/run", body)
    assert (answer.status, answer.json["code"]) == (400, 3)
    violations = next(d for d in answer.json["details"] if d["@type"].endswith("BadRequest"))["field_violations"]
    assert field in {violation["field"] for violation in violations}


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "reason"),
    [
        ("POST", "/run", "{bad", 400, "INVALID_REQUEST"),
        ("POST", "/v1/agents/slow/run", {"prompt": "x", "agent_id": "other"}, 400, "INVALID_REQUEST"),
        ("GET", "/v1/tasks?bogus=1", None, 400, "INVALID_REQUEST"),
        ("POST", "/v1/agents/nobody/run", {"prompt": "x"}, 404, "AGENT_NOT_FOUND"),
        ("POST", "/run", {"prompt": "x", "agent_id": "nobody"}, 404, "AGENT_NOT_FOUND"),
        ("GET", "/v1/agents/nobody", None, 404, "AGENT_NOT_FOUND"),
        ("GET", "/v1/tasks/nothing", None, 404, "TASK_NOT_FOUND"),
        ("GET", "/v1/tasks/nothing/events", None, 404, "TASK_NOT_FOUND"),
        ("GET", "/v1/tools/nothing", None, 404, "TOOL_NOT_FOUND"),
        ("GET", "/nowhere", None, 404, "NOT_FOUND"),
        ("GET", "/metrics", None, 404, "NOT_FOUND"),
        ("POST", "/v1/tasks/nothing:resolve", {}, 404, "TASK_NOT_FOUND"),
    ],
)
def test_errors_are_statuses_with_a_stable_reason(dev, method, path, body, status, reason):
    headers = {"content_type": "application/json"} if isinstance(body, str) else {}
    answer = dev.request(method, path, body, **headers)
    assert answer.status == status, answer.body
    infos = [detail for detail in answer.json["details"] if detail["@type"].endswith("ErrorInfo")]
    assert infos[0]["reason"] == reason
    assert infos[0]["domain"] == "meshwright"
    assert "Traceback" not in answer.body.decode()


def test_one_id_names_one_task(dev):
    first = dev.request("POST", "/run", {"prompt": "What is 5 + 5?", "task_id": "five"})
    again = dev.request("POST", "/run", {"prompt": "What is 5 + 5?", "task_id": "five"})
    other = dev.request("POST", "/run", {"prompt": "What is 5 + 6?", "task_id": "five"})
    assert first.json == again.json
    assert (other.status, other.json["code"]) == (409, 6)
    keyed = [
        dev.request("POST", "/run", {"prompt": "What is 6 + 6?"}, idempotency_key="a key: with odd signs")
        for _ in (1, 2)
    ]
    assert keyed[0].json["task_id"] == keyed[1].json["task_id"]


def reason_of(answer):
    return next(detail["reason"] for detail in answer.json["details"] if detail["@type"].endswith("ErrorInfo"))


@pytest.mark.parametrize("key", ["plain-key", "another key; odd: signs", "k" * 200, "cl\u00e9"])
def test_an_idempotency_key_names_a_task(dev, key):
    first, again = (dev.request("POST", "/tasks", {"prompt": "What is 6 * 7?"}, idempotency_key=key) for _ in range(2))
    assert (first.status, again.status) == (202, 202)
    assert first.json["task_id"] == again.json["task_id"]
    assert dev.finished(first.json["task_id"])["output"]
    run = dev.request("POST", "/run", {"prompt": "What is 6 * 7?"}, idempotency_key=key)
    assert (run.status, run.json["task_id"]) == (200, first.json["task_id"])
    with dev.stream("POST", "/steps", {"prompt": "What is 6 * 7?"}, idempotency_key=key) as response:
        assert response.getheader("x-task-id") == first.json["task_id"]
    for path in ("/tasks", "/run", "/steps", "/v1/agents/orchestrator/tasks"):
        other = dev.request("POST", path, {"prompt": "What is 6 * 8?"}, idempotency_key=key)
        assert (other.status, other.json["code"], reason_of(other)) == (409, 6, "TASK_CONFLICT"), path


@pytest.mark.parametrize("path", ["/tasks", "/run", "/steps"])
def test_a_key_and_another_task_id_are_refused_and_make_no_task(dev, path):
    body = {"prompt": "What is 6 * 9?", "task_id": f"not-the-key{path.replace('/', '-')}"}
    answer = dev.request("POST", path, body, idempotency_key="the-key-itself")
    assert (answer.status, answer.json["code"], reason_of(answer)) == (400, 3, "INVALID_REQUEST")
    violations = next(d for d in answer.json["details"] if d["@type"].endswith("BadRequest"))["field_violations"]
    assert [violation["field"] for violation in violations] == ["task_id"]
    for name in (body["task_id"], "the-key-itself"):
        assert dev.request("GET", f"/v1/tasks/{name}").status == 404
    same = dev.request("POST", "/tasks", body, idempotency_key=body["task_id"])
    assert (same.status, same.json["task_id"]) == (202, body["task_id"])


@pytest.mark.parametrize(
    ("headers", "status", "reason"),
    [
        ({"origin": "https://evil.example"}, 403, "ORIGIN_REFUSED"),
        ({"origin": "http://localhost:1"}, 403, "ORIGIN_REFUSED"),
        ({"origin": "null"}, 403, "ORIGIN_REFUSED"),
        ({"host": "evil.example"}, 403, "HOST_REFUSED"),
        ({"host": "localhost.evil.example"}, 403, "HOST_REFUSED"),
        ({"content_type": "text/plain"}, 415, "CONTENT_TYPE_REFUSED"),
    ],
)
def test_what_another_site_could_send_is_refused(dev, headers, status, reason):
    answer = dev.request(
        "POST", "/run", json.dumps({"prompt": "x"}), **({"content_type": "application/json"} | headers)
    )
    assert answer.status == status
    assert answer.json["details"][0]["reason"] == reason


def test_the_edge_s_own_page_may_call_it(dev):
    origin = f"http://127.0.0.1:{dev.port}"
    assert dev.request("POST", "/run", {"prompt": "What is 1 + 2?"}, origin=origin).status == 200
    page = dev.request("GET", "/")
    assert (page.status, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "frame-ancestors 'none'" in page.headers["content-security-policy"]
    assert page.headers["x-content-type-options"] == "nosniff"


def test_documents_are_read_by_ids_of_the_index_only(dev):
    body = {"arguments": {"id": "../../etc/passwd"}}
    answer = dev.request("POST", "/v1/tools/docs.read:invoke", body)
    assert answer.status == 400
    assert "root:" not in answer.body.decode()
    assert "docs.search" in answer.json["message"]


def test_health_ready_and_metrics_answer(dev):
    assert dev.request("GET", "/health").json == {"status": "ok"}
    assert set(dev.request("GET", "/ready").json["checks"].values()) == {"ok"}
    import urllib.request

    with urllib.request.urlopen(f"{dev.facts['internal']}/metrics", timeout=5) as response:
        assert b"envoy_http_downstream_rq_total" in response.read()
    assert dev.request("GET", "/v1/agents/researcher/health").json["status"] == "HEALTH_STATUS_SERVING"


def test_agents_and_tools_are_listed(dev):
    agents = {card["agent_id"] for card in dev.request("GET", "/v1/agents").json["agents"]}
    assert agents == {*BUNDLED, "slow", "asking"}
    tools = {tool["name"] for tool in dev.request("GET", "/v1/tools").json["tools"]}
    assert {"docs.search", "docs.read", "summary.extract", "tick"} <= tools
    found = dev.request("POST", "/v1/tools/docs.search:invoke", {"arguments": {"query": "lease"}}).json
    assert found["result"]["hits"][0]["source"] == "lease.md"


async def test_generated_stubs_work_through_the_edge_and_at_the_agent(dev):
    for target, metadata in (
        (f"127.0.0.1:{dev.port}", (("x-agent-id", "orchestrator"),)),
        (dev.facts["agents"]["orchestrator"], ()),
    ):
        async with grpc.aio.insecure_channel(target) as channel:
            response = await AgentServiceStub(channel).RunTask(TaskRequest(prompt="What is 4 * 4?"), metadata=metadata)
            assert response.status == TASK_STATUS_COMPLETED
            assert "16" in response.output


async def test_grpc_health_answers_on_every_service(dev):
    for target in (*dev.facts["agents"].values(), dev.facts["registry"]):
        async with grpc.aio.insecure_channel(target) as channel:
            reply = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
            assert reply.status == health_pb2.HealthCheckResponse.SERVING


async def test_the_directory_cannot_be_changed_through_the_edge(dev):
    from meshwright.gen.registry.v1.agent_directory_service_pb2 import AnnounceAgentRequest
    from meshwright.gen.registry.v1.agent_directory_service_pb2_grpc import AgentDirectoryServiceStub

    async with grpc.aio.insecure_channel(f"127.0.0.1:{dev.port}") as channel:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await AgentDirectoryServiceStub(channel).AnnounceAgent(AnnounceAgentRequest(), timeout=5)
    assert raised.value.code() in (grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.NOT_FOUND)


def buf_curl(url, *arguments):
    data = json.dumps({"prompt": "What is 2 + 3?"})
    command = [BUF, "curl", "--http2-prior-knowledge", *arguments, "-d", data, f"{url}/agents.v1.AgentService/RunTask"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_buf_curl_works_by_reflection_at_an_agent(dev):
    assert "5" in buf_curl(f"http://{dev.facts['agents']['orchestrator']}", "--protocol", "grpc")["output"]


@pytest.mark.parametrize("protocol", ["grpc", "grpcweb"])
def test_buf_curl_works_with_the_published_descriptors_through_the_edge(dev, tmp_path, protocol):
    descriptors = tmp_path / "descriptors.binpb"
    descriptors.write_bytes(dev.request("GET", "/assets/descriptors.binpb").body)
    answer = buf_curl(f"http://127.0.0.1:{dev.port}", "--schema", str(descriptors), "--protocol", protocol)
    assert "5" in answer["output"]


def test_a_new_agent_answers_at_the_edge_within_a_second(dev, tmp_path):
    took = [answered_after_s(dev, tmp_path, f"newcomer-{number}") for number in range(2)]
    assert min(took) < 1  # a busy machine may stand still in between


def answered_after_s(dev, folder, agent_id):
    """Starts an agent; returns how long after it is ready the edge answers for it, in seconds."""
    from meshwright.agents.settings import AgentSettings
    from meshwright.core.settings import child_environment

    file = folder / "newcomer.py"
    file.write_text(f"from meshwright.agents import Agent\nagent = Agent({agent_id!r}, 'Calculate.')\n")
    settings = AgentSettings(store_url=dev.facts["store"], registry=dev.facts["registry"])
    command = [sys.executable, "-m", "meshwright.agents", f"{file}:agent"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=child_environment(settings)
    ) as process:
        process.stdout.readline()
        started = time.monotonic()
        while (answer := dev.request("POST", f"/v1/agents/{agent_id}/run", {"prompt": "What is 8 * 8?"})).status != 200:
            assert time.monotonic() - started < 20, answer.body
            time.sleep(0.02)
        took = time.monotonic() - started
        process.terminate()
    assert "64" in answer.json["output"]
    ends = time.monotonic() + 10
    while dev.request("GET", f"/v1/agents/{agent_id}/health").status != 404:  # withdrawn, not timed out
        assert time.monotonic() < ends
        time.sleep(0.05)
    return took


def test_a_grpc_call_that_is_no_post_is_refused_and_not_tried_again(dev):
    answer = dev.request("GET", "/v1/tools/docs.search", content_type="application/grpc")
    assert (answer.status, answer.headers["grpc-status"]) == (200, "3")
    assert answer.headers["grpc-message"] == "gRPC calls are sent by POST"
