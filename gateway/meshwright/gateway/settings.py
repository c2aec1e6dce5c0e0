"""Settings of the gateway and of the Envoy in front."""

from pydantic import Field

from meshwright.core.settings import Settings


class GatewaySettings(Settings):
    """What the gateway's process is told beside what every service is."""

    edge_host: str = Field(default="127.0.0.1", description="Address that Envoy listens on")
    edge_port: int = Field(default=8080, ge=0, le=65535, description="Port that Envoy listens on")
    internal_port: int = Field(default=8081, ge=0, le=65535, description="Loopback port of Envoy's /metrics")
    default_agent: str = Field(default="orchestrator", description="Agent that does the work of unnamed calls")
    folder: str = Field(default=".", description="Folder that this process and Envoy share; Envoy's working directory")
    allowed_hosts: str = Field(
        default="localhost 127.0.0.1 [::1]",
        description="Host names that a request and its Origin may name; others are refused",
    )
    limit_address: int = Field(
        default=100, ge=0, le=1_000_000, description="Calls a second of one address; 0: any number"
    )
    limit_principal: int = Field(
        default=50, ge=0, le=1_000_000, description="Calls a second of one principal; 0: any number"
    )
    limit_tenant: int = Field(
        default=200, ge=0, le=1_000_000, description="Calls a second of one tenant; 0: any number"
    )
    limit_burst_s: int = Field(
        default=5, ge=1, le=60, description="Seconds' worth of unused calls that may come at once"
    )
    limit_entries: int = Field(
        default=10_000,
        ge=1,
        le=100_000,
        description="Addresses, or principals and tenants, that are told apart at once",
    )
    limit_service: str = Field(
        default="",
        description="host:port of an envoyproxy/ratelimit that all edges share; empty: each counts for itself",
    )
    max_connections: int = Field(default=5_000, ge=1, description="Connections that Envoy takes at once")
    connection_streams: int = Field(default=256, ge=1, le=10_000, description="Open calls of one HTTP/2 connection")
    heap_mb: int = Field(
        default=384, ge=0, le=1_000_000, description="MiB at which Envoy sheds load, before it is killed; 0: never"
    )
    headers_timeout_s: float = Field(
        default=10.0, gt=0, le=600, description="Seconds for a request's headers to arrive"
    )
    request_timeout_s: float = Field(default=30.0, gt=0, le=3_600, description="Seconds for a whole request to arrive")
    stream_max_s: float = Field(
        default=3_600.0, gt=0, le=86_400, description="Seconds after which a call or stream ends; streams are resumed"
    )
    trusted_hops: int = Field(
        default=0, ge=0, le=10, description="Proxies in front whose x-forwarded-for is believed; 0: none is"
    )
