"""Writes the manifests of the bundled agents, and of the lab's, from the templates of `meshwright agent new`.

Beside them, the analysis by which a new version of an agent is judged: `python -m k8s.generate`.
"""

import sys
from pathlib import Path

from k8s.components.rollouts import canary
from meshwright.agents.library.bundle import BUNDLED, spec_of
from meshwright.cli.agent_manifests import manifests
from meshwright.core.errors import SetupError

LIBRARY = Path(__file__).parents[1] / "agents/meshwright/agents/library"
FOLDER = Path(__file__).parent / "agents"
LAB = Path(__file__).parents[1] / "examples/lab/k8s"
ANALYSIS = Path(__file__).parent / "components/rollouts/analysis.yaml"
TAG = "0.1.0"


def texts() -> dict[Path, str]:
    """Returns all files, by path."""
    agents = {
        FOLDER / name / path: text
        for name in BUNDLED
        for path, text in manifests(name, spec_of(name), f"meshwright/{name}", TAG).items()
    }
    return agents | {ANALYSIS: canary.analysis()}


def lab_texts() -> dict[Path, str]:
    """Returns the files of the lab's coordinator, by path."""
    made = manifests("coordinator", "lab.coordinator:agent", "meshwright/lab", TAG)
    return {LAB / "coordinator" / path: text for path, text in made.items()}


def of_no_bundle(library: Path) -> list[str]:
    """Lists the folders of the library that no bundle has: they would be left out of all that is written here."""
    found = {path.name for path in library.iterdir() if path.is_dir() and any(path.glob("*.py"))}
    return sorted(found - {*BUNDLED})


def check(library: Path = LIBRARY) -> None:
    """Holds the library against the bundle.

    Raises:
        SetupError: A folder is in no bundle; says what to do.
    """
    if unknown := of_no_bundle(library):
        raise SetupError(
            f"{library / unknown[0]} is no bundled agent: name it in BUNDLED, in {library / 'bundle.py'}, or keep it "
            "out of the library; docs/delivery.md has the other steps"
        )


def main() -> int:
    """Writes all files; returns the exit code."""
    try:
        check()
    except SetupError as error:
        print(f"error: {error.message}", file=sys.stderr)
        return 1
    for path, text in (texts() | lab_texts()).items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
