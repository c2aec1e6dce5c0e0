"""Authority: the host itself refuses what a grant does not cover and what no person has allowed."""

import asyncio
import time

import pytest

from meshwright.core.audit import AuditReader
from meshwright.core.canonical import digest
from meshwright.core.errors import (
    ApprovalRequiredError,
    GrantInvalidError,
    InvalidRequestError,
    PermissionDeniedError,
    ScopeMissingError,
    TaskTimeoutError,
)
from meshwright.core.grant import approval_of
from meshwright.gen.agents.v1.grant_pb2 import Grant
from meshwright.registry import tool
from meshwright.registry.host import ToolHost
from meshwright.registry.store import Ledger

RUNS = []


@pytest.fixture(autouse=True)
def _no_runs_before():
    RUNS.clear()


def made(rule, effect):
    @tool(name=f"{rule}.{effect}", effect=effect, approval=rule)
    async def act(n: int = 0) -> int:
        """Acts."""
        RUNS.append(n)
        return n

    return act


TOOLS = [made(rule, effect) for rule in ("never", "when_tainted", "always") for effect in ("pure", "non_idempotent")]
PINS = [f"{one.name}@1.0.0" for one in TOOLS]


def grant(**changes):
    fields = {"tenant": "t", "principal": "p", "agent_id": "a", "task_id": "task", "tools": PINS}
    return Grant(**(fields | changes))


@pytest.fixture
def host(store):
    return ToolHost(TOOLS, Ledger(store))


async def both_ways(host, given, pin, n=1, key="k"):
    """Calls over the wire's way and over that of the same process."""
    intent = intent_of(pin, n)
    results = await asyncio.gather(
        host.invoke(given, pin, f'{{"n": {n}}}', f"{key}-1"),
        host.call(given, pin, {"n": n}, f"{key}-2", intent),
        return_exceptions=True,
    )
    return [one if isinstance(one, Exception) else one.result_json for one in results]


def intent_of(pin, n=1):
    name, _, version = pin.partition("@")
    return digest([name, version, {"n": n}])


def approvals(pin, *keys):
    """What a grant holds once a person has allowed the calls with these keys."""
    return [approval_of(key, intent_of(pin)) for key in keys]


@pytest.mark.parametrize("effect", ["pure", "non_idempotent"])
@pytest.mark.parametrize(
    ("rule", "tainted", "is_asked"),
    [
        ("never", False, False),
        ("never", True, False),
        ("when_tainted", False, False),
        ("when_tainted", True, True),
        ("always", False, True),
        ("always", True, True),
    ],
)
async def test_what_a_person_has_to_allow_is_refused_without_that(host, rule, tainted, is_asked, effect):
    pin = f"{rule}.{effect}@1.0.0"
    results = await both_ways(host, grant(tainted=tainted), pin)
    if not is_asked:
        assert results == ["1", "1"]
        return
    assert all(isinstance(one, ApprovalRequiredError) for one in results)
    assert {one.metadata["intent_digest"] for one in results} == {intent_of(pin)}
    assert RUNS == []
    allowed = grant(tainted=tainted, approved=[approval_of("again-1", "0" * 64), *approvals(pin, "again-1", "again-2")])
    assert await both_ways(host, allowed, pin, key="again") == ["1", "1"]


@pytest.mark.parametrize("effect", ["pure", "non_idempotent"])
async def test_another_call_than_the_allowed_one_is_refused(host, effect):
    pin = f"always.{effect}@1.0.0"
    for other in (intent_of(pin, 2), intent_of(f"never.{effect}@1.0.0"), ""):
        allowed = [other, approval_of("k-1", other), approval_of("k-2", other)]
        results = await both_ways(host, grant(approved=allowed), pin)
        assert all(isinstance(one, ApprovalRequiredError) for one in results)
    assert RUNS == []


@pytest.mark.parametrize("effect", ["pure", "non_idempotent"])
async def test_the_same_call_planned_twice_is_to_be_allowed_twice(host, effect):
    pin = f"always.{effect}@1.0.0"
    once = grant(approved=[*approvals(pin, "k"), intent_of(pin)])
    assert (await host.invoke(once, pin, '{"n": 1}', "k")).result_json == "1"
    for key in ("l", ""):
        with pytest.raises((ApprovalRequiredError, InvalidRequestError)):
            await host.invoke(once, pin, '{"n": 1}', key)
    assert RUNS == [1]


async def test_an_allowed_call_runs_once_a_key(host):
    pin = "always.non_idempotent@1.0.0"
    allowed = grant(approved=approvals(pin, "k"))
    outcomes = await asyncio.gather(*(host.invoke(allowed, pin, '{"n": 1}', "k") for _ in range(5)))
    outcomes.append(await host.invoke(allowed, pin, '{"n": 1}', "k"))
    assert [one.replayed for one in outcomes].count(False) == 1
    assert RUNS == [1]


async def test_a_digest_does_not_stand_for_other_arguments_in_the_same_process(host):
    pin = "always.non_idempotent@1.0.0"
    with pytest.raises(InvalidRequestError) as caught:
        await host.call(grant(approved=approvals(pin, "k")), pin, {"n": 9}, "k", intent_of(pin))
    assert list(caught.value.fields) == ["intent_digest"]
    assert RUNS == []


async def test_a_call_from_outside_of_any_task_is_no_proof_that_a_person_was_asked(host):
    outside = grant(agent_id="registry", task_id="call-1")
    assert await both_ways(host, outside, "when_tainted.non_idempotent@1.0.0") == ["1", "1"]
    results = await both_ways(host, outside, "always.non_idempotent@1.0.0")
    assert all(isinstance(one, ApprovalRequiredError) for one in results)


async def test_a_call_in_the_same_process_is_held_against_the_schema_too(host):
    with pytest.raises(InvalidRequestError) as caught:
        await host.call(grant(), "never.pure@1.0.0", {"n": "one"}, "k", "0" * 64)
    assert list(caught.value.fields) == ["arguments/n"]
    assert RUNS == []


async def test_nothing_is_begun_when_the_task_is_out_of_time(host):
    late, early = grant(), grant()
    late.deadline.FromMilliseconds(int(time.time() * 1000) - 1)
    early.deadline.FromMilliseconds(int(time.time() * 1000) + 60_000)
    results = await both_ways(host, late, "never.pure@1.0.0")
    assert all(isinstance(one, TaskTimeoutError) for one in results)
    assert RUNS == []
    assert await both_ways(host, early, "never.pure@1.0.0") == ["1", "1"]


async def test_a_grant_of_another_task_is_refused(host):
    with pytest.raises(GrantInvalidError):
        await host.invoke(grant(), "never.pure@1.0.0", "{}", "k", task_id="other")
    assert RUNS == []
    assert (await host.invoke(grant(), "never.pure@1.0.0", "{}", "k", task_id="task")).result_json == "0"


async def test_authority_is_asked_for_before_anything_is_read(host):
    for given in (grant(tools=[]), grant(tools=["never.pure@1.0.1"])):
        with pytest.raises(PermissionDeniedError):
            await host.invoke(given, "never.pure@1.0.0", "no json", "no key")


@tool(name="mail.send", effect="non_idempotent", required_scopes=["mail:send", "people.read"])
async def send(n: int) -> int:
    """Sends."""
    RUNS.append(n)
    return n


class TestScopes:
    PIN = "mail.send@1.0.0"

    @pytest.fixture
    def mail(self, store):
        return ToolHost([send], Ledger(store))

    @pytest.mark.parametrize(
        ("held", "lacking"),
        [
            ([], "mail:send people.read"),
            (["mail:send"], "people.read"),
            (["mail:read", "people.", "mail:send:all"], "mail:send"),
            (["people"], "mail:send people.read"),
            (["mail:send", "people.read"], ""),
            (["mail", "people."], ""),
            (["*"], ""),
        ],
    )
    async def test_a_caller_needs_every_scope_and_is_told_which_are_missing(self, mail, held, lacking):
        given = grant(tools=[self.PIN], scopes=held)
        results = await both_ways(mail, given, self.PIN)
        if not lacking:
            assert results == ["1", "1"]
            return
        assert all(isinstance(one, ScopeMissingError) for one in results)
        assert {one.metadata["scopes"] for one in results} == {lacking}
        assert all(scope in str(results[0]) for scope in lacking.split())
        assert RUNS == []

    async def test_a_refusal_stands_in_the_audit(self, mail, store):
        with pytest.raises(ScopeMissingError):
            await mail.invoke(grant(tools=[self.PIN]), self.PIN, "no json is read before", "k")
        (line,) = await AuditReader(store).read("t")
        assert (line.event, line.outcome) == ("tool_refused", "SCOPE_MISSING")
        assert (line.facts["tool"], line.facts["key"]) == (self.PIN, "k")

    async def test_a_tool_that_needs_none_is_open_to_all_that_the_grant_names(self, host):
        assert await both_ways(host, grant(scopes=[]), "never.pure@1.0.0") == ["1", "1"]
