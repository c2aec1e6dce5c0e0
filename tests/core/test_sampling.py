"""Sampling: a parent's word wins, tenants have rates of their own, and every process decides the same way."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

from meshwright.core.errors import SetupError
from meshwright.core.sampling import TENANT, WHOLE, Rates, is_in
from meshwright.core.served_span import ServedSpans
from meshwright.core.settings import Settings
from meshwright.core.tracing import Incoming, rates_of

IDS = st.integers(1, 2**128 - 1)
SHARES = st.floats(0, 1)
RATES = Rates(0.1, {"acme": 0.8, "beta": 0.0})


def parent(*, sampled=True, trace_id=1):
    flags = TraceFlags.SAMPLED if sampled else TraceFlags.DEFAULT
    return SpanContext(trace_id, 2, is_remote=True, trace_flags=TraceFlags(flags))


@given(IDS, SHARES)
def test_a_share_is_chosen_by_the_trace_s_id_alone(trace_id, share):
    assert is_in(trace_id, share) == is_in(trace_id % WHOLE, share)
    assert is_in(trace_id, 1.0)
    assert not is_in(trace_id, 0.0)


@given(IDS, SHARES, SHARES)
def test_what_is_in_a_share_is_in_every_larger_one(trace_id, one, other):
    assert is_in(trace_id, max(one, other)) or not is_in(trace_id, min(one, other))


@given(st.sampled_from(["", "acme", "beta", "other"]))
def test_what_its_parent_does_not_keep_is_not_kept(tenant):
    assert RATES.share(tenant, parent(sampled=False)) == 0


def test_a_trace_that_begins_here_is_kept_at_its_tenant_s_rate():
    shares = [RATES.share(tenant, trace.INVALID_SPAN_CONTEXT) for tenant in ("acme", "beta", "other", "")]
    assert shares == [0.8, 0.0, 0.1, 0.1]


def test_of_what_the_edge_begins_at_the_highest_rate_a_tenant_s_share_is_left():
    assert RATES.highest == 0.8
    shares = [RATES.share(tenant, parent()) for tenant in ("acme", "beta", "other")]
    assert shares == pytest.approx([1.0, 0.0, 0.125])


def test_inside_of_the_mesh_and_without_rates_of_tenants_the_parent_decides():
    assert RATES.share("", parent()) == 1
    assert Rates(0.01, {}).share("acme", parent()) == 1
    assert Rates(0.0, {"acme": 0.0}).share("acme", parent()) == 1


@given(IDS, st.sampled_from(["", "acme", "beta", "other"]))
def test_the_stock_instrumentation_keeps_what_our_own_spans_keep(trace_id, tenant):
    above = parent(trace_id=trace_id)
    context = contexts.set_value(TENANT, tenant, trace.set_span_in_context(NonRecordingSpan(above)))
    result = RATES.should_sample(context, trace_id, "call")
    assert result.decision.is_sampled() == is_in(trace_id, RATES.share(tenant, above))


def test_who_is_calling_is_read_where_the_edge_has_written_it():
    header = f"00-{1:032x}-{2:016x}-01"
    found = Incoming().extract({"traceparent": header, "x-mesh-tenant": "a%2Fb", "baggage": "k=v"})
    assert contexts.get_value(TENANT, found) == "a/b"
    assert trace.get_current_span(found).get_span_context().trace_id == 1
    assert contexts.get_value(TENANT, Incoming().extract({"traceparent": header})) is None


class Call:
    """A call as gRPC hands it over."""

    def __init__(self, **metadata):
        self._metadata = tuple(metadata.items())

    def invocation_metadata(self):
        return self._metadata

    def code(self):
        return None


@pytest.mark.parametrize(("rate", "kept"), [(1.0, True), (0.0, False)])
async def test_a_call_that_is_not_kept_is_in_a_trace_nevertheless(monkeypatch, rate, kept):
    rates, seen = Rates(rate, {}), []
    monkeypatch.setattr("meshwright.core.tracing.tracer", TracerProvider(sampler=rates).get_tracer("test"))

    async def call(_request, _context):
        seen.append(trace.get_current_span())
        return "answer"

    assert await ServedSpans(rates).unary("/a.B/C", call)(None, Call()) == "answer"
    assert seen[0].get_span_context().is_valid
    assert seen[0].is_recording() is False
    assert seen[0].get_span_context().trace_flags.sampled is kept


@pytest.mark.parametrize("text", ["acme", "acme=2", "acme=-1", "=1", "acme=0.1,,beta=1"])
def test_a_rate_that_is_none_is_refused(monkeypatch, text):
    monkeypatch.setenv("MESHWRIGHT_TRACE_RATES", text)
    with pytest.raises(SetupError, match="TENANT=SHARE"):
        Settings.load()


def test_rates_are_read_from_the_settings():
    rates = rates_of(Settings(trace_rate=0.5, trace_rates="acme=1, beta=0.01"))
    assert rates.highest == 1
    assert rates.share("beta", trace.INVALID_SPAN_CONTEXT) == 0.01
