"""The edge's filter chain. Pure."""

import json
from importlib.resources import files

from meshwright.gateway.authentication import authorization_filter, jwt_filter, takes_tokens
from meshwright.gateway.browsers import cors_filter, security_headers
from meshwright.gateway.config import DESCRIPTORS, FILTERS, Config
from meshwright.gateway.settings import GatewaySettings

SERVICES = [
    "agents.v1.AgentService",
    "agents.v1.TaskService",
    "agents.v1.SessionService",
    "agents.v1.WebhookService",
    "registry.v1.ToolRegistryService",
    "registry.v1.AgentDirectoryService",
    "gateway.v1.EdgeService",
]
MAX_BODY_BYTES = 4 * 2**20


def http_filters(settings: GatewaySettings) -> list[Config]:
    """The filter chain, in the order in which a request meets it."""
    return [
        security_headers(has_tls=False),
        cors_filter(),
        {"name": "envoy.filters.http.grpc_web", "typed_config": {"@type": FILTERS + "grpc_web.v3.GrpcWeb"}},
        {
            "name": "rules",
            "typed_config": {
                "@type": FILTERS + "lua.v3.Lua",
                "default_source_code": {"inline_string": rules(settings)},
            },
        },
        *auth_filters(settings),
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


def auth_filters(settings: GatewaySettings) -> list[Config]:
    """Finds out who is calling, where that is asked for: nothing else costs a call its time."""
    tokens = [jwt_filter(settings)] if takes_tokens(settings) else []
    return [*tokens, authorization_filter()] if settings.auth != "none" else []


def auth_names(settings: GatewaySettings) -> list[str]:
    """Names the filters that a route which is open to everybody switches off."""
    return [str(one["name"]) for one in auth_filters(settings)]


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


def rules(settings: GatewaySettings) -> str:
    """Returns the edge's rules in Lua, with what settings say in front."""
    hosts = ", ".join(f"[{json.dumps(host)}] = true" for host in settings.allowed_hosts.split())
    origins = ", ".join(f"[{json.dumps(origin)}] = true" for origin in settings.cors_origins.split())
    source = (files("meshwright.gateway") / "edge.lua").read_text()
    given = f"local HOSTS = {{{hosts}}}\nlocal ORIGINS = {{{origins}}}\n"
    return f"local DEFAULT_AGENT = {json.dumps(settings.default_agent)}\n{given}{source}"
