"""Manifests as objects: read as they are written, or as kubectl renders them, and how they belong together."""

from pathlib import Path

import yaml

from k8s.rehearsal.manifests import rendered
from meshwright.agents.library.bundle import BUNDLED
from meshwright.agents.settings import AgentSettings
from meshwright.cli.settings import CliSettings
from meshwright.core.settings import Settings
from meshwright.gateway.settings import GatewaySettings
from meshwright.registry.settings import HostSettings

__all__ = ["rendered"]

REPO = Path(__file__).parents[2]
K8S = REPO / "k8s"
LAB = REPO / "examples/lab/k8s"
SETTINGS = {
    "meshwright.registry": Settings,
    "meshwright.agents": AgentSettings,
    "meshwright.gateway": GatewaySettings,
    "meshwright.registry.tool": HostSettings,
    "meshwright.cli.main": CliSettings,
}
"""What a process reads, by its module or command."""


def written():
    """Reads base, tool host and bundled agents as their files are: no patch, no namespace, no tags."""
    folders = [K8S / "base", K8S / "tools", *(K8S / "agents" / name for name in BUNDLED)]
    return [
        document
        for folder in folders
        for name in yaml.safe_load((folder / "kustomization.yaml").read_text())["resources"]
        for document in yaml.safe_load_all((folder / name).read_text())
    ]


def named(objects, kind, name):
    """Returns the one object of a kind and name."""
    (found,) = [one for one in objects if one["kind"] == kind and one["metadata"]["name"] == name]
    return found


def of_kind(objects, *kinds):
    return [one for one in objects if one["kind"] in kinds]


def workloads(objects):
    """Returns what runs pods, by name; a rollout runs those of its deployment."""
    return {one["metadata"]["name"]: one for one in of_kind(objects, "Deployment", "StatefulSet", "Job")}


def pod(workload):
    return workload["spec"]["template"]["spec"]


def labels(workload):
    return workload["spec"]["template"]["metadata"]["labels"]


def selected(objects, wanted):
    """Returns the workloads whose pods bear some labels."""
    return [one for one in workloads(objects).values() if wanted.items() <= labels(one).items()]


def own_containers(workload):
    """Returns all containers of a workload's pods, those that run before the others included."""
    return [*pod(workload).get("initContainers", ()), *pod(workload)["containers"]]


def containers(objects):
    """Returns (workload, container) of all."""
    return [(one, container) for one in workloads(objects).values() for container in own_containers(one)]


def ports(container):
    """Returns a container's ports: numbers by name."""
    return {port["name"]: port["containerPort"] for port in container.get("ports", ())}


def settings_of(container):
    """Returns the settings class of a container that is a process of the mesh, else None."""
    command = [word for word in container.get("command", ()) if word not in {"python", "-m"}]
    return SETTINGS.get(command[0]) if command else None


def environment(objects, container):
    """Returns what a container is told in plain words, by variable."""
    told = {}
    for source in container.get("envFrom", ()):
        told |= named(objects, "ConfigMap", source["configMapRef"]["name"])["data"]
    return told | {entry["name"]: entry["value"] for entry in container.get("env", ()) if "value" in entry}


def process_settings(objects, container):
    """Builds the settings that a container's process reads, or None where it is no process of the mesh."""
    kind = settings_of(container)
    if kind is None:
        return None
    told = {name.removeprefix("MESHWRIGHT_").lower(): value for name, value in environment(objects, container).items()}
    return kind(**{name: value for name, value in told.items() if name in kind.model_fields})


def least_instances(objects, name):
    """Returns how few pods of a workload there may be."""
    scalers = [one for one in of_kind(objects, "HorizontalPodAutoscaler", "ScaledObject") if scaled(one) == name]
    if scalers:
        spec = scalers[0]["spec"]
        return spec.get("minReplicas", spec.get("minReplicaCount"))
    return workloads(objects)[name]["spec"].get("replicas", 1)


def scaled(scaler):
    """Returns the name of what a scaler scales."""
    return scaler["spec"]["scaleTargetRef"]["name"]
