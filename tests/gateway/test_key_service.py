"""KeyService through a real edge: keys of one tenant, and nothing that their maker has not."""

import grpc
import pytest

from meshwright.core.audit import AuditReader
from meshwright.core.errors import MeshError
from meshwright.gen.gateway.v1.key_service_pb2 import CreateKeyRequest, ListKeysRequest, RevokeKeyRequest
from meshwright.gen.gateway.v1.key_service_pb2_grpc import KeyServiceStub


async def refused(call):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return MeshError.from_rpc(caught.value)


async def test_an_admin_makes_keys_of_its_tenant_with_what_it_holds_itself(edge, store):
    stub = KeyServiceStub(edge.channel)
    admin = [("x-api-key", await edge.key("keys:admin", "tasks"))]
    request = CreateKeyRequest(name="ci", scopes=["tasks:read"], principal="bot")
    request.life.seconds = 60
    made = await stub.CreateKey(request, metadata=admin)
    assert (made.api_key.tenant, made.api_key.principal, made.api_key.scopes) == ("acme", "bot", ["tasks:read"])
    assert made.api_key.expire_time.ToMilliseconds() - made.api_key.create_time.ToMilliseconds() == 60_000
    assert (await edge.ask("GET", "/v1/tasks", x_api_key=made.key)).status == 200
    listed = await stub.ListKeys(ListKeysRequest(), metadata=admin)
    assert made.api_key.key_id in {one.key_id for one in listed.keys}
    assert made.key.rpartition("_")[2] not in str(listed)
    wider = CreateKeyRequest(name="ci", scopes=["tasks:read", "costs:read", "*"])
    error = await refused(stub.CreateKey(wider, metadata=admin))
    assert (error.reason, error.metadata["scopes"]) == ("SCOPE_MISSING", "* costs:read")
    gone = await stub.RevokeKey(RevokeKeyRequest(key_id=made.api_key.key_id), metadata=admin)
    assert gone.HasField("revoke_time")
    assert (await edge.ask("GET", "/v1/tasks", x_api_key=made.key)).reason == "KEY_REVOKED"
    lines = [line for line in await AuditReader(store).read("acme") if line.about == made.api_key.key_id]
    assert [(line.event, line.facts["by"]) for line in lines] == [("key_created", "ann"), ("key_revoked", "ann")]
    assert made.key.rpartition("_")[2] not in str(lines)


async def test_keys_of_other_tenants_are_not_there(edge):
    stub = KeyServiceStub(edge.channel)
    own = await edge.key("*")
    other = [("x-api-key", await edge.key("*", tenant="other"))]
    listed = await stub.ListKeys(ListKeysRequest(), metadata=other)
    assert [one.tenant for one in listed.keys] == ["other"]
    for key_id in (own.split("_")[1], "0" * 12):
        error = await refused(stub.RevokeKey(RevokeKeyRequest(key_id=key_id), metadata=other))
        assert (error.code, error.reason) == (grpc.StatusCode.NOT_FOUND, "API_KEY_NOT_FOUND")
    assert (await edge.ask("GET", "/v1/tasks", x_api_key=own)).status == 200


async def test_who_is_no_admin_or_nobody_makes_no_keys(edge):
    stub = KeyServiceStub(edge.channel)
    request = CreateKeyRequest(name="ci", scopes=["tasks:read"])
    error = await refused(stub.CreateKey(request, metadata=[("x-api-key", await edge.key("tasks", "tools"))]))
    assert (error.code, error.reason) == (grpc.StatusCode.PERMISSION_DENIED, "SCOPE_MISSING")
    assert (await refused(stub.CreateKey(request))).reason == "CREDENTIALS_MISSING"
    async with grpc.aio.insecure_channel(edge.gateway._server.target) as beside:
        assert (await refused(KeyServiceStub(beside).CreateKey(request))).reason == "CREDENTIALS_MISSING"


async def test_what_a_key_may_not_be_is_refused_by_field(edge):
    admin = [("x-api-key", await edge.key("*"))]
    for fields, life, wrong in (
        ({"name": ""}, None, "name"),
        ({"scopes": []}, None, "scopes"),
        ({"scopes": ["a b"]}, None, "scopes"),
        ({"principal": "a\nb"}, None, "principal"),
        ({}, 0, "life"),
        ({}, -1, "life"),
        ({}, 2**40, "life"),
    ):
        request = CreateKeyRequest(**({"name": "ci", "scopes": ["tasks:read"]} | fields))
        if life is not None:
            request.life.seconds = life
        error = await refused(KeyServiceStub(edge.channel).CreateKey(request, metadata=admin))
        assert (error.reason, list(error.fields)) == ("INVALID_REQUEST", [wrong])
