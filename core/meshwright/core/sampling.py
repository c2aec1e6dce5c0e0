"""Sampling: which traces are kept; decided where a trace begins, and by whoever is called in it the same way."""

from collections.abc import Mapping, Sequence

from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult
from opentelemetry.trace import Link, SpanContext, SpanKind, TraceState
from opentelemetry.util.types import Attributes

TENANT = contexts.create_key("meshwright-tenant")
"""Of a call that the edge has let in, while it is served: whose it is."""
KEPT = contexts.create_key("meshwright-kept")
"""Set where it has been decided already that a span is kept."""
WHOLE = 2**64


class Rates(Sampler):
    """Keeps a share of the traces, for each tenant its own.

    A trace that began elsewhere is kept where its parent is. The edge begins traces before it knows whose they are, at
    the highest of all rates: whoever it calls keeps as many of them as the tenant's rate asks for, chosen by the
    trace's id. From there on the parent decides.

    Args:
        rate: 0..1, for tenants that are not named.
        tenants: Rates by tenant.
    """

    def __init__(self, rate: float, tenants: Mapping[str, float]) -> None:
        self._rate = rate
        self._tenants = tenants
        self.highest = max(rate, *tenants.values()) if tenants else rate

    def share(self, tenant: str, parent: SpanContext) -> float:
        """Returns which share is kept of the traces of a tenant that look like this from here.

        Args:
            tenant: Whose call the edge has let in; empty: nobody's, or the call comes from inside the mesh.
            parent: The span above; not valid: there is none.
        """
        if not parent.is_valid:
            return self._tenants.get(tenant, self._rate)
        if not parent.trace_flags.sampled:
            return 0.0
        if not tenant or not self._tenants or not self.highest:
            return 1.0
        return self._tenants.get(tenant, self._rate) / self.highest

    def should_sample(  # noqa: PLR0917 - the interface's
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        """Decides about a span that is about to begin."""
        parent = trace.get_current_span(parent_context).get_span_context()
        tenant = str(contexts.get_value(TENANT, parent_context) or "")
        if contexts.get_value(KEPT, parent_context) or is_in(trace_id, self.share(tenant, parent)):
            return SamplingResult(Decision.RECORD_AND_SAMPLE, attributes, trace_state)
        return SamplingResult(Decision.DROP)

    def get_description(self) -> str:
        """Names the sampler."""
        return "meshwright"


def is_in(trace_id: int, share: float) -> bool:
    """Whether a trace is in a share of all traces; every process says the same of it."""
    return trace_id % WHOLE < share * WHOLE
