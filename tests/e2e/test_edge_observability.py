"""What can be seen of the edge: spans of its part of a trace, one line a request, metrics."""

import json
import subprocess
import sys
import time
import urllib.request

import pytest

from meshwright.core.sampling import is_in
from meshwright.gateway.config import ADMIN
from meshwright.gateway.settings import GatewaySettings
from meshwright.gateway.spans import span_target, tracing
from tests.collector import Collector
from tests.e2e.edges import CONTENT_TYPES, JSON, KINDS, METHOD, Edge, Envoy, refusal, sent

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SECRET = "a-word-that-nobody-may-read"


class Spans(Collector):
    """Keeps spans as they came."""

    def __init__(self):
        super().__init__()
        self.spans = []

    def take(self, request):
        self.spans += [span for some in request.resource_spans for scope in some.scope_spans for span in scope.spans]

    def of(self, trace_id):
        return [span for span in self.spans if span.trace_id.hex() == trace_id]


@pytest.fixture
def collector():
    collector = Spans()
    with collector.serving():
        yield collector


def test_the_edge_is_a_part_of_its_caller_s_trace(tmp_path, collector):
    with Edge(tmp_path / "envoy", otlp_endpoint=collector.endpoint) as edge:
        edge.request("GET", "/v1/agents/orchestrator/health", traceparent=f"00-{TRACE}-{SPAN}-01")
        parent = edge.agent.headers["traceparent"].split("-")
        ends = time.monotonic() + 15
        while len(collector.of(TRACE)) < 2:
            assert time.monotonic() < ends
            time.sleep(0.05)
    ours = {span.span_id.hex(): span for span in collector.of(TRACE)}
    assert parent[1] == TRACE
    upstream = ours[parent[2]]
    assert ours[upstream.parent_span_id.hex()].parent_span_id.hex() == SPAN


def test_a_trace_that_its_caller_does_not_keep_is_not_kept_here(tmp_path, collector):
    with Edge(tmp_path / "envoy", otlp_endpoint=collector.endpoint) as edge:
        edge.request("GET", "/v1/agents/orchestrator/health", traceparent=f"00-{TRACE}-{SPAN}-00")
        edge.request("GET", "/v1/agents/orchestrator/health", traceparent=f"00-{TRACE[::-1]}-{SPAN}-01")
        ends = time.monotonic() + 15
        while not collector.of(TRACE[::-1]):
            assert time.monotonic() < ends
            time.sleep(0.05)
    assert collector.of(TRACE) == []


@pytest.mark.parametrize(
    ("settings", "target"),
    [
        ({}, ""),
        ({"otlp_endpoint": "http://collector:4317"}, "collector:4317"),
        ({"otlp_endpoint": "http://[::1]"}, "[::1]:4317"),
        ({"otlp_endpoint": "https://collector:4317"}, ""),
        ({"otlp_endpoint": "http://collector:4317", "tracing": False}, ""),
    ],
)
def test_spans_leave_only_where_an_endpoint_is_set(settings, target):
    chosen = GatewaySettings(**settings)
    assert span_target(chosen) == target
    assert bool(tracing(chosen)) == bool(target)


def test_a_request_is_a_line_without_what_is_nobody_s_business(tmp_path):
    headers = {"authorization": f"Bearer {SECRET}", "x-api-key": SECRET, "user-agent": "u" * 500, "cookie": SECRET}
    with Edge(tmp_path / "envoy") as edge:
        body = json.dumps({"prompt": SECRET}).encode()
        answer = edge.request("POST", f"/run?{SECRET}=1", body, **(JSON | headers))
        edge.request("GET", f"/v1/agents/orchestrator/health?agent_id={SECRET}", traceparent=f"00-{TRACE}-{SPAN}-01")
        edge.end()
        text = (edge.folder / "access.log").read_text()
    assert SECRET not in text
    lines = [json.loads(line) for line in text.splitlines()]
    run = next(line for line in lines if line["path"] == "/run")
    assert run["request_id"] == answer.headers["x-request-id"]
    assert run["user_agent"] == "u" * 200
    assert (run["method"], run["status"], run["bytes_in"]) == ("POST", 400, len(body))
    assert lines[-1]["traceparent"] == f"00-{TRACE}-{SPAN}-01"


def lines_of(edge):
    """Ends the edge and reads its log, by the request's id."""
    edge.end()
    lines = [json.loads(line) for line in (edge.folder / "access.log").read_text().splitlines()]
    return {line["request_id"]: line for line in lines}


@pytest.fixture(scope="module")
def logged(tmp_path_factory):
    """Lines of calls that were answered in many ways, beside what their callers read."""
    asked = {}
    with Edge(tmp_path_factory.mktemp("edge") / "envoy") as edge:
        for kind in KINDS:
            for name, (path, body, headers) in CALLS.items():
                sent_to = METHOD if kind != "json" else path
                sent_as = {"content-type": CONTENT_TYPES[kind], "te": "trailers"} | headers
                asked[name, kind] = edge.request("POST", sent_to, sent(kind, body), **sent_as)
        asked["nothing here", "json"] = edge.post("/v1/nothing", {})
        lines = lines_of(edge)
    return {key: (answer, lines[answer.headers["x-request-id"]]) for key, answer in asked.items()}


CALLS = {
    "answered": ("/run", {"prompt": "hello"}, {}),
    "refused by the agent": ("/run", {"prompt": "refuse"}, {}),
    "busy": ("/run", {"prompt": "busy"}, {}),
    "broken": ("/run", {"prompt": "fail"}, {}),
    "late": ("/run", {"prompt": "wait"}, {"grpc-timeout": "200m", "x-request-timeout": "0.2"}),
    "no agent": ("/v1/agents/nobody/run", {"prompt": "hello"}, {"x-agent-id": "nobody"}),
    "an agent that is gone": ("/v1/agents/gone/run", {"prompt": "hello"}, {"x-agent-id": "gone"}),
    "a foreign page": ("/run", {"prompt": "hello"}, {"origin": "https://evil.example"}),
    "a foreign host": ("/run", {"prompt": "hello"}, {"host": "evil.example"}),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", [name for name in CALLS if name != "answered"])
def test_the_log_says_why_a_call_was_refused_in_the_words_of_its_caller(logged, name, kind):
    answer, line = logged[name, kind]
    assert line["refused"] == refusal(answer, kind).reason
    assert "x-mesh-reason" not in answer.headers


def test_the_log_says_of_every_bucket_and_path_why(logged, tmp_path):
    _, line = logged["nothing here", "json"]
    assert line["refused"] == "NOT_FOUND"
    assert [logged["answered", kind][1]["refused"] for kind in KINDS] == [None] * 3
    with Edge(tmp_path / "envoy", limit_address=1, limit_burst_s=1) as edge:
        while (answer := edge.request("GET", "/v1/agents/orchestrator/health")).status != 429:
            pass
        large = edge.request("GET", "/run", **{"x-long": "x" * 20_000})
        lines = lines_of(edge)
    assert lines[answer.headers["x-request-id"]]["refused"] == "RATE_LIMITED"
    assert (large.status, "x-mesh-reason" in large.headers, "x-mesh-reason" in answer.headers) == (431, False, False)
    assert [line["refused"] for line in lines.values() if line["status"] == 431] == ["REQUEST_TOO_LARGE"]


def test_a_code_of_grpc_stands_on_calls_of_grpc_alone(logged):
    codes = {(name, kind): line.get("grpc") for (name, kind), (_, line) in logged.items()}
    assert {code for (_, kind), code in codes.items() if kind == "json"} == {None}
    assert {code for (name, kind), code in codes.items() if name == "answered" and kind == "grpc"} == {"OK"}
    assert codes["refused by the agent", "grpc"] == "InvalidArgument"
    assert codes["no agent", "grpc"] == codes["no agent", "grpc-web"] == "NotFound"


PARENTS = [
    "",
    "nonsense",
    f"00-{TRACE}-{SPAN}-01-more",
    f"ff-{TRACE}-{SPAN}-01",
    f"00-{'0' * 32}-{SPAN}-01",
    f"00-{TRACE}-{'0' * 16}-01",
    f"00-{TRACE.upper()}-{SPAN}-01",
    f"00-{TRACE}-{SPAN}-00",
    f"00-{TRACE}-{SPAN}-01",
    f"cc-{TRACE}-{SPAN}-01-more",
]
"""What callers may send as `traceparent`; the last three are W3C trace contexts."""
TRACED = """
import asyncio, sys
from opentelemetry import trace
from meshwright.core import telemetry, tracing
from meshwright.core.server import Server, bound
from meshwright.core.settings import Settings
from meshwright.gen.agents.v1.agent_service_pb2 import HEALTH_STATUS_SERVING, HealthResponse
from meshwright.gen.agents.v1.agent_service_pb2_grpc import AgentServiceServicer
from meshwright.gen.agents.v1.agent_service_pb2_grpc import add_AgentServiceServicer_to_server as add

class Probe(AgentServiceServicer):
    async def Health(self, request, context):
        is_kept = trace.get_current_span().get_span_context().trace_flags.sampled
        facts = {"agent_id": tracing.current_trace_id(), "version": str(int(is_kept))}
        return HealthResponse(status=HEALTH_STATUS_SERVING, **facts)

async def main():
    settings = Settings(drain_s=0, trace_rate=0.5, lean_spans=sys.argv[1] == "lean")
    telemetry.configure(settings, "probe", "probe-1")
    server = Server(settings, {"agents.v1.AgentService": bound(add, Probe())})
    print(await server.start(), flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await server.stop()

asyncio.run(main())
"""


@pytest.mark.parametrize("kind", ["stock", "lean"])
def test_the_log_names_the_trace_that_is_served_and_the_service_decides_which_are_kept(tmp_path, kind):
    command = [sys.executable, "-c", TRACED, kind]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as service:
        with Envoy(tmp_path / "envoy", {"orchestrator": [service.stdout.readline().strip()]}) as edge:
            path, answers = "/v1/agents/orchestrator/health", []
            for given in PARENTS + [""] * 60:
                headers = {"traceparent": given} if given else {}
                answers.append(edge.request("GET", path, x_mesh_trace="ab" * 16, **headers))
            lines = lines_of(edge)
        service.stdin.close()
    served = [answer.json["agent_id"] for answer in answers]
    assert [lines[answer.headers["x-request-id"]]["trace_id"] for answer in answers] == served
    assert [trace_id == TRACE for trace_id in served[: len(PARENTS)]] == [False] * 7 + [True] * 3
    begun = [
        (int(trace_id, 16), answer.json["version"] == "1") for trace_id, answer in zip(served, answers, strict=True)
    ]
    begun = [one for one in begun if one[0] != int(TRACE, 16)]
    assert len({trace_id for trace_id, _ in begun}) == 67
    assert [is_kept for _, is_kept in begun] == [is_in(trace_id, 0.5) for trace_id, _ in begun]
    assert {is_kept for _, is_kept in begun} == {True, False}  # no digit that is always the same decides


def test_an_edge_that_traces_logs_its_own_trace_and_one_of_a_mesh_that_does_not_none(tmp_path, collector):
    for settings, digits in (({"otlp_endpoint": collector.endpoint}, 32), ({"tracing": False}, 0)):
        with Edge(tmp_path / f"envoy-{digits}", **settings) as edge:
            edge.request("GET", "/v1/agents/orchestrator/health")
            sent_on = edge.agent.headers
            lines = lines_of(edge)
        (*_, line) = lines.values()
        assert len(line["trace_id"] or "") == digits
        assert (line["trace_id"] or "") in sent_on.get("traceparent", "")
        assert "x-mesh-trace" not in sent_on


def test_probes_make_no_lines_and_the_file_can_be_turned_over(tmp_path):
    with Edge(tmp_path / "envoy") as edge:
        for path in ("/health", "/run", "/health"):
            edge.request("GET", path)
        written = edge.folder / "access.log"
        written.rename(edge.folder / "access.log.1")
        curl = ("curl", "-sS", "--request", "POST", "--unix-socket", edge.folder / ADMIN, "http://envoy/reopen_logs")
        subprocess.run(curl, check=True, capture_output=True, timeout=10)
        ends = time.monotonic() + 15
        while not written.exists():
            assert time.monotonic() < ends
            time.sleep(0.02)
        edge.request("GET", "/v1/usage")
        edge.end()
        texts = [(edge.folder / name).read_text() for name in ("access.log.1", "access.log")]
    before, after = ([json.loads(line)["path"] for line in text.splitlines()] for text in texts)
    assert [path for path in before + after if "agents" not in path] == ["/run", "/v1/usage"]
    assert after[-1] == "/v1/usage"


def test_lines_go_to_stdout_where_that_is_wanted(tmp_path, capfd):
    with Edge(tmp_path / "envoy", access_log="stdout") as edge:
        edge.request("GET", "/run")
        edge.end()
        assert not (edge.folder / "access.log").exists()
    assert json.loads(capfd.readouterr().out.splitlines()[-1])["path"] == "/run"


def test_metrics_are_for_this_machine_alone_and_count_refusals(tmp_path):
    with Edge(tmp_path / "envoy", limit_address=1, limit_burst_s=1) as edge:
        while edge.request("GET", "/v1/agents/orchestrator/health").status != 429:
            pass
        with urllib.request.urlopen(f"http://127.0.0.1:{edge.settings.internal_port}/metrics", timeout=5) as response:
            text = response.read().decode()
    name, kind = "envoy_http_local_rate_limit_rate_limited", 'envoy_local_http_ratelimit_prefix="address_limit"'
    counted = next(line for line in text.splitlines() if line.startswith(name) and kind in line)
    assert int(counted.rpartition(" ")[2]) > 0
