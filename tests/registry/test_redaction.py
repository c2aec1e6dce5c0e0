"""Redaction: what a contract points at is seen by nobody but the tool."""

import copy
import json

import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st

from meshwright.core.errors import InvalidRequestError, MeshError, SetupError
from meshwright.gen.agents.v1.grant_pb2 import Grant
from meshwright.gen.registry.v1.tool_registry_service_pb2 import Tool
from meshwright.registry import LocalTool
from meshwright.registry.host import ToolHost
from meshwright.registry.redaction import MAX_POINTERS, REDACTED, Redaction
from meshwright.registry.store import Ledger

SECRET = "4111-1111-1111-1111"


@pytest.mark.parametrize(
    ("pointers", "value", "expected"),
    [
        ([], {"a": 1}, {"a": 1}),
        ([""], {"a": 1}, REDACTED),
        (["/a"], {"a": {"b": 1}, "c": 2}, {"a": REDACTED, "c": 2}),
        (["/a/b"], {"a": {"b": 1, "c": 2}}, {"a": {"b": REDACTED, "c": 2}}),
        (["/a/1"], {"a": [1, 2, 3]}, {"a": [1, REDACTED, 3]}),
        (["/-/a"], [{"a": 1}, {"b": 2}, 3], [{"a": REDACTED}, {"b": 2}, 3]),
        (["/-"], {"-": 1, "a": 2}, {"-": REDACTED, "a": 2}),
        (["/a~1b/c~0d"], {"a/b": {"c~d": 1}}, {"a/b": {"c~d": REDACTED}}),
        (["/a~01"], {"a~1": 1, "a/": 2}, {"a~1": REDACTED, "a/": 2}),
        (["/"], {"": 1, "a": 2}, {"": REDACTED, "a": 2}),
        (["/a", "/a/b"], {"a": {"b": 1}}, {"a": REDACTED}),
        (["/x", "/a/x", "/a/b/c", "/9"], {"a": {"b": 1}}, {"a": {"b": 1}}),
        (["/a/-1", "/a/01", "/a/9"], {"a": [1]}, {"a": [1]}),
    ],
)
def test_what_is_pointed_at_is_taken_out(pointers, value, expected):
    before = copy.deepcopy(value)
    assert Redaction(pointers).applied(value) == expected
    assert value == before


@pytest.mark.parametrize("pointers", [["a"], ["#/a"], ["/ok", "a/b"], ["/a"] * (MAX_POINTERS + 1)])
def test_what_is_no_pointer_is_refused(pointers):
    with pytest.raises(InvalidRequestError):
        Redaction(pointers)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=12,
)


def pointers_of(value, at=""):
    """Every place in a value."""
    yield at
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, child in items:
        yield from pointers_of(child, f"{at}/{str(name).replace('~', '~0').replace('/', '~1')}")


def found(value, pointer):
    for part in pointer.split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        value = value[int(name)] if isinstance(value, list) else value[name]
    return value


@settings(deadline=None)
@given(value=JSON, data=st.data())
def test_every_place_can_be_taken_out_and_nothing_else_is(value, data):
    every = list(pointers_of(value))
    chosen = data.draw(st.sampled_from(every))
    after = Redaction([chosen]).applied(value)
    if "/-" not in chosen:
        assert found(after, chosen) == REDACTED
    kept = [one for one in every if not one.startswith(chosen) and not chosen.startswith(one)]
    for one in kept:
        assert found(after, one) == found(value, one) or "-" in chosen


class Unchecked(LocalTool):
    """A tool whose contract was not held against the catalog's rules."""

    def contract(self, endpoint: str = "unplaced:0") -> Tool:
        contract = super().contract(endpoint)
        contract.redact.append("card")
        return contract


def charge(mode: str = "") -> dict[str, dict[str, str] | list[dict[str, str]]]:
    """Charges a card."""
    if mode == "raise":
        raise RuntimeError(f"card {SECRET} was refused")
    if mode == "lie":
        return {"card": SECRET}  # type: ignore[dict-item]
    return {"card": {"number": SECRET, "owner": "ann"}, "items": [{"secret": SECRET, "name": "x"}]}


GRANT = Grant(tenant="t", principal="p", agent_id="a", task_id="task", tools=["charge@1.0.0"])


def guarded(effect="idempotent"):
    pointers = ["/card/number", "/items/-/secret"]
    return LocalTool(charge, name="charge", version="1.0.0", effect=effect, timeout_s=5, redact=pointers)


async def everything_in(store):
    """What ledger and audit hold, as text."""
    (keys,) = await store.run(("KEYS", "mw:*"))
    hashes = [("HGETALL", key) for key in keys if b":ledger:" in key]
    lists = [("LRANGE", key, 0, -1) for key in keys if key.endswith(b":lines")]
    return str(await store.run(*hashes, *lists)) if hashes or lists else ""


@pytest.mark.parametrize("effect", ["pure", "idempotent", "non_idempotent"])
async def test_a_redacted_value_is_in_no_outcome_no_log_and_not_in_the_store(store, effect):
    host = ToolHost([guarded(effect)], Ledger(store))
    with structlog.testing.capture_logs() as entries:
        outcomes = [await host.invoke(GRANT, "charge@1.0.0", "{}", "k") for _ in range(2)]
    for outcome in outcomes:
        card, items = {"number": REDACTED, "owner": "ann"}, [{"secret": REDACTED, "name": "x"}]
        assert json.loads(outcome.result_json) == {"card": card, "items": items}
    assert SECRET not in str(entries)
    kept = await everything_in(store)
    assert SECRET not in kept
    assert (REDACTED in kept) == (effect != "pure")


@pytest.mark.parametrize(("mode", "reason"), [("raise", "TOOL_FAILED"), ("lie", "TOOL_RESULT_INVALID")])
async def test_nor_is_it_in_what_is_told_of_a_failure(store, mode, reason):
    host = ToolHost([guarded()], Ledger(store))
    with structlog.testing.capture_logs() as entries:
        outcome = await host.invoke(GRANT, "charge@1.0.0", json.dumps({"mode": mode}), "k")
    error = MeshError.from_status(outcome.error)
    assert error.reason == reason
    assert SECRET not in error.message + str(entries)
    assert SECRET not in str(outcome.SerializeToString()) + await everything_in(store)


async def test_a_host_does_not_serve_what_it_cannot_redact(store):
    broken = Unchecked(charge, name="charge", version="1.0.0", effect="pure", timeout_s=5)
    with pytest.raises(SetupError, match=r"charge@1\.0\.0"):
        ToolHost([broken], Ledger(store))
