"""Hostile schemas and payloads: each is refused or answered in time, nothing is fetched, and the host lives on."""

import asyncio
import contextlib
import inspect
import itertools
import json
import random
import time
from typing import Any, ClassVar

import pytest

from meshwright.core import channel
from meshwright.core.canonical import to_struct
from meshwright.core.errors import InvalidRequestError, MeshError
from meshwright.core.grant import Signer
from meshwright.gen.agents.v1.grant_pb2 import Grant
from meshwright.gen.registry.v1.agent_directory_service_pb2 import AgentCard, Endpoint
from meshwright.gen.registry.v1.tool_registry_service_pb2 import RegisterToolRequest, Tool
from meshwright.gen.tools.v1.tool_service_pb2 import InvokeRequest
from meshwright.registry import LocalTool, tool
from meshwright.registry.schema import Schema

LIMIT_S = 0.25
"""Of this process's CPU, server and client together: the machine may have other things to do."""
TRIES = 3
PATTERNS = [
    "(a+)+$",
    "(a|aa)+$",
    "([a-zA-Z]+)*$",
    "(a|a?)+$",
    "(.*a){25}$",
    "^(([a-z])+.)+[A-Z]([a-z])+$",
    "^(a?){50}a{50}$",
    "(x+x+)+y",
    "(a{1,100}){1,100}",
    "((a{0,50}){0,50}){0,50}",
    "(?=a+)b",
    r"(a)\1+",
    "(?<!a)b",
    "[",
    "(",
    "a{99999}",
    r"\p{L}{1,500}",
    "(" * 300 + ")" * 300,
    "a" * 900,
    "a" * 2_000,
]
VALUES: list[Any] = [
    {},
    {"x": "a" * 40 + "!"},
    {"x": "a" * 100_000 + "!"},
    {"a" * 1_000 + "!": 1},
    {"x": list(range(20_000))},
    {"x": [{"x": n} for n in range(5_000)]},
    {"x": 2**4_000},
    {f"k{n}": n for n in range(10_000)},
]


def nested(depth, *, by="x", leaf=None):
    value = leaf
    for _ in range(depth):
        value = {by: value} if by else [value]
    return value


def laughs(width, depth, way):
    """Billion laughs: every definition applies the next one several times."""
    refs = {str(n): {way: [{"$ref": f"#/$defs/{n + 1}"}] * width} for n in range(depth)}
    return {"$defs": refs | {str(depth): {"type": "object"}}, "$ref": "#/$defs/0"}


def deep_laughs(width, depth):
    """The same, each one level further down in the value."""
    refs = {
        str(n): {"properties": {"x": {"allOf": [{"$ref": f"#/$defs/{(n + 1) % depth}"}] * width}}} for n in range(depth)
    }
    return {"$defs": refs, "$ref": "#/$defs/0"}


def schemas(address):
    """Yields schemas that somebody might register to do harm."""
    for pattern in PATTERNS:
        for keyword in ("properties", "patternProperties", "propertyNames", "items"):
            inner = {"pattern": pattern}
            yield {
                "properties": {"properties": {"x": inner}},
                "patternProperties": {"patternProperties": {pattern: {"type": "integer"}}},
                "propertyNames": {"propertyNames": inner},
                "items": {"properties": {"x": {"items": inner}}},
            }[keyword]
    for target in (
        f"http://{address}/schema.json",
        f"http://{address}/#/a",
        f"//{address}/a",
        "https://example.com/a",
        "file:///etc/passwd",
        "urn:a:b",
        "other.json",
        "#/nowhere",
        "#nowhere",
        "#/properties/x/../x",
        "",
    ):
        for keyword in ("$ref", "$dynamicRef", "$id", "$schema", "$recursiveRef"):
            yield {keyword: target}
            yield {"properties": {"x": {keyword: target}}}
    yield from ({"$ref": "#"}, {"allOf": [{"$ref": "#"}]}, {"not": {"$ref": "#"}}, {"if": {"$ref": "#"}})
    yield {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}
    yield {"$dynamicAnchor": "a", "$dynamicRef": "#a"}
    yield {"properties": {"x": {"$ref": "#"}}, "additionalProperties": {"$ref": "#"}}
    yield {"properties": {"x": {"anyOf": [{"$ref": "#"}, {"$ref": "#"}, {"$ref": "#"}]}}}
    for width, depth, way in itertools.product((2, 10), (3, 10, 60), ("allOf", "anyOf", "oneOf")):
        yield laughs(width, depth, way)
    yield from (deep_laughs(width, depth) for width in (2, 10) for depth in (2, 20))
    yield from (nested(depth, by=by) for depth in (10, 20, 31, 33) for by in ("properties", "not", "items", "allOf"))
    for wide in (100, 1_500, 3_000):
        yield {"properties": {f"k{n}": {"type": "string"} for n in range(wide)}}
        yield {"enum": list(range(wide))}
        yield {"required": [f"k{n}" for n in range(wide)]}
        yield {"anyOf": [{"const": n} for n in range(wide)]}
    yield {"properties": {"x": {"uniqueItems": True}}}
    yield {"properties": {"x": {"uniqueItems": True, "contains": {"uniqueItems": True}, "minContains": 10_000}}}
    yield {"description": "x" * 100_000}
    for keyword in ("type", "properties", "required", "items", "minimum", "multipleOf", "enum", "pattern", "$ref"):
        yield from ({keyword: value} for value in (7, -1, None, [], {}, "", 1e308, [[[]]], {"type": {"type": 1}}))


def payloads():
    """Yields texts that somebody might send to do harm."""
    for number in ("NaN", "Infinity", "-Infinity", "1e999", "-1e999", "1" * 5_000, "1" * 4_000, "1e-999", "01", "+1"):
        yield f'{{"x": {number}}}'
        yield f'{{"x": [{number}, {number}]}}'
    for key in ("x", "", "\\u0000", "\\ud83d\\ude00", "__proto__", "k" * 1_000):
        yield f'{{"{key}": 1, "{key}": 2}}'
        yield f'{{"x": {{"{key}": 1, "a": 3, "{key}": 2}}}}'
    for half in ("\\ud800", "\\udfff", "\\ud800\\ud800", "\\udc00\\ud800", "a\\ud83d"):
        yield f'{{"x": "{half}"}}'
        yield f'{{"{half}": 1}}'
        yield f'{{"x": ["{half}", {{"y": "{half}"}}]}}'
    for depth in (24, 25, 100, 900, 5_000, 120_000):
        yield "[" * depth + "]" * depth
        yield '{"x":' * (depth // 5) + "1" + "}" * (depth // 5)
        yield '{"x": ' + "[" * depth
    for size in (1_000, 200_000, 262_000, 300_000, 3_000_000):
        yield json.dumps({"x": "a" * size})
        yield json.dumps({"x": "a" * size + "!"})
        yield json.dumps({"x": "ü" * (size // 2)}, ensure_ascii=False)
        yield json.dumps({"x": [0] * (size // 3)})
        yield json.dumps({f"k{n}": n for n in range(size // 12)})
    yield from (
        "",
        " ",
        "null",
        "[]",
        "1",
        '"x"',
        "{",
        "}",
        "{]",
        '{"x"}',
        "{x:1}",
        "{'x':1}",
        '{"x":1,}',
        "\x00",
        "\ufeff{}",
    )
    whole = '{"x": "text", "y": [1, 2.5, {"z": null}]}'
    rng = random.Random(20_26)
    for _ in range(60):
        at = rng.randrange(len(whole))
        yield whole[:at] + rng.choice('{}[]",:0eE+-.\\u\x00\ud7ff') + whole[at + rng.randrange(3) :]


@pytest.fixture
async def bait():
    """An address that counts who comes."""
    visits = []

    async def serve(reader, writer):
        visits.append(await reader.readline())
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        yield f"{host}:{port}", visits


class Clock:
    """Bounds what one thing costs, and remembers the dearest."""

    def __init__(self):
        self.dearest = 0.0
        self.count = 0

    async def of(self, act):
        """Does a thing; what was late is done again: what costs much does so each time, collecting garbage does not."""
        spent = []
        while not spent or (min(spent) >= LIMIT_S and len(spent) < TRIES):
            started = time.process_time()
            came = act()
            came = await came if inspect.isawaitable(came) else came
            spent.append(time.process_time() - started)
        self.count += 1
        self.dearest = max(self.dearest, min(spent))
        return came


class Foreign(LocalTool):
    """A tool whose contract somebody else wrote."""

    input_schema: ClassVar[dict[str, Any]] = {}

    def contract(self, endpoint: str = "unplaced:0") -> Tool:
        contract = super().contract(endpoint)
        contract.input_schema.CopyFrom(to_struct({"type": "object"} | self.input_schema))
        return contract

    async def run(self, arguments: dict[str, Any]) -> Any:
        return True


@tool(effect="pure")
async def take(x: Any = None, y: Any = None) -> bool:
    """Takes anything."""
    return True


@pytest.fixture
async def invoke(registry, hosting):
    signer = Signer("adder-1")
    card = AgentCard(agent_id="adder", version="1.0.0", tools=["take", "foreign"])
    await registry.client.announce(
        card, Endpoint(instance_id="adder-1", target="127.0.0.1:7", public_key=signer.public_key)
    )
    foreign = Foreign(take.function, name="foreign", version="1.0.0", effect="pure", timeout_s=5)
    foreign.input_schema = {
        "properties": {"x": {"pattern": "^(a+)+$", "maxLength": 10**6}},
        "patternProperties": {"^(k|kk)+$": {"type": "integer"}},
        "additionalProperties": {"$ref": "#/$defs/n"},
        "$defs": {"n": {"anyOf": [{"type": "integer"}, {"items": {"$ref": "#/$defs/n"}}, {"required": ["x"]}]}},
    }
    served = await hosting(take, foreign)
    token = signer.sign(Grant(agent_id="adder", task_id="task", tools=["take@1.0.0", "foreign@1.0.0"]))

    async def invoke_(name, text):
        request = InvokeRequest(tool=name, version="1.0.0", arguments_json=text, idempotency_key="k")
        stream = channel.stream(served.tools.Invoke, request, timeout_s=10, grant=token)
        (response,) = [one async for one in stream]
        return response.outcome

    return invoke_


async def test_hostile_schemas_are_refused_or_checked_in_time_and_nothing_is_fetched(bait):
    address, visits = bait
    clock, kept = Clock(), 0

    def compiled(schema):
        with contextlib.suppress(InvalidRequestError):
            return Schema(schema)
        return None

    for schema in schemas(address):
        taken = await clock.of(lambda schema=schema: compiled(schema))
        for value in VALUES if taken else ():
            await clock.of(lambda taken=taken, value=value: taken.violations(value))
        kept += taken is not None
    assert kept > 50
    assert clock.count > 500
    assert clock.dearest < LIMIT_S
    assert visits == []


async def test_hostile_contracts_do_not_harm_the_registry(registry, bait):
    address, visits = bait
    clock, reasons = Clock(), set()

    async def register(request):
        try:
            await channel.unary(registry.tools.RegisterTool, request, timeout_s=10)
        except MeshError as error:
            reasons.add(error.reason)

    for schema in schemas(address):
        contract = Tool(name="a.b", version="1.0.0", description="Bad.", endpoint="127.0.0.1:7")
        try:
            contract.input_schema.CopyFrom(to_struct(schema | {"type": "object"}))
            request = RegisterToolRequest(tool=contract, validate_only=True)
            request.SerializeToString()
        except (ValueError, RecursionError):
            continue  # it does not even fit into a message
        await clock.of(lambda request=request: register(request))
    assert reasons == {"INVALID_REQUEST"}
    assert clock.count > 250
    assert clock.dearest < LIMIT_S
    assert visits == []


async def test_hostile_payloads_are_refused_or_answered_in_time(invoke):
    clock, answers, lengths = Clock(), set(), [0]

    async def call(name, text):
        try:
            outcome = await invoke(name, text)
            assert not outcome.HasField("error")
            answers.add("ok")
        except MeshError as error:
            answers.add(error.reason)
            lengths.append(len(error.message))

    for name, text in itertools.product(("take", "foreign"), payloads()):
        await clock.of(lambda name=name, text=text: call(name, text))
    assert max(lengths) < 1_100
    assert answers == {"ok", "INVALID_REQUEST"}
    assert clock.count > 250
    assert clock.dearest < LIMIT_S
    assert (await invoke("take", '{"x": 1}')).result_json == "true"
