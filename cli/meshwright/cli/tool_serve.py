"""`meshwright tool serve`: a tool host for a mesh that runs."""

import contextlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import typer

from meshwright.cli import ports
from meshwright.cli.mesh import FACTS
from meshwright.core import channel, process
from meshwright.core.channel import Channels
from meshwright.core.errors import IncompatibleContractError, SetupError, UnavailableError
from meshwright.core.process import Process
from meshwright.core.settings import data_home
from meshwright.gen.registry.v1.tool_registry_service_pb2 import RegisterToolRequest
from meshwright.gen.registry.v1.tool_registry_service_pb2_grpc import ToolRegistryServiceStub
from meshwright.registry.client import RegistryClient
from meshwright.registry.module import tools as tools_at
from meshwright.registry.settings import HostSettings
from meshwright.registry.tool.hosted import HostedTool
from meshwright.registry.tool_serving import serve as serve_tools

REGISTRY_S = 3.0
"""How long a registry may take to answer that should be there already."""


def serve(
    files: Annotated[
        list[str],
        typer.Argument(metavar="FILE...", help="Python files or modules with @tool, YAML files of declarations"),
    ],
    registry: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Registry of the mesh  [default: the local mesh's]")
    ] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="Port to listen on; 0: a free one")] = None,
    data: Annotated[
        Path | None, typer.Option(help="Data folder of the local mesh  [default: ~/.local/share/meshwright/dev]")
    ] = None,
) -> None:
    """Serves tools to a mesh that runs, until Ctrl-C or SIGTERM; calls that run then may end.

    One line of JSON on stdout says that they are served: target, registry, tools and pid.
    """

    async def main(running: Process) -> None:
        settings = placed(HostSettings.load(registry=registry, port=port), data or data_home() / "dev")
        tools = [tool for file in files for tool in tools_at(file)]
        await check(tools, settings)
        await serve_tools(tools, settings, Announcement(running, tools, settings.registry))

    process.live(main)


class Announcement(Process):
    """Says in the ready line what is served, and to whom."""

    def __init__(self, running: Process, tools: Sequence[HostedTool], registry: str) -> None:
        super().__init__()
        self.stopping = running.stopping
        self._running = running
        self._tools = ", ".join(f"{tool.name}@{tool.version}" for tool in tools)
        self._registry = registry

    def ready(self, **facts: str | int) -> None:
        """Tells the parent."""
        self._running.ready(**facts, registry=self._registry, tools=self._tools)


def placed(settings: HostSettings, data: Path) -> HostSettings:
    """Fills in where registry and store are, as far as nobody has said, from the local mesh.

    Raises:
        SetupError: No mesh runs here, and no registry is named.
    """
    local = local_mesh(data)
    if "registry" not in settings.model_fields_set:
        if not local:
            hint = "start one with `meshwright dev`, or name a registry with --registry HOST:PORT"
            raise SetupError(f"no mesh runs on {data}: {hint}")
        settings = settings.model_copy(update={"registry": local["registry"]})
    if "store_url" not in settings.model_fields_set and local.get("registry") == settings.registry:
        settings = settings.model_copy(update={"store_url": local["store"]})
    return settings


def local_mesh(data: Path) -> dict[str, str]:
    """Returns `registry` and `store` of the mesh that runs on a data folder; empty: none does."""
    try:
        facts = json.loads((data / FACTS).read_text())
        return {name: str(facts[name]) for name in ("registry", "store")}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, LookupError, TypeError):
        raise SetupError(f"{data / FACTS} cannot be read: start the mesh on that folder again") from None


@contextlib.contextmanager
def refusal_listed() -> Iterator[None]:
    """Tells all places for which a contract is refused, as far as an error carries them.

    Raises:
        IncompatibleContractError: A line for each.
    """
    try:
        yield
    except IncompatibleContractError as error:
        lines = [f"  {place}: {said}" for place, said in error.fields.items()]
        if str(len(lines)) != error.metadata.get("places"):
            lines.append("  and more: `meshwright tool diff` shows all")
        message = "\n".join([error.message, *lines])
        raise IncompatibleContractError(message, fields=error.fields, metadata=error.metadata) from None


async def check(tools: Sequence[HostedTool], settings: HostSettings) -> None:
    """Finds out before anything listens whether the tools can be served.

    Raises:
        SetupError: The port is in use.
        UnavailableError: The registry does not answer.
        MeshError: It does not take one of the tools.
    """
    if settings.port and not ports.is_free(settings.host, settings.port):
        raise SetupError(f"port {settings.port} is in use: choose another one with --port, or stop what listens there")
    channels = Channels(settings.tls_dir)
    try:
        await RegistryClient(channels, settings.registry).wait_until_there(REGISTRY_S)
        registry = ToolRegistryServiceStub(channels.to(settings.registry))
        for tool in tools:
            is_open = settings.auth == "none"
            request = RegisterToolRequest(tool=tool.contract(), validate_only=True, open=is_open)
            with refusal_listed():
                await channel.patient(registry.RegisterTool, request, timeout_s=REGISTRY_S)
    except UnavailableError:
        hint = "start a mesh with `meshwright dev`, or name another registry with --registry"
        raise UnavailableError(f"no registry answers at {settings.registry}: {hint}") from None
    finally:
        await channels.close()
