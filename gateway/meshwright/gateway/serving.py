"""Composition of the gateway's process: renders Envoy's bootstrap, keeps its files true, serves the page."""

import asyncio
from importlib.resources import files
from pathlib import Path

import structlog

from meshwright.core import channel, telemetry, tls
from meshwright.core.channel import Channels
from meshwright.core.errors import MeshError, SetupError
from meshwright.core.process import Process
from meshwright.core.role import Role
from meshwright.core.server import Server, bound
from meshwright.gateway import bootstrap, envoy
from meshwright.gateway.config import CDS, DESCRIPTORS
from meshwright.gateway.discovery import EnvoyFiles
from meshwright.gateway.service import EdgeService
from meshwright.gateway.settings import GatewaySettings
from meshwright.gateway.tls import secret_files
from meshwright.gen.gateway.v1.edge_service_pb2_grpc import add_EdgeServiceServicer_to_server
from meshwright.gen.registry.v1.agent_directory_service_pb2 import AgentCard, ListAgentsRequest, WatchAgentsRequest
from meshwright.gen.registry.v1.agent_directory_service_pb2_grpc import AgentDirectoryServiceStub

log = structlog.get_logger("gateway")
ENVOY_DIR = "MESHWRIGHT_ENVOY_TLS_DIR"
RETRY_S = 0.3
LIST_S = 5.0


class GatewayProcess:
    """Everything that the gateway's process is made of."""

    def __init__(self, settings: GatewaySettings) -> None:
        self._settings = settings
        self._folder = Path(settings.folder)
        self._channels = Channels(settings.tls_dir)
        self._directory = AgentDirectoryServiceStub(self._channels.to(settings.registry))
        service = EdgeService(self._channels, settings.registry)
        services = {"gateway.v1.EdgeService": bound(add_EdgeServiceServicer_to_server, service)}
        self._server = Server(settings, services)
        self._watching: asyncio.Task[None] | None = None

    async def start(self) -> str:
        """Listens, writes what Envoy reads, and starts to watch the directory; returns host:port."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        target = await self._server.start()
        port = int(target.rpartition(":")[2])
        descriptors = (files("meshwright.gen") / DESCRIPTORS).read_bytes()
        (self._folder / DESCRIPTORS).write_bytes(descriptors)
        envoy_files = EnvoyFiles(self._folder, has_tls=bool(self._settings.tls_dir))
        check_certificates(self._settings)
        for name, content in secret_files(self._settings).items():
            (self._folder / name).write_text(content)
        if not (self._folder / CDS).exists():
            envoy_files.update({})  # a gateway that restarts leaves Envoy's last good files until it knows better
        await envoy.prepare(self._folder, bootstrap.render(self._settings.model_copy(update={"port": port})))
        self._watching = asyncio.create_task(self._watch(envoy_files))
        return target

    async def _watch(self, envoy_files: EnvoyFiles) -> None:
        while True:
            try:
                await self._follow(envoy_files)
            except MeshError as error:
                log.warning("directory_away", error=error.message)
            await asyncio.sleep(RETRY_S)

    async def _follow(self, envoy_files: EnvoyFiles) -> None:
        listed = await channel.unary(self._directory.ListAgents, ListAgentsRequest(page_size=200), timeout_s=LIST_S)
        agents: dict[str, AgentCard] = {card.agent_id: card for card in listed.agents}
        envoy_files.update(agents)
        async for change in channel.stream(self._directory.WatchAgents, WatchAgentsRequest(), timeout_s=None):
            agents.pop(change.agent.agent_id, None)
            if not change.removed:
                agents[change.agent.agent_id] = change.agent
            if envoy_files.update(agents):
                log.info("routes_changed", agents=sorted(agents))

    async def stop(self) -> None:
        """Lets calls in flight end, then closes everything."""
        if self._watching:
            self._watching.cancel()
        await self._server.stop()
        await self._channels.close()


def check_certificates(settings: GatewaySettings) -> None:
    """Reads the certificates that Envoy will show: it would only wait for those that it cannot use.

    Raises:
        SetupError: They cannot be used.
    """
    if settings.tls_dir and not settings.envoy_tls_dir:
        raise SetupError(
            "MESHWRIGHT_TLS_DIR is set: name the folder of Envoy's certificate, role edge, by " + ENVOY_DIR
        )
    if settings.tls_dir and (role := tls.read(Path(settings.envoy_tls_dir)).role) is not Role.EDGE:
        raise SetupError(
            f"{ENVOY_DIR}={settings.envoy_tls_dir} holds a certificate of the role {role}: services take edge"
        )
    if settings.edge_tls_dir:
        tls.read_pair(Path(settings.edge_tls_dir))


async def serve(settings: GatewaySettings, running: Process) -> None:
    """Serves until the process is told to stop."""
    telemetry.configure(settings, "gateway", "gateway")
    gateway = GatewayProcess(settings)
    running.ready(target=await gateway.start())
    await running.stopping.wait()
    await gateway.stop()
    telemetry.flush()
