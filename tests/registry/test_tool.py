"""`@tool`: the contract comes from signature and docstring; arguments and results keep their types."""

import asyncio
import datetime as dt
import enum
import threading
import time
import typing
import uuid
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Optional

import pytest
from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from meshwright.core.canonical import from_struct
from meshwright.core.errors import InvalidRequestError, SetupError
from meshwright.gen.registry.v1.tool_registry_service_pb2 import (
    EFFECT_IDEMPOTENT,
    EFFECT_NON_IDEMPOTENT,
    EFFECT_PURE,
    ApprovalRule,
)
from meshwright.registry import Invocation, LocalTool, current_invocation, tool
from meshwright.registry.invocation import INVOCATION


@dataclass
class Place:
    """Where something is."""

    x: int
    y: int = 0


class Options(TypedDict, total=False):
    """What may be chosen."""

    limit: int
    order: Literal["up", "down"]


class Page(BaseModel):
    """A page, spelled on the wire as its readers expect."""

    items: list[Place] = []
    next_token: str | None = Field(None, alias="nextToken")


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


def input_of(local: LocalTool) -> dict[str, Any]:
    return from_struct(local.contract().input_schema, "input_schema")


def output_of(local: LocalTool) -> dict[str, Any]:
    return from_struct(local.contract().output_schema, "output_schema")


def test_a_bare_decorator_takes_name_and_docstring_from_the_function():
    @tool
    def add(a: float, b: float) -> float:
        """Adds two numbers.

        Also negative ones.
        """
        return a + b

    contract = add.contract()
    assert (contract.name, contract.version) == ("add", "1.0.0")
    assert contract.description == "Adds two numbers.\n\nAlso negative ones."
    assert contract.effect == EFFECT_NON_IDEMPOTENT
    assert contract.timeout.seconds == 30
    assert add(1, 2) == 3


def test_a_declaration_wins_over_what_the_function_says():
    @tool(name="sums.add", version="2.1.0", effect="idempotent", timeout_s=1.5)
    def add(a: int) -> int:
        """Adds."""
        return a

    contract = add.contract("127.0.0.1:7")
    assert (contract.name, contract.version, contract.endpoint) == ("sums.add", "2.1.0", "127.0.0.1:7")
    assert contract.effect == EFFECT_IDEMPOTENT
    assert contract.timeout.ToMilliseconds() == 1_500


def test_every_effect_has_its_word():
    def read() -> int:
        """Reads."""
        return 1

    assert tool(effect="pure")(read).contract().effect == EFFECT_PURE
    assert tool(effect="non_idempotent")(read).contract().effect == EFFECT_NON_IDEMPOTENT


@pytest.mark.parametrize("word", ["never", "when_tainted", "always"])
def test_every_rule_of_approval_has_its_word(word):
    @tool(approval=word)
    def pay() -> str:
        """Pays."""
        return "paid"

    assert ApprovalRule.Name(pay.contract().approval) == f"APPROVAL_RULE_{word.upper()}"


def test_nobody_is_asked_unless_the_tool_says_so():
    @tool
    def read() -> int:
        """Reads."""
        return 1

    assert read.contract().approval == ApprovalRule.APPROVAL_RULE_NEVER


def test_an_unknown_rule_of_approval_is_a_mistake():
    with pytest.raises(SetupError, match=r"tool f: approval 'maybe' is none of never, when_tainted, always"):
        tool(name="f", approval="maybe")(lambda: None)


def test_scopes_and_what_is_redacted_stand_in_the_contract_and_cost_nothing_where_there_are_none():
    def charge(cents: int) -> dict[str, int]:
        """Charges."""
        return {"cents": cents}

    guarded = tool(required_scopes=["bank:pay", "people.read"], redact=["/card", "/items/-/secret"])(charge).contract()
    assert list(guarded.required_scopes) == ["bank:pay", "people.read"]
    assert list(guarded.redact) == ["/card", "/items/-/secret"]
    assert tool(required_scopes=[], redact=())(charge).contract().digest == tool(charge).contract().digest


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"required_scopes": "mail:send"}, r"required_scopes is a list: write required_scopes=\['mail:send'\]"),
        ({"redact": "/card"}, "redact is a list"),
        (
            {"required_scopes": ["mail send"]},
            "tool pay: tool.required_scopes must be 1 to 200 visible ASCII characters$",
        ),
        ({"required_scopes": [""]}, "tool pay: tool.required_scopes must be 1 to 200 visible ASCII characters$"),
        ({"required_scopes": ["s"] * 65}, "required_scopes says too much"),
        ({"redact": ["card"]}, "redact cannot be read: 'card'"),
    ],
)
def test_scopes_and_pointers_that_are_none_are_mistakes(options, told):
    def pay() -> int:
        """Pays."""
        return 1

    with pytest.raises(SetupError, match=told):
        tool(**options)(pay).contract()


def test_the_input_schema_says_types_limits_and_defaults():
    @tool
    def find(
        text: Annotated[str, Field(min_length=1, description="What to look for")],
        kind: Literal["a", "b"] = "a",
        near: Optional[Place] = None,  # noqa: UP045 - this is how many write it
        options: Options = {},  # noqa: B006 - pydantic copies it
        limit: int = Field(10, ge=1, le=50),
        *,
        page: Page = Page(),  # noqa: B008 - pydantic copies it
    ) -> list[str]:
        """Finds."""
        return [text, kind, str(near), str(options), str(limit), str(page)]

    schema = input_of(find)
    properties = schema["properties"]
    assert schema["type"] == "object"
    assert schema["additionalProperties"] is False
    assert schema["required"] == ["text"]
    assert (properties["text"]["minLength"], properties["text"]["description"]) == (1, "What to look for")
    assert (properties["kind"]["enum"], properties["kind"]["default"]) == (["a", "b"], "a")
    assert {"type": "null"} in properties["near"]["anyOf"]
    assert properties["near"]["default"] is None
    assert (properties["limit"]["minimum"], properties["limit"]["maximum"], properties["limit"]["default"]) == (
        1,
        50,
        10,
    )
    assert schema["$defs"]["Options"]["properties"]["order"]["enum"] == ["up", "down"]
    assert "nextToken" in schema["$defs"]["Page"]["properties"]


async def test_arguments_arrive_with_their_types_and_defaults():
    seen: dict[str, Any] = {}

    @tool
    def find(
        place: Place, options: Options, page: Page, colour: Colour, day: dt.date, limit: int = Field(10, ge=1)
    ) -> None:
        """Finds."""
        seen.update(place=place, options=options, page=page, colour=colour, day=day, limit=limit)

    arguments = {
        "place": {"x": 1},
        "options": {"limit": 2},
        "page": {"nextToken": "t"},
        "colour": "blue",
        "day": "2026-02-28",
    }
    assert await find.run(arguments) is None
    assert seen == {
        "place": Place(1, 0),
        "options": {"limit": 2},
        "page": Page(nextToken="t"),
        "colour": Colour.BLUE,
        "day": dt.date(2026, 2, 28),
        "limit": 10,
    }


async def test_results_become_plain_json_that_fits_the_output_schema():
    @tool
    async def page() -> Page:
        """Gives a page."""
        return Page(items=[Place(1, 2)], nextToken="t")

    assert await page.run({}) == {"items": [{"x": 1, "y": 2}], "nextToken": "t"}
    assert "nextToken" in output_of(page)["properties"]


@pytest.mark.parametrize(
    ("annotation", "value", "result"),
    [
        (Place, Place(1), {"x": 1, "y": 0}),
        (Options, {"limit": 1}, {"limit": 1}),
        (dict[str, int], {"a": 1}, {"a": 1}),
        (tuple[int, str], (1, "a"), [1, "a"]),
        (set[int], {3}, [3]),
        (dt.datetime, dt.datetime(2026, 1, 2, tzinfo=dt.UTC), "2026-01-02T00:00:00Z"),
        (uuid.UUID, uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (Colour, Colour.RED, "red"),
        (int | None, None, None),
        (Any, [1, {"a": None}], [1, {"a": None}]),
        (int, 2**80, 2**80),
    ],
    ids=str,
)
async def test_any_type_that_has_a_schema_may_be_returned(annotation, value, result):
    def give():
        """Gives."""
        return value

    give.__annotations__["return"] = annotation
    local = tool(give)
    local.contract()
    assert await local.run({}) == result


async def test_parameters_may_be_called_as_they_like():
    @tool
    def odd(json: str, schema: int, copy: float, model_config: str = "m", _hidden: int = 3) -> list[Any]:
        """Takes odd names."""
        return [json, schema, copy, model_config, _hidden]

    assert set(input_of(odd)["properties"]) == {"json", "schema", "copy", "model_config", "_hidden"}
    assert await odd.run({"json": "j", "schema": 1, "copy": 0.5, "_hidden": 4}) == ["j", 1, 0.5, "m", 4]


def undocumented(a: int) -> int:
    return a


def star(*a: int) -> int:
    """Takes many."""


def keywords(**a: int) -> int:
    """Takes many."""


def positional(a: int, /) -> int:
    """Takes one."""


def unannotated(a) -> int:
    """Takes anything."""


def without_return(a: int):
    """Returns anything."""


def unknown_name(a: "Nowhere") -> int:  # noqa: F821 - the mistake that is tested
    """Takes what is not defined."""


def arbitrary(a: threading.Thread) -> int:
    """Takes what has no schema."""


def arbitrary_result() -> threading.Thread:
    """Returns what has no schema."""


def function_argument(a: typing.Callable[[int], int]) -> int:
    """Takes a function."""


def fine(a: int = 0) -> int:
    """Takes an integer."""
    return a


@pytest.mark.parametrize(
    ("function", "options", "told"),
    [
        (undocumented, {}, "description"),
        (star, {}, "parameter a must be a plain named one"),
        (keywords, {}, "parameter a must be a plain named one"),
        (positional, {}, "parameter a must be a plain named one"),
        (unannotated, {}, "parameter a needs a type annotation"),
        (without_return, {}, "return type needs an annotation"),
        (unknown_name, {}, "Nowhere"),
        (arbitrary, {}, "Thread"),
        (arbitrary_result, {}, "Thread"),
        (function_argument, {}, "no JSON Schema"),
        (fine, {"name": "Not A Name"}, "tool.name"),
        (fine, {"version": "1"}, "tool.version"),
        (fine, {"timeout_s": 0}, "timeout"),
        (fine, {"timeout_s": 3_601}, "timeout"),
        (fine, {"effect": "harmless"}, "effect 'harmless'"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_function_that_cannot_be_a_tool_is_told_in_one_line(function, options, told):
    with pytest.raises(SetupError) as caught:
        tool(**options)(function).contract()
    assert told in caught.value.message
    assert caught.value.message.startswith("tool ")
    assert "\n" not in caught.value.message


async def test_arguments_that_pass_the_schema_but_not_the_types_are_the_callers_error():
    @tool
    def on(day: dt.date, place: Place) -> str:
        """Tells."""
        return str((day, place))

    with pytest.raises(InvalidRequestError) as caught:
        await on.run({"day": "no day", "place": {"x": "no number"}})
    assert set(caught.value.fields) == {"arguments/day", "arguments/place/x"}


async def test_a_sync_function_runs_in_a_thread_and_leaves_the_loop_free():
    @tool
    def slow() -> str:
        """Takes its time."""
        time.sleep(0.1)
        return threading.current_thread().name

    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.005)
            ticks += 1

    ticking = asyncio.create_task(tick())
    assert await slow.run({}) != threading.main_thread().name
    ticking.cancel()
    assert ticks > 3


async def test_many_slow_sync_functions_run_at_once():
    barrier = threading.Barrier(40, timeout=10)

    @tool
    def meet() -> int:
        """Waits for all others."""
        return barrier.wait()

    assert sorted(await asyncio.gather(*(meet.run({}) for _ in range(40)))) == list(range(40))


async def test_an_async_function_runs_in_the_loop():
    @tool
    async def here() -> bool:
        """Tells where it runs."""
        return threading.current_thread() is threading.main_thread()

    assert await here.run({}) is True


async def test_a_sync_function_may_return_an_awaitable():
    async def inner() -> int:
        return 3

    @tool
    def outer() -> int:
        """Hands on."""
        return inner()

    assert await outer.run({}) == 3


@pytest.mark.parametrize("is_async", [False, True])
async def test_a_running_tool_knows_its_call(is_async):
    async def tell_async() -> str:
        """Tells."""
        return current_invocation().key

    def tell() -> str:
        """Tells."""
        return current_invocation().key

    token = INVOCATION.set(Invocation("t", "p", "task", "key-1"))
    assert await tool(tell_async if is_async else tell).run({}) == "key-1"
    INVOCATION.reset(token)
    with pytest.raises(LookupError):
        current_invocation()


@pytest.mark.parametrize("error", [ValueError("v"), SystemExit(3), KeyError("k")])
async def test_what_a_sync_function_raises_is_raised_to_the_caller(error):
    @tool
    def fail() -> int:
        """Fails."""
        raise error

    with pytest.raises(type(error)):
        await fail.run({})


async def test_a_stop_iteration_does_not_hang():
    @tool
    def first() -> int:
        """Takes the first of none."""
        return next(iter([]))

    async with asyncio.timeout(5):
        with pytest.raises(RuntimeError, match="StopIteration"):
            await first.run({})
