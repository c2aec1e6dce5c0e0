"""EdgeService: readiness, the page and the documents of the interface, served to Envoy alone."""

import json
import mimetypes
from importlib.resources import files

from google.api.httpbody_pb2 import HttpBody

from meshwright.core import channel
from meshwright.core.channel import Channels
from meshwright.core.errors import AssetNotFoundError, MeshError, UnavailableError
from meshwright.core.interceptors import Context
from meshwright.gateway import openapi, openapi_page
from meshwright.gateway.parts import AGENTS, parts_of
from meshwright.gen.agents.v1.agent_service_pb2 import (
    HealthRequest,
    HealthResponse,
)
from meshwright.gen.agents.v1.agent_service_pb2_grpc import AgentServiceStub
from meshwright.gen.gateway.v1.edge_service_pb2 import (
    GetAssetRequest,
    GetDocsRequest,
    GetOpenApiRequest,
    GetPageRequest,
    GetReadyRequest,
    GetReadyResponse,
)
from meshwright.gen.gateway.v1.edge_service_pb2_grpc import EdgeServiceServicer
from meshwright.gen.registry.v1.agent_directory_service_pb2 import AgentCard, ListAgentsRequest
from meshwright.gen.registry.v1.agent_directory_service_pb2_grpc import AgentDirectoryServiceStub

CHECK_S = 2.0
CONSOLE = "console"
PAGE_HEADERS = (
    ("content-security-policy", "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"),
    ("cache-control", "no-cache"),
)
"""A page that shows what models wrote runs nothing of it, and is shown in nobody's frame."""
DOCS_POLICY = "default-src 'none'; style-src 'self'; img-src 'self'; frame-ancestors 'none'; base-uri 'none'"
DOCS_HEADERS = (("content-security-policy", f"{DOCS_POLICY}; form-action 'none'"), *PAGE_HEADERS[1:])
"""A page that needs no script runs none."""
DESCRIPTORS = "descriptors.binpb"


class EdgeService(EdgeServiceServicer):
    """Answers what no agent can answer for the mesh as a whole.

    Args:
        channels: To the registry and to agents.
        registry: host:port of the registry.
        auth: How callers say who they are, as the setting has it; "none": they do not.
    """

    def __init__(self, channels: Channels, registry: str, auth: str = openapi.NO_AUTH) -> None:
        self._channels = channels
        self._directory = AgentDirectoryServiceStub(channels.to(registry))
        document = openapi.render(auth)
        self._document = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
        self._docs = openapi_page.page(document).encode()

    async def GetReady(self, request: GetReadyRequest, context: Context) -> GetReadyResponse:
        checks: dict[str, str] = {}
        try:
            found = await channel.unary(self._directory.ListAgents, ListAgentsRequest(), timeout_s=CHECK_S)
            checks = {"registry": "ok", AGENTS: "no agent is here"}
            checks |= parts_of([await self._health(card) for card in found.agents])
        except MeshError as error:
            checks["registry"] = channel.why_away(error)
        missing = {name: state for name, state in checks.items() if state != "ok"}
        if missing:
            named = "; ".join(f"{name}: {state}" for name, state in missing.items())
            raise UnavailableError(f"not ready: {named}", metadata=missing, retry_after_s=1)
        return GetReadyResponse(checks=checks)

    async def _health(self, card: AgentCard) -> HealthResponse | None:
        for endpoint in card.endpoints:
            stub = AgentServiceStub(self._channels.to(endpoint.target, card.agent_id))
            try:
                health: HealthResponse = await channel.unary(stub.Health, HealthRequest(), timeout_s=CHECK_S)
            except MeshError:
                continue
            return health
        return None

    async def GetOpenApi(self, request: GetOpenApiRequest, context: Context) -> HttpBody:
        return HttpBody(content_type="application/json", data=self._document)

    async def GetDocs(self, request: GetDocsRequest, context: Context) -> HttpBody:
        await context.send_initial_metadata(DOCS_HEADERS)
        return HttpBody(content_type="text/html; charset=utf-8", data=self._docs)

    async def GetPage(self, request: GetPageRequest, context: Context) -> HttpBody:
        await context.send_initial_metadata(PAGE_HEADERS)
        return asset("index.html")

    async def GetAsset(self, request: GetAssetRequest, context: Context) -> HttpBody:
        if request.path == DESCRIPTORS:
            content = (files("meshwright.gen") / DESCRIPTORS).read_bytes()
            return HttpBody(content_type="application/octet-stream", data=content)
        found = asset(request.path)
        await context.send_initial_metadata(PAGE_HEADERS)
        return found


def asset(path: str) -> HttpBody:
    """Returns a file of the page.

    Raises:
        AssetNotFoundError: The page has no such file; only names in its own folder are read.
    """
    found = {item.name: item for item in (files("meshwright.gateway") / CONSOLE).iterdir() if item.is_file()}
    if path not in found:
        raise AssetNotFoundError(f"the page has no file {path[:100]!r}")
    kind = mimetypes.guess_type(path)[0] or "application/octet-stream"
    return HttpBody(content_type=f"{kind}; charset=utf-8", data=found[path].read_bytes())
