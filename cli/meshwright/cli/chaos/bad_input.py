"""Bad input: bytes, JSON and schemas that no honest client sends; all of it is answered, soon, and changes nothing."""

import asyncio
import contextlib
import json
import math
import random
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Self

import grpc
from google.protobuf.json_format import ParseDict, ParseError
from google.protobuf.message import Message

from meshwright.cli import ports
from meshwright.cli.chaos.mutation import Draw, Request, hostile_schema, mutated_request, mutated_wire
from meshwright.cli.chaos.rig import Rig
from meshwright.cli.chaos.scenario import Row, Setting
from meshwright.cli.mesh import HOST
from meshwright.core import channel
from meshwright.core.errors import MeshError
from meshwright.gen.agents.v1 import agent_service_pb2, session_service_pb2, task_service_pb2
from meshwright.gen.registry.v1 import agent_directory_service_pb2, tool_registry_service_pb2
from meshwright.gen.tools.v1 import tool_service_pb2

AGENT = "courier"
TASK = "fuzzed"
BOUND_S = 0.25
CALL_S = 5.0
STREAM_S = 0.25
"""How long a stream that was opened may be silent: it waits for events that may never come."""
TRIES = 3
LANES = 4
BATCH = 500
JSON = (("content-type", "application/json"),)
KEY_HEADER = "x-api-key"
SCOPES = ("agents:read", "costs:read", "sessions", "tasks", "tools", "webhooks")
"""Of all that is called, so that bad input gets as far as it can."""
REGISTER = "/registry.v1.ToolRegistryService/RegisterTool"
CONTROL_EVERY = 10
FORBIDDEN = frozenset({grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL, grpc.StatusCode.DATA_LOSS})
SERVER_ERROR, NOT_SERVED, NOT_READY = 500, 501, 503
AGENT_FILES = (agent_service_pb2, session_service_pb2, task_service_pb2, tool_service_pb2)
REGISTRY_FILES = (agent_directory_service_pb2, tool_registry_service_pb2)
PROMPT: dict[str, Any] = {"prompt": "x", "max_steps": 3, "timeout": "2s", "metadata": {"a": "b"}}
TOOL: dict[str, Any] = {
    "name": "fuzz.tool", "version": "1.0.0", "description": "Fuzz.", "endpoint": "127.0.0.1:9", "timeout": "1s",
    "effect": "EFFECT_PURE", "input_schema": {"type": "object"}, "output_schema": {"type": "string"},
}  # fmt: skip
PATHS: tuple[tuple[str, str, Any], ...] = (
    ("POST", "/run", PROMPT), ("POST", f"/v1/agents/{AGENT}/run", PROMPT),
    ("POST", "/steps", PROMPT), ("POST", f"/v1/agents/{AGENT}/steps", PROMPT),
    ("POST", "/tasks", PROMPT), ("POST", f"/v1/agents/{AGENT}/tasks", PROMPT),
    ("GET", "/v1/tasks", None), ("GET", f"/v1/tasks/{TASK}", None), ("GET", f"/tasks/{TASK}", None),
    ("GET", f"/v1/tasks/{TASK}/steps", None), ("GET", f"/v1/tasks/{TASK}/events", None),
    ("POST", f"/v1/tasks/{TASK}:cancel", {"reason": "x"}),
    ("POST", f"/v1/tasks/{TASK}:resolve", {"input_id": "i", "decision": "DECISION_APPROVE", "answer": {"a": 1}}),
    ("GET", "/v1/agents", None), ("GET", f"/v1/agents/{AGENT}", None), ("GET", f"/v1/agents/{AGENT}/health", None),
    ("GET", "/v1/sessions", None), ("GET", "/v1/sessions/fuzz", None), ("DELETE", "/v1/sessions/fuzz", None),
    ("GET", "/v1/costs", None),
    ("GET", "/v1/tools", None), ("GET", "/v1/tools/look", None), ("POST", "/v1/tools", {"tool": TOOL}),
    ("POST", "/v1/tools/look:invoke", {"arguments": {"job": "a", "step": 1}, "idempotency_key": "k"}),
    ("GET", "/ready", None), ("GET", "/health", None), ("GET", "/", None), ("GET", "/openapi.json", None),
    ("GET", "/assets/app.js", None),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Method:
    """A gRPC method, with an honest request for it."""

    path: str
    is_stream: bool
    honest: bytes


@dataclass(frozen=True, slots=True)
class Call:
    """A call of a method, with whatever bytes."""

    service: str
    method: Method
    wire: bytes


Made = Call | Request


@dataclass(slots=True)
class Findings:
    """What was answered, and how soon."""

    seconds: list[float] = field(default_factory=list)
    control: list[float] = field(default_factory=list)
    answers: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    slow: dict[Made, list[float]] = field(default_factory=dict)

    def note(self, made: Made, what: str, answer: str, seconds: float, *, is_wrong: bool) -> None:
        """Adds one answer."""
        if seconds > BOUND_S:
            self.slow.setdefault(made, []).append(seconds)
        self.seconds.append(seconds)
        self.answers[answer] += 1
        if is_wrong:
            self.wrong.append(f"{what} answered {answer}")


class Trap:
    """A listener that nobody must ever connect to: references to it stand in schemas."""

    def __init__(self) -> None:
        self.port = ports.reserve(HOST, set())
        self.visits = 0
        self._server: asyncio.Server | None = None

    @property
    def address(self) -> str:
        """host:port."""
        return f"{HOST}:{self.port}"

    async def __aenter__(self) -> Self:
        """Listens."""
        self._server = await asyncio.start_server(self._visited, HOST, self.port)
        return self

    async def __aexit__(self, *failure: object) -> None:
        """Stops."""
        if self._server:
            self._server.close()

    async def _visited(self, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.visits += 1
        writer.close()


def methods(files: Iterable[Any]) -> list[Method]:
    """Lists all methods of the services in some generated modules."""
    found = []
    for file in files:
        for service in file.DESCRIPTOR.services_by_name.values():
            for method in service.methods:
                message = honest(method.input_type._concrete_class())  # noqa: SLF001 - the class has no other name
                path = f"/{service.full_name}/{method.name}"
                found.append(Method(path, method.server_streaming, message.SerializeToString()))
    return found


def honest(message: Message) -> Message:
    """Fills a request as an honest client might; every field by its kind, so that mutations hit what is read."""
    known: dict[str, Any] = {
        "prompt": "x", "task_id": TASK, "agent_id": AGENT, "max_steps": 3, "name": "look", "version": "^1",
        "reason": "x", "selectors": ["look@^1"], "page_size": 5, "idempotency_key": "k", "key_id": "x",
        "instance_id": "fuzz-1", "tool": TOOL, "arguments": {"job": "a"},
        "agent": {"agent_id": "fuzz", "version": "1.0.0", "description": "Fuzz."},
        "endpoint": {"instance_id": "fuzz-1", "target": "127.0.0.1:9"}, "lease": "2s", "arguments_json": "{}",
        "session_id": "fuzz", "text": "x", "fact_id": "f",
    }  # fmt: skip
    if "prompt" in message.DESCRIPTOR.fields_by_name:
        del known["session_id"]  # tasks of one session would wait for each other
    for name, value in known.items():
        if name in message.DESCRIPTOR.fields_by_name:
            with contextlib.suppress(Exception):  # another message's field of that name is of another kind
                ParseDict({name: value}, message)
    return message


class Attack:
    """Sends bad input to one mesh.

    Args:
        rig: The mesh.
        trap: Referred to by schemas.
        draw: Of everything.
    """

    def __init__(self, rig: Rig, trap: Trap, draw: Draw) -> None:
        self.findings = Findings()
        self._draw, self._trap, self._port = draw, trap, rig.mesh.plan.port
        targets = {AGENT: AGENT_FILES, "registry": REGISTRY_FILES}
        self._wires = {name: channel.dial(rig.entry(rig.mesh.children[name].target)) for name in targets}
        self._callers = {name: rig.keyed(wire) for name, wire in self._wires.items()}
        self._key = ((KEY_HEADER, rig.key),) if rig.key else ()
        self._methods = [(name, method) for name, files in targets.items() for method in methods(files)]
        self._edge = rig.edge

    async def close(self) -> None:
        """Closes the connections."""
        for wire in self._wires.values():
            await wire.close()

    async def run(self, many: int) -> None:
        """Sends so many requests, a few at once; made before, since making them takes time that is not the mesh's."""
        for start in range(0, many, BATCH):
            left = iter([self._made(number) for number in range(start, min(start + BATCH, many))])

            async def lane(left: Iterator[Made] = left) -> None:
                for number, made in enumerate(left):
                    if number % CONTROL_EVERY == 0:
                        await self._harmless()
                    await self._send(made)

            await asyncio.gather(*(lane() for _ in range(LANES)))

    async def repeat_slow(self) -> list[tuple[float, Made]]:
        """Sends what was answered late again, alone: what costs much does so every time, a busy machine does not.

        Returns:
            How many seconds longer than a harmless call just before it each of them took, at best.
        """
        late = self.findings.slow
        self.findings.slow = {}
        again = []
        for made in late:
            seconds = []
            for _ in range(TRIES):
                await self._harmless()
                started = time.monotonic()
                await self._send(made)
                seconds.append(time.monotonic() - started - self.findings.control[-1])
            again.append((min(seconds), made))
        return again

    async def _send(self, made: Made) -> None:
        await (self._ask(made) if isinstance(made, Request) else self._call(made))

    def _made(self, number: int) -> Made:
        match number % 5:
            case 0 | 1:
                service, method = self._draw.choice(self._methods)
                return Call(service, method, mutated_wire(method.honest, self._draw))
            case 2 | 3:
                return mutated_request(*self._draw.choice(PATHS), self._draw)
            case _:
                return self._registration(number)

    def _registration(self, number: int) -> Made:
        """Offers a tool with a hostile schema, by gRPC or by JSON."""
        schema = hostile_schema(self._draw, self._trap.address)
        tool = TOOL | {"name": f"fuzz.hostile{number}", self._draw.choice(("input_schema", "output_schema")): schema}
        if number % 2:
            with contextlib.suppress(ParseError):  # nested too deep even for a Struct
                request = ParseDict({"tool": tool}, tool_registry_service_pb2.RegisterToolRequest())
                return Call("registry", Method(REGISTER, is_stream=False, honest=b""), request.SerializeToString())
        return Request("POST", "/v1/tools", JSON, json.dumps({"tool": tool}).encode())

    async def _harmless(self) -> None:
        """Makes a call that nothing is wrong with: how long it takes tells how busy the machine is."""
        started = time.monotonic()
        try:
            await self._edge.health(AGENT)
        except MeshError as error:
            self.findings.wrong.append(f"a harmless call was answered {error.code.name}: {error.message}")
        self.findings.control.append(time.monotonic() - started)

    async def _call(self, call: Call) -> None:
        method, started = call.method, time.monotonic()
        wire: Any = self._callers[call.service]
        code = grpc.StatusCode.OK
        try:
            if method.is_stream:
                code = await self._first(wire.unary_stream(method.path)(call.wire, timeout=CALL_S))
            else:
                await wire.unary_unary(method.path)(call.wire, timeout=CALL_S)
        except grpc.aio.AioRpcError as error:
            code = error.code()
        seconds = time.monotonic() - started
        if method.is_stream and code is grpc.StatusCode.OK:
            seconds = min(seconds, BOUND_S)
        self.findings.note(call, method.path, code.name, seconds, is_wrong=code in FORBIDDEN)

    async def _first(self, call: Any) -> grpc.StatusCode:
        """Waits for the first answer of a stream; silence is one, where there may be nothing to tell."""
        try:
            async with asyncio.timeout(STREAM_S):
                await call.read()
        except TimeoutError:
            return grpc.StatusCode.OK
        else:
            return grpc.StatusCode.OK
        finally:
            call.cancel()

    async def _ask(self, request: Request) -> None:
        what = f"{request.method} {request.path[:60]}"
        started = time.monotonic()
        status = 0
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(CALL_S):
                status = await self._status(request)
        is_allowed = status == NOT_SERVED or (status == NOT_READY and request.path.startswith("/ready"))
        is_wrong = status >= SERVER_ERROR and not is_allowed
        detail = f" {dict(request.headers)} {request.body[:80]!r}" if is_wrong else ""
        self.findings.note(
            request, what + detail, str(status or "closed"), time.monotonic() - started, is_wrong=is_wrong
        )

    async def _status(self, request: Request) -> int:
        reader, writer = await asyncio.open_connection(HOST, self._port)
        try:
            known = replace(request, headers=(*request.headers, *self._key))
            writer.write(known.wire(f"{HOST}:{self._port}"))
            words = (await reader.readline()).split()
            return int(words[1]) if len(words) > 1 else 0
        finally:
            writer.transport.abort()


def percentile(values: list[float], share: float) -> float:
    """The value that a share of all does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)]


async def play(setting: Setting) -> Row:
    """Sends bad input, then asks for honest work."""
    many = setting.size(1_500, 25_000)
    draw = random.Random(setting.seed)  # noqa: S311 - no secret
    async with Trap() as trap, Rig(setting, agents=(AGENT,), workers=0, scopes=SCOPES) as rig:
        before = {name: (child.pid, child.restarts) for name, child in rig.mesh.children.items()}
        attack = Attack(rig, trap, draw)
        try:
            await attack.run(many)
            again = await attack.repeat_slow()
        finally:
            await attack.close()
        told = await rig.play(rig.job("honest", ("look", "mark")), AGENT)
        after = {name: (child.pid, child.restarts) for name, child in rig.mesh.children.items()}
        visits = trap.visits
    found, late = attack.findings, [one for one in again if one[0] > BOUND_S]
    row = Row(f"{many} mutated messages, requests and schemas")
    row.figures = {
        "p99": f"{percentile(found.seconds, 0.99) * 1000:.0f} ms",
        "max": f"{max(found.seconds) * 1000:.0f} ms",
        "harmless max": f"{max(found.control) * 1000:.0f} ms",
        "late, late again alone": f"{len(again)}, {len(late)}",
        "refused": str(len(found.seconds) - found.answers["OK"] - found.answers["200"]),
    }
    (setting.folder / "wrong.txt").write_text("\n".join([*found.wrong, *map(str, late)]))
    row.check(not found.wrong, f"{len(found.wrong)} answers blame the mesh: {'; '.join(found.wrong[:3])}")
    row.check(not late, f"{len(late)} answers are late every time: {str(late[:1])[:300]}")
    row.check(before == after, f"processes ended: {sorted(name for name in before if before[name] != after[name])}")
    row.check(not visits, f"{visits} references were followed")
    is_right = told.result is not None and told.job.is_right(told.result.output)
    row.check(is_right, "an honest task did not get its answer afterwards")
    return row
