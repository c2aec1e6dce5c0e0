"""One agent, unchanged, on every kind of model: tools are called, text streams, tokens are counted."""

import json

import grpc
import pytest

from meshwright.agents.agent import Agent
from meshwright.gen.agents.v1.agent_service_pb2_grpc import AgentServiceStub
from meshwright.gen.agents.v1.task_pb2 import TASK_STATUS_COMPLETED, TASK_STATUS_FAILED, TaskRequest
from meshwright.registry import tool

SCRIPT = """
agents:
  accountant:
    - tool_calls:
        - {name: tax.add, arguments: {net: 250}}
      usage: {input_tokens: 20, output_tokens: 5}
    - text: "With tax it is 297.5."
      usage: {input_tokens: 20, output_tokens: 5}
"""
WORDS = ("With tax ", "it is 297.5.")


@tool(name="tax.add", effect="pure")
def add_tax(net: float) -> float:
    """Adds tax to a net price."""
    return round(net * 1.19, 2)


AGENT = Agent("accountant", "Answer questions about prices.", tools=[add_tax])


def no_preparation(openai_server, anthropic_server):
    return {"model": "offline"}


def scripted(openai_server, anthropic_server):
    return {"script": SCRIPT}


def on_openai(server, _):
    usage = {"prompt_tokens": 20, "completion_tokens": 5, "total_tokens": 25}
    server.calls(("c1", "tax__add", ('{"net"', ": 250}")), usage=usage)
    server.says(*WORDS, usage=usage)
    return {"model": f"openai:small@{server.url}"}


def on_anthropic(_, server):
    usage = {"input_tokens": 20, "output_tokens": 5}
    server.calls(("c1", "tax__add", ('{"net"', ": 250}")), usage=usage)
    server.says(*WORDS, usage=usage)
    return {"model": f"anthropic:small@{server.url}"}


async def steps_of(process):
    async with grpc.aio.insecure_channel(process.server.target) as channel:
        request = TaskRequest(prompt="What is 250 with tax?")
        return [event async for event in AgentServiceStub(channel).StreamSteps(request)]


PREPARED = {"offline": no_preparation, "scripted": scripted, "openai": on_openai, "anthropic": on_anthropic}


@pytest.mark.parametrize("kind", PREPARED)
async def test_the_same_agent_calls_its_tool_and_streams_its_words_on(mesh, openai_server, anthropic_server, kind):
    process = await mesh.agent(AGENT, **PREPARED[kind](openai_server, anthropic_server))
    events = await steps_of(process)
    kinds = [event.WhichOneof("event") for event in events if event.sequence]
    assert kinds == ["started", "llm_call", "tool_call", "tool_result", "llm_call", "result"]
    assert (events[2].tool_call.tool, dict(events[2].tool_call.arguments)) == ("tax.add", {"net": 250})
    assert events[3].tool_result.result.number_value == 297.5
    deltas = "".join(event.delta.text for event in events if event.HasField("delta"))
    result = events[-1].result
    assert (result.status, result.output) == (TASK_STATUS_COMPLETED, deltas)
    assert "297.5" in deltas
    assert events[-2].llm_call.provider == kind
    assert result.tokens_used == 50 or kind == "offline"


async def test_a_model_is_sent_what_its_tools_gave(mesh, openai_server, anthropic_server):
    on_openai(openai_server, anthropic_server)
    on_anthropic(openai_server, anthropic_server)
    for server, kind in ((openai_server, "openai"), (anthropic_server, "anthropic")):
        process = await mesh.agent(
            Agent(f"{kind}-accountant", "Prices.", tools=[add_tax], model=f"{kind}:m@{server.url}")
        )
        await steps_of(process)
        told = server.requests[1]["messages"][-1]
        assert "297.5" in json.dumps(told["content"])


@pytest.mark.parametrize("kind", ["openai", "anthropic"])
async def test_a_model_that_refuses_fails_the_task_with_its_reason(mesh, openai_server, anthropic_server, kind):
    server = openai_server if kind == "openai" else anthropic_server
    server.fails(401, "bad key")
    events = await steps_of(await mesh.agent(AGENT, model=f"{kind}:small@{server.url}"))
    result = events[-1].result
    assert result.status == TASK_STATUS_FAILED
    assert (result.error.message.startswith("the model small refuses"), server.root in str(events)) == (True, False)
