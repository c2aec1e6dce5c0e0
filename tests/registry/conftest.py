"""A registry and tool hosts of this process, each on a free port, on a real store."""

import asyncio
import contextlib
import datetime as dt
import inspect
import json
import re
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from meshwright.core import channel
from meshwright.core.channel import Channels, dial
from meshwright.core.grant import Verifier
from meshwright.core.server import Server, bound
from meshwright.core.settings import Settings
from meshwright.core.store import Store
from meshwright.gen.registry.v1 import tool_registry_service_pb2 as pb
from meshwright.gen.registry.v1.agent_directory_service_pb2_grpc import AgentDirectoryServiceStub
from meshwright.gen.registry.v1.tool_registry_service_pb2_grpc import ToolRegistryServiceStub
from meshwright.gen.tools.v1.tool_service_pb2_grpc import ToolServiceStub, add_ToolServiceServicer_to_server
from meshwright.registry.client import RegistryClient
from meshwright.registry.host import ToolHost
from meshwright.registry.invocation import INVOCATION, Invocation
from meshwright.registry.serving import RegistryProcess
from meshwright.registry.store import Ledger
from meshwright.registry.tool import LocalTool
from meshwright.registry.tool.hosted import HostedTool
from meshwright.registry.tool_service import ToolService
from meshwright.registry.toolfile import load
from tests.registry.host_tools import RUNS, TOOLS, grant


@dataclass
class Registry:
    """A running registry, its stubs, and a client as services have one."""

    process: RegistryProcess
    target: str
    channel: grpc.aio.Channel
    client: RegistryClient
    tools: Any
    agents: Any


@pytest.fixture
async def registry(store: Store) -> AsyncIterator[Registry]:
    process = RegistryProcess(Settings(store_url=store.url, drain_s=0, tracing=False))
    async with dialled(process, await process.start()) as running:
        yield running
    await process.stop()


@contextlib.asynccontextmanager
async def dialled(process: RegistryProcess, target: str) -> AsyncIterator[Registry]:
    """Connects to a registry that runs."""
    channels = Channels()
    async with dial(target) as connection:
        yield Registry(
            process,
            target,
            connection,
            RegistryClient(channels, target),
            ToolRegistryServiceStub(connection),
            AgentDirectoryServiceStub(connection),
        )
    await channels.close()


@pytest.fixture
def connect() -> Callable[..., Any]:
    """Connects to a registry of another fixture: `async with connect(process, target) as registry`."""
    return dialled


def contract_of(name: str = "docs.search", version: str = "1.0.0", **changes: Any) -> pb.Tool:
    """Makes a contract; `properties`: of its arguments, and no others are taken."""
    properties = changes.pop("properties", {})
    fields = {"description": "Searches.", "endpoint": "127.0.0.1:7", "name": name, "version": version} | changes
    made = pb.Tool(**fields)
    made.input_schema.update(
        {"type": "object"} | ({"properties": properties, "additionalProperties": False} if properties else {})
    )
    return made


@pytest.fixture
def contract() -> Callable[..., pb.Tool]:
    """Makes contracts: `contract("docs.search", "1.0.0", effect=...)`."""
    return contract_of


@pytest.fixture
def ask(registry: Registry) -> Callable[..., Any]:
    """Calls a method of the tool registry with a request's fields."""

    async def call(method: str, **fields: Any) -> Any:
        request_type = getattr(pb, f"{method}Request")
        return await channel.unary(getattr(registry.tools, method), request_type(**fields), timeout_s=10)

    return call


@pytest.fixture
def register(ask: Callable[..., Any]) -> Callable[..., Any]:
    """Registers a contract and returns it as it is stored: `await register(version="1.1.0")`."""

    async def stored(made: pb.Tool | None = None, *, validate_only: bool = False, **changes: Any) -> pb.Tool:
        answer = await ask("RegisterTool", tool=made or contract_of(**changes), validate_only=validate_only)
        tool: pb.Tool = answer.tool
        return tool

    return stored


@pytest.fixture
async def watching() -> AsyncIterator[Callable[..., Any]]:
    """Opens watches: `watching(method, request)` is a function that waits for the next change."""
    async with contextlib.AsyncExitStack() as stack:

        def opened(method: Any, request: Any) -> Callable[[], Any]:
            stream = channel.stream(method, request, timeout_s=None)
            stack.push_async_callback(stream.aclose)

            async def following() -> Any:
                async with asyncio.timeout(5):
                    return await anext(stream)

            return following

        yield opened


@dataclass
class Hosting:
    """A tool host's server and a client of it."""

    host: ToolHost
    target: str
    tools: Any


@pytest.fixture
async def hosting(registry: Registry, store: Store) -> AsyncIterator[Callable[..., Any]]:
    """Serves tools and registers them: `await hosting(add, search)`."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(*tools: LocalTool) -> Hosting:
            host = ToolHost(tools, Ledger(store))
            services = {"tools.v1.ToolService": bound(add_ToolServiceServicer_to_server, ToolService(host))}
            settings = Settings(drain_s=0, tracing=False)
            server = Server(settings, services, Verifier(registry.client.key))
            target = await server.start()
            stack.push_async_callback(server.stop)
            for tool in tools:
                await registry.client.register(tool.contract(target))
            connection = await stack.enter_async_context(dial(target))
            return Hosting(host, target, ToolServiceStub(connection))

        yield start


@pytest.fixture(autouse=True)
def _no_runs_before() -> None:
    RUNS.clear()


@pytest.fixture
def hosted(store: Store) -> ToolHost:
    """A host of `host_tools`."""
    return ToolHost(TOOLS, Ledger(store))


@pytest.fixture
def call(hosted: ToolHost) -> Callable[..., Any]:
    """Calls a tool of `host_tools`: `await call("pay@1.0.0", "key", n=1)`."""

    async def called(pin: str, key: str = "k", *, on: ToolHost | None = None, **arguments: Any) -> Any:
        return await (on or hosted).invoke(grant(), pin, json.dumps(arguments), key)

    return called


class Outside:
    """A service of somebody else on loopback: who connected, and what was sent.

    Attributes:
        connections: How many there were.
        requests: Head and body of each request that was read.
    """

    def __init__(self, answer: Any) -> None:
        self._answer = answer
        self.connections = 0
        self.requests: list[bytes] = []
        self.port = 0

    @property
    def place(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"content-length: (\d+)", head.lower())
            self.requests.append(head + await reader.readexactly(int(length[1]) if length else 0))
            if isinstance(self._answer, bytes):
                writer.write(self._answer)
            elif inspect.iscoroutinefunction(self._answer):
                await self._answer(writer)
            else:
                writer.write(self._answer(self.requests[-1]))
            await writer.drain()
        writer.close()


@pytest.fixture
async def outside() -> AsyncIterator[Callable[..., Any]]:
    """Serves bytes, what a function makes of a request, or what a coroutine writes."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(answer: Any, *, host: str = "127.0.0.1", port: int = 0, **options: Any) -> Outside:
            service = Outside(answer)
            server = await asyncio.start_server(service.serve, host, port, **options)
            service.port = server.sockets[0].getsockname()[1]
            stack.callback(server.close)
            return service

        yield start


def answered(body: bytes | str, status: str = "200 OK", **headers: str) -> bytes:
    """Writes an HTTP answer."""
    content = body if isinstance(body, bytes) else body.encode()
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(content)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + content


@pytest.fixture(name="answered")
def _answered() -> Callable[..., bytes]:
    """Writes an HTTP answer: `answered("text", "404 Not Found", Content_Type="text/plain")`."""
    return answered


@dataclass(frozen=True)
class Authority:
    """A certificate for `service.test` and `localhost`, and the file that makes it trusted."""

    ca_file: Path
    key_file: Path

    @property
    def server(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.ca_file, self.key_file)
        return context


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Makes a certificate of this session."""
    folder = tmp_path_factory.mktemp("authority")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "service.test")])
    now = dt.datetime.now(dt.UTC)
    names = x509.SubjectAlternativeName([x509.DNSName("service.test"), x509.DNSName("localhost")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(minutes=5))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    made = Authority(folder / "ca.pem", folder / "key.pem")
    made.ca_file.write_bytes(certificate.public_bytes(Encoding.PEM))
    made.key_file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return made


@pytest.fixture
def declared(tmp_path: Path) -> Callable[..., Any]:
    """Makes the tools of a declaration: `declared({"http": {...}}, input_schema=..., effect="pure")`."""

    def make(
        backend: dict[str, Any],
        *,
        secrets: dict[str, Any] | None = None,
        settings: Settings | None = None,
        **fields: Any,
    ) -> list[HostedTool]:
        tool = {"name": "its.tool", "version": "1.0.0", "description": "Does it.", "backend": backend} | fields
        file = tmp_path / "tools.yaml"
        file.write_text(json.dumps({"secrets": secrets or {}, "tools": [tool]}))  # JSON is YAML, too
        return load(file, settings or Settings())

    return make


@pytest.fixture
def invocation() -> Iterator[Invocation]:
    """What a running tool may know of its call."""
    call = Invocation("acme", "alice", "task-1", "key-1")
    token = INVOCATION.set(call)
    yield call
    INVOCATION.reset(token)
