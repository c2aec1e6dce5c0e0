"""Envoy's bootstrap, rendered from settings: listeners and filters are static, agents come by files. Pure.

`python -m meshwright.gateway.bootstrap` prints it for the default settings: that text is committed as envoy.json. All
paths are relative to the folder that Envoy runs in.
"""

import ipaddress
import json
import sys
from importlib.resources import files
from typing import Any

from meshwright.gateway.settings import GatewaySettings

Config = dict[str, Any]
DESCRIPTORS, CDS, ADMIN, ACCESS_LOG = "descriptors.binpb", "cds.pb", "admin.sock", "access.log"
TYPE = "type.googleapis.com/"
FILTERS = TYPE + "envoy.extensions.filters.http."
SERVICES = [
    "agents.v1.AgentService",
    "agents.v1.TaskService",
    "agents.v1.SessionService",
    "registry.v1.ToolRegistryService",
    "registry.v1.AgentDirectoryService",
    "gateway.v1.EdgeService",
]
STREAM_IDLE_S = 300
"""An idle stream is cut after this; agents send a heartbeat every 15 s."""
MAX_BODY_BYTES = 4 * 2**20
STREAMS_PER_CONNECTION = 100
"""Upstream; beyond it Envoy opens a further connection, so that one of them is not the bottleneck of all watchers."""
MAX_REQUESTS = 10_000
"""Open calls a cluster: nearly all are watches that wait. What one process takes it decides itself, and says so."""
MAX_RETRIES = 100
"""At once; they happen only where no connection could be made, as when an instance was just stopped."""
HTTP2 = {
    "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
        "@type": TYPE + "envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {
            "http2_protocol_options": {
                "max_concurrent_streams": STREAMS_PER_CONNECTION,
                "connection_keepalive": {"interval": "30s", "timeout": "10s"},
            }
        },
    }
}
LIMITS = {"max_pending_requests": MAX_REQUESTS, "max_requests": MAX_REQUESTS, "max_retries": MAX_RETRIES}
LOCAL_REPLIES = {
    400: (3, "INVALID_REQUEST", "%LOCAL_REPLY_BODY%"),
    401: (16, "UNAUTHENTICATED", "%LOCAL_REPLY_BODY%"),
    403: (7, "%REQ(X-EDGE-REASON)%", "%LOCAL_REPLY_BODY%"),
    404: (5, "NOT_FOUND", "nothing is served here: see GET /v1/agents and the contract for what is"),
    408: (4, "REQUEST_TIMEOUT", "the request did not arrive in time"),
    413: (8, "REQUEST_TOO_LARGE", "the request is too large: at most 4 MiB"),
    415: (3, "%REQ(X-EDGE-REASON)%", "%LOCAL_REPLY_BODY%"),
    429: (8, "RATE_LIMITED", "too many requests: slow down"),
    431: (8, "REQUEST_TOO_LARGE", "the request's headers are too large"),
    500: (13, "INTERNAL", "the edge failed"),
    502: (14, "UNAVAILABLE", "the agent's answer could not be read: try again"),
    503: (14, "UNAVAILABLE", "the agent does not answer at the moment: try again"),
    504: (4, "DEADLINE_EXCEEDED", "no answer within the time of the call"),
}
"""By HTTP status: gRPC code, reason and message of what Envoy answers itself."""


def render(settings: GatewaySettings) -> Config:
    """Returns the whole bootstrap."""
    return {
        "node": {"id": "edge", "cluster": "meshwright"},
        "admin": {"address": {"pipe": {"path": ADMIN, "mode": 0o600}}},
        "static_resources": {
            "listeners": [edge_listener(settings), internal_listener(settings)],
            "clusters": [
                static_cluster("registry", settings.registry),
                static_cluster("gateway", f"{settings.host}:{settings.port}"),
                admin_cluster(),
            ],
        },
        "dynamic_resources": {"cds_config": file_source(CDS)},
    }


def file_source(path: str) -> Config:
    """Names a file that is replaced by rename in Envoy's own folder."""
    return {
        "path_config_source": {"path": path, "watched_directory": {"path": "."}},
        "resource_api_version": "V3",
    }


def edge_listener(settings: GatewaySettings) -> Config:
    """The one port for JSON, SSE, NDJSON, gRPC and gRPC-Web."""
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
        "local_reply_config": {"mappers": [no_agent_mapper(), overflow_mapper(), *map(reply_mapper, LOCAL_REPLIES)]},
        "route_config": routes(),
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


def is_http_error() -> list[Config]:
    """Matches errors for HTTP clients: gRPC clients read the status from trailers."""
    is_grpc = {"name": "content-type", "string_match": {"prefix": "application/grpc"}}
    no_grpc = is_grpc | {"invert_match": True, "treat_missing_header_as_empty": True}
    transcoded = {"name": "x-envoy-original-path", "present_match": True}
    either = {"or_filter": {"filters": [{"header_filter": {"header": header}} for header in (transcoded, no_grpc)]}}
    return [either]


def status_body(grpc_code: int, reason: str, message: str) -> Config:
    """Writes google.rpc.Status as JSON."""
    info = {
        "@type": TYPE + "google.rpc.ErrorInfo",
        "reason": reason,
        "domain": "meshwright",
        "metadata": {"request_id": "%REQ(X-REQUEST-ID)%"},
    }
    return {"json_format": {"code": grpc_code, "message": message, "details": [info]}}


def reply_mapper(status: int) -> Config:
    """Gives one of Envoy's own answers the form of all others."""
    value = {"default_value": status, "runtime_key": f"meshwright.status_{status}"}
    is_status = {"status_code_filter": {"comparison": {"op": "EQ", "value": value}}}
    return {
        "filter": {"and_filter": {"filters": [is_status, *is_http_error()]}},
        "body_format_override": status_body(*LOCAL_REPLIES[status]),
    }


def no_agent_mapper() -> Config:
    """A path that names an agent which is not here."""
    no_cluster = {"response_flag_filter": {"flags": ["NC"]}}
    message = "no such agent is here: GET /v1/agents lists who is"
    return {
        "filter": {"and_filter": {"filters": [no_cluster, *is_http_error()]}},
        "body_format_override": status_body(5, "AGENT_NOT_FOUND", message),
    }


def overflow_mapper() -> Config:
    """More open calls than a cluster may have."""
    overflow = {"response_flag_filter": {"flags": ["UO"]}}
    return {
        "filter": {"and_filter": {"filters": [overflow, *is_http_error()]}},
        "status_code": 429,
        "headers_to_add": [{"header": {"key": "retry-after", "value": "1"}}],
        "body_format_override": status_body(8, "OVERLOADED", "more calls are open than the edge passes on: try again"),
    }


def routes() -> Config:
    """Two routes, since a transcoder writes either Server-Sent Events or lines; Lua has chosen the cluster."""
    action = {
        "cluster_header": "x-agent-cluster",
        "cluster_not_found_response_code": "NOT_FOUND",
        "timeout": "0s",
        "idle_timeout": f"{STREAM_IDLE_S}s",
        "max_stream_duration": {"grpc_timeout_header_max": "0s"},
        "retry_policy": elsewhere(),
    }
    off = {"@type": TYPE + "envoy.config.route.v3.FilterConfig", "disabled": True}
    is_open = dict.fromkeys(("envoy.filters.http.grpc_json_transcoder", "rules"), off)
    json_type = [{"header": {"key": "content-type", "value": "application/json"}}]
    health = {
        "name": "health",
        "match": {"path": "/health"},
        "direct_response": {"status": 200, "body": {"inline_string": '{"status":"ok"}'}},
        "response_headers_to_add": [json_type[0] | {"append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}],
        "typed_per_filter_config": is_open,
    }
    events = {"name": "accept", "string_match": {"contains": "text/event-stream"}}
    sse = {
        "name": "sse",
        "match": {"prefix": "/", "headers": [events]},
        "route": action,
        "typed_per_filter_config": {"envoy.filters.http.grpc_json_transcoder": transcoder(is_sse=True)},
    }
    plain = {"name": "plain", "match": {"prefix": "/"}, "route": action}
    return {
        "name": "edge",
        "response_headers_to_remove": ["grpc-accept-encoding"],
        "response_headers_to_add": [{"header": {"key": "x-content-type-options", "value": "nosniff"}}],
        "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [health, sse, plain]}],
    }


def elsewhere() -> Config:
    """Tries another endpoint where one could not even be connected to: nothing was sent, so nothing is doubled."""
    predicate = TYPE + "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"
    return {
        "retry_on": "connect-failure,refused-stream",
        "num_retries": 3,
        "retry_host_predicate": [{"name": "previous_hosts", "typed_config": {"@type": predicate}}],
        "host_selection_retry_max_attempts": 5,
    }


def transcoder(*, is_sse: bool) -> Config:
    """JSON to protobuf and back, by the published descriptor set."""
    stream = "stream_sse_style_delimited" if is_sse else "stream_newline_delimited"
    return {
        "@type": FILTERS + "grpc_json_transcoder.v3.GrpcJsonTranscoder",
        "proto_descriptor": DESCRIPTORS,
        "services": SERVICES,
        "match_incoming_request_route": True,
        "convert_grpc_status": True,
        "max_request_body_size": MAX_BODY_BYTES,
        "request_validation_options": {
            "reject_unknown_method": True,
            "reject_unknown_query_parameters": True,
            "reject_binding_body_field_collisions": True,
        },
        "print_options": {"preserve_proto_field_names": True, "always_print_primitive_fields": True, stream: True},
    }


def http_filters(settings: GatewaySettings) -> list[Config]:
    """The filter chain, in the order in which a request meets it."""
    return [
        {"name": "envoy.filters.http.grpc_web", "typed_config": {"@type": FILTERS + "grpc_web.v3.GrpcWeb"}},
        {
            "name": "rules",
            "typed_config": {
                "@type": FILTERS + "lua.v3.Lua",
                "default_source_code": {"inline_string": rules(settings)},
            },
        },
        {"name": "envoy.filters.http.grpc_json_transcoder", "typed_config": transcoder(is_sse=False)},
        {
            "name": "envoy.filters.http.grpc_stats",
            "typed_config": {
                "@type": FILTERS + "grpc_stats.v3.FilterConfig",
                "stats_for_all_methods": True,
                "enable_upstream_stats": True,
                "replace_dots_in_grpc_service_name": True,
            },
        },
        {
            "name": "envoy.filters.http.router",
            "typed_config": {"@type": FILTERS + "router.v3.Router", "suppress_envoy_headers": True},
        },
    ]


def rules(settings: GatewaySettings) -> str:
    """Returns the edge's rules in Lua, with what settings say in front."""
    hosts = ", ".join(f"[{json.dumps(host)}] = true" for host in settings.allowed_hosts.split())
    source = (files("meshwright.gateway") / "edge.lua").read_text()
    return f"local DEFAULT_AGENT = {json.dumps(settings.default_agent)}\nlocal HOSTS = {{{hosts}}}\n{source}"


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


def static_cluster(name: str, target: str) -> Config:
    """A service at a fixed address."""
    host, port = split_target(target)
    address = {"socket_address": {"address": host, "port_value": port}}
    return {
        "name": name,
        "type": "STATIC" if is_address(host) else "STRICT_DNS",
        "connect_timeout": "1s",
        "circuit_breakers": {"thresholds": [LIMITS]},
        "typed_extension_protocol_options": HTTP2,
        "load_assignment": assignment(name, address),
    }


def split_target(target: str) -> tuple[str, int]:
    """Returns host and port of a target, the host of an IPv6 one without its brackets."""
    host, _, port = target.rpartition(":")
    return host.removeprefix("[").removesuffix("]"), int(port)


def is_address(host: str) -> bool:
    """Tells whether a host is an IP address, and not a name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def admin_cluster() -> Config:
    """Envoy's own admin interface, behind a socket that only this user opens."""
    return {
        "name": "admin",
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": assignment("admin", {"pipe": {"path": ADMIN}}),
    }


def assignment(name: str, address: Config) -> Config:
    """One endpoint."""
    return {"cluster_name": name, "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}]}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(render(GatewaySettings(port=8082)), indent=2) + "\n")
