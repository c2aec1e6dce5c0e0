"""Writes the manifests of the bundled agents, from the templates that `meshwright agent new` writes a project from."""

from pathlib import Path

from meshwright.agents.library.bundle import BUNDLED, spec_of
from meshwright.cli.agent_manifests import manifests

FOLDER = Path(__file__).parent / "agents"
TAG = "0.1.0"


def texts() -> dict[Path, str]:
    """Returns the files of all bundled agents, by path."""
    return {
        FOLDER / name / path: text
        for name in BUNDLED
        for path, text in manifests(name, spec_of(name), f"meshwright/{name}", TAG).items()
    }


if __name__ == "__main__":
    for path, text in texts().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
