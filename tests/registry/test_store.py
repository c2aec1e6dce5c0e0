"""The registry's state: the ledger that keeps effects from being doubled, instances, tools. On a real store."""

import asyncio

import pytest

from meshwright.core.errors import StoreFullError, ToolNotFoundError
from meshwright.core.store import Store, partition_key
from meshwright.registry import store as store_module
from meshwright.registry.catalog import ToolState
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


@pytest.fixture
def put(catalog):
    """Registers a version: `await put("add", "1.0.0")`."""

    async def put_(name="add", version="1.0.0", contract=b"contract", digest="d", endpoint="h:1", *, seen=None):
        if seen is None:
            _, (state,) = await catalog.states([name])
            seen = len(state.hosts)
        return await catalog.register(name, version, contract, digest, endpoint, seen=seen)

    return put_


async def test_a_version_is_stored_once_and_only_its_host_moves(catalog, put):
    assert await put() == "stored"
    assert await put(contract=b"rewritten", endpoint="h:2") == "known"
    assert await put(digest="another", endpoint="h:3") == "conflict"
    _, (state,) = await catalog.states(["add"])
    assert state == ToolState({"1.0.0": "h:2"}, {}, {})
    assert await catalog.contracts([("add", "1.0.0")]) == [b"contract"]


async def test_a_version_is_stored_only_beside_those_that_it_was_held_against(catalog, put):
    assert await put(seen=0) == "stored"
    assert await put(version="1.1.0", seen=0) == "again"
    assert await put(version="1.1.0", seen=1) == "stored"
    assert await put(seen=0) == "known"
    assert (await catalog.states(["add"]))[1][0].hosts == {"1.0.0": "h:1", "1.1.0": "h:1"}


async def test_versions_of_many_names_come_in_their_order(catalog, put):
    for name, version in (("b", "1.0.0"), ("a", "1.0.0"), ("a", "2.0.0")):
        await put(name, version, contract=f"{name}{version}".encode(), endpoint=f"{name}:{version[0]}")
    revision, states = await catalog.states(["b", "none", "a"])
    assert [state.hosts for state in states] == [{"1.0.0": "b:1"}, {}, {"1.0.0": "a:1", "2.0.0": "a:2"}]
    assert revision == await catalog.revision()
    assert await catalog.contracts([("a", "2.0.0"), ("b", "1.0.0"), ("a", "2.0.0")]) == [
        b"a2.0.0",
        b"b1.0.0",
        b"a2.0.0",
    ]
    assert await catalog.contracts([]) == []
    assert await catalog.states([]) == (revision, [])
    with pytest.raises(ToolNotFoundError, match=r"a@3\.0\.0"):
        await catalog.contracts([("a", "1.0.0"), ("a", "3.0.0")])


@pytest.mark.parametrize(
    ("prefix", "after", "inclusive", "found"),
    [
        ("", "", False, ["a", "a.b", "a.c"]),
        ("", "a.b", False, ["a.c", "a_b", "b"]),
        ("", "a.b", True, ["a.b", "a.c", "a_b"]),
        ("", "zzz", False, []),
        ("a", "", False, ["a", "a.b", "a.c"]),
        ("a.", "", False, ["a.b", "a.c"]),
        ("a.", "a", False, ["a.b", "a.c"]),
        ("a.", "a.b", False, ["a.c"]),
        ("a.", "a.b", True, ["a.b", "a.c"]),
        ("a.", "b", False, []),
        ("c", "", False, []),
    ],
)
async def test_names_are_read_in_their_order_a_part_at_a_time(catalog, put, prefix, after, inclusive, found):
    for name in ("b", "a_b", "a", "a.c", "a.b"):
        await put(name)
    assert await catalog.names(prefix, after, 3, inclusive=inclusive) == found


async def test_the_catalogs_revision_counts_what_callers_would_see(catalog, put):
    assert await catalog.revision() == 0
    await put()
    first = await catalog.revision()
    await put()
    assert await catalog.revision() == first
    await put(endpoint="h:2")
    assert await catalog.revision() == first + 1
    assert await catalog.deprecate("add", "1.0.0", 5_000, "sum@^2") == "set"
    assert await catalog.deprecate("add", "1.0.0", 5_000, "sum@^2") == "same"
    assert await catalog.set_alias("add", "stable", "1.0.0") == "set"
    assert await catalog.set_alias("add", "stable", "1.0.0") == "same"
    assert await catalog.revision() == first + 3
    assert await catalog.changes(first - 1) == [(first + step, ("add", "1.0.0")) for step in range(4)]
    assert await catalog.changes(first + 2) == [(first + 3, ("add", "1.0.0"))]
    assert await catalog.changes(first + 3) == []


async def test_an_alias_that_moves_changes_the_version_that_loses_it_too(catalog, put):
    await put(version="1.0.0")
    await put(version="1.1.0")
    await catalog.set_alias("add", "stable", "1.0.0")
    before = await catalog.revision()
    assert await catalog.set_alias("add", "stable", "1.1.0") == "set"
    assert await catalog.changes(before) == [(before + 1, ("add", "1.0.0")), (before + 2, ("add", "1.1.0"))]
    assert (await catalog.states(["add"]))[1][0].aliases == {"stable": "1.1.0"}


async def test_what_is_not_registered_is_neither_pointed_at_nor_deprecated(catalog, put):
    await put()
    for name, version in (("add", "2.0.0"), ("none", "1.0.0")):
        assert await catalog.set_alias(name, "stable", version) == "unknown"
        assert await catalog.deprecate(name, version, 5_000, "") == "unknown"
    assert (await catalog.states(["add"]))[1] == [ToolState({"1.0.0": "h:1"}, {}, {})]


async def test_a_deprecation_keeps_its_date_and_its_replacement(catalog, put):
    await put(version="1.0.0")
    await put(version="1.1.0")
    await catalog.deprecate("add", "1.0.0", 5_000, "sum@^2")
    await catalog.deprecate("add", "1.1.0", 253_402_300_799_999, "")
    expected = {"1.0.0": (5_000, "sum@^2"), "1.1.0": (253_402_300_799_999, "")}
    assert (await catalog.states(["add"]))[1][0].sunsets == expected


async def test_a_tool_has_a_bounded_number_of_versions_and_aliases(catalog, put, monkeypatch):
    for limit in ("MAX_TOOLS", "MAX_VERSIONS", "MAX_ALIASES"):
        monkeypatch.setattr(store_module, limit, 2)
    assert [await put(version=f"1.{minor}.0") for minor in range(3)] == ["stored", "stored", "full"]
    assert [await put(name) for name in ("b", "c")] == ["stored", "full"]
    aliases = [await catalog.set_alias("add", alias, "1.0.0") for alias in ("a", "b", "c")]
    assert aliases == ["set", "set", "full"]
    assert await catalog.set_alias("add", "a", "1.1.0") == "set"
    assert await put(endpoint="h:2") == "known"


async def test_a_catalog_that_was_emptied_gives_no_number_again(catalog, put, store):
    await put()
    before = await catalog.revision()
    await store.client.flushall()
    assert await catalog.revision() == 0
    await put()
    assert await catalog.revision() > before + 1


async def test_changes_are_kept_up_to_a_bound(catalog, put, store):
    await put()
    first = await catalog.revision()
    key = partition_key("mesh", "changes", "tools")
    for number in range(1, 250):
        await put(endpoint=f"h:{number}")
        await put(endpoint="h:1")
    many = await catalog.changes(first)
    assert [revision for revision, _ in many] == [first + 1 + step for step in range(store_module.MAX_CHANGES)]
    await store.client.xtrim(key, maxlen=10, approximate=False)
    newest = await catalog.revision()
    assert [revision for revision, _ in await catalog.changes(first)] == [newest - 9 + step for step in range(10)]


async def test_the_registrys_keys_lie_in_the_meshs_partition(directory, catalog, store):
    await directory.announce("adder", "adder-1", b"bytes", 5_000)
    await catalog.register("add", "1.0.0", b"contract", "digest", "h:1", seen=0)
    await catalog.set_alias("add", "stable", "1.0.0")
    await catalog.deprecate("add", "1.0.0", 5_000, "")
    prefix = partition_key("mesh", "tool").rpartition(":")[0]
    keys = [key.decode() async for key in store.client.scan_iter("*")]
    assert keys
    assert all(key.startswith(prefix) for key in keys)


async def test_who_is_here_and_what_they_serve_stays_true_on_a_full_store(run_valkey, tmp_path):
    store = Store(run_valkey(tmp_path).url, LIBRARY)
    await store.open()
    directory, catalog = DirectoryStore(store), CatalogStore(store)
    ends = await directory.announce("adder", "adder-1", b"bytes", 5_000)
    await catalog.register("add", "1.0.0", b"contract", "digest", "h:1", seen=0)
    await store.client.config_set("maxmemory", "1")
    assert await directory.announce("adder", "adder-1", b"bytes", 60_000) > ends
    assert await directory.announce("adder", "adder-2", b"bytes", 60_000) > ends
    assert await catalog.register("add", "1.0.0", b"contract", "digest", "h:2", seen=1) == "known"
    with pytest.raises(StoreFullError):
        await catalog.set_alias("add", "stable", "1.0.0")
    assert await directory.withdraw("adder", "adder-1")
    assert list(await directory.instances()) == ["adder-2"]
    await store.close()
