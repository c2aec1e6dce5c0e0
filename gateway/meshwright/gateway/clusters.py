"""Envoy's static clusters: services at fixed addresses. Pure."""

import ipaddress

from meshwright.gateway.config import TYPE, Config

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
HEALTH_CHECK = {
    "timeout": "1s",
    "interval": "1s",
    "no_traffic_interval": "1s",
    "unhealthy_threshold": 2,
    "healthy_threshold": 1,
    "grpc_health_check": {},
}
"""As agents are asked: what takes no new calls is seen within three seconds."""
LIMITS = {"max_pending_requests": MAX_REQUESTS, "max_requests": MAX_REQUESTS, "max_retries": MAX_RETRIES}


def static_cluster(name: str, target: str, transport: Config | None = None) -> Config:
    """A service at a fixed address.

    Args:
        name: Of the cluster.
        target: host:port.
        transport: How it is reached, as `tls.upstream` says; None: in plain text.
    """
    host, port = split_target(target)
    address = {"socket_address": {"address": host, "port_value": port}}
    return {
        "name": name,
        "type": "STATIC" if is_address(host) else "STRICT_DNS",
        "connect_timeout": "1s",
        "circuit_breakers": {"thresholds": [LIMITS]},
        "typed_extension_protocol_options": HTTP2,
        "load_assignment": assignment(name, address),
    } | (transport or {})


def process_cluster(name: str, target: str, transport: Config | None = None) -> Config:
    """A process of the mesh at a fixed address, which is asked for its health.

    The answer is told in metrics and decides nothing: the one address there is gets calls in any case, because Envoy
    deals them out among all endpoints of a cluster while fewer than half of them answer.

    Args:
        name: Of the cluster.
        target: host:port.
        transport: As `static_cluster` has it.
    """
    return static_cluster(name, target, transport) | {"health_checks": [HEALTH_CHECK]}


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


def assignment(name: str, address: Config) -> Config:
    """One endpoint."""
    return {"cluster_name": name, "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}]}
