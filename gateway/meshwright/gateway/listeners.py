"""Envoy's listeners: the edge, and one for metrics. Pure."""

from urllib.parse import urlsplit

from meshwright.gateway.authentication import CHECKED, refusals
from meshwright.gateway.config import ACCESS_LOG, FILTERS, TYPE, Config
from meshwright.gateway.filters import http_filters
from meshwright.gateway.replies import header, mappers
from meshwright.gateway.routes import STREAM_IDLE_S, routes
from meshwright.gateway.settings import GatewaySettings

MAX_HEADERS_KB = 12
"""An agent takes 16 KiB, where each header counts for 32 bytes more than it is long."""
MAX_HEADERS = 100
CONNECTION_IDLE_S = 3600
OTLP_PORT = 4317

LOGGED_PATH, LOGGED_AGENT, TRACEPARENT = 512, 200, 55
"""Characters of what callers choose that stand in the log."""


def edge_listener(settings: GatewaySettings) -> Config:
    """The one port for JSON, SSE, NDJSON, gRPC and gRPC-Web."""
    manager = {
        "@type": TYPE + "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "edge",
        "codec_type": "AUTO",
        "use_remote_address": True,
        "xff_num_trusted_hops": settings.trusted_hops,
        "internal_address_config": {"unix_sockets": False},
        "always_set_request_id_in_response": True,
        "server_header_transformation": "PASS_THROUGH",
        "normalize_path": True,
        "merge_slashes": True,
        "path_with_escaped_slashes_action": "REJECT_REQUEST",
        "max_request_headers_kb": MAX_HEADERS_KB,
        "common_http_protocol_options": {
            "idle_timeout": f"{CONNECTION_IDLE_S}s",
            "headers_with_underscores_action": "REJECT_REQUEST",
            "max_headers_count": MAX_HEADERS,
        },
        "http2_protocol_options": {
            "max_concurrent_streams": settings.connection_streams,
            "initial_stream_window_size": 65536,
            "initial_connection_window_size": 1048576,
            "connection_keepalive": {"interval": "30s", "timeout": "10s"},
        },
        "stream_idle_timeout": f"{STREAM_IDLE_S}s",
        "request_headers_timeout": f"{settings.headers_timeout_s}s",
        "request_timeout": f"{settings.request_timeout_s}s",
        "drain_timeout": "5s",
        "early_header_mutation_extensions": [early_mutation(), kept_deadline()],
        "access_log": [access_log()],
        **tracing(settings),
        "local_reply_config": {"mappers": [*refusals(settings), *mappers()]},
        "route_config": routes(settings),
        "http_filters": http_filters(settings),
    }
    return listener("edge", settings.edge_host, settings.edge_port, manager)


def listener(name: str, host: str, port: int, manager: Config) -> Config:
    """A plain-text listener with one HTTP connection manager."""
    return {
        "name": name,
        "address": {"socket_address": {"address": host, "port_value": port}},
        "per_connection_buffer_limit_bytes": 1048576,
        "enable_reuse_port": False,
        "filter_chains": [
            {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
        ],
    }


def early_mutation() -> Config:
    """Strips what only the mesh itself may say, before anything looks at the request."""
    inside = (
        "x-mesh-grant-bin",
        "x-mesh-identity-bin",
        "x-mesh-tenant",
        "x-mesh-principal",
        "x-mesh-scopes",
        "x-agent-cluster",
        "x-edge-reason",
        "x-edge-timeout",
    )
    return header_mutation("strip", [{"remove": name} for name in inside])


def kept_deadline() -> Config:
    """Keeps the time of a gRPC call from Envoy until the rules have read it: one that it cannot read it replaces."""
    mark = {"header": {"key": "grpc-timeout", "value": "=%REQ(GRPC-TIMEOUT)%"}, "append_action": "OVERWRITE_IF_EXISTS"}
    return header_mutation("deadline", [{"append": mark}, {"append": header("x-edge-timeout", "%REQ(GRPC-TIMEOUT)%")}])


def header_mutation(name: str, mutations: list[Config]) -> Config:
    """Changes the headers of a request before anything looks at it."""
    return {
        "name": name,
        "typed_config": {
            "@type": TYPE + "envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation",
            "mutations": mutations,
        },
    }


def access_log() -> Config:
    """One JSON object a request, without bodies, credentials and query values; what callers choose is cut."""
    line = {
        "time": "%START_TIME%",
        "method": "%REQ(X-ENVOY-ORIGINAL-METHOD?:METHOD)%",
        "path": f"%PATH(NQ):{LOGGED_PATH}%",
        "status": "%RESPONSE_CODE%",
        "grpc": "%GRPC_STATUS%",
        "flags": "%RESPONSE_FLAGS%",
        "details": "%RESPONSE_CODE_DETAILS%",
        "ms": "%DURATION%",
        "bytes": "%BYTES_SENT%",
        "bytes_in": "%BYTES_RECEIVED%",
        "user_agent": f"%REQ(USER-AGENT):{LOGGED_AGENT}%",
        "trace_id": "%TRACE_ID%",
        "traceparent": f"%REQ(TRACEPARENT):{TRACEPARENT}%",
        "cluster": "%UPSTREAM_CLUSTER%",
        "address": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
        "tenant": "%REQ(X-MESH-TENANT)%",
        "principal": "%REQ(X-MESH-PRINCIPAL)%",
        "refused": "%REQ(X-EDGE-REASON)%",
        "unauthenticated": f"%DYNAMIC_METADATA({CHECKED}:reason)%",
        "request_id": "%REQ(X-REQUEST-ID)%",
        "task_id": "%RESP(X-TASK-ID)%",
    }
    return {
        "name": "envoy.access_loggers.file",
        "typed_config": {
            "@type": TYPE + "envoy.extensions.access_loggers.file.v3.FileAccessLog",
            "path": ACCESS_LOG,
            "log_format": {"json_format": line},
        },
    }


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


def internal_listener(settings: GatewaySettings) -> Config:
    """Metrics for the scraper, on loopback."""
    manager = {
        "@type": TYPE + "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "internal",
        "route_config": {
            "name": "internal",
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [
                        {
                            "match": {"path": "/metrics"},
                            "route": {"cluster": "admin", "prefix_rewrite": "/stats/prometheus?usedonly"},
                        }
                    ],
                }
            ],
        },
        "http_filters": [
            {"name": "envoy.filters.http.router", "typed_config": {"@type": FILTERS + "router.v3.Router"}}
        ],
    }
    return listener("internal", "127.0.0.1", settings.internal_port, manager)
