"""Rates of traces by tenant at a real server, with the stock instrumentation and with our own spans alike."""

import json
import subprocess
import sys

import pytest

from meshwright.gateway.settings import GatewaySettings
from meshwright.gateway.spans import tracing

SERVICE = """
import asyncio, json, sys
import grpc
from opentelemetry import trace
from meshwright.core import channel, telemetry
from meshwright.core.server import Server, bound
from meshwright.core.settings import Settings
from meshwright.gen.agents.v1.agent_service_pb2 import HealthRequest, HealthResponse
from meshwright.gen.agents.v1.agent_service_pb2_grpc import AgentServiceServicer, AgentServiceStub
from meshwright.gen.agents.v1.agent_service_pb2_grpc import add_AgentServiceServicer_to_server as add

KEPT, NOT_KEPT = (f"00-{'ab' * 16}-{'cd' * 8}-{flags}" for flags in ("01", "00"))

class Probe(AgentServiceServicer):
    async def Health(self, request, context):
        if request.agent_id == "on":  # a further hop, from inside of the mesh
            return await channel.unary(self.stub.Health, HealthRequest(), timeout_s=5)
        span = trace.get_current_span().get_span_context()
        return HealthResponse(agent_id=str(int(span.trace_flags.sampled)))

async def main():
    settings = Settings(drain_s=0, trace_rate=0.0, trace_rates="acme=1,beta=0", lean_spans=sys.argv[1] == "lean")
    telemetry.configure(settings, "probe", "probe-1")
    probe = Probe()
    server = Server(settings, {"agents.v1.AgentService": bound(add, probe)})
    async with grpc.aio.insecure_channel(await server.start()) as dialled:
        probe.stub = AgentServiceStub(dialled)
        found = {}
        for tenant in ("", "acme", "beta", "other"):
            for name, header in (("none", ""), ("kept", KEPT), ("not kept", NOT_KEPT)):
                sent = [("x-mesh-tenant", tenant)] if tenant else []
                sent += [("traceparent", header)] if header else []
                answer = await probe.stub.Health(HealthRequest(agent_id="on"), metadata=sent, timeout=5)
                found[f"{tenant} {name}"] = answer.agent_id == "1"
        print(json.dumps(found))
    await server.stop()

asyncio.run(main())
"""


@pytest.mark.parametrize("kind", ["stock", "lean"])
def test_a_tenant_s_rate_is_asked_where_the_edge_calls_and_holds_for_every_further_hop(kind):
    command = [sys.executable, "-c", SERVICE, kind]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=True)
    kept = {case for case, is_kept in json.loads(done.stdout).items() if is_kept}
    assert kept == {"acme none", "acme kept", " kept"}


@pytest.mark.parametrize(
    ("rates", "percent"),
    [({}, 100), ({"trace_rate": 0.1}, 10), ({"trace_rate": 0.1, "trace_rates": "acme=0.5,beta=0"}, 50)],
)
def test_the_edge_begins_traces_at_the_highest_rate(rates, percent):
    config = tracing(GatewaySettings(otlp_endpoint="http://collector:4317", **rates))
    assert config["tracing"]["random_sampling"]["value"] == pytest.approx(percent)
