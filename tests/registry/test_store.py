"""The registry's state: the ledger that keeps effects from being doubled, instances, tools. On a real store."""

import asyncio

import pytest

from meshwright.core.store import Store, partition_key
from meshwright.registry.store import LIBRARY, CatalogStore, DirectoryStore, Ledger

HOLDER = ("tenant", "principal", "task")
INTENT = "a" * 64


@pytest.fixture
def ledger(store):
    return Ledger(store)


@pytest.fixture
def begin(ledger):
    async def begin_(key="k", holder=HOLDER, **changes):
        chosen = {"intent": INTENT, "timeout_s": 30, "may_rerun": False, "fence": 1, "token": "t-1"} | changes
        return await ledger.begin(holder, key, **chosen)

    return begin_


async def test_the_first_to_begin_runs_and_the_next_waits(begin):
    assert await begin() == ("run", b"")
    assert await begin(token="t-2") == ("open", b"")


async def test_beginning_again_after_a_lost_reply_is_the_same_beginning(begin):
    assert await begin(token="t-1") == ("run", b"")
    assert await begin(token="t-1") == ("run", b"")
    assert await begin(token="t-2") == ("open", b"")


async def test_the_first_outcome_wins_whatever_bytes_it_has(begin, ledger):
    outcome = bytes(range(256)) * 3
    await begin()
    assert await ledger.settle(HOLDER, "k", INTENT, outcome) == outcome
    assert await ledger.settle(HOLDER, "k", INTENT, b"second") == outcome
    assert await begin(token="t-2") == ("done", outcome)


async def test_an_empty_outcome_is_an_outcome(begin, ledger):
    await begin()
    assert await ledger.settle(HOLDER, "k", INTENT, b"") == b""
    assert await begin(token="t-2") == ("done", b"")


async def test_a_call_that_was_never_settled_is_unknown_once_its_time_is_over(begin):
    await begin(timeout_s=-1)
    assert await begin(token="t-2") == ("unknown", b"")
    assert await begin(token="t-3", may_rerun=True) == ("run", b"")


async def test_a_call_is_open_for_a_second_longer_than_it_may_take(begin):
    await begin(timeout_s=-0.5)
    assert await begin(token="t-2") == ("open", b"")


async def test_a_late_outcome_still_counts_after_it_was_declared_unknown(begin, ledger):
    await begin(timeout_s=-1)
    assert (await begin(token="t-2"))[0] == "unknown"
    await ledger.settle(HOLDER, "k", INTENT, b"late")
    assert await begin(token="t-3") == ("done", b"late")


async def test_a_key_belongs_to_one_call(begin, ledger):
    await begin()
    assert (await begin(token="t-2", intent="b" * 64))[0] == "differs"
    await ledger.settle(HOLDER, "k", INTENT, b"outcome")
    assert (await begin(token="t-2", intent="b" * 64))[0] == "differs"


async def test_a_lower_fence_is_refused_for_every_call_of_the_task(begin, ledger):
    await begin("first", fence=5)
    assert (await begin("first", fence=4, token="t-2"))[0] == "fenced"
    assert (await begin("second", fence=4))[0] == "fenced"
    await ledger.settle(HOLDER, "first", INTENT, b"outcome")
    assert (await begin("first", fence=4, token="t-2"))[0] == "fenced"
    assert (await begin("second", fence=5))[0] == "run"


async def test_a_higher_fence_is_kept_also_when_nothing_is_run(begin):
    await begin("first", fence=5)
    assert (await begin("first", fence=6, token="t-2"))[0] == "open"
    assert (await begin("second", fence=5))[0] == "fenced"


@pytest.mark.parametrize("key", ["fence", "done", "open", "-", "a" * 64])
async def test_no_key_collides_with_what_the_ledger_itself_keeps(begin, ledger, key):
    assert (await begin(key, fence=3))[0] == "run"
    assert await ledger.settle(HOLDER, key, INTENT, b"outcome") == b"outcome"
    assert await begin(key, fence=3, token="t-2") == ("done", b"outcome")
    assert (await begin("other", fence=2))[0] == "fenced"


@pytest.mark.parametrize(
    "other", [("tenant", "principal", "task2"), ("tenant", "p/t", "task"), ("t", "principal", "task")]
)
async def test_owners_do_not_share_a_ledger(begin, other):
    await begin(fence=9)
    assert (await begin(holder=other, fence=1))[0] == "run"


async def test_many_begin_at_once_and_one_runs(begin):
    states = await asyncio.gather(*(begin(token=f"t-{number}") for number in range(20)))
    assert sorted(state for state, _ in states) == ["open"] * 19 + ["run"]


async def test_a_ledger_does_not_stay_for_ever(begin, store):
    await begin()
    (key,) = [key async for key in store.client.scan_iter("*ledger*")]
    assert 39 * 86_400 < await store.client.ttl(key) <= 40 * 86_400


@pytest.fixture
def directory(store):
    return DirectoryStore(store)


async def test_an_instance_is_announced_renewed_and_withdrawn(directory):
    ends = await directory.announce("adder", "adder-1", b"bytes", 5_000)
    assert await directory.instances() == {"adder-1": (b"bytes", ends)}
    assert await directory.instance("adder-1") == b"bytes"
    assert await directory.announce("adder", "adder-1", b"bytes", 60_000) > ends
    assert await directory.withdraw("adder", "adder-1")
    assert await directory.instances() == {}
    assert await directory.instance("adder-1") is None
    assert not await directory.withdraw("adder", "adder-1")


async def test_a_renewal_is_no_change_and_everything_else_is(directory):
    await directory.announce("adder", "adder-1", b"bytes", 5_000)
    revision = await directory.revision()
    await directory.announce("adder", "adder-1", b"bytes", 5_000)
    assert await directory.revision() == revision
    await directory.announce("adder", "adder-1", b"changed", 5_000)
    await directory.announce("other", "other-1", b"bytes", 5_000)
    await directory.withdraw("adder", "adder-1")
    assert await directory.changes(revision) == [
        (revision + 1, "adder"),
        (revision + 2, "other"),
        (revision + 3, "adder"),
    ]
    assert await directory.changes(revision + 2) == [(revision + 3, "adder")]
    assert await directory.changes(revision + 3) == []


async def test_an_instance_that_changes_its_agent_is_a_change_of_both(directory):
    await directory.announce("adder", "x-1", b"bytes", 5_000)
    revision = await directory.revision()
    await directory.announce("other", "x-1", b"changed", 5_000)
    assert {name for _, name in await directory.changes(revision)} == {"adder", "other"}


async def test_only_its_own_agent_withdraws_an_instance(directory):
    await directory.announce("adder", "adder-1", b"bytes", 5_000)
    assert not await directory.withdraw("other", "adder-1")
    assert await directory.instance("adder-1")


async def test_silent_instances_are_removed_and_others_stay(directory):
    await directory.announce("adder", "silent", b"bytes", 1)
    await directory.announce("adder", "alive", b"bytes", 60_000)
    await asyncio.sleep(0.01)
    assert await directory.expire() == 1
    assert list(await directory.instances()) == ["alive"]
    assert await directory.expire() == 0


@pytest.fixture
def catalog(store):
    return CatalogStore(store)


async def test_a_version_is_stored_once_and_only_its_host_moves(catalog):
    assert await catalog.register("add", "1.0.0", b"contract", "digest", "h:1") == "stored"
    assert await catalog.register("add", "1.0.0", b"rewritten", "digest", "h:2") == "known"
    assert await catalog.register("add", "1.0.0", b"contract", "another", "h:3") == "conflict"
    assert await catalog.versions(["add"]) == [{"1.0.0": (b"contract", "h:2")}]


async def test_versions_of_many_names_come_in_their_order(catalog):
    await catalog.register("b", "1.0.0", b"b1", "d", "h:1")
    await catalog.register("a", "1.0.0", b"a1", "d", "h:1")
    await catalog.register("a", "2.0.0", b"a2", "d", "h:2")
    assert await catalog.names() == ["a", "b"]
    assert await catalog.versions(["b", "none", "a"]) == [
        {"1.0.0": (b"b1", "h:1")},
        {},
        {"1.0.0": (b"a1", "h:1"), "2.0.0": (b"a2", "h:2")},
    ]
    assert await catalog.versions([]) == []


async def test_the_catalogs_revision_counts_what_callers_would_see(catalog):
    assert await catalog.revision() == 0
    await catalog.register("add", "1.0.0", b"contract", "digest", "h:1")
    await catalog.register("add", "1.0.0", b"contract", "digest", "h:1")
    assert await catalog.revision() == 1
    await catalog.register("add", "1.0.0", b"contract", "digest", "h:2")
    assert await catalog.revision() == 2


async def test_the_registrys_keys_lie_in_the_meshs_partition(directory, catalog, store):
    await directory.announce("adder", "adder-1", b"bytes", 5_000)
    await catalog.register("add", "1.0.0", b"contract", "digest", "h:1")
    prefix = partition_key("mesh", "tool").rpartition(":")[0]
    keys = [key.decode() async for key in store.client.scan_iter("*")]
    assert keys
    assert all(key.startswith(prefix) for key in keys)


async def test_who_is_here_and_what_they_serve_stays_true_on_a_full_store(run_valkey, tmp_path):
    store = Store(run_valkey(tmp_path).url, LIBRARY)
    await store.open()
    directory, catalog = DirectoryStore(store), CatalogStore(store)
    ends = await directory.announce("adder", "adder-1", b"bytes", 5_000)
    await catalog.register("add", "1.0.0", b"contract", "digest", "h:1")
    await store.client.config_set("maxmemory", "1")
    assert await directory.announce("adder", "adder-1", b"bytes", 60_000) > ends
    assert await directory.announce("adder", "adder-2", b"bytes", 60_000) > ends
    assert await catalog.register("add", "1.0.0", b"contract", "digest", "h:2") == "known"
    assert await directory.withdraw("adder", "adder-1")
    assert list(await directory.instances()) == ["adder-2"]
    await store.close()
