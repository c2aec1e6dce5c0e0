"""Manifests: as kubectl renders them, and how the objects belong together."""

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from k8s.kubectl import find
from meshwright.cli.agent_manifests import manifests
from meshwright.core.errors import SetupError

K8S = Path(__file__).parents[1]
OVERLAY = Path("overlays/rehearsal")
AGENTS = ("trader", "helper")
RENDER_S = 50
Thing = dict[str, Any]
"""A manifest, or a part of one, as YAML reads it."""


def rendered(folder: Path) -> list[Thing]:
    """Renders a kustomization as kubectl does.

    Raises:
        SetupError: It cannot be rendered; says what kubectl says.
    """
    done = subprocess.run(
        [find(), "kustomize", str(folder)],
        capture_output=True,
        text=True,
        timeout=RENDER_S,
        check=False,
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent"},
    )
    if done.returncode:
        raise SetupError(done.stderr.strip().removeprefix("error: "))
    return list(yaml.safe_load_all(done.stdout))


def write_tree(folder: Path) -> Path:
    """Copies `k8s` into a folder and writes the rehearsal's agents into it, from the template of all agents.

    Returns:
        The overlay to render.
    """
    tree = folder / "k8s"
    shutil.copytree(K8S, tree, ignore=shutil.ignore_patterns("__pycache__"))
    for name in AGENTS:
        for path, text in manifests(name, f"k8s.rehearsal.agents:{name}", f"meshwright/{name}", "0.1.0").items():
            place = tree / "agents" / name / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text)
    return tree / OVERLAY


class Manifests:
    """All objects of one rendering.

    Args:
        objects: As YAML reads them.
    """

    def __init__(self, objects: Sequence[Thing]) -> None:
        self._objects = objects

    def of_kind(self, *kinds: str) -> Iterator[Thing]:
        """Yields the objects of some kinds."""
        return (one for one in self._objects if one["kind"] in kinds)

    def named(self, kind: str, name: str) -> Thing:
        """Returns the one object of a kind and name.

        Raises:
            SetupError: There is none.
        """
        for one in self.of_kind(kind):
            if one["metadata"]["name"] == name:
                return one
        raise SetupError(f"the manifests have no {kind} {name}: somebody refers to it")

    def budget(self, workload: Thing) -> Thing | None:
        """Returns the disruption budget over the pods of a workload; None: it has none."""
        return next((one for one in self.of_kind("PodDisruptionBudget") if selects(one["spec"], workload)), None)


def name_of(thing: Thing) -> str:
    """Returns an object's name."""
    return str(thing["metadata"]["name"])


def selects(spec: Thing, workload: Thing) -> bool:
    """Whether the selector of a spec finds the pods of a workload; that of a Service is flat."""
    selector: Thing = spec["selector"]
    labels: Thing = workload["spec"]["template"]["metadata"]["labels"]
    return bool(selector.get("matchLabels", selector).items() <= labels.items())
