"""Volumes of a pod: folders of this machine, in the place of the paths that containers mount them at."""

import re
from collections.abc import Callable
from pathlib import Path

from k8s.rehearsal.manifests import Manifests, Thing
from k8s.rehearsal.secrets import Secrets
from meshwright.core.errors import SetupError

MODE = 0o644


class Volumes:
    """The volumes of one pod.

    Args:
        folder: Of the pod.
        spec: Of the pod.
        claims: Folders that outlive the pod, by the name of its volume.
        manifests: Where config maps stand.
        secrets: What secrets hold.
    """

    def __init__(
        self, folder: Path, spec: Thing, claims: dict[str, Path], manifests: Manifests, secrets: Secrets
    ) -> None:
        self._folders = dict(claims)
        for volume in spec.get("volumes", ()):
            place = folder / volume["name"]
            place.mkdir(parents=True)
            self._folders[volume["name"]] = place
            if "secret" in volume:
                source = volume["secret"]
                _write(place, source, secrets.of(source["secretName"]))
            elif "configMap" in volume:
                source = volume["configMap"]
                held: dict[str, str] = manifests.named("ConfigMap", source["name"])["data"]
                _write(place, source, {key: text.encode() for key, text in held.items()})
            elif "emptyDir" not in volume:
                raise SetupError(f"the volume {volume['name']} is of a kind that a rehearsal does not have: {volume}")

    def paths(self, container: Thing) -> Callable[[str], str]:
        """Returns what writes folders in the place of a container's mount paths in a text."""
        mounts = {mount["mountPath"]: str(self._folders[mount["name"]]) for mount in container.get("volumeMounts", ())}
        if not mounts:
            return lambda text: text
        words = "|".join(map(re.escape, sorted(mounts, key=len, reverse=True)))
        pattern = re.compile(rf"(?<![\w./-])(?:{words})(?![\w.-])")
        return lambda text: pattern.sub(lambda found: mounts[found[0]], text)


def _write(place: Path, source: Thing, held: dict[str, bytes]) -> None:
    items = source.get("items", [{"key": key, "path": key} for key in held])
    for item in items:
        if item["key"] not in held:
            raise SetupError(f"{source} names the key {item['key']}, which is not there")
        path = place / item["path"]
        path.write_bytes(held[item["key"]])
        path.chmod(source.get("defaultMode", MODE))
