"""Envoy's metrics for a scraper: one path of its admin interface, on a listener of its own. Pure.

Whoever reaches the listener reads figures and nothing else. It answers while the edge sheds load, when somebody
looks at it; so it has bounds of its own.
"""

from meshwright.gateway.clusters import assignment
from meshwright.gateway.config import ADMIN, FILTERS, TYPE, Config
from meshwright.gateway.listeners import listener
from meshwright.gateway.settings import GatewaySettings

MOST_CONNECTIONS = 16
"""Scrapers at once; further connections are closed."""
MOST_SCRAPES = 4
"""Answers that are made at once: each is made by Envoy's main thread. Further ones are answered 503."""
SCRAPE_S = 10
IDLE_S = 120
"""Longer than the pause between two scrapes."""
ARRIVAL_S = 5
MAX_HEADERS_KB = 8
METRICS = {
    "path": "/metrics",
    "headers": [
        # all of it: a query would reach the admin interface
        {"name": ":path", "string_match": {"exact": "/metrics"}},
        {"name": ":method", "string_match": {"exact": "GET"}},
    ],
}


def internal_listener(settings: GatewaySettings) -> Config:
    """The listener: `GET /metrics`, and 404 for all else."""
    manager = {
        "@type": TYPE + "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "internal",
        "codec_type": "HTTP1",  # a connection asks one thing at a time
        "max_request_headers_kb": MAX_HEADERS_KB,
        "common_http_protocol_options": {"idle_timeout": f"{IDLE_S}s"},
        "request_headers_timeout": f"{ARRIVAL_S}s",
        "request_timeout": f"{ARRIVAL_S}s",
        "stream_idle_timeout": f"{SCRAPE_S}s",
        "route_config": {
            "name": "internal",
            "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [{"match": METRICS, "route": scrape()}]}],
        },
        "http_filters": [
            {"name": "envoy.filters.http.router", "typed_config": {"@type": FILTERS + "router.v3.Router"}}
        ],
    }
    made = listener("internal", settings.internal_host, settings.internal_port, manager)
    made["filter_chains"][0]["filters"].insert(0, connection_limit())
    return made | {"ignore_global_conn_limit": True, "bypass_overload_manager": True}


def scrape() -> Config:
    """The one question to the admin interface: what has been counted so far."""
    return {"cluster": "admin", "prefix_rewrite": "/stats/prometheus?usedonly", "timeout": f"{SCRAPE_S}s"}


def connection_limit() -> Config:
    """Closes what is too much, since the edge's own bound does not count here."""
    kind = "envoy.extensions.filters.network.connection_limit.v3.ConnectionLimit"
    config = {"@type": TYPE + kind, "stat_prefix": "internal", "max_connections": MOST_CONNECTIONS}
    return {"name": "envoy.filters.network.connection_limit", "typed_config": config}


def admin_cluster() -> Config:
    """Envoy's own admin interface, behind a socket that only this user opens."""
    most = dict.fromkeys(("max_connections", "max_pending_requests", "max_requests"), MOST_SCRAPES)
    return {
        "name": "admin",
        "type": "STATIC",
        "connect_timeout": "1s",
        "circuit_breakers": {"thresholds": [most]},
        "load_assignment": assignment("admin", {"pipe": {"path": ADMIN}}),
    }
