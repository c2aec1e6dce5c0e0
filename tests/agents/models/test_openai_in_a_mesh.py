"""An agent on an OpenAI-compatible server: tools are called, text streams, tokens are counted."""

import grpc

from meshwright.agents.agent import Agent
from meshwright.gen.agents.v1.agent_service_pb2_grpc import AgentServiceStub
from meshwright.gen.agents.v1.task_pb2 import TASK_STATUS_COMPLETED, TASK_STATUS_FAILED, TaskRequest
from meshwright.registry import tool


@tool(name="math.add", effect="pure")
def add(a: int, b: int) -> int:
    """Adds two numbers."""
    return a + b


async def steps_of(mesh, server):
    agent = Agent("adder", "Add.", tools=[add], model=f"openai:small@{server.url}")
    process = await mesh.agent(agent)
    async with grpc.aio.insecure_channel(process.server.target) as channel:
        return [event async for event in AgentServiceStub(channel).StreamSteps(TaskRequest(prompt="What is 2 + 3?"))]


async def test_a_model_calls_a_tool_and_its_words_stream(mesh, openai_server):
    call = {
        "index": 0,
        "id": "c1",
        "type": "function",
        "function": {"name": "math__add", "arguments": '{"a": 2, "b": 3}'},
    }
    usage = {"prompt_tokens": 20, "completion_tokens": 5, "total_tokens": 25}
    openai_server.streams(
        openai_server.chunk({"tool_calls": [call]}),
        openai_server.chunk({}, "tool_calls"),
        {"choices": [], "usage": usage},
    )
    openai_server.says("The sum ", "is 5.", usage=usage)
    events = await steps_of(mesh, openai_server)
    kinds = [event.WhichOneof("event") for event in events if event.sequence]
    assert kinds == ["started", "llm_call", "tool_call", "tool_result", "llm_call", "result"]
    deltas = "".join(event.delta.text for event in events if event.HasField("delta"))
    assert deltas == "The sum is 5."
    result = events[-1].result
    assert (result.status, result.output, result.tokens_used) == (TASK_STATUS_COMPLETED, "The sum is 5.", 50)
    assert events[3].tool_result.result.number_value == 5


async def test_a_model_that_refuses_fails_the_task_with_its_reason(mesh, openai_server):
    openai_server.fails(401, "bad key")
    events = await steps_of(mesh, openai_server)
    result = events[-1].result
    assert result.status == TASK_STATUS_FAILED
    assert "OPENAI_API_KEY" in result.error.message
