"""Partitions and holders: where keys lie, who finds what."""

import pytest

from meshwright.agents.journal import Journal
from meshwright.agents.reader import parse_ref
from meshwright.agents.task import TaskName
from meshwright.core.errors import FencedError
from meshwright.core.store import partition_key
from meshwright.gen.agents.v1.task_pb2 import TaskRequest
from tests.conftest import WITH_CODEC


@pytest.fixture
async def wide(store):
    """A store of 16 partitions."""
    await store.client.flushall()
    await store.open(16)
    return store


@pytest.fixture
def journal(wide):
    return Journal(wide, "one")


async def test_every_key_of_a_task_names_its_partition_tenant_and_principal(journal, made, claimed, keys, wide):
    odd = TaskName("a/b", "c:d {e}", "t1")
    parent = made.task()
    parent = type(parent)(**{name: getattr(parent, name) for name in parent.__slots__} | {"name": odd})
    claim = await claimed(parent)
    child = made.child(parent)
    child = type(child)(**{name: getattr(child, name) for name in child.__slots__} | {"name": odd.sibling("t1.x")})
    below = await claimed(child)
    await journal.append(below, "k", [made.notice("x" * 100_000)])
    await journal.cancel(below.name, "enough")
    await journal.finish(below, "CANCELLED", [made.result()])
    await journal.finish(claim, "COMPLETED", [made.result()])
    partition = odd.partition(16)
    holder = "a%2Fb/c%3Ad%20%7Be%7D"
    own = [key for key in await keys() if holder in key]
    nouns = {"task", "log", "seen", "blob", "children", "index"} | ({"seal"} if WITH_CODEC else set())
    assert {key.split(":")[2] for key in own} == nouns
    assert all(key.startswith(f"mw:{{{partition}}}:") for key in await keys())
    assert await wide.client.exists(partition_key(partition, "expiry"))
    for ref in await wide.client.zrange(partition_key(partition, "expiry"), 0, -1):
        assert parse_ref(ref.decode()) in (odd, odd.sibling("t1.x"))


async def test_a_tree_shares_a_partition_and_roots_are_spread(made):
    roots = [made.name(f"t{number}") for number in range(200)]
    assert len({root.partition(16) for root in roots}) == 16
    assert all(root.sibling(f"{root.task_id}.abc").partition(16) == root.partition(16) for root in roots)


async def test_all_functions_work_on_many_partitions(journal, made, wide):
    names = [made.name(f"t{number}") for number in range(40)]
    for name in names:
        request = TaskRequest(prompt="Go.", session_id="s1")
        await journal.accept(made.task(name.task_id, request=request), claim=False)
    assert await journal.ready("worker") == 40
    claims = []
    for partition in range(16):
        while claim := (await journal.claim(partition, "worker")).claim:
            assert claim.name.partition(16) == partition
            claims.append(claim)
    assert {claim.name for claim in claims} == set(names)
    assert (await journal.beat(claims)).lost == frozenset()

    for number, claim in enumerate(claims):
        partition = claim.name.partition(16)
        await journal.append(claim, "k", [made.said()])
        await wide.client.zadd(partition_key(partition, "leases"), {claim.name.ref: 1})
        match number % 4:
            case 0:
                await journal.finish(claim, "COMPLETED", [made.result(claim.name.task_id)])
            case 1:
                assert await journal.park(claim, 1, made.notice(), children=1)
            case 2:
                await journal.release(claim)
                assert await journal.cancel(claim.name, "enough") == [claim.name]
                assert await journal.finish_idle(claim.name, "CANCELLED", made.result())
            case 3:
                assert (await journal.sweep(partition)).taken == 1
                with pytest.raises(FencedError):
                    await journal.append(claim, "k2", [made.said()])
    responses = await journal.responses(names)
    assert [response.task_id for response in responses] == [name.task_id for name in names]
    outbox = [name for partition in range(16) for _, name in await journal.outbox(partition)]
    assert len(outbox) == 20


async def test_a_listing_pages_through_equal_times_newest_first(journal, made, wide):
    names = [made.name(f"t{number:02}") for number in range(30)]
    for number, name in enumerate(names):
        await journal.accept(made.task(name.task_id), claim=False)
        index = partition_key(name.partition(16), "index", "default/default")
        await wide.client.zadd(index, {name.task_id: 1000 + number // 10})
    expected = sorted(((1000 + number // 10, name.task_id) for number, name in enumerate(names)), reverse=True)
    for size in (1, 7, 10, 200):
        found, cursor = [], None
        while page := await journal.page(made.name(), cursor, size):
            assert len(page) <= size
            found += page
            cursor = page[-1]
        assert found == expected


async def test_a_listing_shows_the_tasks_of_one_holder(journal, made):
    for principal in ("ann", "bob"):
        await journal.accept(made.task(f"of-{principal}", principal=principal), claim=False)
    assert [task_id for _, task_id in await journal.page(made.name(principal="ann"), None, 10)] == ["of-ann"]
    assert await journal.page(made.name(principal="ann", tenant="other"), None, 10) == []


async def test_reading_starts_after_a_sequence_and_takes_page_by_page(journal, made, claimed):
    claim = await claimed(made.task())
    await journal.append(claim, "k", [made.notice(str(number)) for number in range(1, 451)])
    assert [entry.sequence for entry in await journal.read(claim.name, 10, limit=3)] == [11, 12, 13]
    assert [entry.sequence async for entry in journal.replay(claim.name, 20)] == list(range(21, 451))
    assert [entry async for entry in journal.replay(claim.name, 450)] == []
