"""Envoy's bootstrap, rendered from settings: listeners and filters are static, agents come by files. Pure.

`python -m meshwright.gateway.bootstrap` prints it for the default settings: that text is committed as envoy.json. All
paths are relative to the folder that Envoy runs in.
"""

import json
import sys

from meshwright.core.role import Role
from meshwright.gateway.authentication import jwks_clusters
from meshwright.gateway.clusters import process_cluster, static_cluster
from meshwright.gateway.config import ADMIN, CDS, Config
from meshwright.gateway.internal import admin_cluster, internal_listener
from meshwright.gateway.limits import overload_manager, runtime
from meshwright.gateway.listeners import edge_listener
from meshwright.gateway.settings import GatewaySettings
from meshwright.gateway.spans import span_target
from meshwright.gateway.tls import secured, upstream


def render(settings: GatewaySettings) -> Config:
    """Returns the whole bootstrap."""
    return {
        "node": {"id": "edge", "cluster": "meshwright"},
        "admin": {"address": {"pipe": {"path": ADMIN, "mode": 0o600}}},
        "static_resources": {
            "listeners": [secured(edge_listener(settings), settings), internal_listener(settings)],
            "clusters": [
                process_cluster("registry", settings.registry, upstream(settings, Role.REGISTRY)),
                process_cluster("gateway", f"{settings.host}:{settings.port}", upstream(settings, Role.GATEWAY)),
                admin_cluster(),
                *jwks_clusters(settings),
                *(static_cluster(name, target) for name, target in helpers(settings).items() if target),
            ],
        },
        "overload_manager": overload_manager(settings),
        "layered_runtime": runtime(),
        "dynamic_resources": {"cds_config": file_source(CDS)},
    }


def helpers(settings: GatewaySettings) -> dict[str, str]:
    """Services beside the mesh that Envoy calls by itself, by the name of their cluster; empty: there is none."""
    return {"limits": settings.limit_service, "spans": span_target(settings)}


def file_source(path: str) -> Config:
    """Names a file that is replaced by rename in Envoy's own folder."""
    return {
        "path_config_source": {"path": path, "watched_directory": {"path": "."}},
        "resource_api_version": "V3",
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(render(GatewaySettings()), indent=2) + "\n")
