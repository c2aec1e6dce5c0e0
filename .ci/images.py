"""The images of this repository: what goes into each, a digest of that, and how it is built.

`python .ci/images.py digests` prints a line for each image. The digest is of all that decides what is built: its
Dockerfile, the files that it copies, and the image below it. An image whose digest is known need not be built again.
`python .ci/images.py build [NAME ...] --base PYTHON@sha256:...` builds with docker or podman.
"""

import argparse
import hashlib
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

REPO = Path(__file__).parents[1]
LIBRARY = "agents/meshwright/agents/library"
PINNED = re.compile(r".+@sha256:[0-9a-f]{64}")
PREFIX = "meshwright"
TAG_CHARS = 16


@dataclass(frozen=True, slots=True)
class Image:
    """One image.

    Attributes:
        name: Behind the repository's prefix.
        dockerfile: Relative to the root.
        context: Folder that it is built from, relative to the root.
        below: The image of ours that it is made on; None: it is made on Python's.
    """

    name: str
    dockerfile: str
    context: str = "."
    below: "Image | None" = None


def images(root: Path = REPO) -> list[Image]:
    """Lists all images, each behind the one that it is made on; a folder of the library with a Dockerfile is one."""
    runtime = Image("runtime", "agents/Dockerfile")
    agents = sorted(path.parent for path in (root / LIBRARY).glob("*/Dockerfile"))
    return [
        runtime,
        Image("registry", "registry/Dockerfile", "registry", runtime),
        Image("gateway", "gateway/Dockerfile", ".", runtime),
        *(
            Image(folder.name, f"{LIBRARY}/{folder.name}/Dockerfile", f"{LIBRARY}/{folder.name}", runtime)
            for folder in agents
        ),
    ]


def instructions(text: str) -> Iterator[tuple[str, list[str]]]:
    """Reads the instructions of a Dockerfile, with what follows each; continued lines are one."""
    for line in text.replace("\\\n", " ").splitlines():
        word, _, rest = line.strip().partition(" ")
        if word and not word.startswith("#"):
            yield word.upper(), shlex.split(rest) if word.upper() == "COPY" else [rest.strip()]


def copies(image: Image, root: Path = REPO) -> list[tuple[list[str], str]]:
    """Lists what an image copies out of its context: patterns, and where to."""
    text = (root / image.dockerfile).read_text()
    found = [words for word, words in instructions(text) if word == "COPY" and not words[0].startswith("--from")]
    return [(words[:-1], words[-1]) for words in found]


def files(image: Image, root: Path = REPO) -> list[Path]:
    """Lists the files that an image copies, sorted; those that Python leaves behind are none."""
    context = root / image.context
    matched = [path for patterns, _ in copies(image, root) for pattern in patterns for path in context.glob(pattern)]
    inside = [file for path in matched for file in ([path] if path.is_file() else path.rglob("*"))]
    return sorted({file for file in inside if file.is_file() and "__pycache__" not in file.parts})


def digest(image: Image, root: Path = REPO, base: str = "") -> str:
    """Returns the SHA-256, in hex, of all that decides what is built: Python's image, where it is known, included."""
    total = hashlib.sha256((digest(image.below, root, base) if image.below else base).encode())
    for file in [root / image.dockerfile, *files(image, root)]:
        content = file.read_bytes()
        total.update(f"{file.relative_to(root)} {len(content)}\n".encode() + content)
    return total.hexdigest()


def tag(image: Image, base: str, prefix: str) -> str:
    """Returns an image's name with its digest as the tag: the same content has the same name."""
    return f"{prefix}/{image.name}:{digest(image, base=base)[:TAG_CHARS]}"


def command(engine: str, image: Image, base: str, prefix: str) -> list[str]:
    """Returns what builds an image."""
    below = ["--build-arg", f"RUNTIME={tag(image.below, base, prefix)}"] if image.below else []
    return [
        *(engine, "build", "--pull=false", "--file", str(REPO / image.dockerfile), "--build-arg", f"BASE={base}"),
        *(*below, "--tag", tag(image, base, prefix), str(REPO / image.context)),
    ]


def build(names: list[str], base: str, prefix: str) -> int:
    """Builds images, those that they are made on first; returns the exit code."""
    if not PINNED.fullmatch(base):
        print("error: --base is pinned by digest: python:3.11-slim-bookworm@sha256:...", file=sys.stderr)
        return 2
    engine = shutil.which("docker") or shutil.which("podman")
    if engine is None:
        print("error: neither docker nor podman is installed", file=sys.stderr)
        return 2
    known = images()
    wanted = [image for image in known if not names or image.name in names]
    for image in [one for one in known if one in wanted or any(other.below == one for other in wanted)]:
        done = subprocess.run(command(engine, image, base, prefix), check=False)
        if done.returncode:
            return done.returncode
        print(tag(image, base, prefix))
    return 0


def main() -> int:
    """Does what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("act", choices=("digests", "build"))
    parser.add_argument("names", nargs="*", choices=[*(image.name for image in images()), []], help="by default all")
    parser.add_argument("--base", default="", help="Python's image, pinned by digest")
    parser.add_argument("--prefix", default=PREFIX, help="registry and repository in front of names")
    options = parser.parse_args()
    if options.act == "build":
        return build(options.names, options.base, options.prefix)
    for image in images():
        print(f"{digest(image, base=options.base)}  {options.prefix}/{image.name}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
