"""What browsers are told: which sites' pages may call the edge, and what a browser may do with an answer. Pure."""

from meshwright.gateway.config import FILTERS, Config
from meshwright.gateway.settings import GatewaySettings

CORS = "envoy.filters.http.cors"
METHODS = "GET, POST, DELETE"
REQUEST_HEADERS = (
    "accept",
    "authorization",
    "content-type",
    "grpc-timeout",
    "idempotency-key",
    "last-event-id",
    "traceparent",
    "x-agent-id",
    "x-api-key",
    "x-grpc-web",
    "x-request-timeout",
    "x-user-agent",
)
"""What a page may send; cookies are none of it, the edge has none."""
ANSWER_HEADERS = (
    "grpc-message",
    "grpc-status",
    "grpc-status-details-bin",
    "retry-after",
    "www-authenticate",
    "x-ratelimit-bucket",
    "x-ratelimit-limit",
    "x-ratelimit-remaining",
    "x-ratelimit-reset",
    "x-request-id",
    "x-task-id",
)
"""What a page may read of an answer, beside its body."""
PREFLIGHT_S = 600
TLS_ONLY_S = 31_536_000
"""For a year a browser comes by TLS alone."""
ALWAYS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
}
UNLESS_SAID = {
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "cache-control": "no-store",
}
"""Of answers that say nothing themselves, as the pages do: they run nothing, are shown in no frame and kept nowhere."""


def cors_filter() -> Config:
    """Answers preflights, before anybody is asked who is calling, and lets pages of listed origins read answers."""
    return {"name": CORS, "typed_config": {"@type": FILTERS + "cors.v3.Cors"}}


def cors_policy(settings: GatewaySettings) -> Config:
    """Returns whose pages may call, for all routes; other preflights go on, and are refused as what they are."""
    return {
        CORS: {
            "@type": FILTERS + "cors.v3.CorsPolicy",
            "allow_origin_string_match": [{"exact": origin} for origin in settings.cors_origins.split()],
            "allow_methods": METHODS,
            "allow_headers": ", ".join(REQUEST_HEADERS),
            "expose_headers": ", ".join(ANSWER_HEADERS),
            "max_age": str(PREFLIGHT_S),
        }
    }


def security_headers(*, has_tls: bool, has_origins: bool) -> Config:
    """Adds to every answer what a browser may do with it.

    Args:
        has_tls: Callers come by TLS: browsers are told never to come without it again.
        has_origins: Pages of listed origins may call, and are told so: a cache keeps answers apart by origin.
    """
    always = ALWAYS | ({"strict-transport-security": f"max-age={TLS_ONLY_S}"} if has_tls else {})
    mutations = [_append(name, value, "OVERWRITE_IF_EXISTS_OR_ADD") for name, value in always.items()]
    mutations += [_append(name, value, "ADD_IF_ABSENT") for name, value in UNLESS_SAID.items()]
    mutations += [_append("vary", "origin", "APPEND_IF_EXISTS_OR_ADD")] * has_origins
    mutations += [{"remove": "x-envoy-upstream-healthchecked-cluster"}]
    return {
        "name": "security_headers",
        "typed_config": {
            "@type": FILTERS + "header_mutation.v3.HeaderMutation",
            "mutations": {"response_mutations": mutations},
        },
    }


def _append(name: str, value: str, action: str) -> Config:
    return {"append": {"header": {"key": name, "value": value}, "append_action": action}}
