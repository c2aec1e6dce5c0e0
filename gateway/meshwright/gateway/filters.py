"""The edge's filter chain. Pure."""

import json
from importlib.resources import files

from meshwright.core.access import RULES
from meshwright.core.api_key import KNOWN_MS
from meshwright.gateway.authentication import authorization_filter, jwt_filter, takes_tokens
from meshwright.gateway.browsers import cors_filter, security_headers
from meshwright.gateway.config import DESCRIPTORS, FILTERS, Config
from meshwright.gateway.limits import MAX_BODY_BYTES, address_limit, body_limit, caller_limits, shared_limits
from meshwright.gateway.replies import SERVERS_OWN
from meshwright.gateway.settings import GatewaySettings
from meshwright.gateway.spans import span_target

SERVICES = [
    "agents.v1.AgentService",
    "agents.v1.TaskService",
    "agents.v1.SessionService",
    "agents.v1.WebhookService",
    "registry.v1.ToolRegistryService",
    "registry.v1.AgentDirectoryService",
    "gateway.v1.EdgeService",
]


def http_filters(settings: GatewaySettings) -> list[Config]:
    """The filter chain, in the order in which a request meets it."""
    return [
        security_headers(has_tls=bool(settings.edge_tls_dir), has_origins=bool(settings.cors_origins.strip())),
        cors_filter(),
        health_check(),
        {"name": "envoy.filters.http.grpc_web", "typed_config": {"@type": FILTERS + "grpc_web.v3.GrpcWeb"}},
        *address_limit(settings),
        lua("rules", rules(settings)),
        *auth_filters(settings),
        *(caller_limits(settings) if settings.auth != "none" else []),
        *shared_limits(settings),
        body_limit(),
        {"name": "envoy.filters.http.grpc_json_transcoder", "typed_config": transcoder(is_sse=False)},
        lua("reasons", reasons()),
        {
            "name": "envoy.filters.http.grpc_stats",
            "typed_config": {
                "@type": FILTERS + "grpc_stats.v3.FilterConfig",
                "stats_for_all_methods": True,  # all that the rules let through
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


def limit_names(settings: GatewaySettings) -> list[str]:
    """Names the filters with token buckets, for the same routes."""
    filters = [*address_limit(settings), *(caller_limits(settings) if settings.auth != "none" else [])]
    return [str(one["name"]) for one in filters]


def health_check() -> Config:
    """Answers 503 at /health while Envoy drains, so that balancers send nothing new."""
    is_health = {"name": ":path", "string_match": {"exact": "/health"}}
    config = {"@type": FILTERS + "health_check.v3.HealthCheck", "pass_through_mode": True, "headers": [is_health]}
    return {"name": "envoy.filters.http.health_check", "typed_config": config}


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
    given = f"local DEFAULT_AGENT = {json.dumps(settings.default_agent)}\nlocal HOSTS = {{{hosts}}}\n"
    given += f"local ORIGINS = {{{origins}}}\nlocal KNOWN_MS = {0 if settings.auth == 'none' else KNOWN_MS}\n"
    methods = ", ".join(f"[{json.dumps(path)}] = true" for path, rule in RULES.items() if rule.scope or rule.is_open)
    given += f"local METHODS = {{{methods}}}\n"
    given += f"local NAMES_TRACES = {json.dumps(settings.tracing and not span_target(settings))}\n"
    return given + text("status.lua") + text("callers.lua") + text("events.lua") + text("edge.lua")


def reasons() -> str:
    """Returns, in Lua, how a status without details gets its reason."""
    known = ", ".join(f"[{code}] = {json.dumps(reason)}" for code, reason in SERVERS_OWN.items())
    return f"local REASONS = {{{known}}}\n" + text("status.lua") + text("reasons.lua")


def text(name: str) -> str:
    """Reads one of the files in Lua."""
    return (files("meshwright.gateway") / name).read_text()


def lua(name: str, source: str) -> Config:
    """A filter in Lua."""
    config = {"@type": FILTERS + "lua.v3.Lua", "default_source_code": {"inline_string": source}}
    return {"name": name, "typed_config": config}
