"""Streams a task's steps through the edge."""

import asyncio

import grpc

from meshwright.gen.agents.v1.agent_service_pb2_grpc import AgentServiceStub
from meshwright.gen.agents.v1.task_pb2 import TaskRequest


async def main() -> None:
    async with grpc.aio.insecure_channel("127.0.0.1:8080") as channel:
        async for event in AgentServiceStub(channel).StreamSteps(TaskRequest(prompt="What is a fence?")):
            print(event.sequence, event.WhichOneof("event"))


asyncio.run(main())
