"""How much of the edge one caller may take: token buckets, and what all edges together let through. Pure.

`python -m meshwright.gateway.limits` prints the configuration of envoyproxy/ratelimit for the settings of the
environment, so that many edges count together; see `limit_service`.
"""

import sys
from dataclasses import dataclass
from typing import Any

import yaml

from meshwright.core.bound import Bound
from meshwright.core.errors import SetupError
from meshwright.gateway.config import FILTERS, LIMIT_HEADER, TYPE, Config
from meshwright.gateway.replies import header
from meshwright.gateway.settings import GatewaySettings

DOMAIN = "meshwright"
"""Of the shared counters."""
SERVICE_S = 0.1
"""How long a call waits for the shared counters; without an answer it passes: each edge has counters of its own."""
RETRY_S = 1
"""Tokens come back every second."""
UNBOUNDED = 2**32 - 1
"""Tokens of the bucket for calls that no other one is for: Envoy asks for one."""
MAX_BODY_BYTES = 4 * 2**20
DEVELOPMENT = {"limit_address": 2_000, "limit_principal": 2_000, "limit_tenant": 2_000}
"""Of a mesh that serves one machine: all its callers have one address, and many are load tests."""
MIB = 2**20
RESETS = 500
"""Streams of a connection after which it is closed where most of them were reset within a second."""
CALLS_AT_A_TIME = 10
"""Calls that a connection has begun before another one has its turn."""
CLEARED_AT, REFUSED_AT, LISTENING_AT = 0.85, 0.92, 0.95
"""Shares of the heap at which Envoy gives free memory back, refuses new calls, and takes no connections any more."""


@dataclass(frozen=True, slots=True)
class Rate:
    """One kind of bucket.

    Attributes:
        name: Whose bucket it is, as callers read it; see `Bound`.
        key: Of the descriptor: every value of it has a bucket of its own.
        per_s: Calls a second; 0: any number.
        action: How Envoy finds the value of a call.
    """

    name: Bound
    key: str
    per_s: int
    action: Config


def address_rate(settings: GatewaySettings) -> Rate:
    """The bucket of an address, which counts before it is known who calls."""
    return Rate(Bound.ADDRESS, "remote_address", settings.limit_address, {"remote_address": {}})


def caller_rates(settings: GatewaySettings) -> list[Rate]:
    """The buckets of a principal and of its tenant, as identity has found them; without identity there are none."""
    return [
        Rate(Bound.PRINCIPAL, "principal", settings.limit_principal, by_header("x-mesh-principal", "principal")),
        Rate(Bound.TENANT, "tenant", settings.limit_tenant, by_header("x-mesh-tenant", "tenant")),
    ]


def by_header(name: str, key: str) -> Config:
    """Counts by the value of a header."""
    return {"request_headers": {"header_name": name, "descriptor_key": key, "skip_if_absent": True}}


def generous(settings: GatewaySettings) -> GatewaySettings:
    """Returns settings for a mesh on one machine: what was not chosen is wide."""
    chosen = settings.model_fields_set
    return settings.model_copy(update={name: rate for name, rate in DEVELOPMENT.items() if name not in chosen})


def address_limit(settings: GatewaySettings) -> list[Config]:
    """The filter before identity, which keeps a flood of bad credentials cheap; empty: it is switched off."""
    is_told = settings.auth == "none"  # else callers read how much is left of their own
    return bucket_filters([address_rate(settings)], settings, is_told=is_told)


def caller_limits(settings: GatewaySettings) -> list[Config]:
    """The filters behind identity, one a rate, so that a refusal says whose bucket is empty."""
    return bucket_filters(caller_rates(settings), settings)


def bucket_filters(rates: list[Rate], settings: GatewaySettings, *, is_told: bool = True) -> list[Config]:
    """A filter for every rate that is on, with a token bucket for every value; callers are told how much is left."""
    return [bucket_filter(rate, settings, is_told=is_told) for rate in rates if rate.per_s]


def bucket_filter(rate: Rate, settings: GatewaySettings, *, is_told: bool) -> Config:
    """The filter of one rate."""
    name = f"{rate.name}_limit"
    all_calls = {"runtime_key": f"meshwright.{name}", "default_value": {"numerator": 100, "denominator": "HUNDRED"}}
    tokens = bucket(rate.per_s * settings.limit_burst_s, rate.per_s)
    config = {
        "@type": FILTERS + "local_ratelimit.v3.LocalRateLimit",
        "stat_prefix": name,
        "filter_enabled": all_calls,
        "filter_enforced": all_calls,
        "status": {"code": "TooManyRequests"},
        "rate_limited_as_resource_exhausted": True,
        "enable_x_ratelimit_headers": "DRAFT_VERSION_03" if is_told else "OFF",
        "response_headers_to_add": [header(LIMIT_HEADER, rate.name)],
        "max_dynamic_descriptors": settings.limit_entries,
        "token_bucket": bucket(UNBOUNDED, UNBOUNDED),
        "always_consume_default_token_bucket": False,
        "rate_limits": [{"actions": [rate.action]}],
        "descriptors": [{"entries": [{"key": rate.key}], "token_bucket": tokens}],
    }
    return {"name": name, "typed_config": config}


def bucket(tokens: int, per_s: int) -> Config:
    """A token bucket that is filled every second."""
    return {"max_tokens": tokens, "tokens_per_fill": per_s, "fill_interval": f"{RETRY_S}s"}


def shared_limits(settings: GatewaySettings) -> list[Config]:
    """Asks the counters that all edges share; where they do not answer, the edge's own ones are the limit."""
    rates = [rate for rate in (address_rate(settings), *caller_rates(settings)) if rate.per_s]
    if not (settings.limit_service and rates):
        return []
    config = {
        "@type": FILTERS + "ratelimit.v3.RateLimit",
        "domain": DOMAIN,
        "timeout": f"{SERVICE_S}s",
        "failure_mode_deny": False,
        "rate_limited_as_resource_exhausted": True,
        "enable_x_ratelimit_headers": "DRAFT_VERSION_03",
        "response_headers_to_add": [header(LIMIT_HEADER, Bound.SHARED)],
        "rate_limit_service": {
            "grpc_service": {"envoy_grpc": {"cluster_name": "limits"}},
            "transport_api_version": "V3",
        },
        "rate_limits": [{"actions": [rate.action]} for rate in rates],
    }
    return [{"name": "shared_limits", "typed_config": config}]


def body_limit() -> Config:
    """Takes no body beyond the limit: exact, and an agent sees a call only when it has arrived as a whole."""
    return {
        "name": "envoy.filters.http.buffer",
        "typed_config": {"@type": FILTERS + "buffer.v3.Buffer", "max_request_bytes": MAX_BODY_BYTES},
    }


def overload_manager(settings: GatewaySettings) -> Config:
    """Sheds load before the kernel ends Envoy for its memory, and bounds connections."""
    monitors = [
        monitor(
            "global_downstream_max_connections",
            "downstream_connections.v3.DownstreamConnectionsConfig",
            {"max_active_downstream_connections": settings.max_connections},
        )
    ]
    actions = []
    if settings.heap_mb:
        size = {"max_heap_size_bytes": settings.heap_mb * MIB}
        monitors.append(monitor("fixed_heap", "fixed_heap.v3.FixedHeapConfig", size))
        shares = {
            "shrink_heap": CLEARED_AT,
            "stop_accepting_requests": REFUSED_AT,
            "stop_accepting_connections": LISTENING_AT,
        }
        actions = [overload_action(name, share) for name, share in shares.items()]
    return {"refresh_interval": "0.25s", "resource_monitors": monitors, "actions": actions}


def runtime() -> Config:
    """Bounds what one connection may do at a time: streams that it opens and resets, calls that it sends in one go."""
    bounds = {
        "overload.premature_reset_total_stream_count": RESETS,
        "overload.premature_reset_min_stream_lifetime_seconds": 1,
        "http.max_requests_per_io_cycle": CALLS_AT_A_TIME,
    }
    return {"layers": [{"name": "bounds", "static_layer": bounds}]}


def monitor(name: str, kind: str, config: Config) -> Config:
    """Watches one resource of Envoy."""
    full_type = TYPE + "envoy.extensions.resource_monitors." + kind
    return {"name": f"envoy.resource_monitors.{name}", "typed_config": {"@type": full_type} | config}


def overload_action(name: str, share: float) -> Config:
    """Does something as soon as the heap is used up to a share."""
    trigger = {"name": "envoy.resource_monitors.fixed_heap", "threshold": {"value": share}}
    return {"name": f"envoy.overload_actions.{name}", "triggers": [trigger]}


def shared_config(settings: GatewaySettings) -> dict[str, Any]:
    """Returns the configuration of envoyproxy/ratelimit: one descriptor for each rate that is on.

    Raises:
        SetupError: No rate is on, so that there is nothing to count.
    """
    rates = [rate for rate in (address_rate(settings), *caller_rates(settings)) if rate.per_s]
    if not rates:
        raise SetupError("no rate is on: set MESHWRIGHT_LIMIT_ADDRESS, _PRINCIPAL or _TENANT above 0")
    descriptors = [
        {"key": rate.key, "rate_limit": {"unit": "second", "requests_per_unit": rate.per_s}} for rate in rates
    ]
    return {"domain": DOMAIN, "descriptors": descriptors}


if __name__ == "__main__":
    sys.stdout.write(yaml.safe_dump(shared_config(GatewaySettings.load()), sort_keys=False))
