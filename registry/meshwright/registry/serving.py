"""Composition of the registry's process."""

import asyncio
import secrets

from meshwright.core import telemetry, tracing
from meshwright.core.channel import Channels
from meshwright.core.edge_keys import EdgeKeys
from meshwright.core.grant import Signer, Verifier
from meshwright.core.process import Process, ended
from meshwright.core.revocations import Revocations
from meshwright.core.role import Role
from meshwright.core.server import Server, bound
from meshwright.core.settings import Settings
from meshwright.core.store import Store
from meshwright.core.tls import check_bearer
from meshwright.gen.registry.v1.agent_directory_service_pb2_grpc import add_AgentDirectoryServiceServicer_to_server
from meshwright.gen.registry.v1.tool_registry_service_pb2_grpc import add_ToolRegistryServiceServicer_to_server
from meshwright.registry.directory_service import AgentDirectory
from meshwright.registry.service import ToolRegistry
from meshwright.registry.store import LIBRARY, CatalogStore, DirectoryStore


class RegistryProcess:
    """Everything that the registry's process is made of."""

    def __init__(self, settings: Settings) -> None:
        self.signer = Signer(f"registry-{secrets.token_hex(4)}")
        self._settings = settings
        self._store = Store(settings.store_url, LIBRARY)
        self._channels = Channels(settings.tls_dir)
        is_asking = settings.auth != "none"
        self._directory = AgentDirectory(
            DirectoryStore(self._store), self.signer, EdgeKeys(self._store), is_asking=is_asking
        )
        catalog = CatalogStore(self._store, settings.audit_kept)
        self._tools = ToolRegistry(catalog, self.signer, self._channels, is_asking=is_asking)
        services = {
            "registry.v1.AgentDirectoryService": bound(add_AgentDirectoryServiceServicer_to_server, self._directory),
            "registry.v1.ToolRegistryService": bound(add_ToolRegistryServiceServicer_to_server, self._tools),
        }
        verifier, revocations = Verifier(self._directory.issuer), Revocations(self._store)
        self._server = Server(settings, services, verifier, revocations=revocations)
        self._chores: list[asyncio.Task[None]] = []

    async def start(self) -> str:
        """Opens the store and listens; returns host:port."""
        await self._store.open(self._settings.partitions)
        chores = (self._directory.sweep(), self._directory.follower.follow(), self._tools.follower.follow())
        self._chores = [asyncio.create_task(chore) for chore in chores]
        return await self._server.start()

    async def stop(self) -> None:
        """Lets calls in flight end, then closes everything."""
        await self._directory.follower.end_watches()
        await self._tools.follower.end_watches()
        await self._server.stop()
        await ended(*self._chores)
        await self._channels.close()
        await self._store.close()


async def serve(settings: Settings, running: Process) -> None:
    """Serves until the process is told to stop."""
    check_bearer(settings.tls_dir, Role.REGISTRY)
    registry = RegistryProcess(settings)
    telemetry.configure(settings, "registry", registry.signer.key_id)
    running.ready(target=await registry.start())
    await running.stopping.wait()
    await registry.stop()
    tracing.flush()
