"""Tools that go out of use: tasks that have them pinned say so, once, in their journals."""

import json

from meshwright.agents.agent import Agent
from meshwright.gen.agents.v1.step_event_pb2 import NOTICE_KIND_TOOL_DEPRECATED
from meshwright.gen.registry.v1.tool_registry_service_pb2 import DeprecateToolRequest
from meshwright.gen.registry.v1.tool_registry_service_pb2_grpc import ToolRegistryServiceStub
from meshwright.registry import tool


@tool(effect="pure")
async def look() -> str:
    """Looks."""
    return "seen"


@tool(effect="pure")
async def watch() -> str:
    """Watches."""
    return "seen"


async def test_a_task_says_which_of_its_tools_go_out_of_use(mesh, dial, becomes):
    script = json.dumps({"agents": {"default": [{"text": "Done."}]}})
    process = await mesh.agent(Agent("worker", "Work.", tools=[look, watch]), script=script)
    client = dial(process)
    assert not [event for event in await client.steps() if event.HasField("notice")]
    request = DeprecateToolRequest(name="look", version="1.0.0", replaced_by="watch@^1")
    request.sunset_time.FromJsonString("2031-05-04T00:00:00Z")
    await ToolRegistryServiceStub(process.channels.to(mesh.target)).DeprecateTool(request)

    async def is_told():
        return any(event.HasField("notice") for event in await client.steps())

    await becomes(is_told)
    (notice,) = [event.notice for event in await client.steps() if event.HasField("notice")]
    assert notice.kind == NOTICE_KIND_TOOL_DEPRECATED
    assert notice.detail == "look@1.0.0 goes out of use on 2031-05-04: watch@^1 takes its place"
