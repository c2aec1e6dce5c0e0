"""A tool call straight to its host against the same call through the registry."""

import secrets
import time
from collections.abc import Awaitable, Callable

from benchmarks.findings import Finding
from benchmarks.load import closed_loop
from benchmarks.parts import HERE, BenchmarkError, Scene
from benchmarks.rounds import Effort
from meshwright.core import channel
from meshwright.core.channel import Channels
from meshwright.core.grant import Signer
from meshwright.gen.agents.v1.grant_pb2 import Grant
from meshwright.gen.registry.v1.agent_directory_service_pb2 import AgentCard, Endpoint
from meshwright.gen.registry.v1.tool_registry_service_pb2 import InvokeToolRequest
from meshwright.gen.registry.v1.tool_registry_service_pb2_grpc import ToolRegistryServiceStub
from meshwright.gen.tools.v1.tool_service_pb2 import InvokeRequest
from meshwright.gen.tools.v1.tool_service_pb2_grpc import ToolServiceStub
from meshwright.registry.client import RegistryClient

TOOL, VERSION = "bench.far", "1.0.0"
IN_FLIGHT = 8
TIMEOUT_S = 10.0


async def run(scene: Scene, effort: Effort) -> list[Finding]:
    """Measures all processes that a call goes through, its caller included."""
    stage, mesh = scene.stage, scene.mesh
    host = await stage.python("tools", "-m", "meshwright.registry.tool", str(HERE / "tools.py"), settings=mesh.settings)
    channels, signer = Channels(), Signer(f"bench-caller-{secrets.token_hex(4)}")
    registry = RegistryClient(channels, mesh.registry.target)
    card = AgentCard(agent_id="bench-caller", version="1.0.0", description="Calls tools.", tools=[f"{TOOL}@{VERSION}"])
    await registry.announce(
        card, Endpoint(instance_id=signer.key_id, target="127.0.0.1:1", public_key=signer.public_key)
    )
    grant = Grant(tenant="default", principal="default", agent_id=card.agent_id, task_id="t1", tools=card.tools)
    grant.root_task_id = "t1"
    token = signer.sign(grant)
    at_host = ToolServiceStub(channels.to(host.target))
    at_registry = ToolRegistryServiceStub(channels.to(mesh.registry.target))

    async def direct() -> None:
        request = InvokeRequest(tool=TOOL, version=VERSION, arguments_json="{}", idempotency_key=secrets.token_hex(8))
        calls = channel.stream(at_host.Invoke, request, timeout_s=TIMEOUT_S, grant=token)
        answers = [one async for one in calls]
        if len(answers) != 1 or answers[0].outcome.result_json != "true":
            raise BenchmarkError(f"the tool's host answered {answers}")

    async def proxied() -> None:
        request = InvokeToolRequest(name=TOOL, version=VERSION, idempotency_key=secrets.token_hex(8))
        answer = await channel.unary(at_registry.InvokeTool, request, timeout_s=TIMEOUT_S, grant=token)
        if not answer.result.bool_value:
            raise BenchmarkError(f"the registry answered {answer}")

    calls = 150 * effort.scale

    def cost(act: Callable[[], Awaitable[None]]) -> Callable[[], Awaitable[float]]:
        async def measured() -> float:
            before = time.process_time() + host.cpu_s() + mesh.registry.cpu_s()
            await closed_loop(act, calls, IN_FLIGHT)
            return (time.process_time() + host.cpu_s() + mesh.registry.cpu_s() - before) / calls * 1000

        return measured

    found = await effort.interleaved({"direct": cost(direct), "proxied": cost(proxied)})
    await registry.withdraw(card.agent_id, signer.key_id)
    await channels.close()
    await host.stop()
    return [
        Finding(
            name="tool_step",
            what="a tool called at its host against the same through the registry",
            unit="ms CPU of caller, registry and host a call",
            ours=found["direct"],
            theirs=found["proxied"],
            goal=0.6,
            is_gated=True,
            unequal="the registry picks version and host anew for every call; a caller of its own has them pinned",
        )
    ]
