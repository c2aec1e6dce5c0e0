"""Discovery: Envoy's clusters and endpoints as files, kept true to the directory."""

import os
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path

import structlog
from envoy_data_plane.envoy.config.cluster.v3 import (
    CircuitBreakers,
    CircuitBreakersThresholds,
    Cluster,
    ClusterCommonLbConfig,
    ClusterDiscoveryType,
    ClusterEdsClusterConfig,
    ClusterLbPolicy,
    OutlierDetection,
)
from envoy_data_plane.envoy.config.core.v3 import (
    Address,
    ApiVersion,
    ConfigSource,
    HealthCheck,
    HealthCheckGrpcHealthCheck,
    Http2ProtocolOptions,
    KeepaliveSettings,
    PathConfigSource,
    SocketAddress,
    TransportSocket,
    WatchedDirectory,
)
from envoy_data_plane.envoy.config.endpoint.v3 import (
    ClusterLoadAssignment,
    Endpoint,
    LbEndpoint,
    LocalityLbEndpoints,
)
from envoy_data_plane.envoy.extensions.transport_sockets.tls.v3 import UpstreamTlsContext
from envoy_data_plane.envoy.extensions.upstreams.http.v3 import (
    HttpProtocolOptions,
    HttpProtocolOptionsExplicitHttpConfig,
)
from envoy_data_plane.envoy.service.discovery.v3 import DiscoveryResponse
from envoy_data_plane.envoy.type.v3 import Percent
from envoy_data_plane.google.protobuf import Any

from meshwright.core.role import Role
from meshwright.gateway.clusters import LIMITS, STREAMS_PER_CONNECTION, is_address, split_target
from meshwright.gateway.config import CDS
from meshwright.gateway.tls import upstream_context
from meshwright.gen.registry.v1.agent_directory_service_pb2 import AgentCard

log = structlog.get_logger("discovery")
ALL = "agents"
"""The cluster of every agent: any of them serves any task of the mesh."""
OF_AGENT = "agent-"
"""Begins the name of one agent's cluster."""
PING_S, PONG_S = 12.0, 6.0
"""How often a connection to an agent is asked for a sign of life, and how long that may take. An endpoint that fails
its health check gets no new calls but keeps its open streams: those of a process that is frozen end by this. Servers
take it for abuse where it comes more often than every ten seconds."""
MERGED_S = 0.01
"""How long changes of health are gathered: Envoy's own second would keep a new endpoint waiting for its first call."""
FAILURES = 3
"""Connections in a row that fail, after which an endpoint is taken out."""
HTTP2_KEY = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


def seconds(count: float) -> timedelta:
    """Spells a duration."""
    return timedelta(seconds=count)


def endpoints_file(cluster_name: str) -> str:
    """Names the file that holds one cluster's endpoints: Envoy reads exactly one resource from each."""
    return f"eds-{cluster_name}.pb"


class EnvoyFiles:
    """Writes the files beside Envoy; a file is replaced whole or not at all.

    Args:
        folder: Envoy's.
        has_tls: Whether agents are reached over mTLS.
    """

    def __init__(self, folder: Path, *, has_tls: bool = False) -> None:
        self._folder = folder
        self._has_tls = has_tls
        self._written: dict[str, bytes] = {}
        self._left_out: set[str] = set()

    def update(self, agents: Mapping[str, AgentCard]) -> bool:
        """Makes the files say what the directory says; False: they did already.

        Endpoints are written before clusters, so that a new cluster finds its endpoints.
        """
        targets = {
            OF_AGENT + name: [
                endpoint.target for endpoint in card.endpoints if not endpoint.draining and self._takes(endpoint.target)
            ]
            for name, card in sorted(agents.items())
        }
        targets[ALL] = sorted({target for some in targets.values() for target in some})
        endpoints = [self._write(endpoints_file(name), [assignment(name, some)]) for name, some in targets.items()]
        clusters = self._write(CDS, [cluster(name, has_tls=self._has_tls) for name in targets])
        for stale in set(self._written) - {CDS, *map(endpoints_file, targets)}:
            (self._folder / stale).unlink(missing_ok=True)
            del self._written[stale]
        return clusters or any(endpoints)

    def _takes(self, target: str) -> bool:
        """Tells whether Envoy takes a target: another one in it would have Envoy refuse the endpoints of all agents."""
        host, port = split_target(target)
        if is_address(host) and 0 < port < 2**16:
            return True
        if target not in self._left_out:
            self._left_out.add(target)
            log.warning("endpoint_left_out", target=target, error="it is not an IP address and a port")
        return False

    def _write(self, name: str, resources: Sequence[Cluster | ClusterLoadAssignment]) -> bool:
        content = bytes(DiscoveryResponse(resources=[Any.pack(resource) for resource in resources]))
        if self._written.get(name) == content:
            return False
        temporary = self._folder / f".{name}.{os.getpid()}"
        temporary.write_bytes(content)
        temporary.replace(self._folder / name)
        self._written[name] = content
        return True


def cluster(name: str, *, has_tls: bool = False) -> Cluster:
    """A cluster whose endpoints come from the file; no traffic to what does not answer its health check."""
    http2 = Http2ProtocolOptions(
        max_concurrent_streams=STREAMS_PER_CONNECTION,
        connection_keepalive=KeepaliveSettings(interval=seconds(PING_S), timeout=seconds(PONG_S)),
    )
    options = HttpProtocolOptions(
        explicit_http_config=HttpProtocolOptionsExplicitHttpConfig(http2_protocol_options=http2)
    )
    limits = CircuitBreakersThresholds(
        max_requests=LIMITS["max_requests"],
        max_pending_requests=LIMITS["max_pending_requests"],
        max_retries=LIMITS["max_retries"],
    )
    source = PathConfigSource(path=endpoints_file(name), watched_directory=WatchedDirectory(path="."))
    return Cluster(
        name=name,
        type=ClusterDiscoveryType.EDS,
        eds_cluster_config=ClusterEdsClusterConfig(
            eds_config=ConfigSource(path_config_source=source, resource_api_version=ApiVersion.V3)
        ),
        connect_timeout=seconds(1),
        lb_policy=ClusterLbPolicy.LEAST_REQUEST,
        circuit_breakers=CircuitBreakers(thresholds=[limits]),
        typed_extension_protocol_options={HTTP2_KEY: Any.pack(options)},
        transport_socket=agent_transport(name.removeprefix(OF_AGENT) if name != ALL else "") if has_tls else None,
        common_lb_config=ClusterCommonLbConfig(
            healthy_panic_threshold=Percent(value=0), update_merge_window=seconds(MERGED_S)
        ),
        health_checks=[
            HealthCheck(
                timeout=seconds(1),
                interval=seconds(1),
                no_traffic_interval=seconds(1),
                unhealthy_threshold=2,
                healthy_threshold=1,
                grpc_health_check=HealthCheckGrpcHealthCheck(),
            )
        ],
        ignore_health_on_host_removal=True,
        outlier_detection=outlier_detection(),
    )


def outlier_detection() -> OutlierDetection:
    """Takes an endpoint out for a while that connections fail at, between two health checks or in spite of them.

    What it answers does not count: a caller could have an agent taken out by calls that fail, or that end too early.
    The time for which it is out is not cut short by health checks, which may go on over a connection of their own. Half
    of the endpoints stay, so that one that is alone is never taken out.
    """
    return OutlierDetection(
        split_external_local_origin_errors=True,
        consecutive_local_origin_failure=FAILURES,
        enforcing_consecutive_local_origin_failure=100,
        enforcing_consecutive_5xx=0,
        enforcing_consecutive_gateway_failure=0,
        enforcing_success_rate=0,
        enforcing_local_origin_success_rate=0,
        enforcing_failure_percentage=0,
        enforcing_failure_percentage_local_origin=0,
        interval=seconds(1),
        base_ejection_time=seconds(2),
        max_ejection_time=seconds(30),
        max_ejection_percent=50,
        successful_active_health_check_uneject_host=False,
    )


def agent_transport(agent_id: str) -> TransportSocket:
    """How an agent is reached over mTLS; empty: any."""
    context = UpstreamTlsContext.from_dict(upstream_context(Role.AGENT, agent_id))
    return TransportSocket(name="tls", typed_config=Any.pack(context))


def assignment(name: str, targets: list[str]) -> ClusterLoadAssignment:
    """The endpoints of a cluster."""
    found = []
    for target in targets:
        host, port = split_target(target)
        address = Address(socket_address=SocketAddress(address=host, port_value=port))
        found.append(LbEndpoint(endpoint=Endpoint(address=address)))
    return ClusterLoadAssignment(cluster_name=name, endpoints=[LocalityLbEndpoints(lb_endpoints=found)])
