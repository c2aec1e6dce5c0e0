"""Spans of what is asked of the store: below those of who asks, where that is wanted, and without keys."""

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, StatusCode

from meshwright.core import tracing
from meshwright.core.errors import InternalError
from meshwright.core.store import Library, Store, partition_key

SECRET = "quokka"
LIBRARY = Library(
    "spans",
    """
local function echo(keys, a) return a[1] end
local function fail(keys, a) return redis.call('NO_SUCH_COMMAND') end
redis.register_function('echo_VERSION', echo)
redis.register_function('fail_VERSION', fail)
""",
)
ECHO, FAIL = LIBRARY.function("echo"), LIBRARY.function("fail")
KEY = partition_key(0, "task", SECRET)


@pytest.fixture
async def probed(valkey):
    opened = Store(valkey.url, LIBRARY)
    await opened.open()
    yield opened
    await opened.close()


@pytest.fixture
def kept(monkeypatch):
    """Spans that have ended, where the store's are wanted."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(tracing, "tracer", provider.get_tracer("test"))
    monkeypatch.setattr(tracing, "has_store_spans", True)
    return exporter


async def ask(store):
    """One function, one command, two commands at once."""
    with tracing.span("task"):
        assert await store.call(ECHO, KEY, SECRET) == SECRET.encode()
        await store.run(("HGETALL", KEY))
        await store.run(("HGETALL", KEY), ("GET", partition_key(0, "task", "other")))


async def test_what_a_span_asks_of_the_store_stands_below_it_without_keys(probed, kept):
    await ask(probed)
    *asked, task = kept.get_finished_spans()
    assert [span.name for span in asked] == [f"FCALL {ECHO}", "HGETALL", "PIPELINE"]
    assert {span.parent.span_id for span in asked} == {task.context.span_id}
    assert {span.kind for span in asked} == {SpanKind.CLIENT}
    assert [dict(span.attributes) for span in asked] == [
        {"db.system.name": "redis", "db.operation.name": "FCALL", "db.stored_procedure.name": ECHO},
        {"db.system.name": "redis", "db.operation.name": "HGETALL"},
        {"db.system.name": "redis", "db.operation.name": "PIPELINE", "db.operation.batch.size": 2},
    ]
    assert SECRET not in "".join(span.to_json() for span in asked)


async def test_a_failure_is_named_by_its_class_alone(probed, kept):
    with tracing.span("task"), pytest.raises(InternalError):
        await probed.call(FAIL, KEY)
    failed = kept.get_finished_spans()[0]
    assert failed.status.status_code is StatusCode.ERROR
    assert failed.attributes["error.type"] == "ResponseError"
    assert not failed.events


async def test_what_a_process_does_by_itself_begins_no_trace(probed, kept):
    await probed.call(ECHO, KEY, "a")
    await probed.run(("HGETALL", KEY))
    assert not kept.get_finished_spans()


async def test_there_are_none_unless_they_are_wanted(probed, kept, monkeypatch):
    monkeypatch.setattr(tracing, "has_store_spans", False)
    await ask(probed)
    assert [span.name for span in kept.get_finished_spans()] == ["task"]


async def test_there_are_none_below_what_is_not_kept(probed, monkeypatch):
    exporter, provider = InMemorySpanExporter(), TracerProvider(sampler=ALWAYS_OFF)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(tracing, "tracer", provider.get_tracer("test"))
    monkeypatch.setattr(tracing, "has_store_spans", True)
    await ask(probed)
    assert not exporter.get_finished_spans()
