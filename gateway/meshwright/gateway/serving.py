"""Composition of the gateway's process: renders Envoy's bootstrap, keeps its files true, serves the page."""

import asyncio
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from meshwright.core import channel, telemetry, tracing
from meshwright.core.channel import Channels
from meshwright.core.errors import MeshError, SetupError
from meshwright.core.grant import Verifier
from meshwright.core.process import Process
from meshwright.core.recurring import Recurring
from meshwright.core.server import Server, bound
from meshwright.gateway import bootstrap, envoy
from meshwright.gateway.authentication import check_settings, jwks_of, jwks_url, takes_tokens
from meshwright.gateway.config import CDS, DESCRIPTORS, JWKS
from meshwright.gateway.discovery import EnvoyFiles
from meshwright.gateway.hosts import unreachable
from meshwright.gateway.service import EdgeService
from meshwright.gateway.settings import GatewaySettings
from meshwright.gateway.tls import check_transport, secret_files
from meshwright.gen.gateway.v1.edge_service_pb2_grpc import add_EdgeServiceServicer_to_server
from meshwright.gen.registry.v1.agent_directory_service_pb2 import AgentCard, ListAgentsRequest, WatchAgentsRequest
from meshwright.gen.registry.v1.agent_directory_service_pb2_grpc import AgentDirectoryServiceStub

if TYPE_CHECKING:
    from meshwright.gateway.doorman import Doorman

log = structlog.get_logger("gateway")
RETRY_S = 0.3
LIST_S = 5.0


class GatewayProcess:
    """Everything that the gateway's process is made of."""

    def __init__(self, settings: GatewaySettings) -> None:
        self._settings = settings
        self._channels = Channels(settings.tls_dir)
        self._directory = AgentDirectoryServiceStub(self._channels.to(settings.registry))
        service = EdgeService(self._channels, settings.registry, settings.auth)
        services = {"gateway.v1.EdgeService": bound(add_EdgeServiceServicer_to_server, service)}
        check_settings(settings)
        if why := unreachable(settings):
            log.warning("edge_is_unreachable", why=why, advice="name its hosts by MESHWRIGHT_ALLOWED_HOSTS")
        self._doorman = doorman(settings)
        verifier = Verifier(self._doorman.issuer) if self._doorman else None
        self._server = Server(settings, services | (self._doorman.services if self._doorman else {}), verifier)
        self._watching: asyncio.Task[None] | None = None

    async def start(self) -> str:
        """Listens, writes what Envoy reads, and starts to watch the directory; returns host:port."""
        make_folder(self._settings.home)
        if self._doorman:
            await self._doorman.start()
        target = await self._server.start()
        port = int(target.rpartition(":")[2])
        settings = self._settings.model_copy(update={"port": port})
        envoy_files = await write_configuration(settings)
        log.info("envoy_files_written", folder=str(settings.home.absolute()), run="python -m meshwright.gateway.envoy")
        self._watching = asyncio.create_task(self._watch(envoy_files))
        return target

    async def _watch(self, envoy_files: EnvoyFiles) -> None:
        failing = Recurring()
        while True:
            try:
                await self._follow(envoy_files, failing)
            except MeshError as error:
                if channel.is_routine(error):
                    log.debug("watches_anew")
                elif failing.is_news():
                    log.warning("directory_away", error=error.message)
            await asyncio.sleep(RETRY_S)

    async def _follow(self, envoy_files: EnvoyFiles, failing: Recurring) -> None:
        listed = await channel.unary(self._directory.ListAgents, ListAgentsRequest(page_size=200), timeout_s=LIST_S)
        if failing.is_over():
            log.info("directory_back")
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
        if self._doorman:
            await self._doorman.stop()
        await self._channels.close()


def doorman(settings: GatewaySettings) -> "Doorman | None":
    """Returns who finds out who is calling; None: nobody is asked."""
    if settings.auth == "none":
        return None
    from meshwright.gateway.doorman import Doorman  # what it needs is slow to import

    return Doorman(settings)


def make_folder(folder: Path) -> None:
    """Makes the folder that Envoy reads.

    Raises:
        SetupError: It cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise SetupError(
            f"the folder {folder} cannot be made: {error.strerror}; name another one by MESHWRIGHT_FOLDER"
        ) from None


async def write_configuration(settings: GatewaySettings) -> EnvoyFiles:
    """Writes all that Envoy reads into its folder; returns the files that are kept true to the directory.

    Args:
        settings: With the port that this process listens on.

    Raises:
        SetupError: A certificate cannot be used, or Envoy refuses the configuration.
    """
    folder = settings.home
    check_transport(settings)
    (folder / DESCRIPTORS).write_bytes((files("meshwright.gen") / DESCRIPTORS).read_bytes())
    if takes_tokens(settings) and jwks_url(settings) is None:
        (folder / JWKS).write_bytes(jwks_of(settings))
    for name, content in secret_files(settings).items():
        (folder / name).write_text(content)
    envoy_files = EnvoyFiles(folder, has_tls=bool(settings.tls_dir))
    if not (folder / CDS).exists():
        envoy_files.update({})  # a gateway that restarts leaves Envoy's last good files until it knows better
    await envoy.prepare(folder, bootstrap.render(settings))
    return envoy_files


async def serve(settings: GatewaySettings, running: Process) -> None:
    """Serves until the process is told to stop."""
    telemetry.configure(settings, "gateway", "gateway")
    gateway = GatewayProcess(settings)
    try:
        target = await gateway.start()
        log.info("ready", target=target)
        running.ready(target=target)
        await running.stopping.wait()
        log.info("draining", up_to_s=settings.drain_s)
    finally:  # also where it did not come to serve: Envoy refuses its configuration, say
        await gateway.stop()
        log.info("ended")
        tracing.flush()
