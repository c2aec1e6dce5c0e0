"""Access: every method of the contract has a rule, and the rules are those of the documentation."""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet

from meshwright.core.access import CLOSED, READ_ALL, RULES, Rule, rule_of
from meshwright.core.admittance import check_carrier, check_grant, check_others, check_process, check_scope, role_of
from meshwright.core.errors import (
    CredentialsMissingError,
    IdentityInvalidError,
    PermissionDeniedError,
    ScopeMissingError,
)
from meshwright.core.scope import SCOPE
from meshwright.gen.agents.v1.grant_pb2 import Grant

REPO = Path(__file__).parents[2]
HEALTH = {f"/grpc.health.v1.Health/{name}" for name in ("Check", "List", "Watch")}


def methods():
    files = FileDescriptorSet.FromString((REPO / "gen/meshwright/gen/descriptors.binpb").read_bytes())
    return {
        f"/{file.package}.{service.name}/{method.name}"
        for file in files.file
        for service in file.service
        for method in service.method
    }


def test_every_method_has_a_rule_and_every_rule_a_method():
    assert set(RULES) == methods() | HEALTH | {"/envoy.service.auth.v3.Authorization/Check"}


def test_a_method_without_a_rule_is_closed():
    assert rule_of("/agents.v1.AgentService/Surprise") is CLOSED
    with pytest.raises(PermissionDeniedError):
        check_scope("m", CLOSED, ["*"])
    with pytest.raises(PermissionDeniedError):
        check_grant(CLOSED, Grant(agent_id="a", root_task_id="t"))
    with pytest.raises(CredentialsMissingError):
        check_process("m", CLOSED, "agent")


def shown(rule):
    """Writes a rule as the documentation does."""
    outside = "anybody" if rule.is_open else f"`{rule.scope}`" if rule.scope else "-"
    return (
        outside,
        {"none": "-", "task": "tasks", "call": "tasks, calls"}[rule.grants],
        "yes" if rule.is_inside else "-",
    )


def test_the_table_of_the_documentation_is_the_table_of_the_code():
    text = (REPO / "docs/identity.md").read_text()
    rows = re.findall(r"^\| `([\w.]+/\w+)` \| (.+) \| (.+) \| (.+) \|$", text, re.MULTILINE)
    assert {f"/{name}": tuple(cells) for name, *cells in rows} == {name: shown(rule) for name, rule in RULES.items()}


def test_scopes_are_scopes_and_all_of_them_are_documented():
    text = (REPO / "docs/identity.md").read_text()
    for scope in {rule.scope for rule in RULES.values() if rule.scope} | {READ_ALL}:
        assert SCOPE.fullmatch(scope)
        assert f"| `{scope}` |" in text


@pytest.mark.parametrize(
    ("held", "passes"),
    [
        (["tools:write"], True),
        (["tools"], True),
        (["*"], True),
        (["tools:write:docs."], True),
        (["tools:write:docs.search"], True),
        (["tools:writer"], False),
        (["tools:read"], False),
        ([], False),
    ],
)
def test_a_scope_for_a_part_reaches_the_service_that_looks_which_part_it_is(held, passes):
    named, whole = Rule("tools:write", is_named=True), Rule("tools:write")
    for rule, lets in ((named, passes), (whole, passes and not held[0].startswith("tools:write:"))):
        if lets:
            check_scope("m", rule, held)
        else:
            with pytest.raises(ScopeMissingError):
                check_scope("m", rule, held)


@pytest.mark.parametrize("method", sorted(name for name, rule in RULES.items() if rule.grants == "none" and rule.scope))
def test_what_is_for_people_and_programs_is_closed_to_tasks_and_names_its_scope(method):
    with pytest.raises(PermissionDeniedError, match=RULES[method].scope):
        check_grant(RULES[method], Grant(agent_id="a", root_task_id="t", scopes=["*"]))


@pytest.mark.parametrize("method", sorted(RULES))
def test_what_other_principals_have_is_reached_with_every_scope_that_it_takes_and_nothing_less(method):
    needed = RULES[method].others
    if not needed:
        with pytest.raises(PermissionDeniedError, match="one's own alone"):
            check_others(method, ["*"])
        return
    for held in (needed, ["tasks"], ["*"]):
        check_others(method, held)
    for lacking in needed:
        with pytest.raises(ScopeMissingError) as refused:
            check_others(method, [RULES[method].scope, *(one for one in needed if one != lacking)])
        assert refused.value.metadata == {"method": method, "scopes": lacking}
    with pytest.raises(ScopeMissingError):
        check_others(method, [])


def test_what_it_takes_to_reach_what_others_have_is_documented():
    text = (REPO / "docs/identity.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| another principal's \| (.+) \|$", text, re.MULTILINE)
    assert dict(rows) == {
        name.rpartition("/")[2]: " and ".join(f"`{scope}`" for scope in rule.others)
        for name, rule in RULES.items()
        if rule.others
    }


def context(kind, *names):
    facts = {"transport_security_type": [kind], "peer_uri": [name.encode() for name in names]}
    return SimpleNamespace(auth_context=lambda: facts if kind else {})


@pytest.mark.parametrize(
    ("kind", "names", "role"),
    [
        (b"", (), None),
        (b"insecure", (), None),
        (b"ssl", ("spiffe://meshwright/agent/coder",), "agent"),
        (b"ssl", ("spiffe://meshwright/edge",), "edge"),
        (b"ssl", ("spiffe://other/edge",), ""),
        (b"ssl", (), ""),
    ],
)
def test_a_role_is_read_from_the_certificate(kind, names, role):
    assert role_of(context(kind, *names)) == role


@pytest.mark.parametrize(
    ("role", "passes"), [(None, True), ("edge", True), ("agent", False), ("cli", False), ("", False)]
)
def test_an_identity_counts_where_the_edge_hands_it_over(role, passes):
    if passes:
        check_carrier(role)
    else:
        with pytest.raises(IdentityInvalidError):
            check_carrier(role)


@pytest.mark.parametrize(
    ("role", "passes"), [(None, True), ("agent", True), ("gateway", True), ("cli", True), ("edge", False), ("", False)]
)
def test_a_process_of_the_mesh_calls_in_its_own_name_and_the_edge_does_not(role, passes):
    if passes:
        check_process("m", Rule(is_inside=True), role)
    else:
        with pytest.raises(CredentialsMissingError):
            check_process("m", Rule(is_inside=True), role)
