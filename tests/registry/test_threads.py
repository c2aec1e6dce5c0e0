"""Threads of tools: so many at once, so many calls that wait, and a refusal for the rest."""

import asyncio
import json
import threading

import pytest

from meshwright.core.errors import MeshError, OverloadedError
from meshwright.gen.agents.v1.grant_pb2 import Grant
from meshwright.gen.tools.v1.tool_service_pb2 import InvocationState
from meshwright.registry import tool
from meshwright.registry.host import ToolHost
from meshwright.registry.settings import HostSettings
from meshwright.registry.store import Ledger
from meshwright.registry.threads import Threads


class Work:
    """Blocking work that a test lets end."""

    def __init__(self):
        self.gate = threading.Event()
        self.lock = threading.Lock()
        self.running = self.most = self.done = 0

    def do(self):
        with self.lock:
            self.running += 1
            self.most = max(self.most, self.running)
        self.gate.wait(20)
        with self.lock:
            self.running -= 1
            self.done += 1
        return 1

    async def reaches(self, running):
        async with asyncio.timeout(10):
            while self.running != running:
                await asyncio.sleep(0.002)


@pytest.fixture
def work():
    one = Work()
    yield one
    one.gate.set()


def host_of(store, work, **options):
    @tool(name="block", **{"effect": "non_idempotent", "timeout_s": 20, **options})
    def block() -> int:
        """Blocks."""
        return work.do()

    return ToolHost([block], Ledger(store), HostSettings(tool_threads=2, tool_queue=3))


GRANT = Grant(tenant="t", principal="p", agent_id="a", task_id="task", tools=["block@1.0.0"])


@pytest.mark.parametrize("effect", ["pure", "non_idempotent"])
async def test_so_many_run_so_many_wait_and_the_rest_is_refused(store, work, effect):
    host = host_of(store, work, effect=effect)
    calls = [asyncio.create_task(host.invoke(GRANT, "block@1.0.0", "{}", f"k{n}")) for n in range(5)]
    await work.reaches(2)
    with pytest.raises(OverloadedError) as caught:
        await host.invoke(GRANT, "block@1.0.0", "{}", "one-more")
    assert caught.value.retry_after_s == 1
    assert caught.value.metadata["limit"] == "process"
    assert (await host.outcome(GRANT, "one-more"))[0] == InvocationState.INVOCATION_STATE_NOT_SEEN
    work.gate.set()
    outcomes = await asyncio.gather(*calls)
    assert [json.loads(one.result_json) for one in outcomes] == [1] * 5
    assert (work.most, work.done) == (2, 5)
    assert not (await host.invoke(GRANT, "block@1.0.0", "{}", "one-more")).HasField("error")


async def test_a_thread_that_hangs_keeps_its_place_after_its_call_has_ended(store, work):
    host = host_of(store, work, effect="pure", timeout_s=0.1)
    for _ in range(3):
        outcome = await host.invoke(GRANT, "block@1.0.0", "{}", "k")
        assert MeshError.from_status(outcome.error).reason == "DEADLINE_EXCEEDED"
    assert work.most == 2
    work.gate.set()
    await work.reaches(0)
    async with asyncio.timeout(5):
        while (await host.invoke(GRANT, "block@1.0.0", "{}", "k")).HasField("error"):
            await asyncio.sleep(0.01)


async def test_what_is_a_coroutine_needs_no_thread(store, work):
    @tool(effect="pure", name="block")
    async def block() -> int:
        """Waits."""
        await asyncio.sleep(0.01)
        return 1

    host = ToolHost([block], Ledger(store), HostSettings(tool_threads=1, tool_queue=0))
    outcomes = await asyncio.gather(*(host.invoke(GRANT, "block@1.0.0", "{}", "k") for _ in range(20)))
    assert not any(one.HasField("error") for one in outcomes)


async def test_where_no_thread_can_be_started_the_place_is_given_back(monkeypatch):
    def refuse(_):
        raise RuntimeError("can't start new thread")

    threads = Threads(1, 0)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        with pytest.raises(OverloadedError) as caught:
            await threads.run(lambda: 1)
    assert caught.value.metadata == {"limit": "process"}
    assert await threads.run(lambda: 2) == 2
