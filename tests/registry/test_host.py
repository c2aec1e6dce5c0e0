"""The tool host: what is refused, what is run, how it ends."""

import asyncio
import json

import grpc
import pytest

from meshwright.core.errors import (
    InvalidRequestError,
    PermissionDeniedError,
    SetupError,
    ToolNotFoundError,
)
from meshwright.registry import tool
from meshwright.registry.arguments import MAX_BYTES as MAX_ARGUMENT_BYTES
from meshwright.registry.host import ToolHost
from meshwright.registry.store import Ledger
from tests.registry.host_tools import RUNS, TOOLS, failure, grant, look, value


async def test_a_tool_is_called_and_its_result_is_json(call):
    assert value(await call("look@1.0.0", n=3)) == 3
    assert value(await call("pay@1.0.0", n=3)) == "paid 3"
    assert RUNS == [3, 3]


async def test_a_tool_that_is_not_here_is_not_found(call, hosted):
    for pin in ("nothing@1.0.0", "look@2.0.0", "look", ""):
        with pytest.raises(ToolNotFoundError):
            await call(pin)
        assert not hosted.serves(pin)
    assert hosted.serves("look@1.0.0")
    assert hosted.tools == TOOLS


@pytest.mark.parametrize("tools", [[], ["look@1.0.1"], ["look"], ["pay@1.0.0"]])
async def test_what_the_grant_does_not_name_is_denied(hosted, tools):
    with pytest.raises(PermissionDeniedError):
        await hosted.invoke(grant(tools=tools), "look@1.0.0", "{}", "k")
    assert RUNS == []


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ('{"n": -1}', "arguments/n"),
        ('{"n": "one"}', "arguments/n"),
        ('{"m": 1}', "arguments/m"),
        ("[]", "arguments"),
        ("null", "arguments"),
        ("", "arguments"),
        ("{", "arguments"),
        ('{"n": NaN}', "arguments"),
        ('{"n": 1e999}', "arguments"),
        ('{"n": "\\ud800"}', "arguments"),
        ("[" * 100_000, "arguments"),
        ('{"n": ' + "[" * 200 + "]" * 200 + "}", "arguments"),
        ('{"n": ' + "1" * 5_000 + "}", "arguments"),
        (json.dumps({"n": "x" * MAX_ARGUMENT_BYTES}), "arguments"),
        (json.dumps({"n": "ü" * (MAX_ARGUMENT_BYTES // 2)}, ensure_ascii=False), "arguments"),
    ],
    ids=lambda text: text[:20],
)
async def test_arguments_that_do_not_fit_are_refused_before_the_tool_is_reached(hosted, text, field):
    with pytest.raises(InvalidRequestError) as caught:
        await hosted.invoke(grant(), "look@1.0.0", text, "k")
    assert field in caught.value.fields
    assert RUNS == []


async def test_integers_keep_their_digits(call):
    assert value(await call("look@1.0.0", n=2**80 + 1)) == 2**80 + 1


async def test_a_pure_tool_runs_again_each_time(call):
    for _ in range(3):
        assert not (await call("look@1.0.0", n=1)).replayed
    assert RUNS == [1, 1, 1]


async def test_a_pure_tool_ends_with_its_caller(hosted):
    ended = asyncio.Event()

    @tool(effect="pure")
    async def watch() -> None:
        """Watches."""
        RUNS.append("begun")
        try:
            await asyncio.sleep(30)
        finally:
            ended.set()

    watching = ToolHost([watch], hosted._ledger)
    call = asyncio.create_task(watching.invoke(grant(tools=["watch@1.0.0"]), "watch@1.0.0", "{}", "k"))
    while not RUNS:
        await asyncio.sleep(0.005)
    call.cancel()
    async with asyncio.timeout(5):
        await ended.wait()


@pytest.mark.parametrize("pin", ["stall@1.0.0", "stall_in_thread@1.0.0"])
async def test_a_tool_that_takes_too_long_is_data(call, pin):
    async with asyncio.timeout(5):
        error = failure(await call(pin))
    assert (error.code, error.reason) == (grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED")
    assert "0.05 s" in error.message


@pytest.mark.parametrize(
    ("kind", "reason", "told"),
    [
        ("value", "TOOL_FAILED", "fail: ValueError: wrong number"),
        ("half a pair", "TOOL_FAILED", "fail: ValueError: ?"),
        ("long", "TOOL_FAILED", "fail: ValueError: xxx"),
        ("exit", "TOOL_FAILED", "fail: SystemExit: 3"),
        ("cancelled", "TOOL_FAILED", "fail"),
        ("timeout", "TOOL_FAILED", "fail: TimeoutError: its own"),
        ("mesh", "PERMISSION_DENIED", "not for you"),
    ],
)
async def test_an_exception_is_data_without_a_stack(call, kind, reason, told):
    async with asyncio.timeout(5):
        outcome = await call("fail@1.0.0", kind=kind)
    error = failure(outcome)
    assert error.reason == reason
    assert error.message.startswith(told)
    assert len(error.message) <= 1_000
    for inside in (b"Traceback", b"hunter2", b".py"):
        assert inside not in outcome.SerializeToString()


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ("half a pair", "TOOL_RESULT_INVALID"),
        ("deep", "TOOL_RESULT_INVALID"),
        ("object", "TOOL_FAILED"),
        ("large", "RESULT_TOO_LARGE"),
        ("large in bytes", "RESULT_TOO_LARGE"),
    ],
)
async def test_a_result_that_cannot_travel_is_data(call, what, reason):
    assert failure(await call("give@1.0.0", what=what)).reason == reason


async def test_a_large_integer_travels(call):
    assert value(await call("give@1.0.0", what="big integer")) == 2**70


@pytest.mark.parametrize("number", ["text", "nan", "-inf"])
async def test_a_result_that_breaks_its_schema_is_data(call, number):
    error = failure(await call("lie@1.0.0", number=number))
    assert error.reason == "TOOL_RESULT_INVALID"
    assert error.message.startswith("lie broke its own contract: ")


async def test_a_tool_knows_whose_call_it_serves(call):
    assert value(await call("ask.who@1.0.0", "key-9")) == ["t", "p", "task", "key-9"]


def test_two_tools_of_one_name_and_version_are_a_mistake(store):
    other = tool(name="look")(lambda: None)
    with pytest.raises(SetupError, match=r"look@1\.0\.0"):
        ToolHost([look, other], Ledger(store))
    assert ToolHost([look, look], Ledger(store)).tools == [look]
