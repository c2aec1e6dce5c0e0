"""The environment of a container, as its manifest has it."""

from k8s.rehearsal.manifests import Manifests, Thing
from k8s.rehearsal.secrets import Secrets
from meshwright.core.errors import SetupError


def environment(container: Thing, manifests: Manifests, secrets: Secrets, address: str) -> dict[str, str]:
    """Returns a container's variables by name; what stands in `env` wins.

    Args:
        container: Of a pod's spec.
        manifests: Where config maps stand.
        secrets: What secrets hold.
        address: Of the pod.

    Raises:
        SetupError: A variable is of a kind that is not known here, or refers to what is not there.
    """
    told: dict[str, str] = {}
    for source in container.get("envFrom", ()):
        told |= manifests.named("ConfigMap", source["configMapRef"]["name"])["data"]
    for entry in container.get("env", ()):
        told[entry["name"]] = _value(entry, manifests, secrets, address)
    return told


def _value(entry: Thing, manifests: Manifests, secrets: Secrets, address: str) -> str:
    if "value" in entry:
        return str(entry["value"])
    source: Thing = entry["valueFrom"]
    if "secretKeyRef" in source:
        chosen = source["secretKeyRef"]
        held = secrets.of(chosen["name"])
        if chosen["key"] not in held:
            raise SetupError(f"{entry['name']}: the secret {chosen['name']} has no key {chosen['key']}")
        return held[chosen["key"]].decode()
    if "configMapKeyRef" in source:
        chosen = source["configMapKeyRef"]
        return str(manifests.named("ConfigMap", chosen["name"])["data"][chosen["key"]])
    if source.get("fieldRef", {}).get("fieldPath") == "status.podIP":
        return address
    raise SetupError(f"the variable {entry['name']} is of a kind that a rehearsal does not have")
