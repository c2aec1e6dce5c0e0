"""Versions of a tool over real gRPC: what may follow what, aliases, deprecations, pages, who may write."""

import asyncio
import json

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from meshwright.core import channel
from meshwright.core.errors import (
    IncompatibleContractError,
    InvalidRequestError,
    PermissionDeniedError,
    ToolConflictError,
    ToolNotFoundError,
)
from meshwright.core.grant import Signer
from meshwright.gen.agents.v1.grant_pb2 import Grant
from meshwright.gen.registry.v1 import tool_registry_service_pb2 as pb
from meshwright.gen.registry.v1.agent_directory_service_pb2 import AgentCard, Endpoint

TEXT, NUMBER = {"type": "string"}, {"type": "number"}
SUNSET = Timestamp(seconds=1_900_000_000)


async def test_a_tool_grows_within_a_major_and_breaks_only_with_a_new_one(register, ask, contract):
    await register(version="1.0.0", properties={"q": TEXT})
    wider = await ask("RegisterTool", tool=contract(version="1.1.0", properties={"q": TEXT, "limit": NUMBER}))
    assert wider.changes
    assert not any(change.breaking for change in wider.changes)
    broken = contract(version="1.2.0", properties={"q": NUMBER, "limit": NUMBER})
    with pytest.raises(IncompatibleContractError, match=r"docs\.search@1\.2\.0 breaks with 1\.1\.0") as caught:
        await ask("RegisterTool", tool=broken)
    ((pointer, said),) = caught.value.fields.items()
    assert pointer == "/input_schema/properties/q/type"
    assert said.partition(":")[0] == "TYPE_NARROWED"
    assert caught.value.metadata["against"] == "1.1.0"
    with pytest.raises(ToolNotFoundError):
        await ask("GetTool", name="docs.search", version="1.2.0")
    broken.version = "2.0.0"
    assert not (await ask("RegisterTool", tool=broken)).changes
    found = await ask("ResolveTools", selectors=["docs.search@^1", "docs.search"])
    assert [tool.version for tool in found.tools] == ["1.1.0", "2.0.0"]


async def test_a_dry_run_says_what_registering_would(register, ask, contract):
    await register(version="1.0.0", properties={"q": TEXT})
    wider = contract(version="1.1.0", properties={"q": TEXT, "limit": NUMBER})
    told = await ask("RegisterTool", tool=wider, validate_only=True)
    with pytest.raises(IncompatibleContractError):
        await register(version="1.1.0", properties={"q": NUMBER}, validate_only=True)
    stored = await ask("RegisterTool", tool=wider)
    again = await ask("RegisterTool", tool=wider)
    assert list(told.changes) == list(stored.changes) == list(again.changes)
    assert (await ask("ListTools", all_versions=True)).tools[1].version == "1.1.0"


async def test_before_the_first_major_a_new_minor_may_break(register):
    await register(version="0.1.0", properties={"q": TEXT})
    with pytest.raises(IncompatibleContractError):
        await register(version="0.1.1", properties={"q": NUMBER})
    await register(version="0.2.0", properties={"q": NUMBER})


async def test_a_version_in_between_is_held_against_both_neighbours(register):
    await register(version="1.0.0", properties={"q": TEXT})
    await register(version="1.2.0", properties={"q": TEXT, "limit": NUMBER})
    with pytest.raises(IncompatibleContractError, match=r"1\.1\.0 breaks with 1\.2\.0") as caught:
        await register(version="1.1.0", properties={"q": TEXT, "limit": TEXT})
    assert list(caught.value.fields) == ["/input_schema/properties/limit/type"]
    await register(version="1.1.0", properties={"q": TEXT})


async def test_a_prerelease_may_break_and_binds_nobody(register, ask, contract):
    await register(version="1.0.0", properties={"q": TEXT})
    await register(version="1.1.0-rc.1", properties={"q": TEXT, "limit": NUMBER})
    await register(version="1.1.0", properties={"q": TEXT, "limit": TEXT})
    breaking = contract(version="1.2.0-rc.1", properties={"q": TEXT, "limit": NUMBER})
    told = (await ask("RegisterTool", tool=breaking)).changes
    assert [change.pointer for change in told if change.breaking] == ["/input_schema/properties/limit/type"]
    with pytest.raises(IncompatibleContractError):
        await register(version="1.2.0", properties={"q": TEXT, "limit": NUMBER})


async def test_builds_of_one_version_are_held_against_each_other(register):
    await register(version="1.0.0+a", properties={"q": TEXT})
    with pytest.raises(IncompatibleContractError):
        await register(version="1.0.0+b", properties={"q": NUMBER})


async def test_two_versions_that_come_at_once_do_not_slip_past_each_other(register):
    kinds = [TEXT, NUMBER, {"type": "boolean"}, {"type": "array"}]
    for major in range(1, 6):
        await register(version=f"{major}.0.0", properties={"q": TEXT})
        answers = await asyncio.gather(
            *(
                register(version=f"{major}.{minor}.0", properties={"q": TEXT, "limit": kind})
                for minor, kind in enumerate(kinds, start=1)
            ),
            return_exceptions=True,
        )
        assert sum(isinstance(answer, pb.Tool) for answer in answers) == 1
        assert sum(isinstance(answer, IncompatibleContractError) for answer in answers) == len(kinds) - 1


async def test_many_versions_that_come_at_once_are_all_stored(register, ask):
    await asyncio.gather(*(register(version=f"1.{minor}.0") for minor in range(30)))
    found = (await ask("ListTools", all_versions=True, page_size=200)).tools
    assert [tool.version for tool in found] == [f"1.{minor}.0" for minor in range(30)]


async def test_fifty_registrations_of_one_version_store_one_contract(register, ask):
    answers = await asyncio.gather(
        *(register(description=f"Searches {number % 2}.", endpoint="127.0.0.1:7") for number in range(50)),
        return_exceptions=True,
    )
    stored = [answer for answer in answers if isinstance(answer, pb.Tool)]
    assert len({(tool.digest, tool.create_time.ToNanoseconds()) for tool in stored}) == 1
    assert len(stored) == sum(isinstance(answer, ToolConflictError) for answer in answers) == 25
    assert list((await ask("ListTools", all_versions=True)).tools) == [stored[0]]


async def test_a_candidate_is_compared_and_nothing_is_stored(register, ask, contract):
    for version, properties in (("1.0.0", {"q": TEXT}), ("1.1.0", {"q": TEXT, "n": NUMBER}), ("2.0.0", {})):
        await register(version=version, properties=properties)
    candidate = contract(version="1.2.0", endpoint="", properties={"q": TEXT, "n": TEXT})
    answer = await ask("CheckCompatibility", candidate=candidate)
    assert not answer.compatible
    assert [change.pointer for change in answer.changes if change.breaking] == ["/input_schema/properties/n/type"]
    assert (await ask("CheckCompatibility", candidate=candidate, against="1.0.0")).compatible
    assert not (await ask("CheckCompatibility", candidate=candidate, against="^1")).compatible
    candidate.version = "3.0.0"
    for against in ("", "1.5.0"):
        with pytest.raises(ToolNotFoundError):
            await ask("CheckCompatibility", candidate=candidate, against=against)
    candidate.description = ""
    with pytest.raises(InvalidRequestError) as caught:
        await ask("CheckCompatibility", candidate=candidate)
    assert list(caught.value.fields) == ["candidate.description"]
    assert len((await ask("ListTools", all_versions=True)).tools) == 3


async def test_an_alias_is_read_wherever_a_version_is(register, ask):
    for version in ("1.0.0", "1.1.0", "2.0.0"):
        await register(version=version)
    first = await ask("SetAlias", name="docs.search", alias="stable", version="1.0.0")
    assert (first.version, list(first.aliases)) == ("1.0.0", ["stable"])
    assert (await ask("GetTool", name="docs.search", version="stable")).version == "1.0.0"
    moved = await ask("SetAlias", name="docs.search", alias="stable", version="1.1.0")
    assert (moved.version, list(moved.aliases)) == ("1.1.0", ["stable"])
    found = await ask("ResolveTools", selectors=["docs.search@stable", "docs.search@1.0.0"])
    assert [(tool.version, list(tool.aliases)) for tool in found.tools] == [("1.1.0", ["stable"]), ("1.0.0", [])]
    listed = (await ask("ListTools", all_versions=True)).tools
    assert [list(tool.aliases) for tool in listed] == [[], ["stable"], []]
    with pytest.raises(ToolNotFoundError, match="all-or-nothing"):
        await ask("ResolveTools", selectors=["docs.search@stable", "docs.search@all-or-nothing"])


@pytest.mark.parametrize(
    ("field", "fields"),
    [
        ("alias", {"alias": "v1"}),
        ("alias", {"alias": "1.0.0"}),
        ("alias", {"alias": "^1"}),
        ("alias", {"alias": ""}),
        ("alias", {"alias": "a" * 33}),
        ("version", {"version": "^1"}),
        ("version", {"version": ""}),
        ("version", {"version": "stable"}),
        ("name", {"name": "Docs"}),
    ],
)
async def test_a_bad_alias_is_refused_with_its_field(register, ask, field, fields):
    await register()
    with pytest.raises(InvalidRequestError) as caught:
        await ask("SetAlias", **({"name": "docs.search", "alias": "stable", "version": "1.0.0"} | fields))
    assert list(caught.value.fields) == [field]


async def test_a_tool_has_a_bounded_number_of_aliases(register, ask):
    await register()
    await asyncio.gather(*(ask("SetAlias", name="docs.search", alias=f"a{n}", version="1.0.0") for n in range(32)))
    with pytest.raises(InvalidRequestError) as caught:
        await ask("SetAlias", name="docs.search", alias="one-more", version="1.0.0")
    assert list(caught.value.fields) == ["alias"]
    assert len((await ask("GetTool", name="docs.search")).aliases) == 32


async def test_a_deprecated_version_stays_callable_and_is_avoided(register, ask):
    for version in ("1.0.0", "1.1.0", "2.0.0"):
        await register(version=version)
    mark = {"name": "docs.search", "version": "1.1.0", "sunset_time": SUNSET, "replaced_by": "docs.search@^2"}
    marked = await ask("DeprecateTool", **mark)
    assert (marked.sunset_time, marked.replaced_by) == (SUNSET, "docs.search@^2")
    assert await ask("DeprecateTool", **mark) == marked
    found = await ask("ResolveTools", selectors=["docs.search@^1", "docs.search@1.1.0", "docs.search"])
    assert [tool.version for tool in found.tools] == ["1.0.0", "1.1.0", "2.0.0"]
    assert found.tools[1] == marked
    await ask("DeprecateTool", **(mark | {"version": "1.0.0"}))
    assert (await ask("GetTool", name="docs.search", version="^1")).version == "1.1.0"
    await ask("DeprecateTool", **(mark | {"version": "2.0.0", "replaced_by": ""}))
    assert (await ask("GetTool", name="docs.search")).version == "2.0.0"


async def test_a_deprecation_again_keeps_what_to_use_unless_another_is_named(register, ask):
    for version in ("1.0.0", "1.1.0", "2.0.0"):
        await register(version=version)
    mark = {"name": "docs.search", "version": "1.0.0"}
    await ask("DeprecateTool", **mark, sunset_time=SUNSET, replaced_by="docs.search@^2")
    later = Timestamp(seconds=SUNSET.seconds + 60)
    kept = await ask("DeprecateTool", **mark, sunset_time=later)
    assert (kept.sunset_time, kept.replaced_by) == (later, "docs.search@^2")
    other = await ask("DeprecateTool", **mark, sunset_time=later, replaced_by="docs.search@^1")
    assert other.replaced_by == "docs.search@^1"


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"replaced_by": "docs.find"}, "replaced_by"),
        ({"replaced_by": "docs.search@^3"}, "replaced_by"),
        ({"replaced_by": "docs.search@1.0.0"}, "replaced_by"),
        ({"replaced_by": "docs.search"}, "replaced_by"),
        ({"sunset_time": Timestamp(seconds=1_700_000_000)}, "sunset_time"),
    ],
)
async def test_a_date_that_has_passed_or_a_replacement_that_is_not_there_is_refused(register, ask, fields, wrong):
    await register()
    with pytest.raises(InvalidRequestError) as caught:
        await ask("DeprecateTool", **({"name": "docs.search", "version": "1.0.0", "sunset_time": SUNSET} | fields))
    assert list(caught.value.fields) == [wrong]
    assert not (await ask("GetTool", name="docs.search")).HasField("sunset_time")


async def test_a_range_that_means_another_version_from_then_on_is_a_replacement(register, ask):
    for version in ("1.0.0", "1.1.0"):
        await register(version=version)
    mark = {"name": "docs.search", "version": "1.1.0", "sunset_time": SUNSET}
    assert (await ask("DeprecateTool", **mark, replaced_by="docs.search@^1")).replaced_by == "docs.search@^1"


async def test_what_is_not_registered_is_neither_aliased_nor_deprecated(register, ask):
    await register()
    for name, version in (("docs.search", "1.0.1"), ("docs.find", "1.0.0")):
        with pytest.raises(ToolNotFoundError):
            await ask("SetAlias", name=name, alias="stable", version=version)
        with pytest.raises(ToolNotFoundError):
            await ask("DeprecateTool", name=name, version=version, sunset_time=SUNSET)
    with pytest.raises(InvalidRequestError) as caught:
        await ask("DeprecateTool", name="docs.search", version="1.0.0")
    assert list(caught.value.fields) == ["sunset_time"]


@pytest.mark.parametrize("all_versions", [False, True])
async def test_pages_stand_still_while_tools_are_registered(register, ask, all_versions):
    for name in ("b", "d", "f"):
        for version in ("1.0.0", "1.2.0"):
            await register(name=name, version=version)
    seen, token = [], ""
    later = [("a", "1.0.0"), ("b", "1.1.0"), ("c", "1.0.0"), ("b", "2.0.0"), ("e", "1.0.0"), ("d", "1.1.0")]
    while True:
        page = await ask("ListTools", page_size=1, page_token=token, all_versions=all_versions)
        seen += [(tool.name, tool.version) for tool in page.tools]
        token = page.next_page_token
        if not token:
            break
        if later:
            name, version = later.pop(0)
            await register(name=name, version=version)
    assert len(seen) == len(set(seen))
    assert seen == sorted(seen)
    assert {"b", "d", "f"} <= {name for name, _ in seen}
    if all_versions:
        assert {(name, version) for name in "bdf" for version in ("1.0.0", "1.2.0")} <= set(seen)


async def test_a_cursor_that_is_none_and_a_prefix_that_begins_no_name_are_refused(register, ask):
    await register()
    for field, value in (("page_token", "docs.search"), ("page_token", "x" * 10_000), ("name_prefix", "Docs")):
        with pytest.raises(InvalidRequestError) as caught:
            await ask("ListTools", **{field: value})
        assert list(caught.value.fields) == [field]


@pytest.fixture
async def agent_call(registry):
    """Calls the registry under a grant of an announced agent."""
    signer = Signer("writer-1")
    card = AgentCard(agent_id="writer", version="1.0.0", tools=["docs.search"])
    endpoint = Endpoint(instance_id="writer-1", target="127.0.0.1:7", public_key=signer.public_key)
    await registry.client.announce(card, endpoint)
    grant = Grant(tenant="t", principal="p", agent_id="writer", task_id="task", tools=["docs.search@1.0.0"])

    async def call(method, request):
        return await channel.unary(getattr(registry.tools, method), request, timeout_s=5, grant=signer.sign(grant))

    return call


async def test_a_task_publishes_moves_and_deprecates_nothing_and_may_read(register, agent_call, contract):
    await register()
    writes = {
        "RegisterTool": pb.RegisterToolRequest(tool=contract(version="1.1.0")),
        "SetAlias": pb.SetAliasRequest(name="docs.search", alias="stable", version="1.0.0"),
        "DeprecateTool": pb.DeprecateToolRequest(name="docs.search", version="1.0.0", sunset_time=SUNSET),
    }
    for method, request in writes.items():
        with pytest.raises(PermissionDeniedError, match="tools:write"):
            await agent_call(method, request)
    checked = pb.RegisterToolRequest(tool=contract(version="1.1.0"), validate_only=True)
    with pytest.raises(PermissionDeniedError):
        await agent_call("RegisterTool", checked)
    tool = await agent_call("GetTool", pb.GetToolRequest(name="docs.search"))
    assert (tool.version, list(tool.aliases), tool.HasField("sunset_time")) == ("1.0.0", [], False)


async def test_a_catalog_of_many_tools_is_read_a_page_at_a_time(register, ask, store):
    for number in range(60):
        await register(name=f"t{number:03d}")
    before = (await store.client.info("commandstats"))["cmdstat_hget"]["calls"]
    page = await ask("ListTools", page_size=5)
    after = (await store.client.info("commandstats"))["cmdstat_hget"]["calls"]
    assert [tool.name for tool in page.tools] == [f"t{number:03d}" for number in range(5)]
    assert after - before == 5, json.dumps([before, after])


async def test_a_page_of_large_contracts_fits_into_a_message(register, ask):
    words = {f"p{number}": {"type": "string", "description": "x" * 900} for number in range(60)}
    for number in range(90):
        await register(name=f"t{number:03d}", properties=words)
    seen, token = [], ""
    while True:
        page = await ask("ListTools", page_size=200, page_token=token)
        assert page.tools
        assert page.ByteSize() < 4.1 * 2**20
        seen += [tool.name for tool in page.tools]
        token = page.next_page_token
        if not token:
            break
    assert seen == [f"t{number:03d}" for number in range(90)]
