"""Agents that host declared tools."""

import json
import sqlite3

from meshwright.agents.agent import Agent
from meshwright.core.channel import dial
from meshwright.core.settings import Settings
from meshwright.gen.agents.v1.agent_service_pb2_grpc import AgentServiceStub
from meshwright.gen.agents.v1.task_pb2 import TASK_STATUS_COMPLETED, TaskRequest
from meshwright.registry.toolfile import load

QUERY = {"name": "sql.query", "arguments": {"statement": "answers"}}


async def test_an_agent_hosts_a_declared_tool_and_calls_it(mesh, tmp_path):
    connection = sqlite3.connect(tmp_path / "shop.db")
    connection.executescript("CREATE TABLE answer (n); INSERT INTO answer VALUES (42);")
    connection.close()
    statements = {"answers": {"sql": "SELECT n FROM answer", "description": "All answers."}}
    backend = {"sql": {"database": "shop.db", "statements": statements}}
    tool = {"name": "sql.query", "version": "1.0.0", "description": "Reads.", "backend": backend}
    (tmp_path / "tools.yaml").write_text(json.dumps({"tools": [tool]}))
    agent = Agent("reader", "Read.", tools=load(tmp_path / "tools.yaml", Settings()))
    replies = [{"tool_calls": [QUERY]}, {"text": "Done."}]
    process = await mesh.agent(agent, script=json.dumps({"agents": {"default": replies}}))
    async with dial(process.server.target) as channel:
        response = await AgentServiceStub(channel).RunTask(TaskRequest(task_id="t1", prompt="Look."), timeout=20)
    assert (response.status, response.tool_calls) == (TASK_STATUS_COMPLETED, 1)
