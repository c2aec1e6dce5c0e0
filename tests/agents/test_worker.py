"""The worker: no more at once than it may, nothing lost, nothing kept that belongs to somebody else."""

import asyncio
import json
import math
from collections import Counter

import pytest
import structlog
from google.protobuf.duration_pb2 import Duration

from meshwright.agents.agent import Agent
from meshwright.agents.journal import Journal
from meshwright.core.errors import MeshError, StoreUnavailableError
from meshwright.core.store import partition_key
from meshwright.gen.agents.v1.step_event_pb2 import NOTICE_KIND_RESUMED
from meshwright.gen.agents.v1.task_pb2 import (
    TASK_STATUS_CANCELLED,
    TASK_STATUS_COMPLETED,
    TASK_STATUS_FAILED,
    TASK_STATUS_PENDING,
)
from meshwright.gen.agents.v1.task_service_pb2 import ListTasksRequest
from meshwright.registry import tool


@tool(effect="non_idempotent")
def send() -> str:
    """Sends something large."""
    return "x" * 100_000


HOLD = {"tool_calls": [{"name": "hold", "arguments": {}}]}
DONE = {"text": "Done."}


@pytest.fixture
def tries(monkeypatch):
    """Counts the failures of a method: `tries(journal, "claim")`; by names."""
    failed = Counter()

    def noted(owner, name):
        method = getattr(owner, name)

        async def tried(*args, **kwargs):
            try:
                return await method(*args, **kwargs)
            except (MeshError, asyncio.CancelledError):
                failed[name] += 1
                raise

        monkeypatch.setattr(owner, name, tried)
        return failed

    return noted


@pytest.fixture
def start(mesh, gate):
    """Starts an instance of the agent `worker`, whose tasks wait for the gate."""

    async def started(*replies, **settings):
        script = json.dumps({"agents": {"worker": list(replies or (HOLD, DONE))}})
        return await mesh.agent(Agent("worker", "Work.", tools=[gate.tool]), script=script, **settings)

    return started


class TestPlaces:
    async def test_calls_that_come_at_once_never_exceed_the_places(self, start, dial, gate):
        client = dial(await start(concurrency=3))
        running = [asyncio.create_task(client.run(task_id=f"t{number}")) for number in range(12)]
        await gate.holds(3)
        assert (await client.tasks.ListTasks(ListTasksRequest(statuses=[TASK_STATUS_PENDING]))).tasks
        gate.open()
        responses = await asyncio.gather(*running)
        assert {response.status for response in responses} == {TASK_STATUS_COMPLETED}
        assert gate.most <= 3

    async def test_a_queued_task_is_taken_as_soon_as_there_is_a_place(self, start, dial, monkeypatch):
        monkeypatch.setattr("meshwright.agents.worker.POLL_S", 600.0)
        client = dial(await start(DONE, concurrency=1))
        for number in range(30):
            await asyncio.gather(client.submit(task_id=f"a{number}"), client.run(task_id=f"b{number}"))
        async with asyncio.timeout(10):
            for number in range(30):
                assert (await client.ended(f"a{number}")).status == TASK_STATUS_COMPLETED

    async def test_a_pure_server_queues_and_a_worker_of_the_same_agent_runs(self, start, dial, becomes, mesh):
        server = await start(DONE, role="server")
        client = dial(server)
        running = asyncio.create_task(client.run(task_id="t1"))

        async def is_queued():
            return await server.journal.ready("worker") == 1

        await becomes(is_queued)
        assert server.worker.running == 0
        worker = await start(DONE, role="worker")
        response = await running
        assert (response.output, response.attempt) == ("Done.", 1)
        endpoints = server.registry.known["worker"].endpoints
        assert [endpoint.instance_id for endpoint in endpoints if not endpoint.draining] == [server.instance_id]
        assert worker.worker.is_claiming


class TestPartitions:
    @pytest.fixture
    async def store(self, store):
        """A store of 16 partitions."""
        await store.client.flushall()
        await store.open(16)
        return store

    async def test_tasks_of_all_partitions_are_served_in_turn(self, start, dial, store, made):
        server = dial(await start(DONE, role="server"))
        for number in range(40):
            await server.submit(task_id=f"t{number}", session_id="s")
        client = dial(await start(DONE, concurrency=1))
        for number in range(40):
            assert (await client.ended(f"t{number}")).status == TASK_STATUS_COMPLETED
        started = [
            ((await client.get(f"t{n}")).start_time.ToNanoseconds(), made.name(f"t{n}").partition(16))
            for n in range(40)
        ]
        first = [partition for _, partition in sorted(started)][:10]
        assert len(set(first)) == 10
        assert await store.client.xlen(await self.session_key(store)) == 40

    async def session_key(self, store):
        return await anext(store.client.scan_iter("*}:session"))


class TestLease:
    async def test_a_task_that_somebody_else_took_is_let_go(self, start, dial, gate, store, becomes):
        process = await start(lease_s=1, concurrency=1)
        await dial(process).submit(task_id="t1")
        await gate.holds()
        other = Journal(store, "other")
        (ref,) = await store.client.zrange(partition_key(0, "leases"), 0, -1)

        async def is_taken():
            await store.client.zadd(partition_key(0, "leases"), {ref: 1})
            return (await other.sweep(0)).taken == 1

        await becomes(is_taken)
        claim = (await other.claim(0, "worker")).claim
        await becomes(lambda: process.worker.running == 0)
        assert gate.waiting == 0
        assert (await other.record(claim.name)).state == "RUNNING"
        with structlog.testing.capture_logs() as told:
            await other.release(claim)
            gate.open()
            response = await dial(process).ended("t1")
        assert (response.status, response.attempt) == (TASK_STATUS_COMPLETED, 2)
        said = {line["event"]: (line["task_id"], line["attempt"]) for line in told if "attempt" in line}
        assert said == dict.fromkeys(("claimed", "taken_over", "ended"), ("t1", 2))
        assert {line["agent"] for line in told if line["event"] == "taken_over"} == {"worker"}

    async def test_beats_keep_a_long_task_from_being_taken_over(self, start, dial, gate, store, becomes):
        client = dial(await start(lease_s=1.5))
        await client.submit(task_id="t1")
        await gate.holds()
        ((ref, ends),) = await store.client.zrange(partition_key(0, "leases"), 0, -1, withscores=True)

        async def is_renewed():
            return await store.client.zscore(partition_key(0, "leases"), ref) > ends + 750

        await becomes(is_renewed)
        gate.open()
        assert (await client.ended("t1")).attempt == 1

    async def test_a_cancellation_whose_message_was_lost_is_found_by_the_next_beat(self, start, dial, gate):
        process = await start(lease_s=0.5)
        client = dial(process)
        await client.submit(task_id="t1")
        await gate.holds()
        process.feeds._listeners[partition_key(0, "wake", process.instance_id)] = lambda _: None
        await client.cancel("t1")
        assert (await client.ended("t1")).status == TASK_STATUS_CANCELLED

    async def test_a_beat_that_is_not_answered_in_time_says_so(self, start, monkeypatch, becomes):
        process = await start(lease_s=0.6)

        async def unanswered(_claims):
            await asyncio.Event().wait()

        with structlog.testing.capture_logs() as told:
            monkeypatch.setattr(process.journal, "beat", unanswered)
            await becomes(lambda: any(line["event"] == "beat_failed" for line in told))
        said = next(line["error"] for line in told if line["event"] == "beat_failed")
        assert said == "the store did not answer within 0.2 s"


class TestStoreAway:
    @pytest.fixture
    def store(self, own_store):
        """A store that a test may kill."""
        return own_store.store

    async def test_work_goes_on_when_the_store_comes_back_after_more_than_a_lease(
        self, start, dial, gate, own_store, becomes
    ):
        process = await start(lease_s=1)
        client = dial(process)
        await client.submit(task_id="t1")
        await gate.holds()
        own_store.kill()
        await becomes(lambda: process.worker.running == 0)  # its lease is in doubt
        assert gate.waiting == 0
        await own_store.start()
        await gate.holds()
        gate.open()
        response = await client.ended("t1")
        assert (response.status, response.attempt) == (TASK_STATUS_COMPLETED, 1)
        notices = [event.notice.kind for event in await client.watch("t1") if event.HasField("notice")]
        assert notices == [NOTICE_KIND_RESUMED]

    async def test_a_store_that_is_away_is_told_once_and_not_at_each_try(
        self, start, dial, gate, own_store, becomes, tries, monkeypatch
    ):
        monkeypatch.setattr("meshwright.core.recurring.EVERY_S", math.inf)
        monkeypatch.setattr("meshwright.agents.worker.POLL_S", 0.05)
        monkeypatch.setattr("meshwright.agents.worker.SWEEP_S", 0.05)
        process = await start(lease_s=2.4)
        client = dial(process)
        await client.submit(task_id="t1")
        await gate.holds()
        names = ("claim", "beat", "measure")
        for owner, name in zip((process.journal, process.journal, process.worker.pressure), names, strict=True):
            failed = tries(owner, name)
        failures = {"claim_failed", "beat_failed", "sweep_failed", "feed_reconnects"}
        ends = {"claims_again", "beats_again", "sweeps_again", "feed_connected"}
        with structlog.testing.capture_logs() as lines:
            own_store.kill()
            await becomes(lambda: all(failed[name] >= 3 for name in names), 30)
            before = [line["event"] for line in lines]
            await own_store.start()
            await becomes(lambda: ends <= {line["event"] for line in lines}, 20)
        gate.open()
        await client.ended("t1")
        assert {name: before.count(name) for name in failures} == dict.fromkeys(failures, 1)
        assert not ends & set(before)
        told = [line["event"] for line in lines]
        assert {name: told.count(name) for name in failures | ends} == dict.fromkeys(failures | ends, 1)

    async def test_a_worker_without_room_does_not_say_that_the_store_is_back(
        self, start, own_store, becomes, monkeypatch
    ):
        monkeypatch.setattr("meshwright.agents.worker.POLL_S", 0.05)
        process = await start(DONE, concurrency=1)
        with structlog.testing.capture_logs() as lines:
            own_store.kill()
            await becomes(lambda: any(line["event"] == "claim_failed" for line in lines), 20)
            monkeypatch.setattr(process.worker, "_concurrency", 0)
            await becomes(lambda: process.worker._is_wanted)  # it has looked, and had no place to ask for
            assert not any(line["event"] == "claims_again" for line in lines)
            monkeypatch.setattr(process.worker, "_concurrency", 1)
            await own_store.start()
            await becomes(lambda: any(line["event"] == "claims_again" for line in lines), 20)

    async def test_a_short_absence_of_the_store_is_not_noticed(self, start, dial, gate, own_store):
        client = dial(await start(lease_s=60))
        await client.submit(task_id="t1")
        await gate.holds()
        own_store.kill()
        gate.open()
        await own_store.start()
        response = await client.ended("t1")
        assert (response.status, response.attempt, response.last_sequence) == (TASK_STATUS_COMPLETED, 1, 6)


class TestTidy:
    async def test_a_task_that_waits_longer_than_its_time_fails(self, start, dial, monkeypatch):
        monkeypatch.setattr("meshwright.agents.worker.SWEEP_S", 0.05)
        client = dial(await start(DONE, role="server"))
        response = await client.run(task_id="t1", timeout=Duration(nanos=50_000_000))
        assert response.status == TASK_STATUS_FAILED
        assert MeshError.from_status(response.error).reason == "TASK_TIMEOUT"
        assert (response.attempt, response.steps_used) == (0, 0)

    async def test_a_cancellation_that_nobody_carried_out_is_made_up_for(self, start, dial, journal, made, monkeypatch):
        monkeypatch.setattr("meshwright.agents.worker.SWEEP_S", 0.05)
        await journal.accept(made.task(agent_id="nobody"), claim=False)
        await journal.cancel(made.name(), "enough")
        client = dial(await start(DONE))
        assert (await client.ended("t1")).status == TASK_STATUS_CANCELLED

    async def test_tasks_that_were_damaged_in_the_store_end_and_keep_nobody_from_sweeping_up_the_others(
        self, start, dial, store, journal, made, monkeypatch
    ):
        monkeypatch.setattr("meshwright.agents.worker.SWEEP_S", 0.05)
        for task_id in ("t1", "t2", "t3"):
            task = made.task(task_id, agent_id="nobody")
            await journal.accept(task, claim=False)
            await journal.cancel(task.name, "enough")
        await store.client.hset(partition_key(0, "task", "default/default/t1"), "request", b"\xff\xff")
        await store.client.hdel(partition_key(0, "task", "default/default/t2"), "request")
        client = dial(await start(DONE))
        assert (await client.ended("t3")).status == TASK_STATUS_CANCELLED
        for task_id in ("t1", "t2"):
            response = await client.get(task_id)
            assert response.status == TASK_STATUS_FAILED
            assert MeshError.from_status(response.error).reason == "DATA_LOSS"

    async def test_an_expired_task_leaves_its_tombstone_and_what_has_a_life_of_its_own(
        self, mesh, dial, store, keys, monkeypatch, becomes
    ):
        monkeypatch.setattr("meshwright.agents.worker.SWEEP_S", 0.05)
        script = json.dumps({"agents": {"sender": [{"tool_calls": [{"name": "send", "arguments": {}}]}, DONE]}})
        client = dial(await mesh.agent(Agent("sender", "Send.", tools=[send]), script=script))
        await client.run(task_id="t1", session_id="s1")
        await client.run(task_id="t2", session_id="s1")
        before = {key.split(":")[2] for key in await keys()}
        assert {"task", "log", "seen", "blob", "ledger", "index", "expiry", "session"} <= before
        await store.client.zadd(partition_key(0, "expiry"), {f"default/default/t{number}": 1 for number in (1, 2)})

        async def is_purged():
            return not any(":task:" in key for key in await keys())

        await becomes(is_purged)
        left = {key.split(":")[2] for key in await keys()}
        assert left <= {"tomb", "session", "sessions", "ticket", "outbox", "boot", "audit", "seal", "costs"}
        for key in await keys():
            if key.split(":")[2] in ("tomb", "session", "sessions", "ticket", "seal", "costs"):
                assert await store.client.pttl(key) > 0


class TestDrain:
    async def test_a_task_in_flight_goes_on_elsewhere_uncounted(self, start, dial, gate, mesh, journal, made):
        first = await start()
        client = dial(first)
        await client.submit(task_id="t1")
        await gate.holds()
        with structlog.testing.capture_logs() as told:
            await mesh.stop(first)
        assert [line["task_id"] for line in told if line["event"] == "handed_back"] == ["t1"]
        record = await journal.record(made.name("t1"))
        assert (record.state, record.attempt) == ("PENDING", 1)
        gate.open()
        with structlog.testing.capture_logs() as told:
            response = await dial(await start()).ended("t1")
        assert (response.status, response.attempt) == (TASK_STATUS_COMPLETED, 1)
        (claimed,) = [line for line in told if line["event"] == "claimed"]
        assert (claimed["log_level"], claimed["task_id"], claimed["attempt"]) == ("debug", "t1", 1)

    async def test_a_task_that_cannot_be_handed_back_is_told(self, start, dial, gate, mesh, monkeypatch):
        process = await start()
        await dial(process).submit(task_id="t1")
        await gate.holds()

        async def refuse(_claim):
            raise StoreUnavailableError("the store is away")

        monkeypatch.setattr(process.journal, "release", refuse)
        with structlog.testing.capture_logs() as told:
            await mesh.stop(process)
        (line,) = [line for line in told if line["event"] == "not_handed_back"]
        assert (line["log_level"], line["task_id"], line["error"]) == ("warning", "t1", "the store is away")

    async def test_a_task_that_ends_in_time_is_waited_for(self, start, dial, gate, mesh, becomes):
        process = await start(drain_s=10)
        running = asyncio.create_task(dial(process).run(task_id="t1"))
        await gate.holds()
        stopping = asyncio.create_task(mesh.stop(process))
        await becomes(lambda: not process.worker.is_claiming)
        gate.open()
        response = await running
        assert (response.status, response.attempt) == (TASK_STATUS_COMPLETED, 1)
        await stopping

    async def test_a_draining_worker_starts_nothing_new(self, start, dial, gate, mesh, becomes):
        process = await start(drain_s=10)
        client = dial(process)
        await client.submit(task_id="t1")
        await gate.holds()
        stopping = asyncio.create_task(process.worker.drain(10))
        await becomes(lambda: not process.worker.is_claiming)
        running = asyncio.create_task(client.run(task_id="t2"))

        async def is_queued():
            return await process.journal.ready("worker") == 1

        await becomes(is_queued)
        gate.open()
        await stopping
        assert gate.calls == [""]
        running.cancel()

    async def test_a_task_accepted_while_draining_begins_is_handed_on(self, start, dial, becomes):
        process = await start()
        accept = process.journal.accept

        async def accept_late(*arguments, **options):
            accepted = await accept(*arguments, **options)
            process.worker._is_claiming = False
            return accepted

        process.journal.accept = accept_late
        running = asyncio.create_task(dial(process).run(task_id="t1"))

        async def is_queued():
            return await process.journal.ready("worker") == 1

        await becomes(is_queued)
        assert process.worker.running == 0
        running.cancel()
