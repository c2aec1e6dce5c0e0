"""Envoy's TLS: certificates of the mesh towards services, one of the edge towards clients, all read from files.

Envoy reads each certificate through a file of its own folder that names the files in PEM, and watches the folder these
are in: renewed ones serve the next connection.
"""

import json
import re
from pathlib import Path

from meshwright.core.errors import SetupError
from meshwright.core.role import TRUST_DOMAIN, Role, dns_name
from meshwright.core.server import is_loopback
from meshwright.core.tls import AUTHORITY, CERTIFICATE, KEY, check_bearer, read, read_pair
from meshwright.gateway.config import TYPE, Config
from meshwright.gateway.settings import GatewaySettings

MESH, TRUSTED, EDGE = "mesh", "mesh-trusted", "edge"
"""Secrets: what Envoy shows to services, whom it trusts there, what it shows to clients."""
ENVOY_DIR = "MESHWRIGHT_ENVOY_TLS_DIR"
EDGE_ADVICE = "MESHWRIGHT_EDGE_TLS_DIR needs cert.pem and key.pem for the host that clients name"
HANDSHAKE_S = 5
"""How long a client may take to agree on a connection: one that says nothing keeps none."""
CONTEXT = TYPE + "envoy.extensions.transport_sockets.tls.v3."


def check_transport(settings: GatewaySettings) -> None:
    """Reads the certificates that Envoy will show: it would only wait for those that it cannot use.

    Raises:
        SetupError: They cannot be used, or clients' plain text would leave this machine.
    """
    if not (settings.edge_tls_dir or settings.insecure or is_loopback(settings.edge_host)):
        raise SetupError(
            f"the edge listens on {settings.edge_host}, which is not loopback, in plain text: name the folder of its "
            "certificate by MESHWRIGHT_EDGE_TLS_DIR; does a balancer in front speak TLS, MESHWRIGHT_INSECURE=true?"
        )
    if settings.tls_dir and not settings.envoy_tls_dir:
        raise SetupError(
            "MESHWRIGHT_TLS_DIR is set: name the folder of Envoy's certificate, role edge, by " + ENVOY_DIR
        )
    check_bearer(settings.tls_dir, Role.GATEWAY)
    if settings.tls_dir and (role := read(Path(settings.envoy_tls_dir)).role) is not Role.EDGE:
        raise SetupError(
            f"{ENVOY_DIR}={settings.envoy_tls_dir} holds a certificate of the role {role}: services take edge"
        )
    if settings.edge_tls_dir:
        read_pair(Path(settings.edge_tls_dir), EDGE_ADVICE)


def secret_file(name: str) -> str:
    """Names the file of a secret in Envoy's folder: Envoy reads exactly one from each."""
    return f"secret-{name}.json"


def secret_files(settings: GatewaySettings) -> dict[str, str]:
    """Returns the files that name Envoy's certificates, by name; none where all is plain text."""
    secrets: dict[str, Config] = {}
    if settings.tls_dir:
        inside = Path(settings.envoy_tls_dir).absolute()
        trusted = {"trusted_ca": {"filename": str(inside / AUTHORITY)}, "watched_directory": {"path": str(inside)}}
        secrets[MESH] = {"tls_certificate": pair(inside)}
        secrets[TRUSTED] = {"validation_context": trusted}
    if settings.edge_tls_dir:
        secrets[EDGE] = {"tls_certificate": pair(Path(settings.edge_tls_dir).absolute())}
    return {
        secret_file(name): json.dumps({"resources": [{"@type": CONTEXT + "Secret", "name": name} | secret]}, indent=2)
        for name, secret in secrets.items()
    }


def pair(folder: Path) -> Config:
    """A certificate and its key; they are read together whenever a file is moved into their folder."""
    return {
        "certificate_chain": {"filename": str(folder / CERTIFICATE)},
        "private_key": {"filename": str(folder / KEY)},
        "watched_directory": {"path": str(folder)},
    }


def upstream_context(role: Role, name: str = "") -> Config:
    """How Envoy talks to services of a role: it shows its certificate, and takes none of another role, or name.

    Args:
        role: Of the services.
        name: Which of them; empty: any. A certificate without a name is of any.
    """
    named = re.escape(name) if name else ".+"
    names = [{"san_type": "URI", "matcher": {"safe_regex": {"regex": f"{TRUST_DOMAIN}{role}(/{named})?"}}}]
    return {
        "sni": dns_name(role),
        "common_tls_context": {
            "alpn_protocols": ["h2"],
            "tls_certificate_sds_secret_configs": [secret(MESH)],
            "combined_validation_context": {
                "default_validation_context": {"match_typed_subject_alt_names": names},
                "validation_context_sds_secret_config": secret(TRUSTED),
            },
        },
    }


def upstream(settings: GatewaySettings, role: Role) -> Config:
    """What a static cluster of a role has beside the rest of it; nothing in plain text."""
    return {"transport_socket": socket("UpstreamTlsContext", upstream_context(role))} if settings.tls_dir else {}


def secured(listener: Config, settings: GatewaySettings) -> Config:
    """Returns the edge's listener as clients meet it: with TLS where the settings name its certificate."""
    if not settings.edge_tls_dir:
        return listener
    context = {
        "common_tls_context": {
            "alpn_protocols": ["h2", "http/1.1"],
            "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
            "tls_certificate_sds_secret_configs": [secret(EDGE)],
        }
    }
    taken = {
        "transport_socket": socket("DownstreamTlsContext", context),
        "transport_socket_connect_timeout": f"{HANDSHAKE_S}s",
    }
    return listener | {"filter_chains": [chain | taken for chain in listener["filter_chains"]]}


def socket(kind: str, context: Config) -> Config:
    """A transport socket."""
    return {"name": "tls", "typed_config": {"@type": CONTEXT + kind} | context}


def secret(name: str) -> Config:
    """Where Envoy finds a secret."""
    source = {"path": secret_file(name), "watched_directory": {"path": "."}}
    return {"name": name, "sds_config": {"path_config_source": source, "resource_api_version": "V3"}}
