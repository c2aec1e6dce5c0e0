"""Delivering webhooks: signed, at least once, tried again, and never in each other's way."""

import asyncio
import contextlib
import json
import sys
import textwrap
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
import structlog
from google.protobuf.struct_pb2 import Value

from meshwright.agents.agent import Agent
from meshwright.agents.deliveries import Deliveries, Hook
from meshwright.agents.journal import Journal
from meshwright.agents.webhook import Endpoint
from meshwright.agents.webhooks import GROWTH, LASTS_S, LONGEST_PAUSE_S, Webhooks
from meshwright.core import telemetry
from meshwright.core.errors import StoreUnavailableError
from meshwright.core.store import partition_key
from meshwright.gen.agents.v1.task_pb2 import DECISION_ANSWER, DECISION_SKIP, TASK_STATUS_COMPLETED, TaskRequest
from meshwright.registry.egress import Egress, Limits
from tests.agents.webhook_world import KEY, NEXT_KEY, SECRET, Receiver

WISH = "I want to speak to a human about my cat."
SOON = {"poll_s": 0.01, "lease_s": 60, "first_pause_s": 0.02}


@pytest.fixture
async def receiver():
    """Starts receivers."""
    async with contextlib.AsyncExitStack() as stack:

        async def started(behaviour=lambda _: 204, headers=""):
            made = Receiver(behaviour, headers=headers)
            server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
            made.port = server.sockets[0].getsockname()[1]
            stack.callback(server.close)
            return made

        yield started


def endpoint_to(receiver, name="crm", *, keys=(KEY,), events=("input_requested", "task_ended"), tenants=(), **facts):
    hook = Hook(f"worker/{name}", events, tenants)
    egress = Egress([receiver.place], limits=Limits(body_bytes=1_000))
    return Endpoint(name, receiver.url, hook, keys, egress, **({"timeout_s": 5.0} | facts))


@pytest.fixture
async def delivering(journal):
    """Hooks endpoints to the agent `worker` and delivers to them."""
    running = []

    async def start(*endpoints, **facts):
        deliveries = Deliveries(journal.store, "worker")
        await deliveries.hook([endpoint.hook for endpoint in endpoints])
        task = asyncio.create_task(Webhooks(journal, deliveries, list(endpoints), **(SOON | facts)).run())
        running.append(task)
        return task

    yield start
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)


@pytest.fixture
def end(journal, made, claimed):
    """Runs a task to its end."""

    async def ended(task_id="t1", tenant="default", **facts):
        task = made.task(task_id, **facts)
        if tenant != "default":
            name = made.name(task_id, tenant=tenant)
            task = type(task)(name, task.agent_id, task.hash, task.request, task.timeout_ms)
        claim = await claimed(task)
        await journal.finish(claim, "COMPLETED", [made.result()])
        return claim

    return ended


def counted(name, outcome):
    return telemetry.WEBHOOKS.labels(name, outcome)._value.get()


async def left(store, name="crm"):
    """Counts the events that are still to be delivered."""
    return await store.client.zcard(partition_key(0, "deliveries", f"worker/{name}"))


class TestEvents:
    async def test_an_ended_task_is_told_signed_and_without_its_texts(self, receiver, delivering, end, becomes, store):
        there = await receiver()
        await delivering(endpoint_to(there))
        request = TaskRequest(prompt="Secret words", metadata={"ticket": "7"}, max_steps=10, token_budget=8192)
        await end(request=request)
        (got,) = await there.receives(1)
        assert got.is_signed_by(KEY)
        assert not got.is_signed_by(NEXT_KEY)
        assert got.headers["content-type"] == "application/json"
        event = got.event
        assert (event["specversion"], event["type"], event["id"]) == ("1.0", "meshwright.task_ended", got.id)
        assert (event["source"], event["subject"]) == ("/agents/worker", "t1")
        data = event["data"]
        assert (data["task_id"], data["tenant"], data["status"]) == ("t1", "default", "COMPLETED")
        assert data["metadata"] == {"ticket": "7"}
        assert b"Secret words" not in got.body
        assert b"Done." not in got.body
        await becomes(lambda: left_is(store, 0))
        assert len(there.got) == 1

    async def test_texts_are_told_where_the_host_wants_that(self, receiver, delivering, end):
        there = await receiver()
        await delivering(endpoint_to(there, has_texts=True))
        await end()
        (got,) = await there.receives(1)
        assert (got.event["data"]["prompt"], got.event["data"]["output"]) == ("Do it.", "Done.")

    async def test_while_secrets_are_exchanged_both_sign(self, receiver, delivering, end):
        there = await receiver()
        await delivering(endpoint_to(there, keys=(NEXT_KEY, KEY)))
        await end()
        (got,) = await there.receives(1)
        assert got.is_signed_by(NEXT_KEY, KEY)

    async def test_a_question_is_told_once_also_when_its_write_is_repeated(
        self, receiver, delivering, journal, made, claimed
    ):
        there = await receiver()
        await delivering(endpoint_to(there))
        claim = await claimed(made.task())
        for _ in range(3):
            await journal.append(claim, "ask", [made.notice(), made.asks("in-1", prompt="Which?"), made.notice()])
        (got,) = await there.receives(1)
        asked = got.event["data"]["input"]
        assert (asked["input_id"], asked["origin_task_id"]) == ("in-1", "t1")
        assert "prompt" not in asked
        await journal.finish(claim, "COMPLETED", [made.result()])
        assert [one.event["type"] for one in await there.receives(2)] == [
            "meshwright.input_requested",
            "meshwright.task_ended",
        ]

    async def test_a_child_s_question_is_told_of_its_root_and_its_end_is_not(
        self, receiver, delivering, journal, made, claimed
    ):
        there = await receiver()
        await delivering(endpoint_to(there))
        parent = made.task()
        above = await claimed(parent)
        child = made.child(parent, agent_id="helper")
        claim = await claimed(child)
        await journal.append(claim, "ask", [made.asks("in-1")])
        await journal.finish(claim, "COMPLETED", [made.result()])
        await journal.finish(above, "COMPLETED", [made.result()])
        first, second = await there.receives(2)
        assert (first.event["subject"], first.event["data"]["input"]["origin_task_id"]) == ("t1", child.name.task_id)
        assert (second.event["type"], second.event["subject"]) == ("meshwright.task_ended", "t1")

    async def test_only_events_tenants_and_agents_that_were_named_are_told(self, receiver, delivering, end, store):
        there, other = await receiver(), await receiver()
        acme = endpoint_to(there, "acme", events=("task_ended",), tenants=("acme inc",))
        await delivering(acme, endpoint_to(other, "asked", events=("input_requested",)))
        await end("t1")
        await end("t2", agent_id="another")
        await end("t3", tenant="acme inc")
        (got,) = await there.receives(1)
        assert (got.event["subject"], got.event["data"]["tenant"]) == ("t3", "acme inc")
        assert (other.got, await left(store, "asked")) == ([], 0)

    async def test_without_webhooks_nothing_is_queued(self, end, keys):
        await end()
        nouns = {key.split(":")[2] for key in await keys()}
        assert nouns.isdisjoint({"hooks", "deliveries", "attempts", "dropped", "gone"})


async def left_is(store, many):
    return await left(store) == many


class TestFailures:
    async def test_an_event_is_tried_until_it_is_taken_with_the_same_id_and_body(
        self, receiver, delivering, end, becomes, store
    ):
        there = await receiver(lambda n: (500, 302, 404, 200)[n - 1])
        await delivering(endpoint_to(there, "tries"))
        failed = counted("tries", "failed")
        await end()
        got = await there.receives(4)
        assert len({(one.id, one.body) for one in got}) == 1
        assert all(one.is_signed_by(KEY) for one in got)
        await becomes(lambda: telling_is_over(store, "tries"))
        assert counted("tries", "failed") - failed == 3
        assert await store.client.hlen(partition_key(0, "attempts", "worker/tries")) == 0

    async def test_one_that_hangs_or_is_gone_holds_up_nobody(self, receiver, delivering, end):
        hanging, closed, there = await receiver(lambda _: None), await receiver(), await receiver()
        closed.port = 1  # nobody listens there
        endpoints = [endpoint_to(hanging, "hangs", timeout_s=15.0), endpoint_to(closed, "closed"), endpoint_to(there)]
        await delivering(*endpoints)
        for number in range(10):
            await end(f"t{number}")
        got = await there.receives(10, patience_s=10)
        assert {one.event["subject"] for one in got} == {f"t{number}" for number in range(10)}
        assert 0 < len(hanging.got) <= 4

    async def test_pauses_grow_with_jitter_up_to_hours(self, journal):
        webhooks = Webhooks(journal, Deliveries(journal.store, "worker"), [])
        for attempt in range(1, 40):
            middle = min(5.0 * GROWTH ** (attempt - 1), LONGEST_PAUSE_S)
            pauses = {webhooks._pause_s(attempt) for _ in range(20)}
            assert 0.75 * middle <= min(pauses) < max(pauses) <= 1.25 * middle

    @pytest.mark.parametrize("is_date", [False, True])
    async def test_an_endpoint_says_when_to_come_again(self, receiver, delivering, end, store, becomes, is_date):
        at = format_datetime(datetime.now(UTC) + timedelta(seconds=600), usegmt=True)
        there = await receiver(lambda _: 503, f"Retry-After: {at if is_date else 600}\r\n")
        await delivering(endpoint_to(there, "later"))
        await end()
        await there.receives(1)
        queue = partition_key(0, "deliveries", "worker/later")

        async def pause_s():
            ((_, at_ms),) = await store.client.zrange(queue, 0, -1, withscores=True)
            seconds, _ = await store.client.time()
            return at_ms / 1000 - seconds

        async def is_put_off():
            return 590 <= await pause_s() <= 602

        await becomes(is_put_off)

    async def test_after_a_day_it_is_given_up(self, receiver, delivering, end, store, becomes):
        there = await receiver(lambda _: 500)
        endpoint = endpoint_to(there, "old")
        await Deliveries(store, "worker").hook([endpoint.hook])
        await end()
        queue = partition_key(0, "deliveries", "worker/old")
        (entry,) = await store.client.zrange(queue, 0, -1)
        aged = entry.rpartition(b" ")
        long_ago = int(aged[2]) - int(LASTS_S * 1000)
        await store.client.delete(queue)
        await store.client.zadd(queue, {aged[0] + b" %d" % long_ago: long_ago})
        given_up = counted("old", "given_up")
        await delivering(endpoint)
        await there.receives(1)
        await becomes(lambda: telling_is_over(store, "old"))
        assert counted("old", "given_up") - given_up == 1

    async def test_one_that_is_gone_is_never_told_again_until_its_url_changes(
        self, receiver, delivering, end, store, becomes
    ):
        there = await receiver(lambda _: 410)
        endpoint = endpoint_to(there, "leaves")
        task = await delivering(endpoint)
        await end("t1")
        await there.receives(1)
        await becomes(lambda: is_unhooked(store))
        await end("t2")
        task.cancel()
        await delivering(endpoint)  # as after a restart
        await end("t3")
        assert (await left(store, "leaves"), len(there.got)) == (0, 1)
        moved = await receiver()
        await delivering(endpoint_to(moved, "moved"))
        await end("t4")
        assert [one.event["subject"] for one in await moved.receives(1)] == ["t4"]

    async def test_a_full_queue_drops_what_is_new_and_counts_it(self, receiver, delivering, end, store, becomes):
        there = await receiver()
        endpoint = endpoint_to(there, "full")
        await Deliveries(store, "worker").hook([endpoint.hook])
        queue = partition_key(0, "deliveries", "worker/full")
        await store.client.zadd(queue, {f"task_ended default/default/x{n} - - 0 1": 2**50 for n in range(10_000)})
        dropped = counted("full", "dropped")
        await end("t1")
        assert await left(store, "full") == 10_000
        await delivering(endpoint)
        await becomes(lambda: counted("full", "dropped") - dropped == 1)

    async def test_a_private_address_is_not_called_unless_it_is_allowed(self, receiver, delivering, end, becomes):
        there = await receiver()
        endpoint = endpoint_to(there, "inside")
        refused = Endpoint("inside", there.url, endpoint.hook, (KEY,), Egress())
        await delivering(refused)
        failed = counted("inside", "failed")
        await end()
        await becomes(lambda: counted("inside", "failed") > failed)
        assert there.got == []

    async def test_an_endless_answer_is_a_failure_not_a_flood(self, receiver, delivering, end, becomes):
        there = await receiver(lambda _: 200, "Content-Encoding: x\r\n" + "X: y\r\n" * 200)
        await delivering(endpoint_to(there, "floods"))
        failed = counted("floods", "failed")
        await end()
        await becomes(lambda: counted("floods", "failed") > failed)

    async def test_a_task_that_has_expired_is_not_told_any_more(self, receiver, delivering, end, store, becomes):
        there = await receiver()
        endpoint = endpoint_to(there)
        await Deliveries(store, "worker").hook([endpoint.hook])
        await end()
        await store.client.delete(partition_key(0, "task", "default/default/t1"))
        await delivering(endpoint)
        await becomes(lambda: left_is(store, 0))
        assert there.got == []


async def telling_is_over(store, name):
    return await left(store, name) == 0


async def is_unhooked(store):
    return not await store.client.hexists(partition_key(0, "hooks"), "worker")


class TestQueues:
    async def test_what_was_taken_and_not_settled_comes_again_after_the_lease(self, store, end, becomes):
        deliveries = Deliveries(store, "worker")
        await deliveries.hook([Hook("worker/q", ("task_ended",))])
        await end()
        (first,) = (await deliveries.take(0, "worker/q", lease_ms=50, most=4)).deliveries
        assert (await deliveries.take(0, "worker/q", lease_ms=50, most=4)).deliveries == []

        async def comes_again():
            found = (await deliveries.take(0, "worker/q", lease_ms=60_000, most=4)).deliveries
            return found[0] if found else None

        async with asyncio.timeout(10):
            while (again := await comes_again()) is None:
                await asyncio.sleep(0.01)
        assert (again.entry, first.attempt, again.attempt) == (first.entry, 1, 2)
        await deliveries.again("worker/q", first, 0, "late")  # too late: somebody else has it
        assert await comes_again() is None
        await deliveries.done("worker/q", again)
        assert (await deliveries.take(0, "worker/q", lease_ms=1, most=4)).waiting == 0

    async def test_endpoints_that_are_not_declared_any_more_take_their_queues_along(self, store, end, keys):
        deliveries = Deliveries(store, "worker")
        await deliveries.hook([Hook("worker/a", ("task_ended",)), Hook("worker/b", ("task_ended",))])
        await end()
        assert await deliveries.hook([Hook("worker/b", ("task_ended",))]) == 1
        assert await deliveries.hook([]) == 1
        assert {key for key in await keys() if key.split(":")[2] in ("hooks", "deliveries", "attempts")} == set()

    async def test_a_store_that_is_away_is_told_once_and_not_at_each_look(self, own_store, receiver, becomes):
        endpoint, deliveries, failed = endpoint_to(await receiver()), Deliveries(own_store.store, "worker"), []
        await deliveries.hook([endpoint.hook])
        take = deliveries.take

        async def taken(*args, **kwargs):
            try:
                return await take(*args, **kwargs)
            except StoreUnavailableError:
                failed.append(1)
                raise

        deliveries.take = taken
        with structlog.testing.capture_logs() as lines:
            own_store.kill()
            running = asyncio.create_task(
                Webhooks(Journal(own_store.store, "one"), deliveries, [endpoint], **SOON).run()
            )
            await becomes(lambda: len(failed) >= 3, 30)
            await own_store.start()
            await becomes(lambda: any(line["event"] == "webhooks_again" for line in lines), 20)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
        told = [
            (line["event"], line["endpoint"]) for line in lines if line["event"] in ("webhooks_wait", "webhooks_again")
        ]
        assert told == [("webhooks_wait", "crm"), ("webhooks_again", "crm")]


DELIVERER = """
import asyncio
from meshwright.agents.deliveries import Deliveries, Hook
from meshwright.agents.journal import LIBRARY, Journal
from meshwright.agents.webhook import Endpoint
from meshwright.agents.webhooks import Webhooks
from meshwright.core.codec import Codec
from meshwright.core.settings import Settings
from meshwright.core.store import Store
from meshwright.registry.egress import Egress

async def main():
    store = Store({url!r}, LIBRARY, codec=Codec.of(Settings.load().content_keys_file))
    await store.open()
    hook = Hook("worker/crm", ("task_ended",))
    endpoint = Endpoint("crm", {to!r}, hook, [b"k" * 24], Egress([{place!r}]))
    await Webhooks(Journal(store, "other"), Deliveries(store, "worker"), [endpoint], lease_s=1.0).run()

asyncio.run(main())
"""


async def test_a_deliverer_that_is_killed_in_the_middle_is_followed_by_another_with_the_same_id(
    store, receiver, delivering, end, becomes
):
    there = await receiver(lambda n: None if n == 1 else 200)
    endpoint = endpoint_to(there)
    await Deliveries(store, "worker").hook([endpoint.hook])
    await end()
    code = textwrap.dedent(DELIVERER).format(url=store.url, to=there.url, place=there.place)
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code)
    await there.receives(1)
    process.kill()
    await process.wait()
    assert await left(store) == 1
    await delivering(endpoint)
    first, second = await there.receives(2)
    assert (first.id, first.body) == (second.id, second.body)
    await becomes(lambda: left_is(store, 0))


class TestMesh:
    @pytest.fixture
    def start(self, mesh, dial, tmp_path, monkeypatch):
        """Starts an agent whose host has a webhook."""
        monkeypatch.setenv("HOOK_SECRET", SECRET)

        async def started(there, *replies, **facts):
            entry = {"name": "crm", "url": there.url, "secrets": [{"env": "HOOK_SECRET"}], "allow": [there.place]}
            file = tmp_path / "webhooks.yaml"
            file.write_text(json.dumps({"webhooks": [entry | {"texts": True}]}))
            script = json.dumps({"agents": {"default": list(replies)}})
            process = await mesh.agent(Agent("worker", "Work.", **facts), script=script, webhooks=str(file))
            return dial(process)

        return started

    async def test_an_escalation_is_told_with_its_summary_and_then_how_the_task_ended(self, start, receiver):
        there = await receiver()
        client = await start(there, {"text": "Done."}, asks_people=True)
        (pending,) = (await client.run(WISH, task_id="t1")).pending_inputs
        (got,) = await there.receives(1)
        asked = got.event["data"]["input"]
        assert (asked["kind"], asked["signal"]) == ("ESCALATION", "ASKED_FOR_PERSON")
        assert asked["choices"] == ["ANSWER", "SKIP", "FAIL"]
        assert asked["summary"].startswith(f"Asked: {WISH}")
        await client.resolve("t1", pending, DECISION_ANSWER, answer=Value(string_value="Meow. Ann"))
        got = await there.receives(2)
        assert got[1].event["data"]["output"] == "Meow. Ann"
        assert all(one.is_signed_by(KEY) for one in got)

    async def test_events_of_the_time_without_a_process_are_told_by_the_next_one(self, mesh, start, receiver, becomes):
        failed = counted("crm", "failed")
        there = await receiver(lambda n: 500 if n == 1 else 200)
        client = await start(there, {"text": "Done."}, asks_people=True)
        (pending,) = (await client.run(WISH, task_id="t1")).pending_inputs
        await becomes(lambda: counted("crm", "failed") > failed)
        await mesh.stop(mesh.agents["worker"])
        client = await start(there, {"text": "Done."}, asks_people=True)
        got = await there.receives(2)
        assert got[0].id == got[1].id
        await client.resolve("t1", pending, DECISION_SKIP)
        assert (await client.ended("t1")).status == TASK_STATUS_COMPLETED
        assert (await there.receives(3))[2].event["type"] == "meshwright.task_ended"

    async def test_a_host_without_webhooks_any_more_clears_its_queues(self, mesh, start, receiver, store):
        there = await receiver()
        await start(there, {"text": "Done."})
        assert not await is_unhooked(store)
        await mesh.stop(mesh.agents["worker"])
        await mesh.agent(Agent("worker", "Work."))
        assert await is_unhooked(store)
