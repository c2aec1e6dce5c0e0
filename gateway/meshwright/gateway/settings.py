"""Settings of the gateway and of the Envoy in front."""

import re

from pydantic import Field, field_validator

from meshwright.core.settings import Settings

ORIGIN = re.compile(r"https?://(\[[0-9a-f:.]+\]|[a-z0-9.-]+)(:[0-9]{1,5})?")


class GatewaySettings(Settings):
    """What the gateway's process is told beside what every service is."""

    edge_host: str = Field(default="127.0.0.1", description="Address that Envoy listens on")
    edge_port: int = Field(default=8080, ge=0, le=65535, description="Port that Envoy listens on")
    internal_port: int = Field(default=8081, ge=0, le=65535, description="Loopback port of Envoy's /metrics")
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
    folder: str = Field(default=".", description="Folder that this process and Envoy share; Envoy's working directory")
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
