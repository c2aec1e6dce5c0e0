"""Trimming: the registry lets go of old lines, step by step, and the chain tells which."""

import asyncio

import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st

from meshwright.cli.audit_check import AuditCheck
from meshwright.core.audit import LINES, AuditReader, chain_key, line_of
from meshwright.core.errors import StoreDeniedError
from meshwright.core.settings import Settings
from meshwright.core.store import MESH, Store
from meshwright.registry import audit_trimming
from meshwright.registry.audit_trimming import AuditTrimming
from meshwright.registry.serving import RegistryProcess
from meshwright.registry.store import CatalogStore, Ledger

KEPT = 100


@pytest.fixture
def write(store):
    """Writes lines as a tool host does."""

    async def written(many, tenant="acme"):
        ledger = Ledger(store)
        for start in range(0, many, 500):
            calls = (ledger.refused((tenant, "ann", "t1"), line_of("ann")) for _ in range(min(500, many - start)))
            await asyncio.gather(*calls)

    return written


@pytest.fixture
def faults(store):
    """Returns what is wrong with each chain."""

    async def found():
        check = AuditCheck(AuditReader(store), {}, lambda _: None)
        return [one.fault and one.fault.what async for one in check.verdicts(None, 0)]

    return found


async def kept(store, tenant="acme", partition="0"):
    return await store.client.llen(chain_key((partition, tenant), LINES))


async def test_a_chain_is_trimmed_to_what_is_kept_and_tells_which_lines_went(store, write, faults):
    await write(1_000)
    await AuditTrimming(store, KEPT).trim()
    lines = await AuditReader(store).read("acme")
    assert KEPT <= len(lines) <= KEPT + 100
    trimmed = [one for one in lines if one.event == "trimmed"]
    assert trimmed[-1].facts["through"] == lines[0].number - 1
    assert trimmed[-1].facts["by"] == ""
    assert await faults() == [None]


@pytest.mark.parametrize("many", [0, 1, KEPT, KEPT + 100])
async def test_nothing_is_trimmed_before_there_are_a_hundred_too_many(store, write, faults, many):
    await write(many)
    await AuditTrimming(store, KEPT).trim()
    assert await kept(store) == many
    assert set(await faults()) <= {None}


async def test_all_chains_of_all_partitions_are_trimmed(store, write, faults):
    for number in range(45):
        await write(1, f"t{number}")
    await write(300)
    catalog = CatalogStore(store)
    await catalog.register("a.b", "1.0.0", b"x", "d", "e:1", seen=0, by=("acme", "ann"))
    for number in range(300):
        await catalog.deprecate("a.b", "1.0.0", number + 1, "", by=("acme", "ann"))
    await AuditTrimming(store, KEPT).trim()
    assert await kept(store) <= KEPT + 100
    assert await kept(store, partition=MESH) <= KEPT + 100
    assert await kept(store, "t7") == 1
    assert set(await faults()) == {None}


async def test_two_registries_at_once_do_no_harm(store, write, faults):
    await write(2_000)
    await asyncio.gather(*(AuditTrimming(store, KEPT).trim() for _ in range(4)))
    assert KEPT <= await kept(store) <= KEPT + 100
    assert await faults() == [None]


async def test_a_chain_that_takes_no_line_keeps_the_others_from_nothing(store, write):
    await write(300)
    await write(300, "other")
    await store.client.set("mw:{0}:audit:acme:count", "x")
    await store.client.sadd("mw:{0}:audit::tenants", "third")
    await store.client.set("mw:{0}:audit:third:lines", "x")
    await AuditTrimming(store, KEPT).trim()
    assert (await kept(store), await kept(store, "other")) == (300, 102)


async def test_after_lines_that_are_none_the_chain_goes_on_and_says_how_many_went(store, write, faults):
    await write(50)
    await store.client.rpush(chain_key(("0", "acme"), LINES), "x", "y", "9" * 40 + " 1-" + "9" * 400 + " x   ")
    assert await faults() == ["it is no line of the audit"]
    await write(300)
    await AuditTrimming(store, KEPT).trim()
    trimmed = [line for line in await AuditReader(store).read("acme") if line.event == "trimmed"]
    assert trimmed[0].facts["others"] == 3
    assert trimmed[0].facts["through"] == 97
    assert "others" not in trimmed[1].facts
    assert await faults() == [None]


async def test_a_registry_trims_by_itself(store, write, monkeypatch):
    monkeypatch.setattr(audit_trimming, "SWEEP_S", 0.05)
    registry = RegistryProcess(Settings(store_url=store.url, drain_s=0, tracing=False), KEPT)
    await registry.start()
    await write(500)
    async with asyncio.timeout(30):
        while await kept(store) > KEPT + 100:
            await asyncio.sleep(0.02)
    await registry.stop()


async def test_what_may_not_be_trimmed_is_said_once(store, write, monkeypatch):
    await write(1)
    monkeypatch.setattr(audit_trimming, "SWEEP_S", 0.01)
    await store.client.execute_command(
        "ACL", "SETUSER", "mw-poor", "reset", "on", ">secret", "+@all", "-sscan", "~*", "&*"
    )
    poor = Store(store.url.replace("unix://", "unix://mw-poor:secret@"))
    await poor.open()
    trimming = AuditTrimming(poor, KEPT)
    with pytest.raises(StoreDeniedError):
        await trimming.trim()
    with structlog.testing.capture_logs() as entries:
        sweeping = asyncio.create_task(trimming.sweep())
        async with asyncio.timeout(30):
            while not entries:
                await asyncio.sleep(0.01)
            await store.client.execute_command("ACL", "SETUSER", "mw-poor", "+sscan")
            while len(entries) < 2:
                await asyncio.sleep(0.01)
        sweeping.cancel()
        await asyncio.wait([sweeping])
    await poor.close()
    await store.client.execute_command("ACL", "DELUSER", "mw-poor")
    assert [one["event"] for one in entries] == ["audit_untrimmed", "audit_trimmed_again"]


async def test_whatever_stands_in_a_chain_what_is_kept_stays_in_order(store):
    loop = asyncio.get_running_loop()
    key = chain_key(("0", "acme"), LINES)

    async def held_against(parts):
        await store.client.flushdb()
        for many, content in parts:
            for _ in range(many):
                await Ledger(store).refused(("acme", "ann", "t1"), line_of("ann"))
            await store.client.rpush(key, content)
        before = await store.client.lrange(key, 0, -1)
        await AuditTrimming(store, 10).trim()
        after = await store.client.lrange(key, 0, -1)
        ours = [row for row in after if b" trimmed   {" not in row]
        assert ours == before[len(before) - len(ours) :]
        assert (len(before) - len(ours)) % 100 == 0
        assert min(10, len(before)) <= len(after) <= 110

    @given(st.lists(st.tuples(st.integers(0, 60), st.binary(max_size=20)), min_size=1, max_size=6))
    @settings(max_examples=20)
    def holds(parts):
        asyncio.run_coroutine_threadsafe(held_against(parts), loop).result(20)

    await asyncio.to_thread(holds)
