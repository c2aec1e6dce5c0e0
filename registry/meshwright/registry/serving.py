"""Composition of the registry's process."""

import asyncio
import secrets

import structlog

from meshwright.core import telemetry, tracing
from meshwright.core.announced_keys import EdgeKeys, RegistryKeys
from meshwright.core.audit import AUDIT_KEPT
from meshwright.core.channel import Channels
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
from meshwright.registry.audit_trimming import AuditTrimming
from meshwright.registry.directory_service import AgentDirectory
from meshwright.registry.issuers import Issuers
from meshwright.registry.service import ToolRegistry
from meshwright.registry.settings import RegistrySettings
from meshwright.registry.store import LIBRARY, CatalogStore, DirectoryStore

log = structlog.get_logger("registry")


class RegistryProcess:
    """Everything that the registry's process is made of.

    Args:
        settings: Where the store is, and how it listens.
        audit_kept: Lines that a chain of the audit keeps.
    """

    def __init__(self, settings: Settings, audit_kept: int = AUDIT_KEPT) -> None:
        self.signer = Signer(f"{RegistryKeys.prefix}{secrets.token_hex(4)}")
        self._settings = settings
        self._store = Store(settings.store_url, LIBRARY)
        self._channels = Channels(settings.tls_dir)
        is_asking = settings.auth != "none"
        self._keys = RegistryKeys(self._store)
        issuers = Issuers(self.signer, self._keys, EdgeKeys(self._store), DirectoryStore(self._store))
        self._directory = AgentDirectory(DirectoryStore(self._store), issuers, is_asking=is_asking)
        self._trimming = AuditTrimming(self._store, audit_kept)
        catalog = CatalogStore(self._store)
        self._tools = ToolRegistry(catalog, self.signer, self._channels, is_asking=is_asking)
        services = {
            "registry.v1.AgentDirectoryService": bound(add_AgentDirectoryServiceServicer_to_server, self._directory),
            "registry.v1.ToolRegistryService": bound(add_ToolRegistryServiceServicer_to_server, self._tools),
        }
        verifier, revocations = Verifier(issuers.find), Revocations(self._store)
        self._server = Server(settings, services, verifier, revocations=revocations)
        self._chores: list[asyncio.Task[None]] = []

    async def start(self) -> str:
        """Opens the store and listens; returns host:port."""
        await self._store.open(self._settings.partitions)
        await self._keys.announce(self.signer)  # before it signs: other registries are asked for it
        chores = (
            self._keys.keep(self.signer),
            self._directory.sweep(),
            self._trimming.sweep(),
            self._directory.follower.follow(),
            self._tools.follower.follow(),
        )
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


async def serve(settings: RegistrySettings, running: Process) -> None:
    """Serves until the process is told to stop."""
    check_bearer(settings.tls_dir, Role.REGISTRY)
    registry = RegistryProcess(settings, settings.audit_kept)
    telemetry.configure(settings, "registry", registry.signer.key_id)
    target = await registry.start()
    log.info("ready", target=target)
    running.ready(target=target)
    await running.stopping.wait()
    log.info("draining", up_to_s=settings.drain_s)
    await registry.stop()
    log.info("ended")
    tracing.flush()
