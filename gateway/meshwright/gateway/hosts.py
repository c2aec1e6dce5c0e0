"""Host names that the edge answers to, held against where it listens. Pure."""

from meshwright.core.server import is_loopback
from meshwright.gateway.settings import GatewaySettings


def unreachable(settings: GatewaySettings) -> str:
    """Says why callers from elsewhere get 403; empty: they do not.

    Such an edge starts all the same: a container's port may be published on loopback alone.
    """
    hosts = settings.allowed_hosts.split()
    if is_loopback(settings.edge_host) or not all(is_loopback(host.strip("[]")) for host in hosts):
        return ""
    return f"it listens on {settings.edge_host} and answers requests for {', '.join(hosts)} alone, others get 403"
