"""A conversation of a thousand turns, with a server that speaks a provider's wire and measures every prompt."""

import json
import os
import random
import re

import grpc
import pytest

from meshwright.agents.journal import Journal
from meshwright.agents.memory import Memory
from meshwright.agents.session import Sessions
from meshwright.agents.task import TaskName
from meshwright.core.errors import MeshError
from meshwright.gen.agents.v1.session_service_pb2 import DeleteSessionRequest, GetSessionRequest, PinFactRequest
from meshwright.gen.agents.v1.session_service_pb2_grpc import SessionServiceStub
from meshwright.gen.agents.v1.task_pb2 import TASK_STATUS_COMPLETED, TaskRequest, TaskResponse
from tests.agents.conftest import come_true
from tests.agents.models.conftest import OpenAIServer, listening

TURNS = 1_000
RUN = int(os.environ.get("SESSION_TURNS", "50"))
"""So many of them are run; what the others leave is written as the runtime writes it."""
WINDOW = 4_096
CHARACTERS_A_TOKEN = 4
SESSION, TRACE, CODE = "harbour-talk", "xylophone", "quince-7319"
SOURCE = f"""
from meshwright.agents import Agent

agent = Agent("talker", "Talk.", context_window={WINDOW})
"""


class ReadingServer(OpenAIServer):
    """Answers with the line of its prompt that names the code, where it is asked for it, else at length."""

    async def _answer(self, reader, writer):
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(head.split("content-length: ")[1].split("\r\n")[0])
        request = json.loads(await reader.readexactly(length))
        self.requests.append(request)
        chunk, usage = self.chunk({"content": self.words(request)}), {"prompt_tokens": 100, "completion_tokens": 50}
        ending = {"id": "c", "object": "chat.completion.chunk", "choices": [], "usage": usage}
        body = b"".join(map(self.event, [chunk, self.chunk({}, "stop"), ending, "[DONE]"]))
        facts = f"content-type: text/event-stream\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
        writer.write(f"HTTP/1.1 200 OK\r\n{facts}".encode() + body)
        await writer.drain()

    def words(self, request):
        *before, last = [message["content"] for message in request["messages"]]
        if "code" not in last:
            return f"A boat of {len(self.requests)} metres, with a {TRACE} on board. " * (len(self.requests) % 40 + 1)
        lines = [line for text in before for line in text.splitlines()]
        return next((line for line in lines if CODE in line), "I do not know.")


@pytest.fixture
async def server():
    async with listening(ReadingServer()) as listened:
        yield listened


@pytest.fixture
def talk(store):
    """Leaves a turn as a task does that has ended."""
    journal, memory = Journal(store, "test"), Memory(store)
    sessions = Sessions(journal)

    async def left(number, prompt):
        name = TaskName("default", "default", f"turn-{number}")
        await sessions.enter(name, SESSION)
        request = TaskRequest(prompt=prompt, session_id=SESSION)
        output = f"Boat {number} has a {TRACE}. " * (number % 60 + 1)
        await sessions.leave(name, request, TaskResponse(status=TASK_STATUS_COMPLETED, output=output))
        await memory.settle(name, SESSION)

    return left


READ = {
    b"string": ("GET",),
    b"hash": ("HGETALL",),
    b"set": ("SMEMBERS",),
    b"zset": ("ZRANGE", 0, -1),
    b"stream": ("XRANGE", "-", "+"),
    b"list": ("LRANGE", 0, -1),
}


async def everything(store):
    """Reads all keys of the store, with all that they hold."""
    found = []
    async for key in store.client.scan_iter(count=1_000):
        (kind,) = await store.run(("TYPE", key))
        if kind != b"none":  # gone meanwhile
            command, *rest = READ[kind]
            found.append((key, *await store.run((command, key, *rest))))
    return [repr(one) for one in found]


def size(request):
    """Counts the tokens of what a server received, the answer that it may give included."""
    said = sum(len(message["content"]) for message in request["messages"])
    return said / CHARACTERS_A_TOKEN + request.get("max_completion_tokens", request.get("max_tokens"))


async def test_a_thousand_turns_stay_in_the_window_know_the_first_fact_and_leave_nothing_behind(
    workers, server, talk, store, tmp_path
):
    dice = random.Random(7)
    (tmp_path / "talker.py").write_text(SOURCE)
    (tmp_path / "prices.json").write_text('{"small": {"input": 1000000, "output": 1000000}}')
    worker = await workers.start(
        tmp_path / "talker.py",
        model=f"openai:small@{server.url}",
        prices=str(tmp_path / "prices.json"),
        budget_session_micros=10**9,
        budget_user_day_micros=10**9,
    )
    sessions = SessionServiceStub(worker.channel)
    await sessions.PinFact(PinFactRequest(session_id=SESSION, text=f"The code is {CODE}."))
    run = set(range(0, TURNS, TURNS // RUN))
    for number in range(TURNS):
        prompt = f"Question {number} about a {TRACE}? " * dice.choice((1, 5, 40, 400))
        if number in run:
            asked = len(server.requests)
            response = await worker.client.run(prompt, session_id=SESSION, task_id=f"turn-{number}")
            assert response.status == TASK_STATUS_COMPLETED, response
            assert len(server.requests) == asked + 1
            assert size(server.requests[-1]) <= WINDOW, number
            assert CODE in json.dumps(server.requests[-1]["messages"])
        else:
            await talk(number, prompt)
    answered = await worker.client.run("What is the code?", session_id=SESSION, task_id="turn-last")
    assert CODE in answered.output
    await come_true(lambda: is_left(sessions, TURNS + 1))
    assert any(TRACE in one for one in await everything(store))
    deleted = await sessions.DeleteSession(DeleteSessionRequest(session_id=SESSION))
    assert deleted.tasks == len(run) + 1
    left = await everything(store)
    assert not [one for one in left for trace in (TRACE, CODE, "boat", "Boat") if trace in one]
    beside = [one for one in left if not re.match(r"\(b'mw:\{\d+\}:audit:", one)]  # the audit names who deleted what
    assert not [one for one in beside for trace in (SESSION, "turn-") if trace in one]
    with pytest.raises(grpc.aio.AioRpcError) as gone:
        await sessions.GetSession(GetSessionRequest(session_id=SESSION))
    assert MeshError.from_rpc(gone.value).reason == "SESSION_NOT_FOUND"


async def is_left(sessions, turns):
    return (await sessions.GetSession(GetSessionRequest(session_id=SESSION))).turn_count == turns
