"""Envoy's listeners: the edge, and one for metrics. Pure."""

from meshwright.gateway.authentication import refusals
from meshwright.gateway.config import ACCESS_LOG, FILTERS, TYPE, Config
from meshwright.gateway.filters import http_filters
from meshwright.gateway.replies import LOCAL_REPLIES, no_agent_mapper, overflow_mapper, reply_mapper
from meshwright.gateway.routes import STREAM_IDLE_S, routes
from meshwright.gateway.settings import GatewaySettings


def edge_listener(settings: GatewaySettings) -> Config:
    """The one port for JSON, SSE, NDJSON, gRPC and gRPC-Web."""
    mappers = [*refusals(settings), no_agent_mapper(), overflow_mapper(), *map(reply_mapper, LOCAL_REPLIES)]
    manager = {
        "@type": TYPE + "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "edge",
        "codec_type": "AUTO",
        "use_remote_address": True,
        "server_header_transformation": "PASS_THROUGH",
        "normalize_path": True,
        "merge_slashes": True,
        "path_with_escaped_slashes_action": "REJECT_REQUEST",
        "common_http_protocol_options": {"idle_timeout": "3600s", "headers_with_underscores_action": "REJECT_REQUEST"},
        "http2_protocol_options": {
            "max_concurrent_streams": 256,
            "initial_stream_window_size": 65536,
            "initial_connection_window_size": 1048576,
            "connection_keepalive": {"interval": "30s", "timeout": "10s"},
        },
        "stream_idle_timeout": f"{STREAM_IDLE_S}s",
        "request_headers_timeout": "10s",
        "drain_timeout": "5s",
        "early_header_mutation_extensions": [early_mutation()],
        "access_log": [access_log()],
        "local_reply_config": {"mappers": mappers},
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
    )
    return {
        "name": "strip",
        "typed_config": {
            "@type": TYPE + "envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation",
            "mutations": [{"remove": name} for name in inside],
        },
    }


def access_log() -> Config:
    """One JSON object a request, without bodies and without query values."""
    line = {
        "time": "%START_TIME%",
        "method": "%REQ(X-ENVOY-ORIGINAL-METHOD?:METHOD)%",
        "path": "%PATH(NQ)%",
        "status": "%RESPONSE_CODE%",
        "grpc": "%GRPC_STATUS%",
        "flags": "%RESPONSE_FLAGS%",
        "details": "%RESPONSE_CODE_DETAILS%",
        "ms": "%DURATION%",
        "bytes": "%BYTES_SENT%",
        "cluster": "%UPSTREAM_CLUSTER%",
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
