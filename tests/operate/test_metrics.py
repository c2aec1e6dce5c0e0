"""Metrics that a process makes: bounded in number, cheap, and true."""

import asyncio
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import REGISTRY
from prometheus_client.openmetrics.exposition import generate_latest

from meshwright.core import logs, telemetry, tracing
from meshwright.core.errors import StoreUnavailableError
from meshwright.core.settings import Settings
from meshwright.core.store import Store


@given(st.lists(st.text(max_size=3)), st.integers(0, 5))
def test_a_label_takes_so_many_values_and_other(names, most):
    bounded = telemetry.Bounded(most)
    told = [bounded.label(name) for name in names]
    assert len({*told} - {telemetry.OTHER}) <= most
    assert all(one in (name, telemetry.OTHER) for name, one in zip(names, told, strict=True))
    assert [bounded.label(name) for name in names if bounded.label(name) != telemetry.OTHER] == [
        one for one in told if one != telemetry.OTHER
    ]


def test_a_setting_says_how_many_tenants_have_a_name(monkeypatch):
    monkeypatch.setattr(telemetry, "TENANTS", telemetry.Bounded(20))
    monkeypatch.setattr(logs, "configure", lambda *_: None)
    telemetry.configure(Settings(metrics_tenants=1, tracing=False), "probe", "probe-1")
    telemetry.count_cost("clerk", "acme", "llm", "m", 7)
    telemetry.count_cost("clerk", "beta", "llm", "m", 2)
    telemetry.count_cost("clerk", "gamma", "llm", "m", 3)
    spent = {tenant: telemetry.COST.labels("clerk", tenant, "llm", "m")._value.get() for tenant in ("acme", "other")}
    assert spent == {"acme": 7, "other": 5}


class TestExemplars:
    @pytest.fixture
    def exemplars(self, monkeypatch):
        monkeypatch.setattr(tracing, "tracer", object())
        monkeypatch.setattr(tracing, "current_trace_id", lambda: "ab" * 16)
        return telemetry.Exemplars()

    def test_one_call_a_second_has_one_and_every_slow_one(self, exemplars):
        told = [exemplars.of(seconds) is not None for seconds in (0.1, 0.1, 1.5, 0.1)]
        assert told == [True, False, True, False]

    def test_who_asks_for_openmetrics_reads_the_trace_id(self, exemplars):
        telemetry.CALL_SECONDS.labels("/probe").observe(2, exemplars.of(2))
        assert f'# {{trace_id="{"ab" * 16}"}} 2.0' in generate_latest(REGISTRY).decode()

    def test_without_traces_there_is_none(self, monkeypatch):
        monkeypatch.setattr(tracing, "tracer", None)
        assert telemetry.Exemplars().of(5) is None


async def test_a_loop_that_was_kept_busy_is_seen(monkeypatch):
    monkeypatch.setattr(telemetry, "LAG_EVERY_S", 0.02)
    before = telemetry.LOOP_LAG._sum.get()
    loop = asyncio.new_event_loop()
    telemetry.watch_loop(loop)

    def busy():
        loop.call_soon(time.sleep, 0.3)
        loop.call_later(0.31, loop.stop)

    loop.call_soon(busy)
    await asyncio.to_thread(loop.run_forever)
    loop.close()
    assert telemetry.LOOP_LAG._sum.get() - before > 0.2


async def test_a_store_that_does_not_answer_is_counted(monkeypatch):
    counter = telemetry.STORE_FAILURES.labels("STORE_UNAVAILABLE")
    before = counter._value.get()
    store = Store("redis://127.0.0.1:1/0", timeout_s=0.5)
    with pytest.raises(StoreUnavailableError):
        await store.run(("PING",))
    assert counter._value.get() == before + 1
    await store.close()
