"""AgentService and TaskService over real gRPC: every way in makes the same task, every way out reads its journal."""

import grpc
import pytest

from meshwright.agents.agent import Agent
from meshwright.gen.agents.v1.agent_service_pb2_grpc import AgentServiceStub
from meshwright.gen.agents.v1.task_pb2 import (
    FINISH_REASON_STOP,
    TASK_STATUS_COMPLETED,
    TaskRequest,
)
from meshwright.registry import tool


@tool(effect="pure")
def add(a: float, b: float) -> float:
    """Adds two numbers."""
    return a + b


SCRIPT = """
agents:
  default:
    - tool_calls: [{name: add, arguments: {a: 1, b: 2}}]
    - text: It is 3.
"""


@pytest.fixture
async def adder(mesh):
    process = await mesh.agent(Agent("adder", "Add.", tools=[add]), script=SCRIPT)
    async with grpc.aio.insecure_channel(process.server.target) as channel:
        yield AgentServiceStub(channel)


async def test_run_task_answers_with_the_whole_task(adder):
    response = await adder.RunTask(TaskRequest(prompt="1 + 2?"))
    assert response.status == TASK_STATUS_COMPLETED
    assert response.finish_reason == FINISH_REASON_STOP
    assert response.output == "It is 3."
    assert (response.steps_used, response.tool_calls) == (2, 1)


async def test_stream_steps_numbers_its_events_without_gap_and_ends_with_the_result(adder):
    events = [event async for event in adder.StreamSteps(TaskRequest(prompt="1 + 2?")) if event.sequence]
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    kinds = [event.WhichOneof("event") for event in events]
    assert kinds == ["started", "llm_call", "tool_call", "tool_result", "llm_call", "result"]
