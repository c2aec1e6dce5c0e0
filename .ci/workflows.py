"""Writes the workflow of each image: its path filter is what the image is built of."""

from pathlib import Path
from string import Template

import images

FOLDER = images.REPO / ".github/workflows"
TEMPLATE = Path(__file__).parent / "workflow.yml.tmpl"


def texts() -> dict[str, str]:
    """Returns the workflow of each image that runs by itself, by the file's name."""
    template = Template(TEMPLATE.read_text())
    return {
        f"{image.name}.yml": template.substitute(name=image.name, paths=listed(images.paths(image)))
        for image in images.images()
        if image.below  # the runtime is only built below others
    }


def listed(paths: list[str]) -> str:
    """Spells paths as items of a list."""
    return "\n".join(f"      - {path}" for path in paths)


if __name__ == "__main__":
    for name, text in texts().items():
        (FOLDER / name).write_text(text)
