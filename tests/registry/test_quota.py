"""Rates: read from the settings, kept exactly by all hosts of one store together."""

import asyncio
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshwright.core.errors import SetupError, StoreUnavailableError, ToolRateLimitedError
from meshwright.core.store import Store
from meshwright.gen.agents.v1.grant_pb2 import Grant
from meshwright.registry import tool
from meshwright.registry.host import ToolHost
from meshwright.registry.quota import Quota
from meshwright.registry.rate import MINUTE_US, Rate, rates
from meshwright.registry.settings import HostSettings
from meshwright.registry.store import LIBRARY, Ledger, QuotaStore

RUNS = []


@pytest.fixture(autouse=True)
def _no_runs_before():
    RUNS.clear()


@tool(effect="pure", name="mail.count")
async def count() -> int:
    """Counts."""
    RUNS.append("count")
    return 1


@tool(effect="non_idempotent", name="mail.send")
async def send() -> int:
    """Sends."""
    RUNS.append("send")
    return 1


PINS = ["mail.count@1.0.0", "mail.send@1.0.0"]


def grant(tenant="t"):
    return Grant(tenant=tenant, principal="p", agent_id="a", task_id="task", tools=PINS)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ("  ", {}),
        ("docs.search=120", {"docs.search": Rate(500_000, 20)}),
        (" mail.*=10 , *=6000:7", {"mail.*": Rate(6_000_000, 1), "*": Rate(10_000, 7)}),
        ("a=0.5", {"a": Rate(120_000_000, 1)}),
    ],
)
def test_rates_are_read(text, expected):
    assert rates(text) == expected
    assert HostSettings(tool_rates=text).tool_rates == text


@pytest.mark.parametrize(
    "text", ["a", "a=", "a=0", "a=-1", "a=1:0", "=1", "A=1", "a*=1", "a=1,,b=2", "a=9999999", "a=x"]
)
def test_rates_that_cannot_be_read_stop_the_process_at_its_start(text, monkeypatch):
    monkeypatch.setenv("MESHWRIGHT_TOOL_RATES", text)
    with pytest.raises(SetupError, match="MESHWRIGHT_TOOL_RATES"):
        HostSettings.load()


@given(name=st.sampled_from(["a", "a.b", "a.b.c", "ab", "b"]))
def test_the_name_wins_and_then_the_longest_pattern(name):
    limits = {pattern: Rate(n, n) for n, pattern in enumerate(["*", "a.*", "a.b.*", "a.b"])}
    expected = {"a": "*", "a.b": "a.b", "a.b.c": "a.b.*", "ab": "*", "b": "*"}
    assert Quota(None, limits).rate(name) == limits[expected[name]]


def test_a_tool_without_a_rate_has_none():
    assert Quota(None, {"mail.*": Rate(1, 1)}).rate("docs.search") is None
    assert Quota(None, {}).rate("docs.search") is None


@pytest.mark.parametrize("partitions", [1, 16])
async def test_a_rate_is_exact_across_two_hosts(store, partitions):
    store.partitions = partitions
    other = Store(store.url, LIBRARY)
    await other.open()
    other.partitions = partitions
    settings = HostSettings(tool_rates="mail.*=1:7")
    hosts = [ToolHost([count, send], Ledger(each), settings) for each in (store, other)]
    calls = [hosts[n % 2].invoke(grant(), "mail.count@1.0.0", "{}", f"k{n}") for n in range(40)]
    results = await asyncio.gather(*calls, return_exceptions=True)
    refused = [one for one in results if isinstance(one, ToolRateLimitedError)]
    assert len(refused) == 33
    assert all(0 < one.retry_after_s <= 60 for one in refused)
    assert RUNS == ["count"] * 7
    await other.close()


async def test_each_tool_and_each_tenant_has_its_own(store):
    host = ToolHost([count, send], Ledger(store), HostSettings(tool_rates="mail.*=1:1"))
    for tenant in ("t", "t/mail.count", "u"):
        for pin in PINS:
            assert not (await host.invoke(grant(tenant), pin, "{}", "k")).HasField("error")
    for tenant in ("t", "u"):
        for pin in PINS:
            with pytest.raises(ToolRateLimitedError):
                await host.call(grant(tenant), pin, {}, "k", "")
    assert len(RUNS) == 6


async def test_a_call_that_is_refused_for_its_rate_leaves_nothing(store):
    host = ToolHost([send], Ledger(store), HostSettings(tool_rates="mail.send=1:1"))
    await host.invoke(grant(), "mail.send@1.0.0", "{}", "first")
    with pytest.raises(ToolRateLimitedError):
        await host.invoke(grant(), "mail.send@1.0.0", "{}", "second")
    keys, fields = await store.run(("KEYS", "mw:*"), ("HKEYS", "mw:{0}:ledger:t/p/task"))
    assert b"first" in fields
    assert b"second" not in fields
    assert b"mw:{0}:quota:t/mail.send" in keys


async def test_a_call_passes_as_soon_as_it_was_told_that_it_would(store):
    quota = Quota(QuotaStore(store), {"*": Rate(50_000, 1)})
    await quota.take("t", "a")
    told = []
    for _ in range(5):
        while (wait_s := await refused_for(quota)) is not None:
            told.append(wait_s)
            await asyncio.sleep(wait_s)
    assert all(0 < wait_s <= 0.05 for wait_s in told)
    assert len(told) <= 10  # a timer of the loop may be early by a hair


async def refused_for(quota):
    try:
        await quota.take("t", "a")
    except ToolRateLimitedError as error:
        return error.retry_after_s
    return None


async def test_over_any_time_no_more_pass_than_the_rate_allows(store):
    interval_us, burst = 20_000, 5
    quota = QuotaStore(store)
    started, passed = time.monotonic(), 0
    while time.monotonic() - started < 0.5:
        passed += await quota.take("t", "a", interval_us, burst) == 0
    allowed = burst + (time.monotonic() - started) * 1e6 / interval_us
    assert burst < passed <= allowed


async def test_a_counter_goes_when_it_has_nothing_to_say(store):
    quota = QuotaStore(store)
    for _ in range(3):
        await quota.take("t", "a", MINUTE_US, 3)
    (left,) = await store.run(("PTTL", "mw:{0}:quota:t/a"))
    assert 2 * 60_000 < left <= 3 * 60_000


async def test_what_cannot_be_counted_is_not_called(run_valkey, tmp_path):
    own = run_valkey(tmp_path)
    store = Store(own.url, LIBRARY, timeout_s=0.5)
    await store.open()
    host = ToolHost([count], Ledger(store), HostSettings(tool_rates="*=60"))
    own.kill()
    with pytest.raises(StoreUnavailableError):
        await host.invoke(grant(), "mail.count@1.0.0", "{}", "k")
    assert RUNS == []
    await store.close()
