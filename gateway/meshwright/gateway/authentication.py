"""How Envoy finds out who is calling: tokens it verifies itself, and of everybody it asks the gateway's process.

The payload of a token that is good, or why it is not, goes along to `Authorization`, which decides.
"""

import base64
import ipaddress
import json
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from meshwright.core.errors import DETAILS_KEY, DOMAIN, REASON_KEY, SetupError
from meshwright.core.facts import Facts
from meshwright.core.server import is_loopback
from meshwright.core.signed_token import CLOCKS_S
from meshwright.gateway.clusters import assignment
from meshwright.gateway.config import FILTERS, JWKS, TYPE, Config
from meshwright.gateway.replies import Reply, is_http_error, status_body
from meshwright.gateway.settings import GatewaySettings

JWT = "envoy.filters.http.jwt_authn"
"""Under this name Envoy tells what it found out about a token."""
PAYLOAD, FAILURE = "payload", "failure"
CHECKED = "envoy.filters.http.ext_authz"
"""Under this name Envoy keeps what `Authorization` told beside its answer."""
JWKS_CLUSTER = "jwks"
UNVERIFIED = "callers cannot be verified at the moment: try again"
CHECK_S = 2.0
MOST_JWKS_BYTES = 65_536
CREDENTIALS = ("authorization", "x-api-key")
"""Headers that say who is calling; no service sees them."""


def takes_keys(settings: GatewaySettings) -> bool:
    """Whether callers may show API keys."""
    return "keys" in settings.auth.split(",")


def takes_tokens(settings: GatewaySettings) -> bool:
    """Whether callers may show tokens."""
    return "jwt" in settings.auth.split(",")


def check_settings(settings: GatewaySettings) -> None:
    """Refuses what would let everybody in, or nobody.

    Raises:
        SetupError: Names the variable, and says what to do.
    """
    if settings.auth == "none" and not is_loopback(settings.edge_host):
        raise SetupError(
            f"the edge listens on {settings.edge_host}, which is not loopback, and asks nobody who is calling: "
            "set MESHWRIGHT_AUTH to keys or jwt, or MESHWRIGHT_EDGE_HOST=127.0.0.1"
        )
    if not settings.allowed_hosts.split():
        raise SetupError(
            "MESHWRIGHT_ALLOWED_HOSTS is empty, so every request gets 403: name the hosts that clients call"
        )
    if takes_tokens(settings):
        needed = ("jwt_issuer", "jwt_audience", "jwt_jwks", "jwt_tenant_claim")
        for name in (name for name in needed if not getattr(settings, name)):
            raise SetupError(f"MESHWRIGHT_AUTH={settings.auth} needs MESHWRIGHT_{name.upper()}: it is empty")
        jwks_url(settings)


def jwks_url(settings: GatewaySettings) -> SplitResult | None:
    """Returns where the issuer's keys are read; None: they stand in a file.

    Raises:
        SetupError: It is a URL by which anybody on the way could put other keys in their place.
    """
    if "://" not in settings.jwt_jwks:
        return None
    try:
        parts = urlsplit(settings.jwt_jwks)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host, parts = None, urlsplit("")
    if not host or not (parts.scheme == "https" or (parts.scheme == "http" and is_loopback(host))):
        raise SetupError(
            f"MESHWRIGHT_JWT_JWKS={settings.jwt_jwks!r} is no URL of keys: write https://HOST/PATH, or a file's name"
        )
    return parts


def jwks_of(settings: GatewaySettings) -> bytes:
    """Reads the file of the issuer's keys.

    Raises:
        SetupError: It cannot be read, is too large, or holds no keys.
    """
    name = settings.jwt_jwks
    try:
        with Path(name).open("rb") as file:
            content = file.read(MOST_JWKS_BYTES + 1)
    except OSError as error:
        raise SetupError(f"MESHWRIGHT_JWT_JWKS: cannot read {name}: {error.strerror}") from None
    if len(content) > MOST_JWKS_BYTES or not holds_keys(content):
        raise SetupError(f"MESHWRIGHT_JWT_JWKS: {name} is no JSON Web Key Set of at most {MOST_JWKS_BYTES} bytes")
    return content


def holds_keys(content: bytes) -> bool:
    """Whether a text is a JSON Web Key Set with a key in it."""
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        return False
    keys = found.get("keys") if isinstance(found, dict) else None
    return isinstance(keys, list) and bool(keys)


def jwt_filter(settings: GatewaySettings) -> Config:
    """Verifies tokens. One that is not good passes too: `Authorization` says what is wrong with it."""
    provider: Config = {
        "issuer": settings.jwt_issuer,
        "audiences": [settings.jwt_audience],
        "require_expiration": True,
        "clock_skew_seconds": CLOCKS_S,
        "from_headers": [{"name": "authorization", "value_prefix": "Bearer "}],
        "forward": True,
        "payload_in_metadata": PAYLOAD,
        "failed_status_in_metadata": FAILURE,
        **jwks_source(settings),
    }
    either = {"requires_any": {"requirements": [{"provider_name": "issuer"}, {"allow_missing_or_failed": {}}]}}
    return {
        "name": JWT,
        "typed_config": {
            "@type": FILTERS + "jwt_authn.v3.JwtAuthentication",
            "providers": {"issuer": provider},
            "rules": [{"match": {"prefix": "/"}, "requires": either}],
        },
    }


def jwks_source(settings: GatewaySettings) -> Config:
    """Says where the issuer's keys are: in a copy of the file, or at the URL, which is asked again every 5 minutes."""
    if jwks_url(settings) is None:
        return {"local_jwks": {"filename": JWKS}}
    return {
        "remote_jwks": {
            "http_uri": {"uri": settings.jwt_jwks, "cluster": JWKS_CLUSTER, "timeout": "5s"},
            "cache_duration": "300s",
            "async_fetch": {"fast_listener": True, "failed_refetch_duration": "1s"},
            "retry_policy": {"num_retries": 2},
        }
    }


def jwks_clusters(settings: GatewaySettings) -> list[Config]:
    """The issuer's host, verified by its certificate; empty: its keys stand in a file, or are not needed."""
    url = jwks_url(settings) if takes_tokens(settings) else None
    if url is None or url.hostname is None:
        return []
    port = url.port or (443 if url.scheme == "https" else 80)
    cluster: Config = {
        "name": JWKS_CLUSTER,
        "type": "STRICT_DNS",
        "connect_timeout": "5s",
        "load_assignment": assignment(JWKS_CLUSTER, {"socket_address": {"address": url.hostname, "port_value": port}}),
    }
    if url.scheme == "https":
        cluster["transport_socket"] = tls(url.hostname, settings.jwt_jwks_ca)
    return [cluster]


def tls(host: str, authorities: str) -> Config:
    """TLS to a host of the internet: its certificate has to bear its name, and to come from one of the authorities."""
    try:
        name = {"san_type": "IP_ADDRESS", "matcher": {"exact": str(ipaddress.ip_address(host))}}
        sni = {}
    except ValueError:
        name, sni = {"san_type": "DNS", "matcher": {"exact": host}}, {"sni": host}
    return {
        "name": "tls",
        "typed_config": {
            "@type": TYPE + "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
            **sni,
            "common_tls_context": {
                "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
                "validation_context": {
                    "trusted_ca": {"filename": authorities},
                    "match_typed_subject_alt_names": [name],
                },
            },
        },
    }


def authorization_filter() -> Config:
    """Asks the gateway's process who is calling; where it does not answer, only callers of a moment ago are let in."""
    shown = (*CREDENTIALS, "content-type", "x-request-id")
    return {
        "name": "authorization",
        "typed_config": {
            "@type": FILTERS + "ext_authz.v3.ExtAuthz",
            "transport_api_version": "V3",
            "failure_mode_allow": False,
            "status_on_error": {"code": "ServiceUnavailable"},
            "allowed_headers": {"patterns": [{"exact": name} for name in shown]},
            "metadata_context_namespaces": [JWT],
            "filter_enabled_metadata": {
                "filter": "meshwright",
                "path": [{"key": "known"}],
                "value": {"bool_match": True},
                "invert": True,
            },
            "grpc_service": {"envoy_grpc": {"cluster_name": "gateway"}, "timeout": f"{CHECK_S:g}s"},
        },
    }


def refusals(settings: GatewaySettings) -> list[Config]:
    """Says how what `Authorization` refused is written; these stand before all other rules for answers."""
    if settings.auth == "none":
        return []
    as_it_is = {"text_format_source": {"inline_string": "%LOCAL_REPLY_BODY%"}, "content_type": "application/json"}
    unverified = Facts(UNVERIFIED, "UNAVAILABLE", {}, {}, 1).to_status(14, DOMAIN)
    details = base64.b64encode(unverified.SerializeToString()).decode().rstrip("=")
    unreachable = [header("retry-after", "1"), header(REASON_KEY, "UNAVAILABLE")]
    return [
        mapper([has_status(401), *is_http_error()]) | {"body_format_override": as_it_is},
        mapper([has_status(401)]),  # gRPC's: the message and the details are there
        mapper([has_status(503), *is_http_error()])
        | {"headers_to_add": unreachable, "body_format_override": status_body(Reply(14, "UNAVAILABLE", UNVERIFIED, 1))},
        mapper([has_status(503)])
        | {
            "headers_to_add": [*unreachable, header(DETAILS_KEY, details)],
            "body_format_override": {"text_format_source": {"inline_string": UNVERIFIED}},
        },
    ]


def mapper(found: list[Config]) -> Config:
    """Matches what `Authorization` refused, or could not decide on."""
    return {"filter": {"and_filter": {"filters": [{"response_flag_filter": {"flags": ["UAEX"]}}, *found]}}}


def header(name: str, value: str) -> Config:
    """Sets a header of an answer."""
    return {"header": {"key": name, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}


def has_status(status: int) -> Config:
    """Matches an HTTP status."""
    value = {"default_value": status, "runtime_key": f"meshwright.unauthorized_{status}"}
    return {"status_code_filter": {"comparison": {"op": "EQ", "value": value}}}
