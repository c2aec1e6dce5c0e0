"""The Kubernetes manifests of one agent: bundled agents and new projects have them from the same templates."""

from importlib.resources import files
from string import Template

MANIFESTS = {
    "kustomization.yaml": "kustomization.yaml",
    "deployment.yaml": "deployment.yaml",
    "service.yaml": "service.yaml",
    "disruption.yaml": "disruption.yaml",
    "keda-kustomization.yaml": "keda/kustomization.yaml",
    "scaledobject.yaml": "keda/scaledobject.yaml",
    "mtls-kustomization.yaml": "mtls/kustomization.yaml",
    "certificate.yaml": "mtls/certificate.yaml",
    "rollout-kustomization.yaml": "rollout/kustomization.yaml",
    "rollout.yaml": "rollout/rollout.yaml",
}
"""Where each template of the folder `project` goes, below the agent's own folder of manifests."""


def manifests(name: str, target: str, image: str, tag: str) -> dict[str, str]:
    """Returns an agent's manifests.

    Args:
        name: Of the agent, its workload and its certificate.
        target: What its process loads: MODULE:AGENT.
        image: Name of the image that holds it.
        tag: Version of that image.

    Returns:
        Texts by path, relative to the folder of manifests.
    """
    words = {"name": name, "target": target, "image": image, "tag": tag}
    templates = files("meshwright.cli") / "project"
    return {
        path: Template((templates / f"{source}.tmpl").read_text()).substitute(words)
        for source, path in MANIFESTS.items()
    }
