"""Every way to fail, for clients of JSON, gRPC and gRPC-Web: the same status and reason, and nothing of the inside."""

import json
import socket

import h2.config
import h2.connection
import h2.events
import pytest

from tests.e2e.edges import CONTENT_TYPES, JSON, KINDS, METHOD, Edge, refusal, sent

INSIDE = ("127.0.0.1", "10.1.2.3", "secret", "upstream", "envoy", "Traceback", "cluster", "local_rate", "Jwt", ".py")
LARGE = 4 * 2**20 + 100_000


@pytest.fixture(scope="module")
def edge(tmp_path_factory):
    with Edge(tmp_path_factory.mktemp("edge") / "envoy", headers_timeout_s=1, request_timeout_s=1.5) as running:
        yield running


def run(edge, kind, body, *, agent="orchestrator", path="", **headers):
    """Runs a task as one kind of client does."""
    headers = {"content-type": CONTENT_TYPES[kind], "te": "trailers", "x-agent-id": agent} | headers
    default = f"/v1/agents/{agent}/run" if kind == "json" else METHOD
    return edge.request("POST", path or default, sent(kind, body), **headers)


WAYS = {
    "an agent that is not here": ({"agent": "nobody"}, 404, 5, "AGENT_NOT_FOUND"),
    "an agent that does not answer": ({"agent": "gone"}, 503, 14, "UNAVAILABLE"),
    "another host name": ({"host": "evil.example"}, 403, 7, "HOST_REFUSED"),
    "a page of another origin": ({"origin": "https://evil.example"}, 403, 7, "ORIGIN_REFUSED"),
    "a body that is not what its type says": ({"body": b"\xff\xff"}, 400, 3, "INVALID_REQUEST"),
    "a field that is wrong": ({"body": {"prompt": "refuse"}}, 400, 3, "INVALID_REQUEST"),
    "a fault of the agent": ({"body": {"prompt": "fail"}}, 500, 13, "INTERNAL"),
    "a busy agent": ({"body": {"prompt": "busy"}}, 429, 8, "OVERLOADED"),
    "a body that is too large": ({"body": {"prompt": "x" * LARGE}}, 413, 8, "REQUEST_TOO_LARGE"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", WAYS)
def test_a_call_fails_alike_for_all_kinds_of_clients(edge, way, kind):
    chosen, status, code, reason = WAYS[way]
    failed = refusal(run(edge, kind, **({"body": {"prompt": "hello"}} | chosen)), kind)
    assert (failed.code, failed.reason) == (code, reason)
    assert failed.status == (status if kind == "json" else 200)
    assert failed.message
    assert failed.request_id
    assert (failed.retry_after is not None) == (reason in ("UNAVAILABLE", "OVERLOADED"))
    assert not [word for word in INSIDE if word in failed.text]


SILENT = {
    "the agent gone does not answer": ("/run", METHOD, {}),
    "the agent that this call names does not answer": (
        "/v1/agents/orchestrator/run",
        METHOD,
        {"x-agent-id": "orchestrator"},
    ),
    "no agent answers": ("/v1/tasks/t:cancel", "/agents.v1.TaskService/CancelTask", {}),
    "the registry does not answer": ("/v1/tools", "/registry.v1.ToolRegistryService/RegisterTool", {}),
}


def test_a_part_that_does_not_answer_is_named_as_its_caller_knows_it(tmp_path):
    with Edge(tmp_path / "envoy", default_agent="gone") as edge:
        edge.fall_silent()
        for words, (path, method, named) in SILENT.items():
            for kind in KINDS:
                headers = {"content-type": CONTENT_TYPES[kind], "te": "trailers"} | named
                answer = edge.request("POST", path if kind == "json" else method, sent(kind, {}), **headers)
                failed = refusal(answer, kind)
                assert (failed.reason, failed.message) == ("UNAVAILABLE", f"{words} at the moment: try again")


@pytest.mark.parametrize("kind", KINDS)
def test_a_path_without_a_method_is_not_found(edge, kind):
    path = "/v1/nothing" if kind == "json" else "/agents.v1.AgentService/Nothing"
    failed = refusal(run(edge, kind, {"prompt": "x"}, path="/nowhere" if kind == "json" else "/a.B/C"), kind)
    assert (failed.code, failed.reason) == (5 if kind == "json" else 12, "NOT_FOUND")
    answer = run(edge, kind, {"prompt": "x"}, path=path)
    assert answer.status == 404 if kind == "json" else answer.headers["grpc-status"] == "12"


@pytest.mark.parametrize(
    ("kind", "header"), [(k, "x-request-timeout" if k == "json" else "grpc-timeout") for k in KINDS]
)
def test_a_deadline_ends_a_call_in_time_and_one_that_cannot_be_read_is_refused(edge, kind, header):
    good, bad = ("0.3s", ("x", "0", "-1", "1e9", "0.3.3", "86401")) if kind == "json" else ("300m", ("x", "-1S", "1"))
    failed = refusal(run(edge, kind, {"prompt": "wait"}, **{header: good}), kind)
    assert (failed.code, failed.reason) == (4, "DEADLINE_EXCEEDED")
    assert failed.status == (504 if kind == "json" else 200)
    for value in bad:
        failed = refusal(run(edge, kind, {"prompt": "hello"}, **{header: value}), kind)
        assert (failed.code, failed.reason) == (3, "INVALID_REQUEST")
        assert header in failed.message


@pytest.mark.parametrize("kind", KINDS)
def test_a_body_that_does_not_arrive_in_time_is_given_up(edge, kind):
    path = "/run" if kind == "json" else METHOD
    head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: {CONTENT_TYPES[kind]}\r\n"
    failed = refusal(edge.raw(head.encode() + b"content-length: 50\r\n\r\n{"), kind)
    assert (failed.code, failed.reason) == (4, "REQUEST_TIMEOUT")
    assert failed.status == (408 if kind == "json" else 200)


@pytest.mark.parametrize("kind", ["json", "grpc"])
def test_ten_megabytes_are_refused_while_they_come(edge, kind):
    path = "/run" if kind == "json" else METHOD
    head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: {CONTENT_TYPES[kind]}\r\n"
    failed = refusal(edge.raw(head.encode() + b"content-length: 10000000\r\n\r\n", *[b"x" * 100_000] * 100), kind)
    assert failed.reason == "REQUEST_TOO_LARGE"


def test_a_body_of_unknown_length_is_measured_as_it_comes(edge):
    head = (
        b"POST /run HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
    )
    assert edge.raw(head, *[b"186a0\r\n" + b"x" * 100_000 + b"\r\n"] * 50).status == 413


def test_the_largest_body_passes(edge):
    assert edge.post("/run", {"prompt": "x" * (4 * 2**20 - 100)}).status == 200


RAW = {
    "an escaped slash": (b"GET /v1%2Fagents HTTP/1.1\r\nhost: localhost\r\n\r\n", 400),
    "an escaped backslash": (b"GET /v1%5Cagents HTTP/1.1\r\nhost: localhost\r\n\r\n", 400),
    "a null byte": (b"GET /v1/\x00agents HTTP/1.1\r\nhost: localhost\r\n\r\n", 400),
    "an escaped null byte": (b"GET /v1/%00agents HTTP/1.1\r\nhost: localhost\r\n\r\n", 400),
    "a fragment": (b"GET /v1/agents#x HTTP/1.1\r\nhost: localhost\r\n\r\n", 400),
    "a header with an underscore": (b"GET /v1/agents HTTP/1.1\r\nhost: localhost\r\nx_agent_id: a\r\n\r\n", 400),
    "no host": (b"GET /health HTTP/1.1\r\n\r\n", 400),
    "two lengths": (b"POST /run HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n", 400),
    "a length and chunks": (
        b"POST /run HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    "no HTTP": (b"\x16\x03\x01 hello\r\n\r\n", 400),
    "HTTP/1.0": (b"GET /health HTTP/1.0\r\n\r\n", 426),
    "a path above the root": (b"GET /../../etc/passwd HTTP/1.1\r\nhost: localhost\r\n\r\n", 404),
    "a parameter of a path": (b"GET /v1/agents;x=1 HTTP/1.1\r\nhost: localhost\r\n\r\n", 404),
    "TRACE": (b"TRACE / HTTP/1.1\r\nhost: localhost\r\n\r\n", 404),
    "CONNECT": (b"CONNECT evil.example:443 HTTP/1.1\r\nhost: evil.example:443\r\n\r\n", 403),
    "another host in the path": (b"GET http://evil.example/run HTTP/1.1\r\nhost: localhost\r\n\r\n", 403),
    "an upgrade": (b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n", 403),
    "a path that is too long": (b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nhost: localhost\r\n\r\n", 431),
    "a header that is too long": (b"GET / HTTP/1.1\r\nhost: localhost\r\na: " + b"a" * 20_000 + b"\r\n\r\n", 431),
    "too many headers": (b"GET / HTTP/1.1\r\nhost: localhost\r\n" + b"a: b\r\n" * 200 + b"\r\n", 431),
    "headers that do not end": (b"GET / HTTP/1.1\r\nhost: localhost\r\n", 408),
}


@pytest.mark.parametrize("trick", RAW)
def test_a_request_that_is_a_trick_gets_the_right_status(edge, trick):
    text, status = RAW[trick]
    failed = refusal(edge.raw(text), "json")
    assert failed.status == status
    assert failed.message
    assert not [word for word in INSIDE if word in failed.text]


@pytest.mark.parametrize(
    "path",
    [
        "/v1/../v1/agents/orchestrator/health",
        "/v1/%2e%2e/v1/agents/orchestrator/health",
        "//v1//agents/orchestrator//health",
        "http://localhost/v1/agents/orchestrator/health",
    ],
)
def test_other_spellings_of_a_path_are_that_path(edge, path):
    assert edge.raw(f"GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n".encode()).json["agent_id"] == "orchestrator"


class Http2:
    """A client of HTTP/2 that does what no client should."""

    def __init__(self, port):
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=10)
        config = h2.config.H2Configuration(validate_outbound_headers=False)
        self.connection = h2.connection.H2Connection(config)
        self.connection.initiate_connection()
        self.flush()

    def flush(self):
        self.sock.sendall(self.connection.data_to_send())

    def ask(self, *headers):
        stream = self.connection.get_next_available_stream_id()
        pseudo = (
            (":method", "GET"),
            (":path", "/v1/agents/orchestrator/health"),
            (":scheme", "http"),
            (":authority", "localhost"),
        )
        self.connection.send_headers(stream, [*pseudo, *headers], end_stream=True)
        return stream

    def ended(self, stream):
        """Waits until a stream or all of them end without an answer that is good; False: there is one."""
        while received := self.sock.recv(65536):
            for event in self.connection.receive_data(received):
                if isinstance(event, h2.events.ResponseReceived):
                    return dict(event.headers)[b":status"] == b"431"
                if isinstance(event, h2.events.StreamReset) and event.stream_id == stream:
                    return True
                if isinstance(event, h2.events.ConnectionTerminated):
                    return True
        return True

    def reset_until_cut_off(self):
        for _ in range(20_000):
            try:
                self.connection.reset_stream(self.ask())
                self.flush()
            except OSError:
                return
        raise AssertionError("still served")


def test_a_client_that_resets_all_its_streams_is_cut_off(edge):
    client = Http2(edge.port)
    with client.sock:
        client.reset_until_cut_off()
    assert edge.request("GET", "/health").status == 200


def test_headers_without_end_are_not_taken_by_http_2_either(edge):
    client = Http2(edge.port)
    with client.sock:
        stream = client.ask(*((f"a-{number}", "b" * 50) for number in range(2_000)))
        client.flush()
        assert client.ended(stream)
    assert edge.request("GET", "/health").status == 200


def test_a_reason_and_words_of_the_rules_reach_the_caller(edge):
    answer = edge.request("POST", "/run", json.dumps({"prompt": "x"}).encode(), **{"content-type": "text/plain"})
    failed = refusal(answer, "json")
    assert (failed.status, failed.reason, failed.message) == (
        415,
        "CONTENT_TYPE_REFUSED",
        "send content-type: application/json",
    )
    assert edge.request("POST", "/run", b"{bad", **JSON).json["message"].startswith(("Expected", "Unexpected"))
