"""Traces of a whole mesh, as a collector gets them: one a task, from the edge to the last tool, and without a gap."""

import json
import os
import secrets
import signal
import subprocess
import time
from dataclasses import dataclass

import pytest

from meshwright.cli import ports
from tests.collector import Collector
from tests.e2e.conftest import HERE, MESHWRIGHT, Dev

CANARY = "quokka"
DOCUMENT = (
    f"# Fences\n\nA fence is a counter that the {CANARY} guards. A stale worker cannot write: its fence is old.\n"
)
ASKED = f"What does the {CANARY} guard, and what is a fence?"
PATIENCE_S = 20.0


@dataclass
class Span:
    """A span as it came, with what is looked for in it."""

    service: str
    name: str
    span_id: str
    parent: str
    links: list[str]
    facts: dict[str, object]
    text: str
    start: int
    end: int


class Spans(Collector):
    """Keeps spans by their traces."""

    def __init__(self):
        super().__init__()
        self.traces: dict[str, dict[str, Span]] = {}

    def take(self, request):
        for some in request.resource_spans:
            service = next(one.value.string_value for one in some.resource.attributes if one.key == "service.name")
            for span in (one for scope in some.scope_spans for one in scope.spans):
                self.keep(service, span)

    def keep(self, service, span):
        links = [one.span_id.hex() for one in span.links if one.trace_id == span.trace_id]
        assert len(links) == len(span.links), "a link leaves the trace"
        facts = {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in span.attributes}
        origin = span.span_id.hex(), span.parent_span_id.hex(), links
        found = Span(service, span.name, *origin, facts, str(span), span.start_time_unix_nano, span.end_time_unix_nano)
        self.traces.setdefault(span.trace_id.hex(), {})[found.span_id] = found

    def whole(self, trace_id, *, at_least, outside=""):
        """Returns the spans of a trace as soon as the named ones are there, and with each the one above it."""
        ends = time.monotonic() + PATIENCE_S
        while True:
            spans = dict(self.traces.get(trace_id, {}))
            missing = set(at_least) - {span.name for span in spans.values()}
            known = {*spans, outside, ""}
            lost = [one for one in spans.values() if one.parent not in known or not known.issuperset(one.links)]
            if not missing and not lost:
                return list(spans.values())
            shown = [(one.service, one.name, one.parent) for one in lost]
            assert time.monotonic() < ends, f"missing: {missing}, without a parent: {shown}"
            time.sleep(0.05)


@pytest.fixture(scope="module")
def collector():
    collector = Spans()
    with collector.serving():
        yield collector


@pytest.fixture(scope="module", params=["stock", "lean"])
def mesh(request, tmp_path_factory, collector):
    """A mesh that sends its spans, those of models and tools by the conventions for them."""
    documents, folder = tmp_path_factory.mktemp("documents"), tmp_path_factory.mktemp("mesh")
    (documents / "fence.md").write_text(DOCUMENT)
    agents = ("--agent", f"{HERE / 'agents.py'}:slow", "--tools", str(HERE / "letters.py"))
    running = Dev(folder, ports.reserve("127.0.0.1", set()), "--docs", str(documents), *agents, "--lease", "2")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MESHWRIGHT_OTLP_ENDPOINT", collector.endpoint)
        patch.setenv("OTEL_SEMCONV_STABILITY_OPT_IN", "gen_ai_latest_experimental")
        patch.setenv("MESHWRIGHT_LEAN_SPANS", str(request.param == "lean"))
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
        try:
            yield running.start()
        finally:
            running.stop()


@pytest.fixture
def root():
    """A trace that a caller has begun: its id, its span, and the header that says so."""
    trace_id, span_id = secrets.token_hex(16), secrets.token_hex(8)
    return trace_id, span_id, f"00-{trace_id}-{span_id}-01"


def traced(mesh, task_id, *options):
    """Has a task's tree drawn, as a user does."""
    command = [*MESHWRIGHT, "trace", task_id, "--edge", f"http://127.0.0.1:{mesh.port}", *options]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=50).stdout


def test_a_task_is_one_trace_from_the_edge_to_the_last_tool(mesh, collector, root):
    trace_id, span_id, header = root
    task = mesh.request("POST", "/run", {"prompt": ASKED}, traceparent=header).json
    assert (task["status"], task["trace_id"]) == ("TASK_STATUS_COMPLETED", trace_id)
    assert CANARY in task["output"]
    named = {"invoke_agent orchestrator", "invoke_agent researcher", "execute_tool docs.search", "chat offline"}
    spans = collector.whole(trace_id, at_least=named, outside=span_id)
    assert {span.service for span in spans} >= {
        "meshwright-edge",
        "meshwright-orchestrator",
        "meshwright-researcher",
    }
    assert not [span for span in spans if CANARY in span.text]
    told = traced(mesh, task["task_id"], "-o", "json")
    tree = json.loads(told)
    assert tree["trace_id"] == trace_id
    children = {one["name"]: one for one in tree["tree"]["children"] if one["kind"] == "task"}
    assert {"researcher", "summarizer"} <= set(children)
    assert "docs.search@1.0.0" in [one["name"] for one in children["researcher"]["children"]]
    assert tree["tree"]["tokens"] == task["tokens_used"]
    assert f"trace {trace_id}" in traced(mesh, task["task_id"])


def test_what_models_and_tools_do_is_told_by_the_conventions(mesh, collector, root):
    trace_id, span_id, header = root
    mesh.request("POST", "/v1/agents/slow/run", {"prompt": "Count.", "session_id": trace_id}, traceparent=header)
    spans = collector.whole(trace_id, at_least={"invoke_agent slow"}, outside=span_id)
    (agent,) = [span for span in spans if span.name == "invoke_agent slow"]
    assert agent.facts["gen_ai.conversation.id"] == trace_id
    assert (agent.facts["meshwright.status"], agent.facts["meshwright.steps"]) == ("COMPLETED", 4)
    models = sorted((span for span in spans if span.name.startswith("chat ")), key=lambda span: span.start)
    assert [span.facts["meshwright.step"] for span in models] == [1, 2, 3, 4]
    said = models[0].facts
    assert (said["gen_ai.operation.name"], said["gen_ai.provider.name"]) == ("chat", "scripted")
    assert said["gen_ai.request.model"] == said["gen_ai.response.model"] == "slow.yaml"
    assert said["gen_ai.usage.output_tokens"] > 0
    assert [one.string_value for one in said["gen_ai.response.finish_reasons"].values] == ["tool_calls"]
    tools = [span.facts for span in spans if span.name == "execute_tool tick"]
    assert len({one["gen_ai.tool.call.id"] for one in tools}) == 3
    assert {span.parent for span in spans if span.name.startswith(("chat ", "execute_tool "))} == {agent.span_id}


def test_a_call_of_a_tool_is_one_trace_through_registry_and_host(mesh, collector, root):
    trace_id, span_id, header = root
    body = {"arguments": {"text": f"{CANARY}s"}, "idempotency_key": trace_id}
    answer = mesh.request("POST", "/v1/tools/letters.count:invoke", body, traceparent=header)
    assert answer.json["result"] == len(CANARY) + 1
    host = "/tools.v1.ToolService/Invoke"
    spans = collector.whole(trace_id, at_least={host}, outside=span_id)
    assert {span.service for span in spans} >= {"meshwright-edge", "meshwright-registry", "meshwright-tool-host"}
    assert not [span for span in spans if CANARY in span.text]


def test_a_task_that_waited_is_linked_to_the_call_that_queued_it(mesh, collector, root):
    trace_id, span_id, header = root
    task = mesh.request("POST", "/v1/agents/slow/tasks", {"prompt": "Count."}, traceparent=header).json
    mesh.finished(task["task_id"])
    submit = "agents.v1.TaskService/SubmitTask"
    spans = {
        span.name.lstrip("/"): span
        for span in collector.whole(trace_id, at_least={"invoke_agent slow"}, outside=span_id)
    }
    assert spans["invoke_agent slow"].links == [spans[submit].span_id]


def test_a_takeover_goes_on_in_the_same_trace_and_names_the_attempt_that_was_lost(mesh, collector, root):
    trace_id, span_id, header = root
    body = {"prompt": "Count.", "task_id": trace_id}
    with mesh.stream("POST", "/v1/agents/slow/steps", body, traceparent=header):
        ends = time.monotonic() + PATIENCE_S
        while mesh.request("GET", f"/v1/tasks/{trace_id}").json.get("steps_used", 0) < 2:
            assert time.monotonic() < ends
            time.sleep(0.05)
        os.kill(mesh.facts["pids"]["slow"], signal.SIGKILL)
    task = mesh.finished(trace_id)
    assert (task["attempt"], task["trace_id"]) == (2, trace_id)
    spans = collector.whole(trace_id, at_least={"invoke_agent slow"}, outside=span_id)
    parts = {span.facts["meshwright.attempt"]: span for span in spans if span.name == "invoke_agent slow"}
    lost, second = parts[1], parts[2]
    assert lost.facts["meshwright.lost"] is True
    assert second.links == [lost.span_id]
    assert lost.end <= second.start + 1_000_000_000
    assert lost.start <= min(span.start for span in spans if span.parent == lost.span_id)
    by_parent = [span.parent for span in spans if span.name.startswith("chat ")]
    assert by_parent.count(lost.span_id) >= 1
    assert by_parent.count(second.span_id) >= 1
    log = (mesh.folder / "data" / "logs" / "slow.log").read_text().splitlines()
    lines = [json.loads(line) for line in log if line.startswith('{"timestamp"')]
    (line,) = [line for line in lines if line["event"] == "taken_over" and line["task_id"] == trace_id]
    assert (line["agent"], line["attempt"]) == ("slow", 2)
    cards = {card["agent_id"]: card for card in mesh.request("GET", "/v1/agents").json["agents"]}
    rows = json.loads(traced(mesh, trace_id, "-o", "json"))["tree"]["children"]
    (away,) = [row for row in rows if row["kind"] == "takeover"]
    assert (away["name"], away["status"]) == ("attempt 2", "worker lost")
    assert away["duration_ms"] > 0
    assert line["instance"] in {endpoint["instance_id"] for endpoint in cards["slow"]["endpoints"]}


def test_what_its_caller_does_not_keep_is_kept_nowhere(mesh, collector, root):
    trace_id, span_id, header = root
    kept = secrets.token_hex(16)
    body = {"prompt": ASKED}
    mesh.request("POST", "/run", body, traceparent=header.removesuffix("01") + "00")
    mesh.request("POST", "/run", body, traceparent=f"00-{kept}-{span_id}-01")
    collector.whole(kept, at_least={"invoke_agent orchestrator"}, outside=span_id)
    assert trace_id not in collector.traces
