"""Rules of the catalog: contracts, digests, selectors, versions."""

import pytest
from google.protobuf.duration_pb2 import Duration

from meshwright.core.errors import InvalidRequestError, ToolNotFoundError
from meshwright.gen.registry.v1.tool_registry_service_pb2 import (
    APPROVAL_RULE_ALWAYS,
    APPROVAL_RULE_NEVER,
    EFFECT_NON_IDEMPOTENT,
    EFFECT_PURE,
    Tool,
)
from meshwright.registry.catalog import checked_contract, choose, precedence, split_selector


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
        ("tool.effect", {"effect": 99}),
        ("tool.approval", {"approval": 99}),
        ("tool.timeout", {"timeout": Duration()}),
        ("tool.timeout", {"timeout": Duration(seconds=-1)}),
        ("tool.timeout", {"timeout": Duration(seconds=3_601)}),
        ("tool.timeout", {"timeout": Duration(seconds=2**62)}),
        ("tool.input_schema", {"input_schema": {}}),
        ("tool.input_schema", {"input_schema": {"type": "array"}}),
        ("tool.input_schema", {"input_schema": {"type": "object", "properties": 3}}),
        ("tool.input_schema", {"input_schema": {"type": "object", "$ref": "https://example.com"}}),
        ("tool.input_schema", {"input_schema": {"type": "object", "maxProperties": 2**53}}),
        ("tool.output_schema", {"output_schema": {"type": "thing"}}),
    ],
)
def test_a_bad_contract_is_refused_with_its_field(field, changes):
    with pytest.raises(InvalidRequestError) as caught:
        checked_contract(contract(**changes))
    assert list(caught.value.fields) == [field]


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
        {"cost_micros": 2**60},
        {"approval": APPROVAL_RULE_ALWAYS},
        {"required_scopes": ["a"]},
        {"redact": ["/q"]},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_the_digest_knows_everything_a_caller_relies_on(changes):
    assert checked_contract(contract(**changes)).digest != checked_contract(contract()).digest


ORDER = [
    "0.9.0",
    "1.0.0-1",
    "1.0.0-2",
    "1.0.0-11",
    "1.0.0-alpha",
    "1.0.0-alpha.1",
    "1.0.0-alpha.beta",
    "1.0.0-beta.2",
    "1.0.0-beta.11",
    "1.0.0-rc.1",
    "1.0.0",
    "1.0.1",
    "1.2.0",
    "1.10.0",
    "2.0.0-a",
    "10.0.0",
]


def test_versions_are_ordered_as_semantic_versioning_says():
    shuffled = ORDER[5:] + ORDER[:5]
    assert sorted(shuffled, key=precedence) == ORDER
    assert precedence("1.0.0+a") == precedence("1.0.0+b-2")


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


@pytest.mark.parametrize(
    ("wanted", "chosen"),
    [
        ("", "10.0.0"),
        ("1.2.0", "1.2.0"),
        ("1.0.0-rc.1", "1.0.0-rc.1"),
        ("^1", "1.10.0"),
        ("^1.2", "1.10.0"),
        ("^1.2.0", "1.10.0"),
        ("^1.10.0", "1.10.0"),
        ("^0", "0.9.0"),
        ("^10", "10.0.0"),
    ],
)
def test_a_range_means_the_newest_release_of_the_same_major_that_is_not_older(wanted, chosen):
    assert choose("t", wanted, ORDER) == chosen


@pytest.mark.parametrize(
    "wanted",
    [
        "^2",
        "^1.11",
        "^1.10.1",
        "^3",
        "1.0.2",
        "1",
        "stable",
        "^1.2.3.4",
        "^",
        "^a",
        "^²",
        "^-1",
        "^1.",
        "^" + "9" * 5_000,
    ],
)
def test_what_no_version_fits_is_not_found(wanted):
    with pytest.raises(ToolNotFoundError) as caught:
        choose("t", wanted, ORDER)
    assert "10.0.0" in caught.value.message


def test_prereleases_are_chosen_only_where_nothing_else_exists():
    assert choose("t", "", ["1.0.0-a", "1.0.0-b"]) == "1.0.0-b"
    assert choose("t", "^1", ["1.0.0-a", "1.0.0-b"]) == "1.0.0-b"
    assert choose("t", "", ["1.0.0-b", "0.1.0"]) == "0.1.0"


def test_without_any_version_nothing_is_found():
    with pytest.raises(ToolNotFoundError, match="none"):
        choose("t", "", [])
