"""Intake: every limit of a request, its id, and what becomes of it."""

import hashlib
import time

import pytest
from google.protobuf.duration_pb2 import Duration

from meshwright.agents.intake import new_task, task_id_of
from meshwright.core.errors import (
    DepthExceededError,
    InvalidRequestError,
    PermissionDeniedError,
    TaskTimeoutError,
)
from meshwright.core.interceptors import Caller
from meshwright.gen.agents.v1.grant_pb2 import Grant
from meshwright.gen.agents.v1.task_pb2 import (
    BUDGET_ACTION_FAIL,
    BUDGET_ACTION_PARTIAL,
    SESSION_POLICY_ENQUEUE,
    TaskRequest,
)

CALLER = Caller()


def request(**fields):
    return TaskRequest(**({"prompt": "Do it."} | fields))


def accepted(caller=CALLER, key="", **fields):
    return new_task(request(**fields), "worker", key, caller)


def under(depth=0, root="root", parent="root"):
    return Caller("acme", "ann", Grant(tenant="acme", principal="ann", task_id=parent, root_task_id=root, depth=depth))


@pytest.mark.parametrize(
    ("field", "fields"),
    [
        ("prompt", {"prompt": ""}),
        ("prompt", {"prompt": " \n"}),
        ("prompt", {"prompt": "ä" * (128 * 1024 + 1)}),
        ("agent_id", {"agent_id": "Upper"}),
        ("agent_id", {"agent_id": "a" * 64}),
        ("agent_id", {"agent_id": "a\n"}),
        ("session_id", {"session_id": "a/b"}),
        ("session_id", {"session_id": "s" * 65}),
        ("max_steps", {"max_steps": 26}),
        ("max_steps", {"max_steps": -1}),
        ("token_budget", {"token_budget": 32_769}),
        ("token_budget", {"token_budget": 511}),
        ("token_budget", {"token_budget": -512}),
        ("cost_budget_micros", {"cost_budget_micros": -1}),
        ("timeout", {"timeout": Duration()}),
        ("timeout", {"timeout": Duration(nanos=999_999)}),
        ("timeout", {"timeout": Duration(seconds=-1)}),
        ("timeout", {"timeout": Duration(seconds=86_400, nanos=1)}),
        ("timeout", {"timeout": Duration(seconds=2**62)}),
        ("timeout", {"timeout": Duration(seconds=1, nanos=-5)}),
        ("timeout", {"timeout": Duration(seconds=1, nanos=2_000_000_000)}),
        ("metadata", {"metadata": {str(number): "" for number in range(33)}}),
        ("model", {"model": "m" * 257}),
        ("metadata", {"metadata": {"k": "v" * 1_024}}),
        ("allowed_tools", {"allowed_tools": ["a"] * 257}),
        ("allowed_tools", {"allowed_tools": ["docs.search", "Bad Name"]}),
        ("on_budget_exceeded", {"on_budget_exceeded": 99}),
        ("session_policy", {"session_policy": 99}),
    ],
)
def test_a_field_beyond_its_limits_is_refused_by_name(field, fields):
    with pytest.raises(InvalidRequestError) as refused:
        accepted(**fields)
    assert set(refused.value.fields) == {field}


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt": "x" * 256 * 1024},
        {"agent_id": "a" * 63},
        {"session_id": "S_-9" * 16},
        {"max_steps": 1},
        {"max_steps": 25},
        {"token_budget": 512},
        {"token_budget": 32_768},
        {"timeout": Duration(nanos=1_000_000)},
        {"timeout": Duration(seconds=86_400)},
        {"metadata": {f"{number:02}": "v" * 1_022 for number in range(32)}},
        {"allowed_tools": ["docs.search", "ask.researcher"]},
        {"on_budget_exceeded": BUDGET_ACTION_FAIL},
    ],
)
def test_every_limit_itself_is_allowed(fields):
    accepted(**fields)


def test_all_that_is_wrong_is_named_at_once():
    with pytest.raises(InvalidRequestError) as refused:
        accepted(prompt="", max_steps=26, token_budget=1)
    assert set(refused.value.fields) == {"prompt", "max_steps", "token_budget"}


def test_defaults_are_filled_in():
    task = accepted(task_id="t1", agent_id="worker")
    filled = task.request
    assert (filled.max_steps, filled.token_budget, filled.timeout.seconds) == (10, 8192, 600)
    assert (filled.on_budget_exceeded, filled.session_policy) == (BUDGET_ACTION_PARTIAL, SESSION_POLICY_ENQUEUE)
    assert (task.timeout_ms, task.root_id, task.parent_id, task.depth) == (600_000, "t1", "", 0)


def test_the_same_request_hashes_alike_with_and_without_its_defaults_and_id():
    plain = accepted(task_id="t1")
    spelled = accepted(task_id="t2", agent_id="worker", max_steps=10, token_budget=8192, timeout=Duration(seconds=600))
    assert plain.hash == spelled.hash
    assert plain.hash != accepted(prompt="Do that.").hash
    assert plain.hash != new_task(request(), "other", "", CALLER).hash


class TestTaskId:
    def test_the_callers_id_is_taken(self):
        assert task_id_of(request(task_id="mine"), "", CALLER) == "mine"

    def test_an_idempotency_key_that_fits_is_the_id(self):
        assert task_id_of(request(), "key-1", CALLER) == "key-1"
        assert task_id_of(request(task_id="key-1"), "key-1", CALLER) == "key-1"

    def test_another_key_is_hashed(self):
        key = "https://example.org/orders/7 " * 9
        assert task_id_of(request(), key, CALLER) == hashlib.sha256(key.encode()).hexdigest()

    def test_a_key_beside_another_id_is_refused(self):
        with pytest.raises(InvalidRequestError) as refused:
            task_id_of(request(task_id="mine"), "other", CALLER)
        assert "task_id" in refused.value.fields

    def test_without_either_an_id_is_made(self):
        made = {task_id_of(request(), "", CALLER) for _ in range(10)}
        assert len(made) == 10
        assert all(len(task_id) == 36 for task_id in made)

    @pytest.mark.parametrize("task_id", ["a b", "a" * 65, "root.child", "a/b", "ä"])
    def test_an_id_of_another_form_is_refused(self, task_id):
        with pytest.raises(InvalidRequestError) as refused:
            task_id_of(request(task_id=task_id), "", CALLER)
        assert "task_id" in refused.value.fields


class TestChild:
    def test_a_child_takes_its_place_from_the_grant(self):
        task = accepted(under(depth=2, parent="root.abc"), task_id="root.def")
        assert (task.name.tenant, task.name.principal) == ("acme", "ann")
        assert (task.parent_id, task.root_id, task.depth) == ("root.abc", "root", 3)

    def test_a_child_of_another_root_is_refused(self):
        with pytest.raises(InvalidRequestError):
            accepted(under(), task_id="other.abc")

    def test_five_levels_below_the_root_there_is_an_end(self):
        assert accepted(under(depth=4), task_id="root.abc").depth == 5
        with pytest.raises(DepthExceededError):
            accepted(under(depth=5), task_id="root.abc")


def called(scopes=("mail",), seconds=30, **changes):
    """Ann, as the host of a tool that is the agent `worker` sees her during her call `key-1`."""
    fields = {"tenant": "acme", "principal": "ann", "agent_id": "registry", "task_id": "call-key-1"}
    grant = Grant(**(fields | {"delegates": ["worker"], "scopes": scopes} | changes))
    grant.deadline.FromMilliseconds(int((time.time() + seconds) * 1000))
    return Caller("acme", "ann", grant, frozenset())


class TestACallFromOutside:
    def test_it_becomes_a_root_task_of_its_caller(self):
        task = accepted(called(), task_id="key-1", token_budget=4_096)
        assert (task.name.tenant, task.name.principal, task.name.task_id) == ("acme", "ann", "key-1")
        assert (task.parent_id, task.root_id, task.depth, task.scopes) == ("", "key-1", 0, ("mail",))
        assert task.request.token_budget == 4_096

    def test_it_is_the_same_request_however_much_time_is_left(self):
        assert accepted(called(), task_id="key-1").hash == accepted(called(seconds=5), task_id="key-1").hash

    def test_it_ends_in_the_calls_time(self):
        assert accepted(called(seconds=5), task_id="key-1").timeout_ms == pytest.approx(5_000, abs=1_000)
        assert accepted(called(), task_id="key-1", timeout=Duration(seconds=2)).timeout_ms == 2_000
        with pytest.raises(TaskTimeoutError):
            accepted(called(seconds=-1), task_id="key-1")

    @pytest.mark.parametrize("task_id", ["", "key-2", "key-1.child", "call-key-1"])
    def test_it_has_the_calls_key_and_no_other_id(self, task_id):
        with pytest.raises((PermissionDeniedError, InvalidRequestError)):
            accepted(called(), task_id=task_id)

    def test_a_tool_that_is_no_agent_starts_none(self):
        with pytest.raises(PermissionDeniedError):
            accepted(called(delegates=[]), task_id="key-1")

    def test_it_takes_part_in_no_session(self):
        with pytest.raises(PermissionDeniedError, match="no session"):
            accepted(called(), task_id="key-1", session_id="hers")


class TestScopes:
    def test_a_root_task_has_those_of_whoever_asks(self):
        assert accepted().scopes == ("*",)
        assert accepted(Caller("acme", "ann", scopes=frozenset({"b", "a"}))).scopes == ("a", "b")

    def test_a_child_has_those_of_its_grant(self):
        parent = under()
        parent.grant.scopes.extend(["b", "a", "b"])
        assert accepted(parent, task_id="root.x").scopes == ("a", "b")
