"""The real Envoy takes the bootstrap that the gateway's pod renders from what its manifests tell it."""

import json
from pathlib import Path

import pytest

from meshwright.cli.authority import Authority, Wanted
from meshwright.core.role import Role
from meshwright.gateway.envoy import BOOTSTRAP, VALIDATED
from meshwright.gateway.serving import write_configuration
from tests.k8s.objects import pod, ports, process_settings, workloads, written


@pytest.fixture
def folders(tmp_path):
    """Folders in the place of the pod's: certificates of the mesh, and the one that is shared with Envoy."""
    authority = Authority.make(tmp_path / "certificates")
    for role in (Role.GATEWAY, Role.EDGE):
        authority.issue(Wanted(role), 1)
    gateway, edge = str(authority.folder / "gateway"), str(authority.folder / "edge")
    (tmp_path / "shared").mkdir()
    return {"tls_dir": gateway, "envoy_tls_dir": edge, "edge_tls_dir": edge, "folder": str(tmp_path / "shared")}


async def validated(objects, folders):
    """Returns the bootstrap that Envoy took, and the ports of the container beside the gateway, by name."""
    gateway, envoy = pod(workloads(objects)["gateway"])["containers"]
    await write_configuration(process_settings(objects, gateway).model_copy(update=folders))
    folder = Path(folders["folder"])
    assert (folder / VALIDATED).exists()
    return json.loads((folder / BOOTSTRAP).read_text())["static_resources"], ports(envoy)


async def test_it_takes_that_of_base_and_listens_where_the_container_says(folders):
    static, of_container = await validated(written(), folders)
    addresses = [listener["address"]["socket_address"] for listener in static["listeners"]]
    told = {one["port_value"]: one["address"] for one in addresses}
    assert told == {of_container["https"]: "0.0.0.0", of_container["edge-metrics"]: "0.0.0.0"}


async def test_in_production_it_asks_the_counters_that_edges_share(overlays, folders):
    static, _ = await validated(overlays["prod"], folders)
    (limits,) = [cluster for cluster in static["clusters"] if cluster["name"] == "limits"]
    (endpoint,) = limits["load_assignment"]["endpoints"][0]["lb_endpoints"]
    assert endpoint["endpoint"]["address"]["socket_address"] == {"address": "ratelimit", "port_value": 8081}
