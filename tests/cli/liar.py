"""A server that answers as a good mesh does, and lies where a test says so: what the doctor must not believe."""

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import h11
from google.protobuf import json_format
from google.protobuf.message import Message

from meshwright.cli.readiness import contract, identity, limits, monitoring
from meshwright.cli.readiness.checklist import ITEMS, line_of
from meshwright.cli.readiness.outcome import Outcome
from meshwright.cli.readiness.survey import Survey, Target
from meshwright.cli.stores import Stores
from meshwright.core.errors import (
    AgentNotFoundError,
    CredentialsMissingError,
    DeadlineExceededError,
    InvalidRequestError,
    MeshError,
    PermissionDeniedError,
    TaskConflictError,
    ToolNotFoundError,
)
from meshwright.core.tls import AUTHORITY, CERTIFICATE, KEY
from meshwright.gateway import openapi
from meshwright.gen.agents.v1 import agent_service_pb2 as agents
from meshwright.gen.agents.v1 import step_event_pb2 as steps
from meshwright.gen.agents.v1 import task_pb2 as tasks
from meshwright.gen.agents.v1 import task_service_pb2 as costs
from meshwright.gen.registry.v1 import agent_directory_service_pb2 as directory
from meshwright.gen.registry.v1 import tool_registry_service_pb2 as registry

NAMED = {f"{item.group}: {item.name}": item for item in ITEMS}
ELSEWHERE = {"contract: edges", "identity: API keys", "durability: audit"}
"""Items of which only a store tells."""
KEY_SHOWN = "mwk_0011223344556677_secret"
DESCRIPTORS = Path(contract.__file__).parents[4] / "gen/meshwright/gen/descriptors.binpb"
ALERTS = Path(monitoring.__file__).parent / monitoring.RENDERED


@dataclass(frozen=True)
class Request:
    """What was asked."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: bytes

    @property
    def is_known(self) -> bool:
        return self.headers.get("authorization") == f"Bearer {KEY_SHOWN}"


@dataclass
class Reply:
    """What is answered."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


Twist = Callable[[Request, Reply], Reply | None]
"""Changes a reply; None leaves it."""


def of(message: Message, status: int = 200, **headers: str) -> Reply:
    text = json_format.MessageToJson(message, preserving_proto_field_name=True, indent=None)
    return Reply(status, text.encode(), {name.replace("_", "-"): value for name, value in headers.items()})


def failing(status: int, error: MeshError) -> Reply:
    return of(error.to_status(), status)


def card(**chosen: Any) -> directory.AgentCard:
    facts: dict[str, Any] = {
        "agent_id": "clerk",
        "version": "1.0.0",
        "contract_digest": contract.own_digest(),
        "endpoints": [directory.Endpoint(instance_id=f"i{number}", target="10.0.0.1:1") for number in range(2)],
        "tools": ["double@^1"],
        "models": ["best"],
        "guardrails": ["size"],
        "tenant_day_budget_micros": 1_000_000,
    }
    return directory.AgentCard(**(facts | chosen))


def tool(**chosen: Any) -> registry.Tool:
    made = registry.Tool(**({"name": "double", "version": "1.0.0", "description": "Doubles.", "digest": "d"} | chosen))
    made.input_schema.update({"type": "object"})
    return made


def task(**chosen: Any) -> tasks.TaskResponse:
    made = tasks.TaskResponse(status=tasks.TASK_STATUS_COMPLETED, trace_id="ab" * 16, attempt=1)
    made.usage.cost_micros = 7
    made.usage.model_calls = 1
    made.MergeFrom(tasks.TaskResponse(**chosen))
    return made


STEPS = [steps.StepEvent(sequence=number, step=number) for number in range(1, 6)]


class Liar:
    """The server; answers like a mesh that lacks nothing, changed by `twist`."""

    def __init__(self, twist: Twist | None = None) -> None:
        self.twist = twist
        self.seen: list[Request] = []
        self.prompts: dict[str, str] = {}
        self.address = ""

    def answer(self, request: Request) -> Reply:
        self.seen.append(request)
        good = self._answered(request)
        return (self.twist and self.twist(request, replace(good, headers=dict(good.headers)))) or good

    def _answered(self, request: Request) -> Reply:
        if request.path.startswith("/api/v1/"):
            return self._prometheus(request.path)
        if request.headers.get("host") == identity.STRANGE or "origin" in request.headers:
            return failing(403, PermissionDeniedError("not here"))
        if request.path in OPEN:
            return OPEN[request.path](request)
        if request.headers.get("content-type") == "application/grpc":
            return Reply(200, b"", {"grpc-status": "12"})
        if not request.is_known:
            return failing(401, CredentialsMissingError("who is calling?"))
        return self._known(request)

    def _known(self, request: Request) -> Reply:
        if request.headers.get("x-request-timeout") == limits.MOMENT:
            return failing(504, DeadlineExceededError("too late"))
        if request.method == "POST" and request.path == limits.READS:
            return failing(413 if len(request.body) > 4 * 2**20 else 400, InvalidRequestError("no candidate"))
        return self._task(request) or self._listed(request)

    def _listed(self, request: Request) -> Reply:
        told: dict[str, Message] = {
            "/v1/agents": directory.ListAgentsResponse(agents=[card()]),
            "/v1/agents/clerk/health": health(),
            "/v1/tools": registry.ListToolsResponse(tools=[tool()]),
            "/v1/tools/double": tool(),
        }
        if request.path not in told:
            return failing(404, (ToolNotFoundError if "tools" in request.path else AgentNotFoundError)("not here"))
        return of(told[request.path], x_ratelimit_limit="50", x_ratelimit_remaining="49")

    def _task(self, request: Request) -> Reply | None:
        if request.method == "POST" and request.path == "/v1/agents/clerk/tasks":
            asked = json.loads(request.body)
            if self.prompts.setdefault(asked["task_id"], asked["prompt"]) != asked["prompt"]:
                return failing(409, TaskConflictError("taken"))
            return of(task(task_id=asked["task_id"], session_id=asked["session_id"]), 202)
        if request.path == "/v1/costs":
            row = costs.CostRow(name=f"ann/{next(iter(self.prompts), '')}", cost_micros=7)
            return of(costs.GetCostsResponse(rows=[row]))
        if not request.path.startswith("/v1/tasks/"):
            return None
        if request.path.endswith("/steps"):
            after = int(request.query.get("after_sequence", ["0"])[0])
            lines = [json_format.MessageToJson(one, indent=None) for one in STEPS if one.sequence > after]
            return Reply(200, "\n".join(lines).encode())
        name = request.path.split("/")[3]
        return of(task(task_id=name, session_id=name))

    def _prometheus(self, path: str) -> Reply:
        outlines = json.loads(ALERTS.read_text()).items()
        rules = [
            {"name": name, "query": expression, "duration": monitoring.span(lasts)}
            for name, (expression, lasts) in outlines
        ]
        data = {
            "/api/v1/targets": {"activeTargets": [{"scrapePool": "x/meshwright", "scrapeUrl": "u", "health": "up"}]},
            "/api/v1/rules": {"groups": [{"rules": rules}]},
            "/api/v1/alerts": {"alerts": []},
        }[path]
        return Reply(200, json.dumps({"status": "success", "data": data}).encode())

    @contextlib.asynccontextmanager
    async def serving(self, context: ssl.SSLContext | None = None) -> Any:
        """Serves on a free port; yields the URL."""
        server = await asyncio.start_server(self._connection, "127.0.0.1", 0, ssl=context)
        port = server.sockets[0].getsockname()[1]
        async with server:
            yield f"http{'s' if context else ''}://localhost:{port}"

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, h11.RemoteProtocolError, ssl.SSLError):
            http = h11.Connection(h11.SERVER)
            if request := await received(http, reader):
                reply = self.answer(request)
                headers = {"content-length": str(len(reply.body)), "connection": "close"} | reply.headers
                head = h11.Response(status_code=reply.status, headers=list(headers.items()))
                for event in (head, h11.Data(data=reply.body), h11.EndOfMessage()):
                    writer.write(http.send(event) or b"")
                await writer.drain()
        writer.close()


async def received(http: h11.Connection, reader: asyncio.StreamReader) -> Request | None:
    head, body = None, b""
    while True:
        event = http.next_event()
        if event is h11.NEED_DATA:
            http.receive_data(await reader.read(2**16))
        elif isinstance(event, h11.Request):
            head = event
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage):
            assert head
            url = urlsplit(head.target.decode())
            headers = {name.decode(): value.decode() for name, value in head.headers}
            return Request(head.method.decode(), url.path, parse_qs(url.query), headers, body)
        else:
            return None


def health(**chosen: Any) -> agents.HealthResponse:
    model = agents.DependencyHealth(name="model best", status=agents.HEALTH_STATUS_SERVING, breaker="closed")
    return agents.HealthResponse(
        **({"status": agents.HEALTH_STATUS_SERVING, "agent_id": "clerk", "dependencies": [model]} | chosen)
    )


OPEN: dict[str, Callable[[Request], Reply]] = {
    "/health": lambda _: Reply(200, b'{"status":"ok"}'),
    "/ready": lambda _: Reply(200, b"{}", {"strict-transport-security": "max-age=31536000"}),
    "/openapi.json": lambda _: Reply(200, json.dumps(openapi.render("keys")).encode()),
    "/assets/descriptors.binpb": lambda _: Reply(200, DESCRIPTORS.read_bytes()),
}


def shown(folder: Path, *protocols: str) -> ssl.SSLContext:
    """TLS of a server with the certificate in a folder."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / CERTIFICATE, folder / KEY)
    if protocols:
        context.set_alpn_protocols([*protocols])
    return context


def target(url: str, authority: Path, **chosen: Any) -> Target:
    return Target(
        **(
            {"url": url, "api_key": KEY_SHOWN, "authority": str(authority / AUTHORITY), "agent": "clerk"}
            | {"otlp_endpoint": "http://collector:4317"}
            | chosen
        )
    )


def at(path: str, reply: Reply | Callable[[Request, Reply], Reply | None], *, method: str = "GET") -> Twist:
    """Answers one path otherwise; a function makes the reply of the request."""

    def twist(request: Request, good: Reply) -> Reply | None:
        if request.path != path or request.method != method:
            return None
        return reply(request, good) if callable(reply) else reply

    return twist


async def look(name: str, wanted: Target) -> Outcome:
    """Looks at one item."""
    survey = Survey(wanted, Stores())
    line = await line_of(NAMED[name], survey, asyncio.get_running_loop().time() + 20)
    return line.outcome


@contextlib.asynccontextmanager
async def raw(
    tls: ssl.SSLContext | None, answer: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
) -> AsyncIterator[str]:
    """A server that does with a connection what it likes."""

    async def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.CancelledError):
            await answer(reader, writer)
        writer.close()

    server = await asyncio.start_server(served, "127.0.0.1", 0, ssl=tls)
    async with server:
        yield f"https://localhost:{server.sockets[0].getsockname()[1]}"
