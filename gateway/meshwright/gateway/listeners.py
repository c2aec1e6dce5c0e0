"""Envoy's listener for callers: the edge. Pure."""

from meshwright.gateway.authentication import CHECKED, refusals
from meshwright.gateway.config import ACCESS_LOG, TYPE, Config
from meshwright.gateway.filters import http_filters
from meshwright.gateway.replies import TRANSCODED, header, is_grpc, is_http_error, mappers
from meshwright.gateway.routes import STREAM_IDLE_S, routes
from meshwright.gateway.settings import GatewaySettings
from meshwright.gateway.spans import span_target, tracing

MAX_HEADERS_KB = 12
"""An agent takes 16 KiB, where each header counts for 32 bytes more than it is long."""
MAX_HEADERS = 100
CONNECTION_IDLE_S = 3600
NOBODY = [{"address_prefix": "255.255.255.255", "prefix_len": 32}]
"""Callers whose `x-envoy-*` headers count. With an empty list they would be those of all private addresses."""

LOGGED_PATH, LOGGED_AGENT, TRACEPARENT, REASON = 512, 200, 55, 64
"""Characters of what others choose that stand in the log."""


def edge_listener(settings: GatewaySettings) -> Config:
    """The one port for JSON, SSE, NDJSON, gRPC and gRPC-Web."""
    manager = {
        "@type": TYPE + "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "edge",
        "codec_type": "AUTO",
        "use_remote_address": True,
        "xff_num_trusted_hops": settings.trusted_hops,
        "internal_address_config": {"unix_sockets": False, "cidr_ranges": NOBODY},
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
        "access_log": access_logs(settings),
        **tracing(settings),
        "local_reply_config": {"mappers": [*refusals(settings), *mappers(settings.default_agent)]},
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
        "x-mesh-trace",
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


def access_logs(settings: GatewaySettings) -> list[Config]:
    """One JSON object a request, without bodies, credentials and query values; what callers choose is cut.

    Calls of gRPC alone have a code of gRPC: of others Envoy would make one up from the HTTP status. Probes of /health
    are left out: there are more of them than of anything else, and they say nothing.
    """
    (is_http,) = is_http_error()
    is_call = {"header_filter": {"header": is_grpc()}}
    untranscoded = {"header_filter": {"header": TRANSCODED | {"invert_match": True}}}
    line = access_line(settings)
    return [
        access_log(settings, line, [is_http]),
        access_log(settings, line | {"grpc": "%GRPC_STATUS%"}, [is_call, untranscoded]),
    ]


def access_line(settings: GatewaySettings) -> Config:
    """What a line says of every request."""
    trace_id = "%TRACE_ID%" if span_target(settings) else "%DYNAMIC_METADATA(meshwright:trace)%"
    return {
        "time": "%START_TIME%",
        "method": "%REQ(X-ENVOY-ORIGINAL-METHOD?:METHOD)%",
        "path": f"%PATH(NQ):{LOGGED_PATH}%",
        "status": "%RESPONSE_CODE%",
        "flags": "%RESPONSE_FLAGS%",
        "details": "%RESPONSE_CODE_DETAILS%",
        "ms": "%DURATION%",
        "bytes": "%BYTES_SENT%",
        "bytes_in": "%BYTES_RECEIVED%",
        "user_agent": f"%REQ(USER-AGENT):{LOGGED_AGENT}%",
        "trace_id": trace_id,
        "traceparent": f"%REQ(TRACEPARENT):{TRACEPARENT}%",
        "cluster": "%UPSTREAM_CLUSTER%",
        "address": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
        "tenant": "%REQ(X-MESH-TENANT)%",
        "principal": "%REQ(X-MESH-PRINCIPAL)%",
        "refused": f"%DYNAMIC_METADATA(meshwright:reason):{REASON}%",
        "unauthenticated": f"%DYNAMIC_METADATA({CHECKED}:reason)%",
        "request_id": "%REQ(X-REQUEST-ID)%",
        "task_id": "%RESP(X-TASK-ID)%",
    }


def access_log(settings: GatewaySettings, line: Config, found: list[Config]) -> Config:
    """Writes lines of the requests that are found."""
    loggers = TYPE + "envoy.extensions.access_loggers."
    place = {
        "file": {"@type": loggers + "file.v3.FileAccessLog", "path": ACCESS_LOG},
        "stdout": {"@type": loggers + "stream.v3.StdoutAccessLog"},
    }
    return {
        "name": f"envoy.access_loggers.{settings.access_log}",
        "filter": {"and_filter": {"filters": [{"not_health_check_filter": {}}, *found]}},
        "typed_config": place[settings.access_log] | {"log_format": {"json_format": line}},
    }
