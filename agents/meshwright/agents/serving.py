"""Composition of an agent's process: builds the graph, starts it, drains it."""

import asyncio
import contextlib
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from meshwright.agents import wish
from meshwright.agents.actor import Actor
from meshwright.agents.agent import Agent
from meshwright.agents.answers import Answers
from meshwright.agents.costs import Costs
from meshwright.agents.deliveries import Deliveries, Hook
from meshwright.agents.desk import Desk
from meshwright.agents.embedders.catalog import embedder_from
from meshwright.agents.embedders.metering import MeteredEmbedder
from meshwright.agents.erasure import Erasure
from meshwright.agents.escrow import Escrow
from meshwright.agents.feed import Feeds
from meshwright.agents.guard import Guard
from meshwright.agents.health import HealthView
from meshwright.agents.inbox import Inbox
from meshwright.agents.journal import LIBRARY as JOURNAL_LIBRARY
from meshwright.agents.journal import Journal, Limits
from meshwright.agents.memory import Memory, Outbox
from meshwright.agents.models import prices
from meshwright.agents.models.catalog import model_from
from meshwright.agents.models.router import router_from
from meshwright.agents.planner import Planner
from meshwright.agents.pressure import Pressure
from meshwright.agents.purse import Purse
from meshwright.agents.recall import LongTermMemory, Origins
from meshwright.agents.remembering import Keeping, memory_tools
from meshwright.agents.responses import Responses
from meshwright.agents.runner import Runner
from meshwright.agents.service import AgentService
from meshwright.agents.session import Sessions
from meshwright.agents.session_service import SessionService
from meshwright.agents.settings import AgentSettings
from meshwright.agents.shared_limits import SharedLimits
from meshwright.agents.storage import Storage
from meshwright.agents.supervisor import Supervisor
from meshwright.agents.task_service import TaskService
from meshwright.agents.toolbox import Toolbox
from meshwright.agents.webhook_history import WebhookHistory
from meshwright.agents.webhook_service import WebhookService
from meshwright.agents.worker import Worker
from meshwright.core import telemetry, tracing
from meshwright.core.canonical import to_struct
from meshwright.core.channel import Channels
from meshwright.core.codec import Codec
from meshwright.core.errors import MeshError
from meshwright.core.grant import Signer, Verifier
from meshwright.core.process import Process, ended
from meshwright.core.revocations import Revocations
from meshwright.core.role import Role
from meshwright.core.server import Server, bound
from meshwright.core.store import Store
from meshwright.core.tls import check_bearer
from meshwright.gen.agents.v1.agent_service_pb2_grpc import add_AgentServiceServicer_to_server
from meshwright.gen.agents.v1.session_service_pb2_grpc import add_SessionServiceServicer_to_server
from meshwright.gen.agents.v1.task_pb2 import ESCALATION_SIGNAL_ASKED_FOR_PERSON
from meshwright.gen.agents.v1.task_service_pb2_grpc import add_TaskServiceServicer_to_server
from meshwright.gen.agents.v1.webhook_service_pb2_grpc import add_WebhookServiceServicer_to_server
from meshwright.gen.registry.v1.agent_directory_service_pb2 import AgentCard, Endpoint
from meshwright.gen.tools.v1.tool_service_pb2_grpc import add_ToolServiceServicer_to_server
from meshwright.registry.client import RegistryClient
from meshwright.registry.host import ToolHost
from meshwright.registry.store import LIBRARY as REGISTRY_LIBRARY
from meshwright.registry.store import Ledger
from meshwright.registry.tool_service import ToolService
from meshwright.registry.tool_serving import keep_registered

if TYPE_CHECKING:
    from meshwright.agents.webhooks import Webhooks

log = structlog.get_logger("agent")
REGISTRY_PATIENCE_S = 30.0
PAUSE_S = 1.0
"""So long after its farewell a process still takes calls that were on their way."""


class AgentProcess:
    """Everything that one agent's process is made of.

    Args:
        agent: Whose.
        settings: Of the process.
        instance_id: As which the directory knows it; empty: one is made.
    """

    def __init__(self, agent: Agent, settings: AgentSettings, instance_id: str = "") -> None:
        self.agent = agent
        self.settings = settings
        self.instance_id = instance_id or fresh_id(agent)
        self.channels = Channels(settings.tls_dir)
        self.registry = RegistryClient(self.channels, settings.registry, is_open=settings.auth == "none")
        self.signer = Signer(self.instance_id)
        codec = Codec.of(settings.content_keys_file)
        self.store = Store(settings.store_url, JOURNAL_LIBRARY, REGISTRY_LIBRARY, codec=codec)
        chosen = agent.model or settings.model
        self.router = router_from(chosen, model_from, file=settings.models, timeout_s=settings.model_timeout_s)
        self.journal = Journal(
            self.store,
            self.instance_id,
            lease_s=settings.lease_s,
            limits=limits_of(settings),
        )
        self.feeds = Feeds(self.journal)
        self.memory = Memory(self.store)
        known_prices = prices.load(settings.prices)
        self.embedder = MeteredEmbedder(embedder_from(settings.embedder), known_prices)
        long_term = LongTermMemory(self.store, self.embedder)
        keeping = Keeping(long_term, self.memory, self.journal)
        built_in = memory_tools(lambda: keeping) if agent.remembers else ()
        self.host = ToolHost((*agent.local_tools, *built_in), Ledger(self.store), settings)
        self.selectors = (*agent.selectors, *(f"{one.name}@{one.version}" for one in built_in))
        self.toolbox = Toolbox(self.selectors, self.host, self.registry, self.channels)
        self.guard = Guard(agent)
        self.supervisor = Supervisor(agent, self.registry, self.channels)
        self.sessions = Sessions(self.journal)
        self.escrow = Escrow(self.journal, shared_limits_of(settings))
        self.costs = Costs(self.journal)
        self.outbox = Outbox(self.journal, self.sessions, self.memory, escrow=self.escrow, costs=self.costs)
        self.purse = Purse(self.router.candidates, known_prices, self.escrow, self.embedder)
        self.responses = Responses(agent, Answers(self.store), self.embedder, self.router.candidates)
        self.inbox = Inbox(self.journal, self.toolbox, agent.policy)
        self.deliveries = Deliveries(self.store, agent.name)
        self.worker = self._worker()
        self.health = HealthView(agent, self.worker, journal=self.journal, registry=self.registry, router=self.router)
        self.server = self._server()
        self.hooks, self.webhooks = self._webhooks()
        self._chores: list[asyncio.Task[None]] = []

    def _worker(self) -> Worker:
        runner = Runner(
            Planner(
                self.agent,
                self.router,
                self.supervisor,
                purse=self.purse,
                guard=self.guard,
                responses=self.responses,
            ),
            Actor(self.toolbox, self.supervisor, self.guard, self.agent.policy, self.purse),
            self.toolbox,
            self.guard,
            sessions=self.sessions,
            memory=self.memory,
            version=self.agent.version,
            outage=self.agent.outage,
            responses=self.responses,
            storage=Storage(self.settings.storage_micros_per_gib),
            result_type=self.agent.result_type,
        )
        return Worker(
            self.agent,
            self.journal,
            self.feeds,
            runner,
            outbox=self.outbox,
            inbox=self.inbox,
            pressure=Pressure(self.store),
            signer=self.signer,
            concurrency=self.settings.concurrency,
            is_claiming=self.settings.role != "server",
        )

    def _webhooks(self) -> "tuple[list[Hook], Webhooks | None]":
        if not self.settings.webhooks:
            return [], None
        from meshwright.agents import webhook  # only who has webhooks waits for what they need
        from meshwright.agents.webhooks import Webhooks

        endpoints = webhook.load(Path(self.settings.webhooks), self.agent.name)
        hooks = [endpoint.hook for endpoint in endpoints]
        return hooks, Webhooks(self.journal, self.deliveries, endpoints)

    def _server(self) -> Server:
        desk = Desk(
            self.worker,
            self.journal,
            self.feeds,
            self.registry,
            sessions=self.sessions,
            inbox=self.inbox,
            escrow=self.escrow,
            costs=self.costs,
            callable_by=self.agent.callable_by,
            models=self.router.names,
            is_recursive=self.agent.is_recursive,
        )
        origins = Origins(self.store)
        erasure = Erasure(self.journal, self.memory, origins, self.outbox)
        sessions = SessionService(self.memory, origins, erasure)
        agent_service = AgentService(desk, self.agent.name, self.health.response)
        webhooks = WebhookService(WebhookHistory(self.journal))
        services = {
            "agents.v1.AgentService": bound(add_AgentServiceServicer_to_server, agent_service),
            "agents.v1.TaskService": bound(add_TaskServiceServicer_to_server, TaskService(desk)),
            "agents.v1.SessionService": bound(add_SessionServiceServicer_to_server, sessions),
            "agents.v1.WebhookService": bound(add_WebhookServiceServicer_to_server, webhooks),
            "tools.v1.ToolService": bound(add_ToolServiceServicer_to_server, ToolService(self.host)),
        }
        revocations = Revocations(self.store)
        return Server(self.settings, services, Verifier(self.registry.key), revocations=revocations)

    @property
    def card(self) -> AgentCard:
        """What is announced."""
        agent = self.agent
        return AgentCard(
            agent_id=agent.name,
            version=agent.version,
            description=agent.description or agent.instructions,
            skills=agent.skills,
            tools=self.selectors,
            delegates=agent.delegates,
            callable_by=agent.callable_by,
            recursive=agent.is_recursive,
            output_schema=to_struct(agent.result_type.document) if agent.result_type else None,
            contract_digest=self.health.contract_digest,
            models=self.router.names,
            guardrails=[rule.name for rule in agent.guardrails],
            tenant_day_budget_micros=self.settings.budget_tenant_day_micros,
            unpriced_models=sorted(self.purse.unpriced),
        )

    async def start(self) -> str:
        """Opens the store, listens, makes its tools known, then itself; returns host:port."""
        if self.agent.prepare:
            await asyncio.to_thread(self.agent.prepare)
        if self.agent.escalation.looks_for(ESCALATION_SIGNAL_ASKED_FOR_PERSON):
            wish.rules()
        await self.store.open(self.settings.partitions)
        await self.feeds.open({self.agent.name: self.worker.wake, self.instance_id: self.worker.interrupt})
        if lost := await self.deliveries.hook(self.hooks):
            log.warning("webhook_events_dropped", many=lost, why="their endpoints are not declared any more")
        target = await self.server.start(is_serving=False)
        log.info("waits_for_registry", target=self.settings.registry, up_to_s=REGISTRY_PATIENCE_S)
        await self.registry.wait_until_there(REGISTRY_PATIENCE_S)
        for tool in self.host.tools:
            await self.registry.register(tool.contract(target))
        endpoint = Endpoint(
            instance_id=self.instance_id,
            target=target,
            public_key=self.signer.public_key,
            draining=self.settings.role == "worker",  # known by its key alone: it takes no calls
        )
        self._chores = [
            asyncio.create_task(self.registry.keep_known()),
            asyncio.create_task(keep_registered(self.registry, self.host.tools, target)),
        ]
        await self.toolbox.wait_until_there()
        self._chores.append(asyncio.create_task(self.toolbox.follow()))
        await self.server.set_serving(is_serving=True)  # before it is known: the edge looks at once
        await self.registry.announce(self.card, endpoint)  # before it works: grants are checked against its key
        self._chores.append(asyncio.create_task(self.registry.keep_announced(self.card, endpoint)))
        self.worker.start()
        if self.webhooks:
            self._chores.append(asyncio.create_task(self.webhooks.run()))
        return target

    async def stop(self) -> None:
        """Drains: takes its leave, serves on until the edge has heard of it, then tasks end or are handed back."""
        self.health.is_draining = True
        await ended(*self._chores)
        await self.registry.withdraw(self.agent.name, self.instance_id)
        await self.server.set_serving(is_serving=False)
        await asyncio.sleep(min(PAUSE_S, self.settings.drain_s / 3))
        await self.worker.drain(self.settings.drain_s)
        await self.close()

    async def close(self) -> None:
        """Closes all that was opened; enough for a process that did not come to serve."""
        await ended(*self._chores)
        await self.server.stop()
        await self.feeds.close()
        await self.router.close()
        await self.embedder.close()
        await self.channels.close()
        await self.store.close()
        tracing.flush()


def fresh_id(agent: Agent) -> str:
    """Makes the id of an instance, which no other one has."""
    return f"{agent.name}-{secrets.token_hex(4)}"


def limits_of(settings: AgentSettings) -> Limits:
    """Reads what an agent's queue takes and gives."""
    return Limits(settings.max_ready, settings.tenant_max_ready, settings.tenant_concurrency, settings.weights)


def shared_limits_of(settings: AgentSettings) -> SharedLimits:
    """Reads what tasks may spend together."""
    return SharedLimits(
        settings.budget_session_micros,
        settings.budget_user_day_micros,
        settings.budget_tenant_day_micros,
        settings.budget_global_day_micros,
    )


async def serve(agent: Agent, settings: AgentSettings, running: Process) -> None:
    """Serves an agent until the process is told to stop."""
    check_bearer(settings.tls_dir, Role.AGENT, name=agent.name)
    instance_id = fresh_id(agent)
    telemetry.configure(settings, agent.name, instance_id)
    process = AgentProcess(agent, settings, instance_id)
    try:
        target = await process.start()
    except BaseException:
        await process.close()
        raise
    log.info("ready", agent=agent.name, target=target)
    running.ready(target=target, agent=agent.name)
    await running.stopping.wait()
    log.info("draining", agent=agent.name, tasks=process.worker.running, up_to_s=settings.drain_s)
    with contextlib.suppress(MeshError):
        await process.stop()
    log.info("ended", agent=agent.name)
