"""How much one caller may take: buckets by address, principal and tenant, alike for all kinds of clients."""

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import jsonschema
import pytest
import yaml
from envoy_data_plane.envoy.service.ratelimit.v3 import RateLimitRequest, RateLimitResponse, RateLimitResponseCode

from meshwright.core.errors import SetupError
from meshwright.gateway.config import FILTERS
from meshwright.gateway.limits import DEVELOPMENT, caller_limits, generous, shared_config
from meshwright.gateway.settings import GatewaySettings
from tests.e2e.edges import CONTENT_TYPES, JSON, KINDS, METHOD, UNUSED, Edge, Envoy, connections, refusal, sent

SHARED_SCHEMA = {
    "type": "object",
    "required": ["domain", "descriptors"],
    "additionalProperties": False,
    "properties": {
        "domain": {"const": "meshwright"},
        "descriptors": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "required": ["key", "rate_limit"],
                "additionalProperties": False,
                "properties": {
                    "key": {"enum": ["remote_address", "principal", "tenant"]},
                    "rate_limit": {
                        "type": "object",
                        "required": ["unit", "requests_per_unit"],
                        "additionalProperties": False,
                        "properties": {
                            "unit": {"enum": ["second", "minute", "hour", "day"]},
                            "requests_per_unit": {"type": "integer", "minimum": 1, "maximum": 2**32 - 1},
                        },
                    },
                },
            },
        },
    },
}
"""What envoyproxy/ratelimit reads, as far as it is used here."""


def ask(edge, kind="json", **headers):
    path = "/run" if kind == "json" else METHOD
    return edge.request(
        "POST",
        path,
        sent(kind, {"prompt": "hello"}),
        **{"content-type": CONTENT_TYPES[kind], "te": "trailers"} | headers,
    )


def is_limited(answer, kind="json"):
    return (answer.status == 429) if kind == "json" else answer.headers.get("grpc-status") == "8"


def until_limited(edge, kind="json", **headers):
    """Asks until it is too much; returns how many calls passed, and the answer."""
    for passed in range(200):
        answer = ask(edge, kind, **headers)
        if is_limited(answer, kind):
            return passed, answer
    raise AssertionError("no limit")


@pytest.mark.parametrize("kind", KINDS)
def test_an_address_that_asks_too_much_is_told_when_to_try_again(tmp_path, kind):
    with Edge(tmp_path / "envoy", limit_address=1, limit_burst_s=5) as edge:
        passed, answer = until_limited(edge, kind)
        failed = refusal(answer, kind)
    assert 3 <= passed <= 15  # the fixture has asked too, and a token comes back every second
    assert (failed.code, failed.reason, failed.retry_after) == (8, "RATE_LIMITED", "1")
    assert failed.status == (429 if kind == "json" else 200)
    assert failed.request_id
    assert failed.limit == answer.headers["x-ratelimit-bucket"] == "address"
    assert answer.headers["x-ratelimit-remaining"] == "0"
    assert answer.headers["x-ratelimit-limit"] == "5"
    if kind == "json":
        assert answer.details["RetryInfo"]["retry_delay"] == "1s"


def that_still_listens(config):
    """Takes from an edge that it accepts no connections either where its memory is full."""
    manager = config["overload_manager"]
    manager["actions"] = [one for one in manager["actions"] if not one["name"].endswith("stop_accepting_connections")]


def is_shedding(edge):
    """Whether an edge has found out that it has too little memory."""
    try:
        return edge.request("GET", "/v1/agents").status == 429
    except OSError:
        return False


def test_an_edge_that_has_no_memory_left_says_that_it_is_the_edge(tmp_path):
    edge = Envoy(tmp_path / "envoy", {"orchestrator": [UNUSED]}, change=that_still_listens, heap_mb=1)
    edge.launch()
    try:
        ends = time.monotonic() + 20
        while not is_shedding(edge):
            assert time.monotonic() < ends
            time.sleep(0.03)
        for kind in ("json", "grpc"):
            failed = refusal(ask(edge, kind), kind)
            assert (failed.code, failed.reason, failed.limit, failed.retry_after) == (8, "OVERLOADED", "edge", "1")
    finally:
        edge.end()


def test_every_answer_says_how_much_is_left(tmp_path):
    with Edge(tmp_path / "envoy", limit_address=1, limit_burst_s=60) as edge:  # one comes back every second
        first, second = ask(edge), ask(edge)
        missing = edge.request("GET", "/nowhere")
    for answer in (first, second, missing):
        assert answer.headers["x-ratelimit-limit"] == "60"
        assert 0 <= int(answer.headers["x-ratelimit-remaining"]) < 60
        assert "x-ratelimit-reset" in answer.headers


def test_health_is_answered_to_an_address_that_asks_too_much(tmp_path):
    with Edge(tmp_path / "envoy", limit_address=1, limit_burst_s=1) as edge:
        until_limited(edge)
        assert edge.request("GET", "/health").status == 200


def test_an_address_behind_a_proxy_that_is_believed_has_a_bucket_of_its_own(tmp_path):
    with Edge(tmp_path / "envoy", limit_address=1, limit_burst_s=2, trusted_hops=1) as edge:
        until_limited(edge, **{"x-forwarded-for": "203.0.113.1"})
        assert ask(edge, **{"x-forwarded-for": "203.0.113.2"}).status == 200


def test_a_forged_address_is_not_believed(tmp_path):
    with Edge(tmp_path / "envoy", limit_address=1, limit_burst_s=2) as edge:
        for number in range(20):
            answer = ask(edge, **{"x-forwarded-for": f"203.0.113.{number}"})
            if answer.status == 429:
                return
    raise AssertionError("no limit")


@pytest.fixture(scope="module")
def named(tmp_path_factory):
    """An edge that takes a caller's word for who it is, where identity would find it out."""
    settings = GatewaySettings(limit_principal=2, limit_tenant=4, limit_burst_s=2, limit_entries=100)
    with Edge(tmp_path_factory.mktemp("edge") / "envoy", change=named_callers(settings)) as running:
        yield running


def named_callers(settings):
    """Puts into an edge the filters that count callers, behind one that takes their word."""

    def change(config):
        names = ("principal", "tenant")
        mutations = [
            {"append": {"header": {"key": f"x-mesh-{name}", "value": f"%REQ(X-TEST-{name.upper()})%"}}}
            for name in names
        ]
        who = {
            "name": "who",
            "typed_config": {
                "@type": FILTERS + "header_mutation.v3.HeaderMutation",
                "mutations": {"request_mutations": mutations},
            },
        }
        filters = connections(config)["http_filters"]
        rules = next(index for index, one in enumerate(filters) if one["name"] == "rules")
        filters[rules + 1 : rules + 1] = [who, *caller_limits(settings)]

    return change


def called(principal, tenant):
    return {"x-test-principal": principal, "x-test-tenant": tenant}


@pytest.mark.parametrize("kind", KINDS)
def test_one_principal_s_flood_leaves_others_of_its_tenant_alone(named, kind):
    tenant = f"acme-{kind}"
    passed, answer = until_limited(named, kind, **called(f"loud-{kind}", tenant))
    assert 3 <= passed <= 8
    failed = refusal(answer, kind)
    assert (failed.reason, failed.limit) == ("RATE_LIMITED", "principal")
    assert answer.headers["x-ratelimit-bucket"] == "principal"
    assert not is_limited(ask(named, kind, **called(f"quiet-{kind}", tenant)), kind)


@pytest.mark.parametrize("kind", KINDS)
def test_a_tenant_s_flood_leaves_other_tenants_alone(named, kind):
    for number in range(40):
        answer = ask(named, kind, **called(f"one-of-many-{kind}-{number}", f"crowd-{kind}"))
        if is_limited(answer, kind):
            break
    failed = refusal(answer, kind)
    assert (failed.reason, failed.limit) == ("RATE_LIMITED", "tenant")
    assert answer.headers["x-ratelimit-bucket"] == "tenant"
    assert 7 <= number <= 20
    assert ask(named, **called("somebody", "other")).status == 200


def left(edge, principal, tenant):
    """Returns what an answer says of the bucket that is nearest to its end: how much there is, and how much is left."""
    with edge.opened(
        "POST", "/run", b'{"prompt": "x"}', x_test_principal=principal, x_test_tenant=tenant, **JSON
    ) as answer:
        told = [(name.lower(), value) for name, value in answer.getheaders() if "ratelimit" in name.lower()]
    assert sorted(name for name, _ in told) == ["x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"]
    assert answer.status == 200
    return int(dict(told)["x-ratelimit-limit"]), int(dict(told)["x-ratelimit-remaining"])


def test_a_call_that_two_buckets_count_tells_of_the_one_that_is_nearer_to_its_end(tmp_path):
    wide = GatewaySettings(limit_principal=2, limit_tenant=3, limit_burst_s=60)
    with Edge(tmp_path / "envoy", change=named_callers(wide)) as edge:
        assert left(edge, "alone", "acme") == (120, 119)
        for number in range(100):
            seen = left(edge, f"member-{number}", "acme")
            if seen[0] == 180:
                break
    assert seen[1] < 120


def test_what_a_caller_says_of_itself_is_not_believed(named):
    headers = {"x-mesh-principal": "loud", "x-mesh-tenant": "forged"}
    for number in range(30):
        assert ask(named, **called(f"honest-{number}", f"tenant-{number}"), **headers).status == 200


class SharedCounters:
    """A rate limit service that lets some calls through."""

    def __init__(self, passes):
        self.left = passes
        self.asked = []

    def service(self, details):
        assert details.method == "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit"
        return grpc.unary_unary_rpc_method_handler(self.answer)

    def answer(self, request, context):
        asked = RateLimitRequest.FromString(request)
        self.asked.append((asked.domain, [(one.key, one.value) for d in asked.descriptors for one in d.entries]))
        self.left -= 1
        code = RateLimitResponseCode.OK if self.left >= 0 else RateLimitResponseCode.OVER_LIMIT
        return bytes(RateLimitResponse(overall_code=code))


@pytest.fixture
def shared():
    """Shared counters that let one call through, and where they are."""
    counters = SharedCounters(1)
    server = grpc.server(ThreadPoolExecutor(2), handlers=[counters])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield counters, f"127.0.0.1:{port}"
    server.stop(0)


@pytest.mark.parametrize("kind", KINDS)
def test_edges_may_count_together(tmp_path, shared, kind):
    counters, target = shared
    with Edge(tmp_path / "envoy", limit_address=1_000, limit_service=target) as edge:
        while counters.left > 0:
            ask(edge)  # the fixture has asked already
        failed = refusal(ask(edge, kind), kind)
    assert (failed.code, failed.reason, failed.limit, failed.retry_after) == (8, "RATE_LIMITED", "shared", "1")
    assert counters.asked[-1] == ("meshwright", [("remote_address", "127.0.0.1")])


def test_shared_counters_that_do_not_answer_keep_nobody_waiting(tmp_path):
    with Edge(tmp_path / "envoy", limit_address=1_000, limit_service=UNUSED) as edge:
        assert ask(edge).status == 200


def test_the_shared_counters_are_configured_by_the_same_settings():
    command = [sys.executable, "-m", "meshwright.gateway.limits"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    shown = yaml.safe_load(done.stdout)
    jsonschema.validate(shown, SHARED_SCHEMA)
    assert shown == shared_config(GatewaySettings())
    rates = {one["key"]: one["rate_limit"]["requests_per_unit"] for one in shown["descriptors"]}
    assert rates == {"remote_address": 100, "principal": 50, "tenant": 200}


def test_a_rate_that_is_off_is_not_counted():
    some = GatewaySettings(limit_address=0, limit_principal=7, limit_tenant=0)
    assert [one["key"] for one in shared_config(some)["descriptors"]] == ["principal"]
    none = GatewaySettings(limit_address=0, limit_principal=0, limit_tenant=0)
    assert caller_limits(none) == []
    with pytest.raises(SetupError, match="MESHWRIGHT_LIMIT_ADDRESS"):
        shared_config(none)


def test_on_one_machine_limits_are_wide_but_for_those_that_were_chosen():
    wide = generous(GatewaySettings(limit_principal=3))
    assert (wide.limit_address, wide.limit_principal) == (DEVELOPMENT["limit_address"], 3)
