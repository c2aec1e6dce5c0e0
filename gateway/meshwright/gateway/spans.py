"""Spans that the edge itself sends. Pure."""

from urllib.parse import urlsplit

from meshwright.gateway.config import TYPE, Config
from meshwright.gateway.settings import GatewaySettings

OTLP_PORT = 4317


def tracing(settings: GatewaySettings) -> Config:
    """Spans of the edge and of its calls to services, for the traces that callers or the edge have begun.

    Whether a trace is kept says whoever began it. What begins here is kept at the highest of all rates, since it is not
    known yet whose it is; see `core.sampling`.
    """
    if not span_target(settings):
        return {}
    highest = max(settings.trace_rate, *settings.tenant_trace_rates.values(), 0.0)
    config = {
        "@type": TYPE + "envoy.config.trace.v3.OpenTelemetryConfig",
        "grpc_service": {"envoy_grpc": {"cluster_name": "spans"}, "timeout": "1s"},
        "service_name": "meshwright-edge",
    }
    return {
        "tracing": {
            "provider": {"name": "envoy.tracers.opentelemetry", "typed_config": config},
            "random_sampling": {"value": 100 * highest},
            "spawn_upstream_span": True,
            "max_path_tag_length": 128,
        }
    }


def span_target(settings: GatewaySettings) -> str:
    """Returns host:port of the collector of spans; empty: none, or one behind TLS, to which only services send."""
    parts = urlsplit(settings.otlp_endpoint)
    if not settings.tracing or parts.scheme != "http" or not parts.hostname:
        return ""
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{host}:{parts.port or OTLP_PORT}"
