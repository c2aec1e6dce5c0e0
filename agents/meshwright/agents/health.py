"""Health: how an agent sees itself and what it depends on."""

import hashlib
import time
from functools import cached_property
from importlib.resources import files

from meshwright.agents.agent import Agent
from meshwright.agents.journal import Journal
from meshwright.agents.models.candidate import Candidate
from meshwright.agents.models.router import Router
from meshwright.agents.worker import Worker
from meshwright.core import channel
from meshwright.core.breaker import Circuit
from meshwright.core.errors import MeshError
from meshwright.gen.agents.v1.agent_service_pb2 import (
    HEALTH_STATUS_DEGRADED,
    HEALTH_STATUS_NOT_SERVING,
    HEALTH_STATUS_SERVING,
    DependencyHealth,
    HealthResponse,
    HealthStatus,
)
from meshwright.registry.client import RegistryClient

MODEL_STATUS: dict[Circuit, HealthStatus.ValueType] = {
    Circuit.CLOSED: HEALTH_STATUS_SERVING,
    Circuit.ON_TRIAL: HEALTH_STATUS_DEGRADED,
    Circuit.OPEN: HEALTH_STATUS_NOT_SERVING,
}


class HealthView:
    """Looks at an agent's process from outside: store, registry, model, work."""

    def __init__(
        self, agent: Agent, worker: Worker, *, journal: Journal, registry: RegistryClient, router: Router
    ) -> None:
        self._agent = agent
        self._worker = worker
        self._journal = journal
        self._registry = registry
        self._router = router
        self._started = time.time()
        self.is_draining = False

    @cached_property
    def contract_digest(self) -> str:
        """SHA-256 of the descriptor set that is served."""
        return hashlib.sha256((files("meshwright.gen") / "descriptors.binpb").read_bytes()).hexdigest()

    async def response(self) -> HealthResponse:
        """Checks every dependency now."""
        store, queued = await self._look_at_store()
        dependencies = [store, await self._look_at_registry(), *map(look_at_model, self._router.candidates)]
        states = {dependency.status for dependency in dependencies}
        status: HealthStatus.ValueType = HEALTH_STATUS_SERVING
        if store.status == HEALTH_STATUS_NOT_SERVING or self.is_draining:
            status = HEALTH_STATUS_NOT_SERVING
        elif states != {HEALTH_STATUS_SERVING}:
            status = HEALTH_STATUS_DEGRADED
        response = HealthResponse(
            status=status,
            agent_id=self._agent.name,
            version=self._agent.version,
            contract_digest=self.contract_digest,
            dependencies=dependencies,
            running_tasks=self._worker.running,
            queued_tasks=queued,
            draining=self.is_draining,
        )
        response.start_time.FromMilliseconds(int(self._started * 1000))
        return response

    async def _look_at_store(self) -> tuple[DependencyHealth, int]:
        try:
            queued = await self._journal.ready(self._agent.name)
        except MeshError as error:
            return DependencyHealth(name="store", status=HEALTH_STATUS_NOT_SERVING, detail=error.message), 0
        if reason := self._worker.pressure.reason:
            return DependencyHealth(name="store", status=HEALTH_STATUS_DEGRADED, detail=reason), queued
        return DependencyHealth(name="store", status=HEALTH_STATUS_SERVING), queued

    async def _look_at_registry(self) -> DependencyHealth:
        try:
            await self._registry.list_agents()
        except MeshError as error:
            detail = channel.why_away(error)
            return DependencyHealth(name="registry", status=HEALTH_STATUS_NOT_SERVING, detail=detail)
        return DependencyHealth(name="registry", status=HEALTH_STATUS_SERVING)


def look_at_model(candidate: Candidate) -> DependencyHealth:
    """Tells how a model has done lately; it is not called for that."""
    breaker = candidate.breaker
    health = DependencyHealth(
        name=f"model {candidate.name}", status=MODEL_STATUS[breaker.state], breaker=breaker.state.word
    )
    if breaker.state is Circuit.OPEN:
        left_s = breaker.retry_after_s
        health.detail = (
            f"failed too often: left alone for {left_s:.1f} s more" if left_s else "its next call is a trial"
        )
    return health
