"""Rules of the catalog: contracts, digests, selectors, what may change and who may change it."""

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from meshwright.core.errors import IncompatibleContractError, InvalidRequestError, PermissionDeniedError
from meshwright.core.interceptors import Caller
from meshwright.gen.agents.v1.grant_pb2 import Grant
from meshwright.gen.registry.v1.tool_registry_service_pb2 import (
    APPROVAL_RULE_ALWAYS,
    APPROVAL_RULE_NEVER,
    EFFECT_NON_IDEMPOTENT,
    EFFECT_PURE,
    DeprecateToolRequest,
    SchemaChange,
    Tool,
)
from meshwright.registry.catalog import (
    ToolState,
    checked_contract,
    checked_prefix,
    checked_sunset,
    checked_writer,
    refuse_breaking,
    split_selector,
)


def contract(**changes) -> Tool:
    fields = {"name": "docs.search", "version": "1.0.0", "description": "Searches.", "endpoint": "127.0.0.1:7"}
    tool = Tool(**(fields | changes))
    if "input_schema" not in changes:
        tool.input_schema.update({"type": "object", "properties": {"q": {"type": "string"}}})
    return tool


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("tool.name", {"name": "Docs"}),
        ("tool.name", {"name": ""}),
        ("tool.name", {"name": "a" * 65}),
        ("tool.version", {"version": "1"}),
        ("tool.version", {"version": "1.0.0-"}),
        ("tool.version", {"version": "9" * 5_000 + ".0.0"}),
        ("tool.description", {"description": " "}),
        ("tool.description", {"description": "x" * 4_097}),
        ("tool.endpoint", {"endpoint": ""}),
        ("tool.endpoint", {"endpoint": "unix:///tmp/x"}),
        ("tool.endpoint", {"endpoint": "169.254.169.254:80"}),
        ("tool.endpoint", {"endpoint": "[::ffff:169.254.169.254]:80"}),
        ("tool.endpoint", {"endpoint": "0.0.0.0:80"}),
        ("tool.effect", {"effect": 99}),
        ("tool.approval", {"approval": 99}),
        ("tool.timeout", {"timeout": Duration()}),
        ("tool.timeout", {"timeout": Duration(seconds=-1)}),
        ("tool.timeout", {"timeout": Duration(seconds=3_601)}),
        ("tool.timeout", {"timeout": Duration(seconds=2**62)}),
        ("tool.cost_micros", {"cost_micros": -1}),
        ("tool.cost_micros", {"cost_micros": 10**12 + 1}),
        ("tool.input_schema", {"input_schema": {}}),
        ("tool.input_schema", {"input_schema": {"type": "array"}}),
        ("tool.input_schema", {"input_schema": {"type": "object", "properties": 3}}),
        ("tool.input_schema", {"input_schema": {"type": "object", "$ref": "https://example.com"}}),
        ("tool.input_schema", {"input_schema": {"type": "object", "maxProperties": 2**53}}),
        ("tool.output_schema", {"output_schema": {"type": "thing"}}),
        ("tool.owner", {"owner": "x" * 201}),
        ("tool.required_scopes", {"required_scopes": ["x"] * 65}),
        ("tool.redact", {"redact": ["x" * 201]}),
    ],
)
def test_a_bad_contract_is_refused_with_its_field(field, changes):
    with pytest.raises(InvalidRequestError) as caught:
        checked_contract(contract(**changes))
    assert list(caught.value.fields) == [field]


def test_errors_name_the_field_that_the_request_has():
    with pytest.raises(InvalidRequestError) as caught:
        checked_contract(contract(name="Docs"), "candidate")
    assert list(caught.value.fields) == ["candidate.name"]


def test_what_only_the_registry_sets_is_not_taken_from_the_caller():
    stored = checked_contract(
        contract(
            aliases=["stable"], replaced_by="a", sunset_time=Timestamp(seconds=9), create_time=Timestamp(seconds=9)
        )
    )
    assert (list(stored.aliases), stored.replaced_by) == ([], "")
    assert not stored.HasField("sunset_time")
    assert not stored.HasField("create_time")


def test_defaults_are_filled_in_and_the_callers_message_is_left_alone():
    sent = contract()
    before = sent.SerializeToString(deterministic=True)
    stored = checked_contract(sent)
    assert stored.effect == EFFECT_NON_IDEMPOTENT
    assert stored.approval == APPROVAL_RULE_NEVER
    assert stored.timeout == Duration(seconds=30)
    assert len(stored.digest) == 64
    assert sent.SerializeToString(deterministic=True) == before


def test_the_digest_does_not_know_where_the_tool_is_hosted_nor_what_the_caller_wrote_into_it():
    plain = checked_contract(contract()).digest
    assert checked_contract(contract(endpoint="10.0.0.9:9")).digest == plain
    assert checked_contract(contract(digest="mine")).digest == plain
    assert checked_contract(contract(timeout=Duration(seconds=30), effect=EFFECT_NON_IDEMPOTENT)).digest == plain
    assert checked_contract(contract(approval=APPROVAL_RULE_NEVER)).digest == plain
    assert checked_contract(contract(required_scopes=["b", "a"])).digest == (
        checked_contract(contract(required_scopes=["a", "b"])).digest
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "docs.find"},
        {"version": "1.0.1"},
        {"description": "Finds."},
        {"input_schema": {"type": "object"}},
        {"output_schema": {"type": "string"}},
        {"effect": EFFECT_PURE},
        {"timeout": Duration(seconds=31)},
        {"cost_micros": 10**12},
        {"approval": APPROVAL_RULE_ALWAYS},
        {"required_scopes": ["a"]},
        {"redact": ["/q"]},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_the_digest_knows_everything_a_caller_relies_on(changes):
    assert checked_contract(contract(**changes)).digest != checked_contract(contract()).digest


@pytest.mark.parametrize(
    ("selector", "parts"),
    [
        ("add", ("add", "")),
        ("docs.search@1.2.3", ("docs.search", "1.2.3")),
        ("docs.search@^1", ("docs.search", "^1")),
        ("add@1.0.0-rc.1+b", ("add", "1.0.0-rc.1+b")),
        ("add@stable", ("add", "stable")),
    ],
)
def test_selectors_are_split_into_name_and_range(selector, parts):
    assert split_selector(selector) == parts


@pytest.mark.parametrize("selector", ["", "@1", "Add", "add@", "add@^", "add@1@2", "add@>1", "a b", "add@1 ", "add\n"])
def test_what_selects_nothing_is_refused(selector):
    with pytest.raises(InvalidRequestError) as caught:
        split_selector(selector)
    assert list(caught.value.fields) == ["selector"]


def change(pointer="/input_schema/properties/q", rule="TYPE_NARROWED", *, breaking=True) -> SchemaChange:
    return SchemaChange(pointer=pointer, rule=rule, breaking=breaking, message="Says why.")


def test_a_breaking_change_is_refused_with_every_pointer_and_rule():
    changes = [change(), change("", "EFFECT_CHANGED"), change("", "SCOPE_ADDED"), change("/x", breaking=False)]
    with pytest.raises(
        IncompatibleContractError, match=r"1.0.0 breaks with 0.9.0 in 2 places, first /input_"
    ) as caught:
        refuse_breaking(contract(), "0.9.0", changes)
    assert caught.value.fields == {
        "/input_schema/properties/q": "TYPE_NARROWED: Says why.",
        "/": "EFFECT_CHANGED: Says why.; SCOPE_ADDED: Says why.",
    }
    refuse_breaking(contract(), "0.9.0", [change(breaking=False)])


@pytest.mark.parametrize(
    ("scopes", "may"),
    [
        ({"tools:write"}, True),
        ({"tools:write:docs."}, True),
        ({"tasks:read", "tools:write:docs.search"}, True),
        ({"tools:write:mail."}, False),
        ({"tools:write:docs.search.more"}, False),
        ({"*"}, True),
        ({"tools"}, True),
        ({"tools:write:docs"}, False),
        ({"tools:write:"}, False),
        ({"tools:writedocs."}, False),
        ({"tools:read", "docs."}, False),
        (set(), False),
    ],
)
def test_who_holds_the_scope_for_a_name_may_change_its_entry(scopes, may):
    caller = Caller("acme", "ann", None, frozenset(scopes))
    if may:
        checked_writer(caller, "docs.search")
        return
    with pytest.raises(PermissionDeniedError, match=r"tools:write:docs\.search") as caught:
        checked_writer(caller, "docs.search")
    assert caught.value.metadata == {"scope": "tools:write:docs.search"}


def test_the_development_principal_may_write_and_a_task_may_not():
    checked_writer(Caller(), "docs.search")
    with pytest.raises(PermissionDeniedError, match="a task may not publish"):
        checked_writer(Caller("acme", "ann", Grant(), frozenset()), "docs.search")
    for scope in ("*", "tools:write", "tools:write:docs."):
        with pytest.raises(PermissionDeniedError, match="a task may not publish"):
            checked_writer(Caller("acme", "ann", Grant(scopes=[scope]), frozenset({scope})), "docs.search")


NOW_MS = 1_800_000_000_000


def deprecation(**changes) -> DeprecateToolRequest:
    fields = {"name": "docs.search", "version": "1.0.0", "sunset_time": Timestamp(seconds=1_900_000_000)}
    return DeprecateToolRequest(**(fields | changes))


def test_a_deprecation_has_a_date_and_may_name_a_replacement():
    assert checked_sunset(deprecation(), NOW_MS) == 1_900_000_000_000
    assert checked_sunset(deprecation(replaced_by="docs.find@^2"), NOW_MS) == 1_900_000_000_000


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("name", {"name": "Docs"}),
        ("version", {"version": "^1"}),
        ("version", {"version": ""}),
        ("sunset_time", {"sunset_time": None}),
        ("sunset_time", {"sunset_time": Timestamp(seconds=-1)}),
        ("sunset_time", {"sunset_time": Timestamp(seconds=2**62)}),
        ("sunset_time", {"sunset_time": Timestamp(seconds=1, nanos=-5)}),
        ("sunset_time", {"sunset_time": Timestamp(seconds=1_800_000_000)}),
        ("replaced_by", {"replaced_by": "Docs"}),
        ("replaced_by", {"replaced_by": "a@" + "1" * 300}),
    ],
)
def test_a_bad_deprecation_is_refused_with_its_field(field, changes):
    with pytest.raises(InvalidRequestError) as caught:
        checked_sunset(deprecation(**changes), NOW_MS)
    assert list(caught.value.fields) == [field]


@pytest.mark.parametrize("prefix", ["Docs", "docs/", "a" * 65, "\u00e4", "a b", "(", "\x7f"])
def test_what_begins_no_name_is_refused_as_a_prefix(prefix):
    assert checked_prefix("docs.") == "docs."
    with pytest.raises(InvalidRequestError) as caught:
        checked_prefix(prefix)
    assert list(caught.value.fields) == ["name_prefix"]


def test_a_contract_is_shown_with_what_may_change():
    state = ToolState({"1.0.0": "h:1"}, {"b": "1.0.0", "a": "1.0.0", "c": "2.0.0"}, {"1.0.0": (5_000, "docs.find")})
    shown = state.shown(contract().SerializeToString(), "1.0.0")
    assert (shown.endpoint, list(shown.aliases), shown.replaced_by) == ("h:1", ["a", "b"], "docs.find")
    assert shown.sunset_time == Timestamp(seconds=5)
    assert (
        not ToolState({"1.0.0": "h:1"}, {}, {}).shown(contract().SerializeToString(), "1.0.0").HasField("sunset_time")
    )
