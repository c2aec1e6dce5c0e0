"""Outlier detection in a real Envoy: an instance that no connection reaches is out for a while, and comes back."""

import asyncio
import json
import re
import time
from collections import Counter

import pytest

from meshwright.agents.agent import Agent
from meshwright.gateway.config import ADMIN
from meshwright.gateway.discovery import FAILURES, outlier_detection
from meshwright.gateway.drain import ask
from tests.e2e.deaf import Deaf
from tests.e2e.edges import UNUSED, Envoy

SCRIPT = "agents: {default: [{text: Done.}]}"
EJECTED_S = outlier_detection().base_ejection_time.total_seconds()
CALLS = 40


@pytest.fixture
async def deaf():
    """An instance that can turn deaf."""
    async with Deaf() as opened:
        yield opened


@pytest.fixture
async def opened(tmp_path):
    """Starts an edge in front of the instances of `twin`."""
    started = []

    async def start(*targets):
        envoy = Envoy(tmp_path / "envoy", {"twin": targets}, registry=UNUSED)
        started.append(envoy)
        envoy.launch()
        await asyncio.to_thread(envoy.wait)
        return envoy

    yield start
    for envoy in started:
        envoy.__exit__()


async def run(edge):
    return await asyncio.to_thread(lambda: edge.post("/v1/agents/twin/run", {"prompt": "do"}))


async def counted(edge):
    """Returns what outlier detection has counted at the agent's cluster."""
    stats = (await ask(edge.folder / ADMIN, "GET", "/stats?filter=cluster.agent-twin.outlier_detection")).decode()
    return {name: int(value) for name, value in re.findall(r"outlier_detection\.(\w+): (\d+)", stats)}


async def host(edge, target):
    """Returns how Envoy sees an instance: its health, and how many connections to it have failed."""
    clusters = json.loads(await ask(edge.folder / ADMIN, "GET", "/clusters?format=json"))["cluster_statuses"]
    for one in next(one for one in clusters if one["name"] == "agent-twin")["host_statuses"]:
        if one["address"]["socket_address"]["port_value"] == int(target.rpartition(":")[2]):
            failed = next(stat for stat in one["stats"] if stat["name"] == "cx_connect_fail")
            return one["health_status"], int(failed.get("value", 0))
    raise AssertionError(f"{target} is not there")


async def taking(edge):
    """Returns how many instances metrics say take calls, and how many there are."""
    stats = (await ask(edge.folder / ADMIN, "GET", "/stats?filter=cluster.agent-twin.membership")).decode()
    told = dict(re.findall(r"membership_(\w+): (\d+)", stats))
    return int(told["healthy"]), int(told["total"])


async def heard(edge, within_s):
    """Calls until the instance that was deaf answers."""
    async with asyncio.timeout(within_s):
        while (await run(edge)).json["output"] != "heard":
            pass


async def test_an_instance_that_no_connection_reaches_is_out_for_its_time_and_comes_back(mesh, opened, deaf):
    healthy = await mesh.agent(Agent("twin", "Says that it is done."), script=SCRIPT)
    edge = await opened(deaf.target, healthy.server.target)
    await heard(edge, within_s=10)
    deaf.turn_deaf()
    answers = []
    async with asyncio.timeout(20):
        while not (await counted(edge))["ejections_active"]:
            answers.append(await run(edge))
    back_at = time.monotonic() + EJECTED_S
    assert await taking(edge) == (1, 2)
    health, failed = await host(edge, deaf.target)
    assert failed >= FAILURES
    assert health["failed_outlier_check"]
    assert "failed_active_health_check" not in health
    while time.monotonic() < back_at - EJECTED_S * 0.3:
        answers.append(await run(edge))
    _, still = await host(edge, deaf.target)
    assert still == failed or time.monotonic() > back_at
    assert {(answer.status, answer.json["output"]) for answer in answers} == {(200, "Done.")}
    stats = await counted(edge)
    assert stats["ejections_enforced_consecutive_local_origin_failure"] == stats["ejections_enforced_total"] == 1
    await deaf.hear()
    await heard(edge, within_s=EJECTED_S + 10)
    assert (await counted(edge))["ejections_active"] == 0


async def test_an_instance_that_is_alone_stays_whatever_happens(opened, deaf):
    edge = await opened(deaf.target)
    await heard(edge, within_s=10)
    deaf.turn_deaf()
    answers = [await run(edge) for _ in range(2 * FAILURES)]
    assert {(one.status, one.details["ErrorInfo"]["reason"]) for one in answers} == {(503, "UNAVAILABLE")}
    stats = await counted(edge)
    assert (stats["ejections_enforced_total"], stats["ejections_active"]) == (0, 0)
    assert stats["ejections_overflow"] > 0
    await deaf.hear()
    assert (await run(edge)).json["output"] == "heard"


async def test_answers_that_callers_can_bring_about_take_nobody_out(mesh, opened):
    """Calls whose time is over at once: the edge ends some of them, and the agent answers others itself."""
    script = "agents: {default: [{text: Done., latency_ms: 20000}]}"
    agent = Agent("twin", "Takes its time.")
    one, other = [await mesh.agent(agent, script=script) for _ in range(2)]
    edge = await opened(one.server.target, other.server.target)
    body = {"prompt": "do"}
    calls = [
        asyncio.to_thread(lambda: edge.post("/v1/agents/twin/run", body, x_request_timeout="0.02")) for _ in range(60)
    ]
    answers = Counter(answer.status for answer in await asyncio.gather(*calls))
    # A machine that stands still for a moment ends some before Envoy has their body (408) or a connection (503).
    assert answers[504] >= CALLS, answers
    assert (await counted(edge))["ejections_enforced_total"] == 0
