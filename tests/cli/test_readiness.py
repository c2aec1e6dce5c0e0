"""The readiness list against servers that lie: each item is missing where it is, and nothing they do harms us."""

import json
from dataclasses import replace

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from meshwright.cli.readiness.checklist import looked_at
from meshwright.cli.readiness.outcome import State
from meshwright.cli.readiness.peer import AWAY_FIRST
from meshwright.cli.stores import Stores
from meshwright.core.errors import (
    DeadlineExceededError,
    RateLimitedError,
    ScopeMissingError,
)
from meshwright.gen.agents.v1 import agent_service_pb2 as agents
from meshwright.gen.agents.v1 import task_service_pb2 as costs
from meshwright.gen.registry.v1 import agent_directory_service_pb2 as directory
from meshwright.gen.registry.v1 import tool_registry_service_pb2 as registry
from tests.cli.liar import ELSEWHERE, NAMED, Liar, Reply, at, card, failing, health, look, of, target, task, tool


async def test_a_server_that_answers_as_a_good_mesh_lacks_nothing(public, tls):
    liar = Liar()
    async with liar.serving(tls) as url, liar.serving() as prometheus:
        lines = await looked_at(target(url, public.folder, prometheus=prometheus), Stores())
    found = {f"{line.group}: {line.name}": line.outcome for line in lines}
    assert {name for name, outcome in found.items() if outcome.state is not State.OK} == ELSEWHERE, found
    assert all(found[name].state is State.UNSEEN for name in ELSEWHERE)
    assert len(liar.seen) < 70
    assert not any(outcome.todo for name, outcome in found.items() if name not in ELSEWHERE)


def listed(**chosen):
    return at("/v1/agents", of(directory.ListAgentsResponse(agents=[card(**chosen)])))


def told(change):
    """Changes what every task looks like that is asked for."""

    def twist(request, good):
        if not request.path.startswith("/v1/tasks/") or request.path.endswith("/steps"):
            return None
        name = request.path.split("/")[3]
        return of(change(task(task_id=name, session_id=name)))

    return twist


def with_header(name, value, *, path="/ready"):
    return at(path, lambda _, good: replace(good, headers=good.headers | {name: value}))


def twice_paid():
    asked = []

    def change(one):
        asked.append(one)
        one.usage.cost_micros += 7 * (len(asked) > 1)
        return one

    return told(change)


def grown():
    """Gives each request a task of its own."""
    sent = []

    def twist(request, good):
        if request.method != "POST" or not request.path.endswith("/tasks"):
            return None
        sent.append(request)
        return of(task(task_id=f"t-{len(sent)}"), 202)

    return twist


def slow_refusal(request, good):
    return Reply(200, b"{}")


def worn(request, good):
    return Reply(200, b"{}") if "x-mesh-tenant" in request.headers else None


def any_bearer(request, good):
    is_made_up = request.headers.get("authorization", "").startswith("Bearer mwk_") and not request.is_known
    return Reply(200, b"{}") if is_made_up else None


def nobody(request, good):
    return Reply(200, b"{}") if "authorization" not in request.headers and request.path == "/v1/agents" else None


def strange_host(request, good):
    return Reply(200, b"{}") if request.headers["host"] == "doctor.invalid" else None


def allowing(request, good):
    return Reply(200, b"{}", {"access-control-allow-origin": "*"}) if request.method == "OPTIONS" else None


def letting(request, good):
    return Reply(200, b"{}") if "origin" in request.headers else None


def unhurried(request, good):
    return Reply(200, b"{}") if "x-request-timeout" in request.headers else None


def unlimited(request, good):
    return replace(good, headers={}) if request.path == "/v1/agents" else None


def reflecting(request, good):
    return Reply(200, bytes(9), {"content-type": "application/grpc"}) if "reflection" in request.path else None


def telling(request, good):
    return Reply(200, bytes(9)) if request.path.endswith("/GetKey") else None


def deaf_to_sequence(request, good):
    return at(request.path, Reply(200, b""))(request, good) if "4" in request.query.get("after_sequence", []) else None


def gapped(request, good):
    if not request.path.endswith("/steps"):
        return None
    return replace(good, body=b"\n".join(good.body.splitlines()[1:]))


def without_trace(one):
    one.trace_id = ""
    return one


def forgetful(request, good):
    if not request.path.endswith("/steps") or request.query["after_sequence"] == ["0"]:
        return None
    return replace(good, body=b"\n".join(good.body.splitlines()[1:]))


def prometheus_data(path, data):
    return at(path, Reply(200, json.dumps({"data": data}).encode()))


def gone_soon():
    made = tool(replaced_by="double@2.0.0")
    made.sunset_time.CopyFrom(Timestamp(seconds=4_000_000_000))
    return of(made)


def bare_tool():
    made = tool()
    made.input_schema.Clear()
    return of(registry.ListToolsResponse(tools=[made]))


OPEN_BREAKER = agents.DependencyHealth(name="model best", status=agents.HEALTH_STATUS_SERVING, breaker="open")
DOWN = {"scrapePool": "meshwright", "scrapeUrl": "http://10.0.0.1:9/metrics", "health": "down", "lastError": "refused"}
FIRING = {"state": "firing", "labels": {"alertname": "MeshwrightErrorRate"}}
ONE = [directory.Endpoint(instance_id="i0"), directory.Endpoint(instance_id="i1", draining=True)]
CHECK = "/v1/tools:checkCompatibility"

LACKING = [
    ("contract: mesh", at("/health", Reply(503)), "/health answers 503"),
    ("contract: mesh", at("/ready", failing(503, DeadlineExceededError("agents: none"))), "agents: none"),
    ("contract: interface", at("/openapi.json", Reply(200, b"{}")), "another one than this version's"),
    ("contract: interface", at("/openapi.json", Reply(404)), "/openapi.json answers 404"),
    ("contract: interface", at("/assets/descriptors.binpb", Reply(200, b"x")), "descriptor set is another one"),
    ("contract: reflection", reflecting, "is served at the edge"),
    ("contract: agents", at("/v1/agents/clerk/health", of(health(status=3))), "clerk: NOT_SERVING"),
    ("contract: agents", at("/v1/agents/clerk/health", Reply(503)), "answers 503 without saying why"),
    ("contract: agents", at("/v1/agents", of(directory.ListAgentsResponse())), "no agent is here"),
    ("contract: agents' contract", listed(contract_digest="00"), "clerk 1.0.0: another contract"),
    ("contract: agents' instances", listed(endpoints=ONE), "clerk: 1"),
    ("contract: agents' instances", at("/v1/agents", of(directory.ListAgentsResponse())), "none"),
    ("transport: HSTS", at("/ready", Reply()), "strict-transport-security: none"),
    ("transport: HSTS", with_header("strict-transport-security", "max-age=60"), "max-age=60"),
    ("identity: no key", nobody, "answers 200"),
    ("identity: wrong key", any_bearer, "is answered 200"),
    ("identity: this key", at("/v1/agents", failing(401, ScopeMissingError("was revoked"))), "was revoked"),
    ("identity: spoofed headers", worn, "are answered 200"),
    ("identity: inside", at("/stats", Reply(200, b"x: 1")), "/stats: 200"),
    ("identity: internal calls", telling, "GetKey"),
    ("identity: foreign host", strange_host, "doctor.invalid is answered 200"),
    ("identity: foreign origin", allowing, "access-control-allow-origin: *"),
    ("identity: foreign origin", letting, "is answered 200"),
    ("limits: bodies", at(CHECK, Reply(200, b"{}"), method="POST"), "are answered 200"),
    ("limits: depth", at(CHECK, Reply(500), method="POST"), "are answered 500"),
    ("limits: rates", unlimited, "no x-ratelimit-limit"),
    ("limits: deadlines", unhurried, "are answered 200 all the same"),
    ("durability: accepted once", grown(), "t-1, t-2"),
    ("durability: accepted once", told(lambda one: task(task_id=one.task_id, status=5)), "it ended FAILED"),
    ("durability: streams", gapped, "have sequences 2, 3"),
    ("durability: streams", forgetful, "other steps follow"),
    ("durability: billed once", twice_paid(), "costs US$ 0.000007 more"),
    ("durability: cost", at("/v1/costs", of(costs.GetCostsResponse())), "listed are US$ 0.000000"),
    ("observability: trace", told(without_trace), "has no trace"),
    ("tools: contracts", at("/v1/tools", bare_tool()), "without description or schema: double"),
    ("tools: versions", at("/v1/tools/double", gone_soon()), "clerk uses double 1.0.0, which goes 2096"),
    ("tools: versions", listed(tools=["gone@^1"]), "clerk uses gone@^1"),
    ("tools: breakers", at("/v1/agents/clerk/health", of(health(dependencies=[OPEN_BREAKER]))), "is open"),
    ("tools: breakers", at("/v1/agents/clerk/health", Reply(503)), "answers 503"),
    ("cost: budget", listed(tenant_day_budget_micros=0), "no budget of a tenant's day: clerk"),
    ("cost: prices", listed(unpriced_models=["best"]), "without a price: best"),
    ("guardrails: prompts", listed(guardrails=[]), "none: clerk"),
]


@pytest.fixture
def _hurried(monkeypatch):
    """Waits for costs that never come are short."""
    monkeypatch.setattr("meshwright.cli.readiness.trial.COSTS_S", 0.1)


@pytest.mark.parametrize(
    "name",
    [
        "contract: interface",
        *(f"identity: {name}" for name in ("no key", "wrong key", "spoofed headers", "foreign host", "foreign origin")),
        *(f"limits: {name}" for name in ("bodies", "depth", "rates")),
    ],
)
async def test_what_is_away_is_neither_good_nor_set_wrongly(public, tls, name):
    async with Liar(lambda _request, _good: Reply(503, b"{}")).serving(tls) as url:
        found = await look(name, target(url, public.folder))
    assert (found.state, found.todo) == (State.MISSING, AWAY_FIRST)


@pytest.mark.usefixtures("_hurried")
@pytest.mark.parametrize(("name", "twist", "seen"), LACKING)
async def test_an_item_that_is_missing_is_told(public, tls, name, twist, seen):
    async with Liar(twist).serving(tls) as url:
        found = await look(name, target(url, public.folder))
    assert (found.state, seen in found.seen, bool(found.todo)) == (State.MISSING, True, True), found


@pytest.mark.usefixtures("_hurried")
@pytest.mark.parametrize(
    ("name", "twist", "seen"),
    [
        ("targets", prometheus_data("/api/v1/targets", {"activeTargets": [DOWN]}), "10.0.0.1:9/metrics: refused"),
        ("targets", prometheus_data("/api/v1/targets", {"activeTargets": []}), "no job has meshwright"),
        ("alert rules", prometheus_data("/api/v1/rules", {"groups": []}), "not loaded: MeshwrightErrorRate"),
        (
            "alert rules",
            prometheus_data("/api/v1/rules", {"groups": [{"rules": [{"name": "MeshwrightErrorRate", "query": "1"}]}]}),
            "MeshwrightErrorRate is another",
        ),
        ("alerts", prometheus_data("/api/v1/alerts", {"alerts": [FIRING]}), "firing: MeshwrightErrorRate"),
        ("alerts", at("/api/v1/alerts", Reply(200, b"[" * 100_000)), "no data of /api/v1/alerts"),
    ],
)
async def test_what_a_prometheus_lacks_is_told(public, name, twist, seen):
    async with Liar(twist).serving() as url:
        found = await look(f"observability: {name}", target("https://localhost:1", public.folder, prometheus=url))
    assert (found.state, seen in found.seen, bool(found.todo)) == (State.MISSING, True, True), found


def test_every_item_can_be_missing():
    in_store_or_tls = ELSEWHERE | {name for name in NAMED if name.startswith(("transport: ", "observability: "))}
    assert {name for name, _, _ in LACKING} | in_store_or_tls == set(NAMED)


@pytest.mark.parametrize(
    ("name", "settings", "todo"),
    [
        ("contract: agents", {"api_key": ""}, "MESHWRIGHT_API_KEY"),
        ("identity: this key", {"api_key": ""}, "MESHWRIGHT_API_KEY"),
        ("limits: bodies", {"api_key": ""}, "MESHWRIGHT_API_KEY"),
        ("limits: depth", {"api_key": ""}, "MESHWRIGHT_API_KEY"),
        ("limits: deadlines", {"api_key": ""}, "MESHWRIGHT_API_KEY"),
        ("limits: rates", {"api_key": ""}, "MESHWRIGHT_API_KEY"),
        ("durability: cost", {"agent": ""}, "--agent"),
        ("observability: targets", {}, "--prometheus"),
        ("contract: edges", {}, "MESHWRIGHT_STORE_ADMIN_URL"),
        ("identity: API keys", {}, "MESHWRIGHT_STORE_ADMIN_URL"),
        ("observability: trace", {"otlp_endpoint": ""}, "MESHWRIGHT_OTLP_ENDPOINT"),
        ("durability: audit", {}, "MESHWRIGHT_STORE_ADMIN_URL"),
    ],
)
async def test_what_cannot_be_looked_at_says_what_would_let_it(public, tls, name, settings, todo):
    async with Liar().serving(tls) as url:
        found = await look(name, target(url, public.folder, **settings))
    assert (found.state, todo in found.todo) == (State.UNSEEN, True), found


@pytest.mark.parametrize(
    ("error", "todo"),
    [(ScopeMissingError("agents:read is missing"), "that scope"), (RateLimitedError("too much"), "less to do")],
)
async def test_what_the_key_may_not_see_is_not_missing(public, tls, error, todo):
    async with Liar(at("/v1/agents", failing(403, error))).serving(tls) as url:
        found = await look("contract: agents' instances", target(url, public.folder))
    assert (found.state, found.seen, todo in found.todo) == (State.UNSEEN, error.message, True), found


@pytest.mark.usefixtures("_hurried")
async def test_a_cost_that_is_summed_with_others_is_not_missing(public, tls):
    others = of(costs.GetCostsResponse(rows=[costs.CostRow(name="*", cost_micros=1)]))
    async with Liar(at("/v1/costs", others)).serving(tls) as url:
        found = await look("durability: cost", target(url, public.folder))
    assert found.state is State.UNSEEN


async def test_an_agent_that_can_be_none_is_told(public, tls):
    async with Liar().serving(tls) as url:
        found = await look("durability: accepted once", target(url, public.folder, agent="../x y"))
    assert (found.state, found.seen) == (State.MISSING, "not here")
