"""What a mesh does stands in its audit: a line for each, by real calls of real agents."""

import asyncio
import contextlib
import json
from dataclasses import replace

import pytest

from meshwright.agents.agent import Agent
from meshwright.agents.journal import LIBRARY as JOURNAL_LIBRARY
from meshwright.agents.journal import Journal
from meshwright.agents.task import TaskName
from meshwright.cli.audit_check import AuditCheck
from meshwright.cli.store_keys import walked
from meshwright.core.audit import AuditReader
from meshwright.core.channel import dial as dial_to
from meshwright.core.codec import Codec, ContentKeys
from meshwright.core.errors import MeshError
from meshwright.core.store import Store, partition_key
from meshwright.gen.agents.v1.agent_service_pb2_grpc import AgentServiceStub
from meshwright.gen.agents.v1.session_service_pb2 import DeleteSessionRequest
from meshwright.gen.agents.v1.session_service_pb2_grpc import SessionServiceStub
from meshwright.gen.agents.v1.task_pb2 import DECISION_APPROVE, TaskRequest
from meshwright.gen.agents.v1.task_service_pb2 import DropDeadLetterRequest, RetryDeadLetterRequest
from meshwright.registry import tool
from tests.conftest import KEY

SECRET = "violoncello"
DONE = {"text": "Done."}


@tool(name="mail.send", version="1.0.0", effect="non_idempotent")
def send(to: str) -> str:
    """Sends a letter."""
    return f"sent to {to}"


SEND = {"tool_calls": [{"name": "mail.send", "arguments": {"to": SECRET}}]}


@pytest.fixture
def start(mesh, dial):
    """Starts an agent that follows a script, and connects to it."""

    async def started(*replies, **facts):
        script = json.dumps({"agents": {"default": list(replies)}})
        return dial(await mesh.agent(Agent("worker", "Work.", tools=[send], **facts), script=script))

    return started


@pytest.fixture
def told(store):
    """Returns the events of a tenant's audit with what they are about and their outcomes."""

    async def read(tenant="default"):
        lines = await AuditReader(store).read(tenant)
        return [(one.event, one.about, one.outcome) for one in lines if one.event != "tool_registered"]

    return read


@pytest.fixture
def of(store):
    """Returns the facts of the lines of one event."""

    async def read(event, tenant="default"):
        return [line.facts for line in await AuditReader(store).read(tenant) if line.event == event]

    return read


async def test_a_task_its_effect_and_the_approval_of_it_are_told_in_order(start, told, of, store):
    client = await start(SEND, DONE, approvals={"mail.send": "always"})
    (pending,) = (await client.run(f"Write to {SECRET}.", task_id="t1", session_id="s1")).pending_inputs
    await client.resolve("t1", pending, DECISION_APPROVE, reason=f"for the {SECRET}")
    assert (await client.ended("t1")).output == "Done."
    task = "default/t1"
    assert await told() == [
        ("task_accepted", task, ""),
        ("input_resolved", task, "approve"),
        ("tool_begun", task, ""),
        ("tool_settled", task, "ok"),
    ]
    assert await of("task_accepted") == [{"by": "default", "agent": "worker", "session": "s1"}]
    (decided,) = await of("input_resolved")
    assert decided == {"by": "default", "input": pending.input_id, "intent": pending.intent_digest, "via": "t1"}
    (begun,) = await of("tool_begun")
    assert (begun["tool"], begun["intent"]) == ("mail.send@1.0.0", pending.intent_digest)
    assert SECRET not in str(await AuditReader(store).read("default"))


async def test_a_cancelled_task_is_told_once_with_who_wanted_it(start, told, of):
    client = await start(SEND, DONE, approvals={"mail.send": "always"})
    await client.run(task_id="t1")
    for _ in range(2):
        await client.cancel("t1", SECRET)
    assert ("task_cancelled", "default/t1", "") in await told()
    assert await of("task_cancelled") == [{"by": "default"}]


async def test_a_deleted_session_leaves_lines_and_no_content(start, mesh, told, of, store):
    client = await start(SEND, DONE)
    await client.run(f"Write to {SECRET}.", task_id="t1", session_id="s1")
    async with dial_to(mesh.agents["worker"].server.target) as channel:
        await SessionServiceStub(channel).DeleteSession(DeleteSessionRequest(session_id="s1"))
    task, session = "default/t1", "default/s1"
    assert await told() == [
        ("task_accepted", task, ""),
        ("tool_begun", task, ""),
        ("tool_settled", task, "ok"),
        ("session_deleted", session, "begun"),
        ("task_deleted", task, "erased"),
        ("session_deleted", session, "ok"),
    ]
    assert (await of("session_deleted"))[1] == {"by": "default", "tasks": 1, "memories": 0}
    found = [await store.client.dump(key) for key in await store.client.keys("mw:*:audit*")]
    assert not any(SECRET.encode() in content for content in found)
    check = AuditCheck(AuditReader(store), {}, print)
    assert [(one.lines, one.fault) async for one in check.verdicts("default", 0)] == [(1, None), (6, None)]


async def test_children_are_told_with_their_parents_and_go_with_their_root(start, mesh, journal, told, of, store):
    ask = {"tool_calls": [{"name": "ask.worker", "arguments": {"prompt": "Play."}}]}
    await start(DONE)
    script = json.dumps({"agents": {"default": [ask, DONE]}})
    boss = await mesh.agent(Agent("boss", "Lead.", delegates=["worker"]), script=script)
    async with dial_to(boss.server.target) as channel:
        await AgentServiceStub(channel).RunTask(TaskRequest(prompt="Go.", task_id="t1"))
    root, child = await of("task_accepted")
    assert (root["agent"], child["agent"], child["parent"]) == ("boss", "worker", "t1")
    names = [about for event, about, _ in await told() if event == "task_accepted"]
    for name in names:
        await store.client.zadd(partition_key(0, "expiry"), {f"default/{name}": 1})
    await journal.purge(0)
    assert [event for event in await told() if event[0] == "task_deleted"] == [
        ("task_deleted", "default/t1", "expired")
    ]


async def test_dead_letters_are_told_when_they_are_started_anew_or_dropped(start, told, of, store):
    client = await start(DONE)
    for task_id in ("t1", "t2"):
        await client.run(task_id=task_id)
        await store.client.hset(partition_key(0, "task", f"default/default/{task_id}"), "poison", 1)
        await store.client.zadd(partition_key(0, "dead", "default/default"), {task_id: 1})
    again = await client.tasks.RetryDeadLetter(RetryDeadLetterRequest(task_id="t1"))
    for _ in range(2):
        await client.tasks.DropDeadLetter(DropDeadLetterRequest(task_id="t2"))
    letters = [event for event in await told() if event[0].startswith("dead")]
    assert letters == [("dead_letter_retried", "default/t1", ""), ("dead_letter_dropped", "default/t2", "")]
    assert await of("dead_letter_retried") == [{"by": "default", "retried_as": again.task_id}]
    assert await of("dead_letter_dropped") == [{"by": "default"}]


async def test_wrapping_data_keys_anew_is_told(store, told):
    keys = ContentKeys({"next": KEY[::-1], "test": KEY})
    await walked(Store(store.url, JOURNAL_LIBRARY, codec=Codec(keys)), keys, is_dry=False)
    assert await told("") == [("keys_rewrapped", "next", "begun"), ("keys_rewrapped", "next", "ok")]
    await walked(Store(store.url), keys, is_dry=True)
    assert len(await told("")) == 2


async def test_tenants_and_principals_with_odd_names_are_told_apart(journal, made, told):
    for tenant in ("a/b", "a:chain", "a", "", "ü"):
        task = made.task("t1")
        await journal.accept(replace(task, name=TaskName(tenant, "p/q", "t1")), claim=False)
    for tenant in ("a/b", "a:chain", "a", "", "ü"):
        assert await told(tenant) == [("task_accepted", "p%2Fq/t1", "")]


async def test_a_repetition_after_a_lost_reply_is_told_once(journal, made, told):
    for _ in range(3):
        await journal.accept(made.task("t1"), claim=False)
    assert len(await told()) == 1


async def test_writers_at_once_make_one_chain(journal, made, store):
    names = [f"t{number}" for number in range(200)]
    await asyncio.gather(*(journal.accept(made.task(name), claim=False) for name in names))
    lines = await AuditReader(store).read("default")
    assert [line.number for line in lines] == list(range(1, 201))
    check = AuditCheck(AuditReader(store), {}, print)
    assert [one.fault async for one in check.verdicts(None, 0)] == [None]


async def test_a_store_that_is_killed_has_a_line_for_every_task_and_no_other(own_store, made):
    journal, accepted = Journal(own_store.store, "one"), set()

    async def accept(number):
        with contextlib.suppress(MeshError):
            await journal.accept(made.task(f"t{number}"), claim=False)
            accepted.add(f"default/t{number}")

    work = [asyncio.create_task(accept(number)) for number in range(400)]
    await asyncio.wait(work, return_when=asyncio.FIRST_COMPLETED)
    own_store.kill()
    await asyncio.gather(*work)
    await own_store.start()
    reader = AuditReader(own_store.store)
    told = {line.about for line in await reader.read("default")}
    held = {key.decode().split("/", 1)[1] for key in await own_store.store.client.keys("mw:*:task:*")}
    assert told == held >= accepted
    assert [one.fault async for one in AuditCheck(reader, {}, print).verdicts(None, 0)] == [None]
