"""Who is calling: tokens of an issuer, verified by a real Envoy."""

import asyncio
import contextlib
import json
import time

import grpc
import pytest

from meshwright.agents.agent import Agent
from meshwright.core.errors import MeshError, SetupError
from meshwright.core.signed_token import CLOCKS_S
from meshwright.gateway import bootstrap, envoy
from meshwright.gateway.authentication import check_settings, jwks_of
from meshwright.gateway.config import DESCRIPTORS
from meshwright.gateway.discovery import EnvoyFiles
from meshwright.gateway.settings import GatewaySettings
from meshwright.gen.agents.v1.agent_service_pb2_grpc import AgentServiceStub
from meshwright.gen.agents.v1.task_pb2 import TaskRequest
from tests.gateway.conftest import running_edge
from tests.gateway.test_bootstrap import REPO
from tests.gateway.tokens import AUDIENCE, ISSUER, Authority, Issuer

THINKING = "agents: {default: [{text: Done., latency_ms: 8000}]}"
QUESTION = {"prompt": "What is 2 + 2?"}
PINNED = {"jwt_issuer": ISSUER, "jwt_audience": AUDIENCE}


@pytest.fixture
def issuer():
    return Issuer()


@pytest.fixture
async def edge(store, tmp_path, issuer):
    """An edge that takes keys and tokens."""
    file = tmp_path / "issuer.json"
    file.write_bytes(issuer.jwks)
    async with running_edge(store, tmp_path, auth="keys,jwt", jwt_jwks=str(file), **PINNED) as running:
        yield running


def bearer(token):
    return {"authorization": f"Bearer {token}"}


async def test_a_token_opens_what_its_scopes_name_in_its_tenants_name(edge, issuer):
    token = issuer.token(scope="openid tasks:write tasks:read")
    done = await edge.ask("POST", "/run", QUESTION, **bearer(token))
    assert (done.status, done.json["status"]) == (200, "TASK_STATUS_COMPLETED"), done.body
    path = f"/v1/tasks/{done.json['task_id']}"
    for other in (issuer.token(scp=["tasks:read"]), issuer.token(scp="tasks:read", aud=["x", AUDIENCE])):
        assert (await edge.ask("GET", path, **bearer(other))).status == 200
    key = await edge.key("tasks:read", tenant="acme", principal="ann")
    assert (await edge.ask("GET", path, x_api_key=key)).status == 200
    for stranger in (issuer.token(scope="*", tenant="other"), issuer.token(scope="*", sub="bob")):
        answer = await edge.ask("GET", path, **bearer(stranger))
        assert (answer.status, answer.reason) == (404, "TASK_NOT_FOUND")
    lacking = await edge.ask("POST", "/run", QUESTION, **bearer(issuer.token()))
    assert (lacking.status, lacking.reason) == (403, "SCOPE_MISSING")
    within_skew = issuer.token(scope="tasks:read", exp=int(time.time()) - 30)
    assert (await edge.ask("GET", path, **bearer(within_skew))).status == 200


@pytest.mark.parametrize("reason", ["TOKEN_EXPIRED", "KEY_EXPIRED"])
async def test_a_stream_ends_when_what_has_opened_it_would_open_none_any_more(edge, issuer, reason):
    await edge.mesh.agent(Agent("slow", "Thinks."), script=THINKING)
    async with asyncio.timeout(10):
        while (await edge.ask("GET", "/v1/agents/slow/health", **bearer(issuer.token(scope="agents")))).status != 200:
            await asyncio.sleep(0.05)
    ends = int(time.time()) + 3
    shown = issuer.token(scope="tasks", exp=ends - CLOCKS_S)
    if reason == "KEY_EXPIRED":
        shown = await edge.key("tasks", life_s=3)
    sent = [("authorization", f"Bearer {shown}"), ("x-agent-id", "slow")]
    stream = AgentServiceStub(edge.channel).StreamSteps(TaskRequest(prompt="Think.", task_id="long"), metadata=sent)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        [event async for event in stream]
    assert (caught.value.code(), MeshError.from_rpc(caught.value).reason) == (grpc.StatusCode.UNAUTHENTICATED, reason)
    assert ends <= time.time() < ends + 3
    task = await edge.ask("GET", "/v1/tasks/long", **bearer(issuer.token(scope="tasks")))
    assert task.json["status"] == "TASK_STATUS_RUNNING"


async def test_a_wait_for_a_task_ends_with_its_key_and_says_so(edge):
    await edge.mesh.agent(Agent("slow", "Thinks."), script=THINKING)
    reader = await edge.key("agents", "tasks")
    async with asyncio.timeout(10):
        while (await edge.ask("GET", "/v1/agents/slow/health", x_api_key=reader)).status != 200:
            await asyncio.sleep(0.05)
    key = await edge.key("tasks")
    asked = asyncio.create_task(
        edge.ask("POST", "/v1/agents/slow/run", {"prompt": "Think.", "task_id": "w"}, x_api_key=key)
    )
    async with asyncio.timeout(10):
        while (await edge.ask("GET", "/v1/tasks/w", x_api_key=reader)).status != 200:
            await asyncio.sleep(0.05)
    await edge.keys.revoke(key.split("_")[1])
    answer = await asked
    assert (answer.status, answer.reason) == (401, "KEY_REVOKED")
    assert (await edge.ask("GET", "/v1/tasks/w", x_api_key=reader)).json["status"] == "TASK_STATUS_RUNNING"


async def test_a_token_that_is_not_good_is_told_what_is_wrong(edge, issuer):
    now = int(time.time())
    good = issuer.token(scope="*")
    head, payload, _ = good.split(".")
    wrong = {
        "expired": issuer.token(scope="*", exp=now - 120),
        "early": issuer.token(scope="*", nbf=now + 600),
        "endless": issuer.token(scope="*", exp=None),
        "issuer": issuer.token(scope="*", iss="https://other.example/"),
        "audience": issuer.token(scope="*", aud="other"),
        "no audience": issuer.token(scope="*", aud=None),
        "stranger": Issuer().token(scope="*"),
        "another key": Issuer("k2").token(scope="*"),
        "none": issuer.token(scope="*", head={"alg": "none"}, signature=b""),
        "symmetric": issuer.token(scope="*", head={"alg": "HS256"}),
        "cut": f"{head}.{payload}.",
        "two parts": f"{head}.{payload}",
        "text": "nonsense",
        "no subject": issuer.token(scope="*", sub=None),
        "odd subject": issuer.token(scope="*", sub="a\nb"),
        "number": issuer.token(scope="*", sub=7),
        "no tenant": issuer.token(scope="*", tenant=None),
        "tenants": issuer.token(scope="*", tenant=["acme", "other"]),
        "scopes": issuer.token(scope=" ".join(f"s{number}" for number in range(65))),
    }
    for name, token in wrong.items():
        answer = await edge.ask("POST", "/run", QUESTION, **bearer(token))
        assert answer.status == 401, (name, answer.body)
        reason = "TOKEN_EXPIRED" if name == "expired" else "TOKEN_INVALID"
        assert (answer.reason, answer.json["code"]) == (reason, 16), (name, answer.body)
        assert answer.headers["www-authenticate"] == 'Bearer realm="meshwright", error="invalid_token"'
        metadata = [("authorization", f"Bearer {token}")]
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await AgentServiceStub(edge.channel).RunTask(TaskRequest(**QUESTION), metadata=metadata)
        assert MeshError.from_rpc(caught.value).reason == reason, name
    for headers in ({}, {"authorization": "Basic YTpi"}, {"authorization": good}):
        answer = await edge.ask("POST", "/run", QUESTION, **headers)
        assert (answer.status, answer.reason) == (401, "CREDENTIALS_MISSING")
    answer = await edge.ask("GET", f"/v1/tasks?access_token={good}")
    assert (answer.status, answer.reason) == (401, "CREDENTIALS_MISSING")


@contextlib.asynccontextmanager
async def published(issuer, security=None):
    """Serves an issuer's keys; yields host:port."""

    async def publish(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        head = f"HTTP/1.1 200 OK\r\ncontent-length: {len(issuer.jwks)}\r\nconnection: close\r\n\r\n"
        writer.write(head.encode() + issuer.jwks)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(publish, "127.0.0.1", 0, ssl=security)
    yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    server.close()


async def test_an_issuers_keys_are_read_from_its_url_and_a_default_tenant_stands_in(store, tmp_path, issuer):
    async with contextlib.AsyncExitStack() as stack:
        place = await stack.enter_async_context(published(issuer))
        chosen = {"jwt_jwks": f"http://{place}/keys", "jwt_tenant_claim": "org", "jwt_default_tenant": "all", **PINNED}
        edge = await stack.enter_async_context(running_edge(store, tmp_path, auth="jwt", **chosen))
        token = issuer.token(scope="tasks:write tasks:read")
        done = await edge.ask("POST", "/tasks", QUESTION, **bearer(token))
        assert done.status == 202, done.body
        path = f"/v1/tasks/{done.json['task_id']}"
        assert (await edge.ask("GET", path, **bearer(issuer.token(scope="*", org="all")))).status == 200
        assert (await edge.ask("GET", path, **bearer(issuer.token(scope="*", org="acme")))).status == 404
        key = await edge.key("*")
        assert (await edge.ask("GET", path, x_api_key=key)).reason == "CREDENTIALS_MISSING"
        assert (await edge.ask("GET", path, **bearer(key))).reason == "CREDENTIALS_MISSING"


@pytest.mark.parametrize("is_ours", [True, False])
async def test_keys_at_a_url_are_believed_where_its_certificate_is(store, tmp_path, issuer, is_ours):
    authority, other = Authority(tmp_path / "ours.pem"), Authority(tmp_path / "others.pem")
    security = authority.server_of("127.0.0.1", tmp_path)
    async with contextlib.AsyncExitStack() as stack:
        place = await stack.enter_async_context(published(issuer, security))
        chosen = {"jwt_jwks": f"https://{place}/keys", "jwt_jwks_ca": str((authority if is_ours else other).file)}
        edge = await stack.enter_async_context(running_edge(store, tmp_path, auth="jwt", **chosen, **PINNED))
        answer = await edge.ask("GET", "/v1/tasks", **bearer(issuer.token(scope="*")))
        if is_ours:
            assert answer.status == 200, answer.body
        else:
            assert (answer.status, answer.reason) == (503, "UNAVAILABLE"), answer.body


@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        ({"auth": "none", "edge_host": "0.0.0.0"}, "MESHWRIGHT_AUTH to keys or jwt"),
        ({"auth": "jwt", "jwt_audience": "a", "jwt_jwks": "f"}, "MESHWRIGHT_JWT_ISSUER"),
        ({"auth": "jwt", "jwt_issuer": "a", "jwt_jwks": "f"}, "MESHWRIGHT_JWT_AUDIENCE"),
        ({"auth": "keys,jwt", "jwt_issuer": "a", "jwt_audience": "a"}, "MESHWRIGHT_JWT_JWKS"),
        ({"auth": "jwt", "jwt_jwks": "http://issuer.example/keys", **PINNED}, "https://HOST/PATH"),
        ({"auth": "jwt", "jwt_jwks": "https://", **PINNED}, "https://HOST/PATH"),
        ({"auth": "jwt", "jwt_jwks": "https://host:x/", **PINNED}, "https://HOST/PATH"),
        ({"auth": "jwt", "jwt_jwks": "ftp://issuer.example/keys", **PINNED}, "https://HOST/PATH"),
    ],
)
def test_settings_that_let_in_everybody_or_nobody_are_refused(chosen, said):
    with pytest.raises(SetupError, match=said):
        check_settings(GatewaySettings(**chosen))


def test_an_edge_may_listen_everywhere_once_it_asks_who_is_calling():
    check_settings(GatewaySettings(auth="keys", edge_host="0.0.0.0"))
    check_settings(GatewaySettings(auth="jwt", jwt_jwks="https://issuer.example/keys", **PINNED))
    check_settings(GatewaySettings())


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b'{"keys": []}', b'{"keys": 1}', b"\xff", b" " * 70_000])
def test_a_file_without_keys_is_refused(tmp_path, content):
    file = tmp_path / "keys.json"
    file.write_bytes(content)
    with pytest.raises(SetupError, match="no JSON Web Key Set"):
        jwks_of(GatewaySettings(jwt_jwks=str(file)))
    with pytest.raises(SetupError, match="cannot read"):
        jwks_of(GatewaySettings(jwt_jwks=str(tmp_path / "nothing")))


@pytest.mark.parametrize("url", ["https://issuer.example/keys", "https://192.0.2.1:8443/keys", "http://[::1]:81/keys"])
async def test_envoy_accepts_keys_at_a_url(tmp_path, url):
    (tmp_path / DESCRIPTORS).write_bytes((REPO / "gen/meshwright/gen" / DESCRIPTORS).read_bytes())
    EnvoyFiles(tmp_path).update({})
    settings = GatewaySettings(port=8082, auth="keys,jwt", jwt_jwks=url, **PINNED)
    await envoy.prepare(tmp_path, bootstrap.render(settings))
    assert json.loads((tmp_path / envoy.BOOTSTRAP).read_text())
