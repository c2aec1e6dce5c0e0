"""The audit: a line for what was begun, for what came of it, and for what was refused."""

import asyncio

import pytest
import structlog

from meshwright.core.audit import AuditReader, line_of
from meshwright.core.audit_chain import AuditLine
from meshwright.core.canonical import digest
from meshwright.core.errors import (
    ApprovalRequiredError,
    GrantInvalidError,
    InvalidRequestError,
    MeshError,
    OutcomeUnknownError,
    PermissionDeniedError,
    TaskTimeoutError,
)
from meshwright.core.store import Store
from meshwright.gen.agents.v1.grant_pb2 import Grant
from meshwright.registry import tool
from meshwright.registry.host import ToolHost
from meshwright.registry.store import LIBRARY, Ledger


@tool(effect="pure")
async def look(n: int = 0) -> int:
    """Reads."""
    return n


@tool(effect="idempotent")
async def put(n: int = 0) -> int:
    """Writes."""
    return n


@tool(effect="non_idempotent", timeout_s=1)
async def pay(n: int = 0) -> int:
    """Pays."""
    if n < 0:
        raise ValueError("negative")
    return n


@tool(effect="pure", approval="always")
async def guarded() -> int:
    """Waits for a person."""
    return 1


TOOLS = [look, put, pay, guarded]
PINS = [f"{one.name}@1.0.0" for one in TOOLS]


def grant(**changes):
    fields = {"tenant": "t", "principal": "p", "agent_id": "a", "task_id": "task", "tools": PINS}
    return Grant(**(fields | changes))


@pytest.fixture
def host(store):
    return ToolHost(TOOLS, Ledger(store))


@pytest.fixture
def lines(store):
    async def read(tenant="t") -> list[AuditLine]:
        return await AuditReader(store).read(tenant)

    return read


async def test_a_call_with_effects_leaves_a_line_when_it_begins_and_one_when_it_is_settled(host, lines, store):
    (before,) = await store.run(("TIME",))
    await host.invoke(grant(), "pay@1.0.0", '{"n": 4711}', "key-1")
    (after,) = await store.run(("TIME",))
    begun, settled = await lines()
    assert (begun.tenant, begun.about) == ("t", "p/task")
    assert begun.facts == {
        "by": "p",
        "agent": "a",
        "tool": "pay@1.0.0",
        "effect": "non_idempotent",
        "intent": digest(["pay", "1.0.0", {"n": 4711}]),
        "key": "key-1",
    }
    assert (begun.event, begun.outcome) == ("tool_begun", "")
    assert (settled.event, settled.outcome) == ("tool_settled", "ok")
    assert settled.facts == begun.facts
    assert int(before[0]) * 1000 <= begun.time_ms <= settled.time_ms <= int(after[0]) * 1000 + 1000
    assert "4711" not in str(await store.run(("LRANGE", "mw:{0}:audit:t:lines", 0, -1)))


async def test_a_failure_is_named_by_its_reason(host, lines):
    await host.invoke(grant(), "pay@1.0.0", '{"n": -1}', "k")
    assert [one.outcome for one in await lines()] == ["", "TOOL_FAILED"]


async def test_what_is_answered_from_the_ledger_leaves_no_further_line(host, lines):
    for _ in range(3):
        await host.invoke(grant(), "pay@1.0.0", "{}", "k")
    await asyncio.gather(*(host.invoke(grant(), "put@1.0.0", "{}", "k2") for _ in range(5)))
    assert [one.event for one in await lines()] == ["tool_begun", "tool_settled"] * 2


async def test_a_call_whose_host_was_lost_has_only_begun(host, lines, store):
    intent = digest(["pay", "1.0.0", {}])
    holder = ("t", "p", "task")
    fields = {
        "intent": intent,
        "may_rerun": False,
        "fence": 0,
        "token": "lost",
        "line": line_of("p", tool="pay@1.0.0"),
    }
    for _ in range(2):  # the second is a repetition after a lost reply
        assert (await Ledger(store).begin(holder, "k", timeout_s=-5, **fields))[0] == "run"
    with pytest.raises(OutcomeUnknownError):
        await host.invoke(grant(), "pay@1.0.0", "{}", "k")
    assert [one.event for one in await lines()] == ["tool_begun"]


@pytest.mark.parametrize(
    ("changes", "pin", "task_id", "error"),
    [
        ({"tools": []}, "pay@1.0.0", "", PermissionDeniedError),
        ({"tools": ["pay@2.0.0"]}, "look@1.0.0", "", PermissionDeniedError),
        ({}, "pay@1.0.0", "other", GrantInvalidError),
        ({"deadline": {"seconds": 1}}, "put@1.0.0", "", TaskTimeoutError),
        ({}, "guarded@1.0.0", "", ApprovalRequiredError),
    ],
)
async def test_a_call_that_is_refused_for_authority_leaves_a_line(host, lines, changes, pin, task_id, error):
    with pytest.raises(error):
        await host.invoke(grant(**changes), pin, "{}", "k", task_id=task_id)
    (line,) = await lines()
    assert (line.event, line.outcome, line.about) == ("tool_refused", error.reason, "p/task")
    assert (line.facts["by"], line.facts["agent"], line.facts["tool"], line.facts["key"]) == ("p", "a", pin, "k")


async def test_a_call_in_the_same_process_is_refused_and_audited_alike(host, lines):
    with pytest.raises(PermissionDeniedError):
        await host.call(grant(tools=[]), "pay@1.0.0", {}, "k", digest(["pay", "1.0.0", {}]))
    assert [one.outcome for one in await lines()] == ["PERMISSION_DENIED"]


async def test_what_was_wrong_in_itself_leaves_no_line(host, lines):
    for arguments, key in (("[]", "k"), ('{"n": "x"}', "k"), ("{}", "no key")):
        with pytest.raises(InvalidRequestError):
            await host.invoke(grant(), "pay@1.0.0", arguments, key)
    assert await lines() == []


async def test_what_a_refused_caller_claims_is_written_as_far_as_it_fits(host, lines):
    hostile = "\ud800" + "x" * 100_000
    with pytest.raises(PermissionDeniedError):
        await host.invoke(grant(tools=[]), "pay@1.0.0", "{}", hostile, "not a digest")
    (line,) = await lines()
    assert len(line.facts["key"]) <= 256
    assert "intent" not in line.facts


async def test_a_pure_call_leaves_a_line_in_the_log_alone(host, lines):
    with structlog.testing.capture_logs() as entries:
        await host.invoke(grant(), "look@1.0.0", '{"n": 4711}', "k")
    (entry,) = [one for one in entries if one["event"] == "tool_called"]
    assert (entry["tool"], entry["tenant"], entry["principal"], entry["agent"]) == ("look@1.0.0", "t", "p", "a")
    assert (entry["task_id"], entry["outcome"]) == ("task", "ok")
    assert entry["intent"] == digest(["look", "1.0.0", {"n": 4711}])
    assert "4711" not in str({**entry, "intent": ""})
    assert await lines() == []


async def test_tenants_are_kept_apart(host, lines):
    for tenant in ("t", "u", "t/p", "t:p"):
        await host.invoke(grant(tenant=tenant), "put@1.0.0", "{}", f"k-{len(tenant)}")
    for tenant in ("t", "u", "t/p", "t:p"):
        assert {one.named_tenant for one in await lines(tenant)} == {tenant}
        assert len(await lines(tenant)) == 2


async def test_the_partitions_of_an_audit_are_read_as_one(store, lines):
    store.partitions = 4
    host = ToolHost(TOOLS, Ledger(store))
    for n in range(20):
        await host.invoke(grant(task_id=f"task-{n}"), "put@1.0.0", "{}", "k")
    whole = await lines()
    assert len(whole) == 40
    assert len({one.partition for one in whole}) > 1
    assert [one.time_ms for one in whole] == sorted(one.time_ms for one in whole)


async def test_a_refusal_stands_where_the_store_cannot_be_told(run_valkey, tmp_path):
    own = run_valkey(tmp_path)
    store = Store(own.url, LIBRARY, timeout_s=0.5)
    await store.open()
    host = ToolHost(TOOLS, Ledger(store))
    own.kill()
    with structlog.testing.capture_logs() as entries, pytest.raises(PermissionDeniedError):
        await host.invoke(grant(tools=[]), "pay@1.0.0", "{}", "k")
    (lost,) = [one for one in entries if one["event"] == "audit_line_lost"]
    assert '"by":"p"' in lost["line"]
    await store.close()


async def test_a_full_store_takes_lines_of_calls_but_none_of_refusals(run_valkey, tmp_path):
    store = Store(run_valkey(tmp_path).url, LIBRARY)
    await store.open()
    await store.client.config_set("maxmemory", "1")
    host = ToolHost(TOOLS, Ledger(store))
    assert not (await host.invoke(grant(), "pay@1.0.0", "{}", "k")).HasField("error")
    with pytest.raises(PermissionDeniedError):
        await host.invoke(grant(tools=[]), "pay@1.0.0", "{}", "k")
    assert [one.event for one in await AuditReader(store).read("t")] == ["tool_begun", "tool_settled"]
    with pytest.raises(MeshError):
        await store.run(("SET", "more", "x"))
    await store.close()


async def test_changes_of_the_catalog_are_told_once_with_who_wanted_them(ask, register, store):
    for _ in range(2):
        made = await register(version="1.0.0")
        await ask("SetAlias", name="docs.search", alias="stable", version="1.0.0")
        await ask("DeprecateTool", name="docs.search", version="1.0.0", sunset_time={"seconds": 4_000_000_000})
    lines = await AuditReader(store).read("default")
    pin = "docs.search@1.0.0"
    assert [(one.partition, one.event, one.about) for one in lines] == [
        ("mesh", "tool_registered", pin),
        ("mesh", "tool_alias_set", pin),
        ("mesh", "tool_deprecated", pin),
    ]
    assert [one.facts for one in lines] == [
        {"by": "default", "digest": made.digest},
        {"by": "default", "alias": "stable"},
        {"by": "default", "sunset_ms": 4_000_000_000_000},
    ]
