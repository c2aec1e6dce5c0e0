"""A provider goes down and comes back, and a process is killed meanwhile: seen in steps, metrics and Health."""

import asyncio
from contextlib import AsyncExitStack

import pytest

from meshwright.core.breaker import OPEN_S, Circuit
from meshwright.gen.agents.v1.agent_service_pb2 import (
    HEALTH_STATUS_DEGRADED,
    HEALTH_STATUS_SERVING,
    HealthRequest,
)
from meshwright.gen.agents.v1.step_event_pb2 import DEGRADATION_LEVEL_STAND_IN, NOTICE_KIND_DEGRADED, NoticeKind
from meshwright.gen.agents.v1.task_pb2 import FINISH_REASON_DEGRADED, FINISH_REASON_STOP
from meshwright.gen.agents.v1.task_service_pb2 import WatchTaskRequest
from tests.agents.conftest import come_true
from tests.agents.models.conftest import AnthropicServer, OpenAIServer, listening
from tests.e2e.conftest import HERE

PRIMARY, SPARE = "openai:small", "anthropic:spare"
AT_ONCE = {"retry-after": "0.1"}
CALL = ("c1", "book", ('{"amount": 7}',))


class GatedServer(OpenAIServer):
    """Answers whoever comes when its gate is open."""

    def __init__(self):
        super().__init__()
        self.gate = asyncio.Event()
        self.gate.set()
        self.came = 0

    async def handle(self, reader, writer):
        self.came += 1
        await self.gate.wait()
        await super().handle(reader, writer)


class Bank:
    """A teller on two providers: the processes, the servers, and the book that the tool writes."""

    def __init__(self, workers, openai, anthropic, book):
        self._workers = workers
        self.openai = openai
        self.anthropic = anthropic
        self.book = book

    async def open(self):
        model = f"{PRIMARY}@{self.openai.url}, {SPARE}@{self.anthropic.url}"
        return await self._workers.start(HERE / "teller.py", model=model)

    def answers(self, server, **reply):
        """Has a server ask for the tool, then say its word, after a while where that is asked for."""
        server.replies.clear()
        server.calls(CALL)
        server.says("Done.", **reply)


@pytest.fixture
async def bank(workers, tmp_path, monkeypatch):
    monkeypatch.setenv("BOOK", str(tmp_path / "book"))
    async with AsyncExitStack() as stack:
        servers = [await stack.enter_async_context(listening(kind())) for kind in (GatedServer, AnthropicServer)]
        yield Bank(workers, *servers, tmp_path / "book")


def told(events):
    """Names what the machinery did."""
    notices = [event.notice for event in events if event.HasField("notice")]
    return [NoticeKind.Name(notice.kind).removeprefix("NOTICE_KIND_") for notice in notices]


async def health(worker):
    """Returns the status of an agent as a whole, and its first model's circuit."""
    response = await worker.client.agent.Health(HealthRequest())
    (model,) = [one for one in response.dependencies if one.name == f"model {PRIMARY}"]
    return response.status, model.breaker


async def circuit(worker):
    return await worker.metric(f'meshwright_model_circuit{{model="{PRIMARY}"}}')


async def test_a_provider_that_is_down_is_left_alone_and_tried_again(bank):
    worker = await bank.open()
    await falls_back_and_opens(bank, worker)
    await gives_less_where_nobody_answers(bank, worker)
    await closes_again(bank, worker)


async def test_a_process_that_is_killed_meanwhile_changes_nothing(bank):
    first, second = await asyncio.gather(bank.open(), bank.open())
    await falls_back_and_opens(bank, first)
    await goes_on_elsewhere(bank, first, second)


async def falls_back_and_opens(bank, worker):
    bank.openai.fails(503, headers=AT_ONCE)
    bank.answers(bank.anthropic)
    assert await health(worker) == (HEALTH_STATUS_SERVING, "closed")
    events = await worker.client.steps(task_id="t1")
    assert told(events) == ["RETRIED", "RETRIED", "FELL_BACK", "RETRIED", "BREAKER_OPEN", "FELL_BACK"]
    answers = [event.llm_call for event in events if event.HasField("llm_call")]
    assert [(one.provider, one.degraded) for one in answers] == [("anthropic", True)] * 2
    assert (events[-1].result.output, events[-1].result.degraded) == ("Done.", True)
    assert await health(worker) == (HEALTH_STATUS_DEGRADED, "open")
    assert await circuit(worker) == Circuit.OPEN
    assert await worker.metric(f'meshwright_model_fallbacks_total{{model="{PRIMARY}"}}') == 2
    tries = f'meshwright_model_tries_total{{model="{PRIMARY}",outcome="MODEL_UNAVAILABLE"}}'
    assert await worker.metric(tries) == len(bank.openai.requests) == 5
    bank.answers(bank.anthropic)
    assert told(await worker.client.steps(task_id="t2")) == ["FELL_BACK", "FELL_BACK"]
    assert len(bank.openai.requests) == 5


async def gives_less_where_nobody_answers(bank, worker):
    bank.anthropic.replies.clear()
    bank.anthropic.fails(503, headers=AT_ONCE)
    events = await worker.client.steps(task_id="t3")
    assert told(events) == ["FELL_BACK", "RETRIED", "RETRIED", "DEGRADED"]
    (less,) = [event.notice for event in events if event.notice.kind == NOTICE_KIND_DEGRADED]
    assert less.level == DEGRADATION_LEVEL_STAND_IN
    result = events[-1].result
    assert (result.finish_reason, result.output) == (FINISH_REASON_DEGRADED, "Our lines are down.")
    assert await worker.metric('meshwright_degraded_total{agent="teller",level="STAND_IN"}') == 1


async def goes_on_elsewhere(bank, first, second):
    """Kills the process while the last answer of a task is written."""
    bank.answers(bank.anthropic, delay_s=30.0)
    asked, booked = len(bank.anthropic.requests), bank.book.read_text()
    running = asyncio.create_task(first.client.run(task_id="t4"))
    await come_true(lambda: len(bank.anthropic.requests) == asked + 2)
    before = await seen(second.client, "t4")
    await first.kill()
    await asyncio.gather(running, return_exceptions=True)
    bank.anthropic.replies.clear()
    bank.anthropic.says("Done.")
    events = await second.client.watch("t4")
    assert events[: len(before)] == before
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert told(events) == ["FELL_BACK", "FELL_BACK", "TAKEN_OVER", "RETRIED", "RETRIED", "FELL_BACK"]
    result = events[-1].result
    assert (result.output, result.finish_reason, result.attempt) == ("Done.", FINISH_REASON_STOP, 2)
    assert (result.usage.model_calls, result.usage.tool_calls) == (2, 1)
    assert len(bank.anthropic.requests) == asked + result.usage.model_calls + 1  # the one that was under way
    assert bank.book.read_text() == booked + "7\n"


async def seen(client, task_id):
    """Returns the events that a task has so far."""
    last = (await client.get(task_id)).last_sequence
    watch, events = client.tasks.WatchTask(WatchTaskRequest(task_id=task_id)), []
    async for event in watch:
        events.append(event)
        if event.sequence == last:
            watch.cancel()
            return events
    raise AssertionError("the stream ended before")


async def closes_again(bank, worker):
    for server, words in ((bank.anthropic, "Done."), (bank.openai, "I am back.")):
        server.replies.clear()
        server.says(words)
    bank.openai.gate.clear()
    before = bank.openai.came
    trial = asyncio.create_task(tried(worker))
    await come_true(lambda: bank.openai.came > before, patience_s=2 * OPEN_S)
    assert await health(worker) == (HEALTH_STATUS_DEGRADED, "half-open")
    assert await circuit(worker) == Circuit.ON_TRIAL
    bank.openai.gate.set()
    result = await trial
    assert (result.output, result.degraded) == ("I am back.", False)
    assert await health(worker) == (HEALTH_STATUS_SERVING, "closed")
    assert await circuit(worker) == Circuit.CLOSED


async def tried(worker):
    """Asks until the first model is asked again; meanwhile the spare one answers."""
    while True:
        events = await worker.client.steps()
        if (notices := told(events)) != ["FELL_BACK"]:
            assert notices == ["BREAKER_HALF_OPEN", "BREAKER_CLOSED"]
            return events[-1].result
        await asyncio.sleep(0.2)
