"""The edge's routes. Pure."""

from meshwright.gateway.browsers import cors_policy
from meshwright.gateway.config import TYPE, Config
from meshwright.gateway.filters import auth_names, limit_names, transcoder
from meshwright.gateway.settings import GatewaySettings

STREAM_IDLE_S = 300
"""An idle stream is cut after this; agents send a heartbeat every 15 s."""


def routes(settings: GatewaySettings) -> Config:
    """Two routes, since a transcoder writes either Server-Sent Events or lines; Lua has chosen the cluster."""
    longest = f"{settings.stream_max_s}s"
    action = {
        "cluster_header": "x-agent-cluster",
        "cluster_not_found_response_code": "NOT_FOUND",
        "timeout": "0s",
        "idle_timeout": f"{STREAM_IDLE_S}s",
        "max_stream_duration": {"max_stream_duration": longest, "grpc_timeout_header_max": longest},
        "retry_policy": elsewhere(),
    }
    off = {"@type": TYPE + "envoy.config.route.v3.FilterConfig", "disabled": True}
    off_here = (
        "envoy.filters.http.grpc_json_transcoder",
        "rules",
        "reasons",
        *limit_names(settings),
        *auth_names(settings),
    )
    is_open = dict.fromkeys(off_here, off)
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
    everything = {
        "name": "all",
        "domains": ["*"],
        "routes": [health, sse, plain],
        "typed_per_filter_config": cors_policy(settings),
    }
    return {
        "name": "edge",
        "response_headers_to_remove": ["grpc-accept-encoding"],
        "virtual_hosts": [everything],
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
