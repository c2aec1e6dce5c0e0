"""A real server whose one service does what a test says."""

import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import grpc
import pytest

from meshwright.core.channel import dial
from meshwright.core.grant import Verifier
from meshwright.core.revocations import Revocations
from meshwright.core.server import Server, bound
from meshwright.core.settings import Settings
from meshwright.gen.agents.v1.agent_service_pb2 import HealthResponse
from meshwright.gen.agents.v1.agent_service_pb2_grpc import (
    AgentServiceServicer,
    AgentServiceStub,
    add_AgentServiceServicer_to_server,
)


class Probe(AgentServiceServicer):
    """AgentService whose methods are chosen by the test."""

    def __init__(self, health: Any = None, run_task: Any = None, steps: Any = None) -> None:
        self._health = health
        self._run_task = run_task
        self._steps = steps

    async def Health(self, request: Any, context: Any) -> Any:  # noqa: N802 - an RPC's name
        return await self._health(request, context) if self._health else HealthResponse(agent_id="probe")

    async def RunTask(self, request: Any, context: Any) -> Any:  # noqa: N802 - an RPC's name
        return await self._run_task(request, context)

    async def StreamSteps(self, request: Any, context: Any) -> Any:  # noqa: N802 - an RPC's name
        async for event in self._steps(request, context):
            yield event


@dataclass
class Served:
    """A running server and a client of it."""

    server: Server
    channel: grpc.aio.Channel
    stub: AgentServiceStub

    @property
    def target(self) -> str:
        return self.server.target


@pytest.fixture
async def serve() -> AsyncIterator[Callable[..., Any]]:
    """Starts a probe: `await serve(health=..., verifier=..., reflection=True)`."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(
            *,
            health: Any = None,
            run_task: Any = None,
            steps: Any = None,
            verifier: Verifier | None = None,
            revocations: Revocations | None = None,
            **chosen: Any,
        ) -> Served:
            settings = Settings(**({"drain_s": 0, "tracing": False} | chosen))
            probe = Probe(health, run_task, steps)
            services = {"agents.v1.AgentService": bound(add_AgentServiceServicer_to_server, probe)}
            server = Server(settings, services, verifier, revocations=revocations)
            await server.start()
            stack.push_async_callback(server.stop)
            channel = await stack.enter_async_context(dial(server.target))
            return Served(server, channel, AgentServiceStub(channel))

        yield start
