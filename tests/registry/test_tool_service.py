"""ToolService over real gRPC: only under a grant, with the chain of checks behind it."""

import asyncio
import json
import time

import pytest

from meshwright.core import channel
from meshwright.core.audit import AuditReader
from meshwright.core.breaker import FEWEST_CALLS
from meshwright.core.canonical import digest
from meshwright.core.errors import (
    GrantInvalidError,
    InvalidRequestError,
    MeshError,
    PermissionDeniedError,
    ToolCircuitOpenError,
    ToolNotFoundError,
)
from meshwright.core.grant import Signer
from meshwright.gen.agents.v1.grant_pb2 import Grant, SignedGrant
from meshwright.gen.registry.v1.agent_directory_service_pb2 import AgentCard, Endpoint
from meshwright.gen.tools.v1.tool_service_pb2 import (
    INVOCATION_STATE_DONE,
    INVOCATION_STATE_NOT_SEEN,
    GetOutcomeRequest,
    InvokeRequest,
)
from meshwright.registry import current_invocation, tool


@tool(effect="idempotent")
def double(n: int) -> int:
    """Doubles."""
    if n < 0:
        raise ValueError("negative")
    return 2 * n


ENDED = asyncio.Event()


@tool(effect="pure")
async def walk() -> int:
    """Walks three steps without a pause."""
    call = current_invocation()
    for step in range(3):
        call.progress((step + 1) / 3, f"step {step}")
        await asyncio.sleep(0)
    return 3


@tool(effect="pure")
async def linger() -> None:
    """Begins, and stays."""
    current_invocation().progress(0, "begun")
    try:
        await asyncio.sleep(30)
    finally:
        ENDED.set()


@tool(effect="idempotent")
async def crash() -> None:
    """Fails."""
    raise RuntimeError("no backend")


@pytest.fixture
async def invoke(registry, hosting):
    """Invokes `double` under a grant of an announced agent; `invoke.outcome` asks what became of a key."""
    signer = Signer("adder-1")
    card = AgentCard(agent_id="adder", version="1.0.0", tools=["double@^1", "other", "walk", "linger", "crash"])
    endpoint = Endpoint(instance_id="adder-1", target="127.0.0.1:7", public_key=signer.public_key)
    await registry.client.announce(card, endpoint)
    served = await hosting(double, walk, linger, crash)

    def stream(arguments=None, *, tools=("double@1.0.0",), is_granted=True, agent="adder", token=None, **fields):
        grant = Grant(tenant="t", principal="p", agent_id=agent, task_id="task", tools=tools)
        text = json.dumps(arguments if arguments is not None else {"n": 2})
        chosen = {"tool": "double", "version": "1.0.0", "arguments_json": text, "idempotency_key": "k"} | fields
        if token is None and is_granted:
            token = signer.sign(grant)
        return channel.stream(served.tools.Invoke, InvokeRequest(**chosen), timeout_s=5, grant=token)

    async def invoke_(*arguments, **fields):
        return [response async for response in stream(*arguments, **fields)]

    async def outcome(key, *, is_granted=True, task_id="task"):
        grant = Grant(tenant="t", principal="p", agent_id="adder", task_id=task_id)
        token = signer.sign(grant) if is_granted else None
        request = GetOutcomeRequest(idempotency_key=key)
        return await channel.unary(served.tools.GetOutcome, request, timeout_s=5, grant=token)

    invoke_.outcome, invoke_.stream, invoke_.signer = outcome, stream, signer
    return invoke_


async def test_the_last_message_is_the_outcome(invoke):
    (response,) = await invoke()
    assert json.loads(response.outcome.result_json) == 4
    (again,) = await invoke()
    assert again.outcome.replayed


async def test_integers_keep_their_digits_inside_of_the_mesh(invoke):
    (response,) = await invoke({"n": 2**70 + 1})
    assert json.loads(response.outcome.result_json) == 2**71 + 2


async def test_a_call_without_a_grant_is_refused(invoke):
    with pytest.raises(GrantInvalidError):
        await invoke(is_granted=False)


async def test_a_grant_for_another_agent_or_beyond_the_agents_list_is_refused(invoke):
    with pytest.raises(GrantInvalidError):
        await invoke(agent="banker")
    with pytest.raises(GrantInvalidError):
        await invoke(tools=["double@1.0.0", "bank.pay@1.0.0"])


async def test_a_tool_that_the_grant_does_not_name_is_denied(invoke):
    with pytest.raises(PermissionDeniedError):
        await invoke(tools=["other@1.0.0"])
    with pytest.raises(PermissionDeniedError):
        await invoke(tools=[])


async def test_an_instance_that_was_withdrawn_cannot_call_a_host_that_has_not_seen_it(registry, hosting, invoke):
    await registry.client.withdraw("adder", "adder-1")
    with pytest.raises(GrantInvalidError):
        await invoke()


async def test_only_the_exact_version_is_served(invoke):
    for version in ("", "^1", "2.0.0"):
        with pytest.raises(ToolNotFoundError):
            await invoke(version=version)


async def test_arguments_and_key_are_checked(invoke):
    with pytest.raises(InvalidRequestError) as caught:
        await invoke({"n": "two"})
    assert list(caught.value.fields) == ["arguments/n"]
    with pytest.raises(InvalidRequestError):
        await invoke(idempotency_key="")


async def test_a_tools_failure_is_in_the_outcome_not_in_the_status(invoke):
    (response,) = await invoke({"n": -1})
    assert MeshError.from_status(response.outcome.error).message == "double: ValueError: negative"


async def test_a_call_that_is_not_the_journaled_one_is_refused(invoke):
    with pytest.raises(InvalidRequestError) as caught:
        await invoke({"n": 2}, intent_digest=digest(["double", "1.0.0", {"n": 3}]))
    assert list(caught.value.fields) == ["intent_digest"]
    (response,) = await invoke({"n": 2}, intent_digest=digest(["double", "1.0.0", {"n": 2}]))
    assert not response.outcome.replayed


async def test_what_became_of_a_key_is_told_under_the_grant_of_its_task(invoke):
    asked = await invoke.outcome("k")
    assert (asked.state, asked.HasField("outcome")) == (INVOCATION_STATE_NOT_SEEN, False)
    await invoke()
    asked = await invoke.outcome("k")
    assert (asked.state, json.loads(asked.outcome.result_json)) == (INVOCATION_STATE_DONE, 4)
    assert asked.outcome.replayed
    assert (await invoke.outcome("k", task_id="other")).state == INVOCATION_STATE_NOT_SEEN
    with pytest.raises(GrantInvalidError):
        await invoke.outcome("k", is_granted=False)
    with pytest.raises(InvalidRequestError) as caught:
        await invoke.outcome("no key")
    assert list(caught.value.fields) == ["idempotency_key"]


async def test_a_token_that_has_expired_or_was_changed_or_signed_by_another_is_refused(invoke):
    expired = Grant(tenant="t", principal="p", agent_id="adder", task_id="task", tools=["double@1.0.0"])
    expired.expire_time.FromSeconds(int(time.time()) - 1)
    token = invoke.signer.sign(expired)
    with pytest.raises(GrantInvalidError):
        await invoke(token=token)
    good = invoke.signer.sign(Grant(agent_id="adder", task_id="task", tools=["double@1.0.0"]))
    wider = SignedGrant.FromString(good)
    wider.grant = Grant(agent_id="adder", task_id="other", tools=["double@1.0.0"]).SerializeToString()
    for forged in (wider.SerializeToString(), Signer("adder-1").sign(expired), b"", b"\xff" * 50, good[:-1]):
        with pytest.raises(GrantInvalidError):
            await invoke(token=forged)
    assert (await invoke())[-1].HasField("outcome")


async def test_a_token_of_another_task_is_refused_and_audited(invoke, store):
    with pytest.raises(GrantInvalidError):
        await invoke(task_id="other")
    (response,) = await invoke(task_id="task")
    assert not response.outcome.replayed
    with pytest.raises(PermissionDeniedError):
        await invoke(tools=["other@1.0.0"])
    lines = await AuditReader(store).read("t")
    told = [(one.event, one.outcome) for one in lines]
    assert told == [
        ("tool_refused", "GRANT_INVALID"),
        ("tool_begun", ""),
        ("tool_settled", "ok"),
        ("tool_refused", "PERMISSION_DENIED"),
    ]
    assert {(one.facts["agent"], one.about) for one in lines} == {("adder", "p/task")}


async def test_progress_comes_before_the_outcome(invoke):
    *reports, last = await invoke(tool="walk", tools=["walk@1.0.0"], arguments={})
    assert last.outcome.result_json == "3"
    assert [one.progress.message for one in reports] == ["step 0", "step 2"]
    assert reports[-1].progress.fraction == 1


async def test_a_caller_that_leaves_between_two_reports_ends_a_pure_call(invoke):
    ENDED.clear()
    stream = invoke.stream(tool="linger", tools=["linger@1.0.0"], arguments={})
    assert (await anext(stream)).progress.message == "begun"
    await stream.aclose()
    async with asyncio.timeout(5):
        await ENDED.wait()


async def test_an_open_circuit_is_told_with_the_time_to_wait(invoke):
    crash = {"tool": "crash", "tools": ["crash@1.0.0"], "arguments": {}}
    for n in range(FEWEST_CALLS):
        (response,) = await invoke(**crash, idempotency_key=f"k{n}")
        assert response.outcome.HasField("error")
    with pytest.raises(ToolCircuitOpenError) as caught:
        await invoke(**crash, idempotency_key="more")
    assert caught.value.retry_after_s > 0
