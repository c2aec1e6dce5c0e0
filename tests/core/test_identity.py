"""Identities: signed by edges alone, short-lived, and what a caller may do with one. Over real gRPC."""

import time

import grpc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshwright.core import identity as identity_module
from meshwright.core.announced_keys import EdgeKeys
from meshwright.core.call import METADATA_KEY
from meshwright.core.errors import (
    GrantInvalidError,
    IdentityInvalidError,
    InvalidRequestError,
    KeyNotFoundError,
    MeshError,
)
from meshwright.core.grant import Signer, Verifier
from meshwright.core.identity import (
    IDENTITY_KEY,
    LIFE_S,
    MOST_SCOPES_CHARS,
    IdentityVerifier,
    checked_name,
    checked_scopes,
    sign,
)
from meshwright.core.interceptors import CALLER
from meshwright.core.signed_token import IssuerKey
from meshwright.gen.agents.v1.agent_service_pb2 import HealthRequest, HealthResponse
from meshwright.gen.agents.v1.grant_pb2 import Grant
from meshwright.gen.agents.v1.identity_pb2 import Identity, SignedIdentity
from meshwright.gen.agents.v1.task_pb2 import TaskRequest


@pytest.fixture
def edge():
    return Signer("edge-1")


@pytest.fixture
def agent():
    return Signer("agent-1")


@pytest.fixture
def verifier(edge, agent):
    async def lookup(key_id):
        known = {
            edge.key_id: IssuerKey(edge.public_key, "", frozenset(), is_edge=True),
            agent.key_id: IssuerKey(agent.public_key, "adder", frozenset()),
        }
        if key_id not in known:
            raise KeyNotFoundError("nobody")
        return known[key_id]

    return Verifier(lookup)


async def tell_caller(_request, _context):
    caller = CALLER.get()
    return HealthResponse(agent_id=f"{caller.tenant}/{caller.principal}/{' '.join(sorted(caller.scopes))}")


async def refused(call) -> MeshError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return MeshError.from_rpc(caught.value)


@pytest.mark.parametrize("auth", ["none", "keys"])
async def test_an_identity_says_who_calls(serve, verifier, edge, auth):
    served = await serve(health=tell_caller, verifier=verifier, auth=auth)
    token = sign(edge, "acme", "ann", ["tasks:read", "agents:read"])
    answer = await served.stub.Health(HealthRequest(), metadata=[(IDENTITY_KEY, token)])
    assert answer.agent_id == "acme/ann/agents:read tasks:read"


async def test_a_scope_that_is_missing_is_named(serve, verifier, edge):
    served = await serve(health=tell_caller, verifier=verifier, auth="keys")
    token = sign(edge, "acme", "ann", ["tasks:write"])
    error = await refused(served.stub.Health(HealthRequest(), metadata=[(IDENTITY_KEY, token)]))
    assert (error.code, error.reason) == (grpc.StatusCode.PERMISSION_DENIED, "SCOPE_MISSING")
    assert error.metadata["scopes"] == "agents:read"


async def test_a_call_that_says_nothing_is_refused_where_it_has_to(serve, verifier):
    served = await serve(health=tell_caller, verifier=verifier, auth="keys")
    error = await refused(served.stub.RunTask(TaskRequest()))
    assert (error.code, error.reason) == (grpc.StatusCode.UNAUTHENTICATED, "CREDENTIALS_MISSING")
    inside = await served.stub.Health(HealthRequest())  # a process of the mesh looks how an agent is
    assert inside.agent_id == "//agents:read"


@pytest.mark.parametrize("kind", ["forged", "unsigned", "expired", "long", "stranger", "agent", "nobody", "garbage"])
async def test_an_identity_that_is_not_good_is_unauthenticated(serve, verifier, edge, agent, kind, monkeypatch):
    good = SignedIdentity.FromString(sign(edge, "acme", "ann", ["*"]))
    forged = Identity(tenant="other", principal="ann", scopes=["*"])
    forged.expire_time.FromSeconds(int(time.time()) + 60)

    def lasting(seconds):
        monkeypatch.setattr(identity_module, "LIFE_S", seconds)
        signed = sign(edge, "acme", "ann", ["*"])
        monkeypatch.setattr(identity_module, "LIFE_S", LIFE_S)
        return SignedIdentity.FromString(signed)

    token = {
        "forged": SignedIdentity(identity=forged.SerializeToString(), signature=good.signature, key_id=good.key_id),
        "unsigned": SignedIdentity(identity=good.identity, key_id=good.key_id),
        "expired": lasting(-1),
        "long": lasting(86_400),
        "stranger": SignedIdentity.FromString(sign(Signer("edge-2"), "acme", "ann", ["*"])),
        "agent": SignedIdentity.FromString(sign(agent, "acme", "ann", ["*"])),
        "nobody": SignedIdentity.FromString(sign(edge, "", "ann", ["*"])),
        "garbage": SignedIdentity(identity=b"\xff", signature=good.signature, key_id=good.key_id),
    }[kind]
    served = await serve(health=tell_caller, verifier=verifier, auth="keys")
    error = await refused(served.stub.Health(HealthRequest(), metadata=[(IDENTITY_KEY, token.SerializeToString())]))
    assert (error.code, error.reason) == (grpc.StatusCode.UNAUTHENTICATED, "IDENTITY_INVALID")


async def test_an_edge_signs_no_grants(serve, verifier, edge):
    served = await serve(health=tell_caller, verifier=verifier, auth="keys")
    token = edge.sign(Grant(tenant="acme", principal="ann", agent_id="adder", task_id="t", root_task_id="t"))
    error = await refused(served.stub.Health(HealthRequest(), metadata=[(METADATA_KEY, token)]))
    assert type(error) is GrantInvalidError


async def test_an_identity_is_checked_once_and_its_time_every_time(verifier, edge, monkeypatch):
    asked = []

    async def lookup(key_id):
        asked.append(key_id)
        return await verifier.lookup(key_id)

    identities = IdentityVerifier(lookup)
    token = sign(edge, "acme", "ann", ["*"])
    for _ in range(3):
        assert (await identities.verify(token)).principal == "ann"
    assert asked == ["edge-1"]
    later = time.time() + LIFE_S + 1
    monkeypatch.setattr(identity_module.time, "time", lambda: later)
    with pytest.raises(IdentityInvalidError):
        await identities.verify(token)


async def test_edges_are_known_by_their_keys_for_a_while(store, edge):
    edges = EdgeKeys(store)
    assert await edges.find("edge-1") is None
    await edges.announce(edge)
    assert await edges.find("edge-1") == edge.public_key
    assert 0 < await store.client.ttl("mw:{mesh}:edge:edge-1") <= 300


def taken(check, *asked):
    """Returns what a check lets pass; None: it names the field that is wrong."""
    try:
        return check(*asked)
    except InvalidRequestError as error:
        return None if len(error.fields) == 1 else error


@settings(deadline=None)
@given(st.text(max_size=300))
def test_a_name_that_is_taken_can_be_seen(text):
    is_good = 0 < len(text) <= 256 and text.isprintable() and text == text.strip()
    assert taken(checked_name, "tenant", text) == (text if is_good else None)


@settings(deadline=None)
@given(st.lists(st.text(alphabet=st.characters(min_codepoint=33, max_codepoint=126), max_size=210), max_size=70))
def test_scopes_that_are_taken_fit_into_a_call(scopes):
    found = taken(checked_scopes, scopes)
    assert found in (None, set(scopes))
    token = sign(Signer("edge-1"), "t" * 256, "p" * 256, found or ())
    assert len(token) < MOST_SCOPES_CHARS + 1_024
