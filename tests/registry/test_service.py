"""ToolRegistryService over real gRPC, with real tool hosts behind it."""

import asyncio
import time
from typing import Annotated

import grpc
import pytest
from google.protobuf import struct_pb2
from pydantic import Field

from meshwright.core import channel
from meshwright.core.call import METADATA_KEY
from meshwright.core.canonical import from_value
from meshwright.core.errors import (
    InvalidRequestError,
    MeshError,
    PermissionDeniedError,
    ToolConflictError,
    ToolFailedError,
    ToolNotFoundError,
    UnavailableError,
)
from meshwright.core.grant import Signer, is_call
from meshwright.core.interceptors import Caller
from meshwright.core.signed_token import CLOCKS_S
from meshwright.gen.agents.v1.grant_pb2 import Grant
from meshwright.gen.registry.v1 import tool_registry_service_pb2 as pb
from meshwright.gen.registry.v1.agent_directory_service_pb2 import AgentCard, AnnounceAgentRequest, Endpoint
from meshwright.registry import current_invocation, tool
from meshwright.registry.service import call_grant

PAID: list[float] = []


@pytest.fixture(autouse=True)
def _nothing_paid_before():
    PAID.clear()


@tool(name="sums.add", version="1.2.0", effect="pure")
def add(a: float, b: Annotated[float, Field(ge=0)]) -> float:
    """Adds two numbers."""
    return a + b


@tool(name="bank.pay", effect="non_idempotent")
def pay(amount: float) -> list[str]:
    """Pays."""
    if amount > 1_000:
        raise ValueError("not enough money")
    PAID.append(amount)
    call = current_invocation()
    return [call.tenant, call.principal]


@tool(effect="pure")
def big() -> list[int]:
    """Gives large integers."""
    return [2**53, 7]


def arguments(**values) -> struct_pb2.Struct:
    struct = struct_pb2.Struct()
    struct.update(values)
    return struct


async def test_a_registered_tool_is_read_as_it_was_made(register, ask):
    stored = await register(owner="team", required_scopes=["a"])
    assert stored.digest
    assert stored.create_time.seconds
    assert stored.endpoint == "127.0.0.1:7"
    assert (stored.owner, stored.timeout.seconds, stored.effect) == ("team", 30, pb.EFFECT_NON_IDEMPOTENT)
    assert await ask("GetTool", name="docs.search") == stored


async def test_registering_again_is_harmless_and_moves_the_host(register):
    first = await register()
    assert await register() == first
    moved = await register(endpoint="127.0.0.1:8")
    assert moved.endpoint == "127.0.0.1:8"
    assert (moved.digest, moved.create_time) == (first.digest, first.create_time)


async def test_a_version_never_changes(register, ask):
    first = await register()
    with pytest.raises(ToolConflictError, match="raise the version"):
        await register(description="Something else.", endpoint="127.0.0.1:8")
    assert await ask("GetTool", name="docs.search") == first
    await register(description="Something else.", version="1.1.0")


async def test_a_dry_run_checks_everything_and_stores_nothing(register, ask):
    checked = await register(validate_only=True)
    assert checked.digest
    with pytest.raises(ToolNotFoundError):
        await ask("GetTool", name="docs.search")
    with pytest.raises(InvalidRequestError):
        await register(version="1", validate_only=True)
    await register()
    assert (await register(validate_only=True)).digest == checked.digest
    with pytest.raises(ToolConflictError):
        await register(description="Something else.", validate_only=True)


async def test_a_bad_contract_is_refused_with_its_field(register, contract):
    with pytest.raises(InvalidRequestError) as caught:
        await register(name="Docs")
    assert list(caught.value.fields) == ["tool.name"]
    hostile = contract()
    hostile.input_schema.update({"type": "object", "$ref": "http://127.0.0.1:1/x"})
    with pytest.raises(InvalidRequestError) as caught:
        await register(hostile)
    assert list(caught.value.fields) == ["tool.input_schema"]


async def test_many_hosts_registering_at_once_agree(register):
    answers = await asyncio.gather(
        *(register(description=f"Searches {number % 2}.") for number in range(10)), return_exceptions=True
    )
    stored = [answer for answer in answers if isinstance(answer, pb.Tool)]
    refused = [answer for answer in answers if isinstance(answer, ToolConflictError)]
    assert len({answer.digest for answer in stored}) == 1
    assert len(stored) == len(refused) == 5


@pytest.mark.parametrize(
    ("version", "chosen"),
    [("", "1.10.0"), ("1.2.0", "1.2.0"), ("^1", "1.10.0"), ("^1.2", "1.10.0"), ("2.0.0-a", "2.0.0-a")],
)
async def test_a_tool_is_read_by_version_range_or_as_the_newest(register, ask, version, chosen):
    for one in ("1.2.0", "1.10.0", "2.0.0-a"):
        await register(version=one)
    assert (await ask("GetTool", name="docs.search", version=version)).version == chosen


@pytest.mark.parametrize("version", ["^2", "3.0.0", "stable", "^²", "^" + "9" * 5_000, "x" * 100_000])
async def test_a_version_that_is_not_there_is_not_found(register, ask, version):
    await register()
    with pytest.raises(ToolNotFoundError):
        await ask("GetTool", name="docs.search", version=version)


async def test_a_name_that_is_none_is_refused_and_an_unknown_one_not_found(ask):
    with pytest.raises(InvalidRequestError):
        await ask("GetTool", name="Docs/../x")
    with pytest.raises(ToolNotFoundError):
        await ask("GetTool", name="docs.search")


NAMES = ["add", "add.all", "add2", "add_up", "b"]


async def pages(ask, size, **filters):
    found, token = [], ""
    while True:
        page = await ask("ListTools", page_size=size, page_token=token, **filters)
        assert len(page.tools) <= size
        found.append([(one.name, one.version) for one in page.tools])
        token = page.next_page_token
        if not token:
            return found


@pytest.mark.parametrize("size", [1, 2, 3, 5, 200])
async def test_every_tool_is_on_exactly_one_page_in_the_order_of_names(register, ask, size):
    for name in reversed(NAMES):
        await register(name=name)
    found = await pages(ask, size)
    assert [name for page in found for name, _ in page] == NAMES
    assert len(found) == -(-len(NAMES) // size)


@pytest.mark.parametrize("size", [1, 2, 50])
async def test_all_versions_are_listed_oldest_first_when_they_are_asked_for(register, ask, size):
    for version in ("1.10.0", "1.9.0", "2.0.0-a"):
        await register(name="add", version=version)
    await register(name="add.all")
    assert [one for page in await pages(ask, size) for one in page] == [("add", "1.10.0"), ("add.all", "1.0.0")]
    assert [one for page in await pages(ask, size, all_versions=True) for one in page] == [
        ("add", "1.9.0"),
        ("add", "1.10.0"),
        ("add", "2.0.0-a"),
        ("add.all", "1.0.0"),
    ]


async def test_a_list_can_be_narrowed_to_a_prefix(register, ask):
    for name in NAMES:
        await register(name=name)
    assert await pages(ask, 2, name_prefix="add.") == [[("add.all", "1.0.0")]]
    assert await pages(ask, 2, name_prefix="zzz") == [[]]


@pytest.mark.parametrize("size", [-1, 201])
async def test_a_page_size_out_of_range_is_refused(ask, size):
    with pytest.raises(InvalidRequestError) as caught:
        await ask("ListTools", page_size=size)
    assert list(caught.value.fields) == ["page_size"]


async def test_selectors_are_resolved_in_their_order_with_the_hosts_that_serve_now(register, ask):
    await register(name="a", version="1.0.0")
    await register(name="a", version="1.1.0", endpoint="127.0.0.1:8")
    await register(name="b")
    answer = await ask("ResolveTools", selectors=["b", "a@^1", "a@1.0.0", "b"])
    assert [(one.name, one.version, one.endpoint) for one in answer.tools] == [
        ("b", "1.0.0", "127.0.0.1:7"),
        ("a", "1.1.0", "127.0.0.1:8"),
        ("a", "1.0.0", "127.0.0.1:7"),
        ("b", "1.0.0", "127.0.0.1:7"),
    ]
    assert answer.revision > 0
    assert not (await ask("ResolveTools")).tools


async def test_resolving_is_all_or_nothing(register, ask):
    await register(name="a")
    with pytest.raises(ToolNotFoundError, match="missing"):
        await ask("ResolveTools", selectors=["a", "missing"])
    with pytest.raises(ToolNotFoundError, match="a@\\^2"):
        await ask("ResolveTools", selectors=["a", "a@^2"])
    with pytest.raises(InvalidRequestError):
        await ask("ResolveTools", selectors=["a", "a@>1"])
    with pytest.raises(InvalidRequestError):
        await ask("ResolveTools", selectors=["a"] * 257)


async def test_a_tool_is_invoked_end_to_end(hosting, ask):
    await hosting(add)
    answer = await ask("InvokeTool", name="sums.add", arguments=arguments(a=1, b=2.5))
    assert (from_value(answer.result, "result"), answer.version, answer.replayed) == (3.5, "1.2.0", False)
    answer = await ask("InvokeTool", name="sums.add", version="^1", arguments=arguments(a=1, b=2))
    assert from_value(answer.result, "result") == 3


async def test_an_effect_needs_a_key_and_the_key_keeps_it_from_being_doubled(hosting, ask):
    await hosting(pay)
    with pytest.raises(InvalidRequestError) as caught:
        await ask("InvokeTool", name="bank.pay", arguments=arguments(amount=5))
    assert list(caught.value.fields) == ["idempotency_key"]
    with pytest.raises(InvalidRequestError):
        await ask("InvokeTool", name="bank.pay", arguments=arguments(amount=5), idempotency_key="a b")
    answers = await asyncio.gather(
        *(ask("InvokeTool", name="bank.pay", arguments=arguments(amount=5), idempotency_key="key-1") for _ in range(5))
    )
    assert sum(not answer.replayed for answer in answers) == 1
    assert {str(answer.result) for answer in answers} == {str(answers[0].result)}
    assert PAID == [5]
    with pytest.raises(InvalidRequestError):
        await ask("InvokeTool", name="bank.pay", arguments=arguments(amount=6), idempotency_key="key-1")
    await ask("InvokeTool", name="bank.pay", arguments=arguments(amount=5), idempotency_key="key-2")
    assert PAID == [5, 5]


@pytest.mark.parametrize("number", [2.0**53, -(2.0**60)])
async def test_an_argument_that_lost_digits_is_refused_with_its_pointer(hosting, ask, number):
    await hosting(add)
    with pytest.raises(InvalidRequestError) as caught:
        await ask("InvokeTool", name="sums.add", arguments=arguments(a=1, b=number))
    assert "/b" in caught.value.fields["arguments"]


async def test_arguments_that_do_not_fit_are_refused_with_every_pointer(hosting, ask):
    await hosting(add)
    with pytest.raises(InvalidRequestError) as caught:
        await ask("InvokeTool", name="sums.add", arguments=arguments(a="one", b=-1))
    assert set(caught.value.fields) == {"arguments/a", "arguments/b"}
    with pytest.raises(InvalidRequestError):
        await ask("InvokeTool", name="sums.add", arguments=arguments(**{"k" * 100_000: 1}))


async def test_a_tools_own_failure_is_told_as_itself(hosting, ask):
    await hosting(pay)
    with pytest.raises(ToolFailedError, match="not enough money"):
        await ask("InvokeTool", name="bank.pay", arguments=arguments(amount=5_000), idempotency_key="k")


async def test_large_integers_in_a_result_are_text(hosting, ask):
    await hosting(big)
    answer = await ask("InvokeTool", name="big")
    assert from_value(answer.result, "result") == [str(2**53), 7]


async def test_a_tool_without_its_host_is_unavailable(register, ask):
    await register(pb.Tool.FromString(add.contract("127.0.0.1:1").SerializeToString()))
    with pytest.raises(UnavailableError):
        await ask("InvokeTool", name="sums.add", arguments=arguments(a=1, b=2))


async def test_what_a_lost_host_leaves_behind_depends_on_the_effect(register, ask):
    for one in (add, pay):
        await register(pb.Tool.FromString(one.contract("127.0.0.1:1").SerializeToString()))
    with pytest.raises(UnavailableError, match="nothing was changed: call it again") as pure:
        await ask("InvokeTool", name="sums.add", arguments=arguments(a=1, b=2))
    with pytest.raises(UnavailableError, match="may have run: repeat it with the same idempotency_key") as effect:
        await ask("InvokeTool", name="bank.pay", arguments=arguments(amount=1), idempotency_key="k")
    assert (pure.value.metadata, effect.value.metadata) == ({}, {"idempotency_key": "k"})


async def test_scopes_are_asked_for_on_the_way_to_a_tool(hosting, ask, agent_call):
    @tool(name="bank.pay", effect="pure", required_scopes=["bank:pay"])
    def guarded() -> str:
        """Pays."""
        return "paid"

    await hosting(guarded)
    assert (await ask("InvokeTool", name="bank.pay")).result.string_value == "paid"  # the development principal
    with pytest.raises(MeshError, match="bank:pay") as caught:
        await agent_call(["bank.pay@1.0.0"], name="bank.pay")
    assert caught.value.reason == "SCOPE_MISSING"


@pytest.mark.parametrize("agent_id", ["", "researcher"])
def test_the_grant_of_a_call_from_outside_holds_one_tool_one_agent_and_the_callers_scopes(agent_id):
    caller = Caller("acme", "ann", scopes=frozenset({"mail", "docs"}))
    contract = pb.Tool(name="its.tool", version="1.0.0", agent_id=agent_id)
    contract.timeout.FromSeconds(20)
    grant = call_grant(caller, contract, "key-1")
    assert is_call(grant)
    assert (grant.tenant, grant.principal, grant.task_id) == ("acme", "ann", "call-key-1")
    assert (list(grant.tools), list(grant.scopes)) == (["its.tool@1.0.0"], ["docs", "mail"])
    assert list(grant.delegates) == ([agent_id] if agent_id else [])
    assert grant.deadline.seconds - time.time() == pytest.approx(20 + CLOCKS_S, abs=5)


async def test_a_tool_that_is_not_registered_is_not_found(ask):
    with pytest.raises(ToolNotFoundError):
        await ask("InvokeTool", name="nothing")
    with pytest.raises(InvalidRequestError):
        await ask("InvokeTool", name="No Thing")


@pytest.fixture
async def agent_call(registry):
    """Calls InvokeTool under a grant of an announced agent."""
    signer = Signer("payer-1")
    card = AgentCard(agent_id="payer", version="1.0.0", tools=["bank.pay@^1"])
    endpoint = Endpoint(instance_id="payer-1", target="127.0.0.1:7", public_key=signer.public_key)
    await channel.unary(registry.agents.AnnounceAgent, AnnounceAgentRequest(agent=card, endpoint=endpoint), timeout_s=5)

    async def call(tools, **fields):
        grant = Grant(tenant="t-1", principal="p-1", agent_id="payer", task_id="task", tools=tools)
        request = pb.InvokeToolRequest(**fields)
        return await channel.unary(registry.tools.InvokeTool, request, timeout_s=5, grant=signer.sign(grant))

    return call


async def test_an_agents_call_runs_under_its_own_grant(hosting, agent_call):
    await hosting(pay, add)
    fields = {"name": "bank.pay", "arguments": arguments(amount=1), "idempotency_key": "k"}
    answer = await agent_call(["bank.pay@1.0.0"], **fields)
    assert from_value(answer.result, "result") == ["t-1", "p-1"]
    with pytest.raises(PermissionDeniedError):
        await agent_call(["bank.pay@1.0.0"], name="sums.add", arguments=arguments(a=1, b=2))
    with pytest.raises(MeshError) as caught:
        await agent_call(["bank.pay@1.0.0", "sums.add@1.2.0"], name="sums.add", arguments=arguments(a=1, b=2))
    assert caught.value.reason == "GRANT_INVALID"


async def test_a_forged_grant_opens_nothing(hosting, registry):
    await hosting(add)
    token = Signer("nobody").sign(Grant(agent_id="payer", tools=["sums.add@1.2.0"]))
    request = pb.InvokeToolRequest(name="sums.add", arguments=arguments(a=1, b=2))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await registry.tools.InvokeTool(request, metadata=[(METADATA_KEY, token)])
    assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED
    assert not from_value(struct_pb2.Value(), "")


async def test_a_tool_says_when_a_person_is_asked(registry):
    @tool(name="bank.transfer", approval="when_tainted")
    def transfer() -> str:
        """Transfers."""
        return "done"

    registered = await registry.client.register(transfer.contract("127.0.0.1:7"))
    assert registered.approval == pb.APPROVAL_RULE_WHEN_TAINTED
    (resolved,) = await registry.client.resolve(["bank.transfer@^1"])
    assert resolved.approval == pb.APPROVAL_RULE_WHEN_TAINTED


async def test_a_store_that_was_emptied_learns_of_tools_again(register, ask, store):
    await register()
    await store.client.flushall()
    await store.client.function_flush()
    with pytest.raises(ToolNotFoundError):
        await ask("GetTool", name="docs.search")
    assert not (await ask("ListTools")).tools
    await register()
    assert (await ask("GetTool", name="docs.search")).version == "1.0.0"
