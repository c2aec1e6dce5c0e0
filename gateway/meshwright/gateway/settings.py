"""Settings of the gateway and of the Envoy in front."""

import re
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from meshwright.core.ids import host_and_port
from meshwright.core.settings import Settings, data_home

ORIGIN = re.compile(r"https?://(\[[0-9a-f:.]+\]|[a-z0-9.-]+)(:[0-9]{1,5})?")


class GatewaySettings(Settings):
    """What the gateway's process is told beside what every service is."""

    port: int = Field(
        default=8082,
        ge=0,
        le=65535,
        description="Port to listen on for Envoy, which reads it once; 0: a free one, another after each start",
    )
    edge_host: str = Field(default="127.0.0.1", description="Address that Envoy listens on")
    edge_port: int = Field(default=8080, ge=0, le=65535, description="Port that Envoy listens on")
    internal_host: str = Field(default="127.0.0.1", description="Address of Envoy's /metrics")
    internal_port: int = Field(default=8081, ge=0, le=65535, description="Port of Envoy's /metrics")
    default_agent: str = Field(default="orchestrator", description="Agent that does the work of unnamed calls")
    jwt_issuer: str = Field(default="", description="Who makes the tokens: their claim `iss`, letter by letter")
    jwt_audience: str = Field(default="", description="For whom tokens are made: one of their claim `aud`")
    jwt_jwks: str = Field(default="", description="The issuer's keys: a file, or an https:// URL")
    jwt_jwks_ca: str = Field(
        default="/etc/ssl/certs/ca-certificates.crt",
        description="Authorities that may have signed the certificate of jwt_jwks, as Envoy sees the file",
    )
    jwt_tenant_claim: str = Field(default="tenant", description="Claim of a token that names the tenant")
    jwt_default_tenant: str = Field(default="", description="Tenant of tokens without that claim; empty: refused")
    edge_tls_dir: str = Field(
        default="", description="Folder of cert.pem and key.pem that Envoy shows to clients; empty: plain text"
    )
    envoy_tls_dir: str = Field(
        default="", description="Folder of the certificate that Envoy shows to services, role edge; beside tls_dir"
    )
    folder: str = Field(
        default="",
        description="Folder that this process and Envoy share, Envoy's working directory; files in it are overwritten; "
        "empty: ~/.local/share/meshwright/gateway",
    )
    allowed_hosts: str = Field(
        default="localhost 127.0.0.1 [::1]",
        description="Host names that a request and its Origin may name; others are refused",
    )
    cors_origins: str = Field(
        default="",
        description="Origins whose pages may call the edge, such as https://app.example.com, with blanks between; "
        "empty: none but its own",
    )

    @field_validator("cors_origins")
    @classmethod
    def _are_origins(cls, value: str) -> str:
        """Refuses what no browser sends, and `*`: a page is let in by its name."""
        wrong = [origin for origin in value.split() if not ORIGIN.fullmatch(origin)]
        if wrong:
            raise ValueError(f"{wrong[0]!r} is no origin: write it as https://app.example.com, in lower case, no path")
        return value

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
        description="Addresses that are told apart at once; as many principals, and as many tenants",
    )
    limit_service: str = Field(
        default="",
        description="host:port of an envoyproxy/ratelimit that all edges share; empty: each counts for itself",
    )
    access_log: Literal["file", "stdout"] = Field(
        default="file", description="Where Envoy writes a line for each request: access.log in its folder, or stdout"
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

    @field_validator("limit_service")
    @classmethod
    def _is_an_address_or_none(cls, value: str) -> str:
        return host_and_port(value) if value else value

    @property
    def home(self) -> Path:
        """Folder that this process and Envoy share.

        Raises:
            SetupError: None is named, and the user has no home.
        """
        return Path(self.folder) if self.folder else data_home() / "gateway"
