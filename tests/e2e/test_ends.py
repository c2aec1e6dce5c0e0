"""The log of a process says when it serves, drains and has ended, and what it hands back."""

import json
import os
import signal
import subprocess
import sys

import grpc
import pytest

from meshwright.gen.agents.v1.agent_service_pb2_grpc import AgentServiceStub
from meshwright.gen.agents.v1.task_pb2 import TaskRequest

AGENT = """
import asyncio

from meshwright.agents import Agent
from meshwright.registry import tool


@tool(effect="pure", timeout_s=300)
async def hold() -> str:
    \"\"\"Waits.\"\"\"
    await asyncio.sleep(300)
    return "late"


holder = Agent("holder", "Hold.", tools=[hold])
"""
HOLDS = json.dumps({"agents": {"holder": [{"tool_calls": [{"name": "hold", "arguments": {}}]}]}})


class Child:
    """A process that serves, and what it logs."""

    def __init__(self, process):
        self.process = process
        self.target = json.loads(process.stdout.readline())["target"]

    def line(self, event):
        """Reads lines until one tells an event."""
        for text in self.process.stderr:
            line = json.loads(text)
            if line["event"] == event:
                return line
        raise AssertionError(f"{event} was never told")

    def ends(self):
        """Tells it to stop; returns what it says from then on."""
        self.process.send_signal(signal.SIGTERM)
        _, err = self.process.communicate(timeout=50)
        assert self.process.returncode == 0, err
        return [json.loads(text) for text in err.splitlines()]


@pytest.fixture
def start(store, tmp_path):
    """Starts `python -m` of a module with settings."""
    started = []

    def run(*arguments, **settings):
        settings = {"store_url": store.url, "drain_s": 0.3, "auth": "none", "tracing": "false", "port": 0} | settings
        chosen = {f"MESHWRIGHT_{name.upper()}": str(value) for name, value in settings.items()}
        process = subprocess.Popen(
            [sys.executable, "-m", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
            env=os.environ | {"GRPC_VERBOSITY": "NONE"} | chosen,
        )
        started.append(process)
        return Child(process)

    yield run
    for process in started:
        process.kill()
        process.communicate()


def test_registry_and_gateway_say_that_they_drain_and_have_ended(start, tmp_path):
    registry = start("meshwright.registry")
    assert registry.line("ready")["target"] == registry.target
    gateway = start("meshwright.gateway", registry=registry.target, folder=tmp_path / "envoy")
    assert gateway.line("ready")["logger"] == "gateway"
    for child, logger in ((gateway, "gateway"), (registry, "registry")):
        told = [line["event"] for line in child.ends() if line["logger"] == logger]
        assert [event for event in told if event in ("draining", "ended")] == ["draining", "ended"]


def test_an_agent_that_ends_while_a_task_runs_says_that_it_drains_hands_back_and_has_ended(start, tmp_path):
    registry = start("meshwright.registry")
    (tmp_path / "holder.py").write_text(AGENT)
    (tmp_path / "script.json").write_text(HOLDS)
    agent = start(
        "meshwright.agents",
        "holder.py:holder",
        registry=registry.target,
        model="scripted:script.json",
        log_level="info,tool_host=debug",
    )
    with grpc.insecure_channel(agent.target) as channel:
        running = AgentServiceStub(channel).RunTask.future(TaskRequest(prompt="Go.", task_id="t1"))
        agent.line("tool_begun")
        told = agent.ends()
        running.cancel()
    said = {line["event"]: line for line in told if line["event"] in ("draining", "handed_back", "ended")}
    assert list(said) == ["draining", "handed_back", "ended"]
    assert (said["draining"]["tasks"], said["handed_back"]["task_id"]) == (1, "t1")
    assert said["ended"]["logger"] == "agent"
