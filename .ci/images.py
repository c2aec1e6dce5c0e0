"""The images of this repository: what goes into each, a digest of that, and how it is built.

`python .ci/images.py digests` prints a line for each image. The digest is of all that decides what is built: its
Dockerfile, the files that it copies, and the image below it. An image whose digest is known need not be built again.
`python .ci/images.py build [NAME ...] --base PYTHON@sha256:...` builds with docker or podman.
`python .ci/images.py publish NAME ... --base PYTHON@sha256:...` builds and pushes what its registry has not.
`python .ci/images.py lock --base PYTHON@sha256:...` writes what production runs, by the digests that registries tell.
`python .ci/images.py affected --against REVISION` prints the images that changes since then are part of.
"""

import argparse
import hashlib
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

REPO = Path(__file__).parents[1]
K8S = REPO / "k8s"
LOCK = K8S / "overlays/prod/images/kustomization.yaml"
LIBRARY = "agents/meshwright/agents/library"
PINNED = re.compile(r".+@sha256:[0-9a-f]{64}")
PREFIX = "meshwright"
ENGINES = ("docker", "podman")
TAG_CHARS = 16
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
CALL_S = 120
BUILD_S = 1_800


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
    named = [[word for word in words if not word.startswith("--")] for words in found]
    return [(words[:-1], words[-1]) for words in named]


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
    values = {"BASE": base, "RUNTIME": tag(image.below, base, prefix) if image.below else ""}
    asked = [word for name, (word, *_) in instructions((REPO / image.dockerfile).read_text()) if name == "ARG"]
    given = [f"--build-arg={name}={values[name]}" for name in (word.partition("=")[0] for word in asked)]
    kept = ["--format", "docker"] if Path(engine).name == "podman" else []  # its own format leaves HEALTHCHECK out
    return [
        *(engine, "build", *kept, "--pull=false", "--file", str(REPO / image.dockerfile)),
        *(*given, "--tag", tag(image, base, prefix), str(REPO / image.context)),
    ]


def build(names: list[str], base: str, prefix: str, engines: Sequence[str] = ENGINES) -> int:
    """Builds images by the first engine that is there, those that they are made on first; returns the exit code."""
    if not PINNED.fullmatch(base):
        print("error: --base is pinned by digest: python:3.11-slim-bookworm@sha256:...", file=sys.stderr)
        return 2
    engine = next((found for name in engines if (found := shutil.which(name))), None)
    if engine is None:
        print(f"error: {' or '.join(engines)} is not installed", file=sys.stderr)
        return 2
    for image in chain(names):
        done = subprocess.run(command(engine, image, base, prefix), check=False)
        if done.returncode:
            return done.returncode
        print(tag(image, base, prefix))
    return 0


def paths(image: Image, root: Path = REPO) -> list[str]:
    """Lists what decides what is built, as path filters of workflows have it: `*` stops at a slash, `**` does not."""
    context = Path(image.context)
    copied = [str(context / pattern) for patterns, _ in copies(image, root) for pattern in patterns]
    own = [image.dockerfile, *(f"{path}/**" if (root / path).is_dir() else path for path in copied)]
    return [*own, *(paths(image.below, root) if image.below else ())]


def affected(revision: str, root: Path = REPO) -> list[str]:
    """Lists the images whose digests are others than at a revision, new ones among them.

    Raises:
        ValueError: Git knows no such revision.
    """
    words = ["git", "-C", str(root), "archive", "--format=tar", "--end-of-options", revision]
    done = subprocess.run(words, capture_output=True, timeout=CALL_S, check=False)
    if done.returncode:
        raise ValueError(f"AGAINST={revision}: {done.stderr.decode().strip()[:300]}")
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
            archive.extractall(folder, filter="data")
        before = {image.name: digest(image, Path(folder)) for image in images(Path(folder))}
    return [image.name for image in images(root) if before.get(image.name) != digest(image, root)]


def published(docker: str, name: str) -> str:
    """Asks a registry for the digest of an image; empty: it has none of that name.

    Raises:
        ValueError: It does not answer, or does not let us ask.
    """
    # without `json` it prints a table for people, whatever is asked of the manifest
    words = [docker, "buildx", "imagetools", "inspect", name, "--format", "{{json .Manifest.Digest}}"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=CALL_S, check=False)
    found = done.stdout.strip().strip('"')
    if done.returncode == 0 and DIGEST.fullmatch(found):
        return found
    if done.returncode and "not found" in done.stderr:
        return ""
    raise ValueError(f"{name}: {done.stderr.strip()[:300] or 'docker tells no digest'}; `make login` first?")


def publish(names: list[str], base: str, prefix: str) -> int:
    """Builds and pushes images that their registry has not, those that they are made on first; returns the exit code.

    The digest of the last one is told to the steps behind this one in a workflow.
    """
    docker = engine_for(base, prefix)
    for image in chain(names):
        name = tag(image, base, prefix)
        if not published(docker, name):
            for words in (command(docker, image, base, prefix), [docker, "push", name]):
                done = subprocess.run(words, timeout=BUILD_S, check=False)
                if done.returncode:
                    return done.returncode
        found = published(docker, name)
        print(f"{name}@{found}")
        if output := os.environ.get("GITHUB_OUTPUT"):
            with Path(output).open("a") as file:
                file.write(f"digest={found}\n")
    return 0


def chain(names: list[str]) -> list[Image]:
    """Lists images by name, all of them by default, each behind the one that it is made on."""
    known = images()
    wanted = [image for image in known if not names or image.name in names]
    return [one for one in known if one in wanted or any(other.below == one for other in wanted)]


def engine_for(base: str, prefix: str) -> str:
    """Finds docker, which pushes; podman knows no `buildx imagetools`.

    Raises:
        ValueError: There is none, the base is not pinned, or the prefix names no registry.
    """
    if "/" not in prefix:
        raise ValueError("PREFIX says in which registry images are: registry.example/mesh")
    if not PINNED.fullmatch(base):
        raise ValueError("BASE is pinned by digest: python:3.11-slim-bookworm@sha256:...")
    docker = shutil.which("docker")
    if docker is None:
        raise ValueError("docker is not installed")
    return docker


def of_others() -> list[tuple[str, str]]:
    """Lists the images of others that manifests name, with their tags."""
    files = [K8S / "base/kustomization.yaml", *sorted((K8S / "components").glob("*/kustomization.yaml"))]
    listed = [one for file in files for one in yaml.safe_load(file.read_text()).get("images", ())]
    named = {one["name"]: str(one["newTag"]) for one in listed if not one["name"].startswith(f"{PREFIX}/")}
    return sorted(named.items())


def lock(base: str, prefix: str) -> int:
    """Writes what production runs: this revision, by the digests that registries tell; returns the exit code."""
    docker = engine_for(base, prefix)
    entries: list[dict[str, Any]] = []
    for image in images():
        if image.below:  # the runtime runs nowhere by itself
            name = tag(image, base, prefix)
            entries.append(entry(f"{PREFIX}/{image.name}", published(docker, name), f"{prefix}/{image.name}"))
    for name, version in of_others():
        entries.append(entry(name, published(docker, f"{name}:{version}")))
    kind = {"apiVersion": "kustomize.config.k8s.io/v1alpha1", "kind": "Component", "images": entries}
    LOCK.parent.mkdir(parents=True, exist_ok=True)
    LOCK.write_text("# Written by `make images-lock`.\n" + yaml.safe_dump(kind, sort_keys=False, width=200))
    print(LOCK)
    return 0


def entry(name: str, found: str, new_name: str = "") -> dict[str, Any]:
    """Returns an image as a kustomization has it.

    Raises:
        ValueError: No registry has it.
    """
    if not found:
        raise ValueError(f"{new_name or name} of this revision is in no registry: `make image` it first")
    return {"name": name, **({"newName": new_name} if new_name else {}), "digest": found}


def main() -> int:
    """Does what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("act", choices=("digests", "build", "publish", "lock", "affected"))
    parser.add_argument("names", nargs="*", help="by default all")
    parser.add_argument("--base", default="", help="Python's image, pinned by digest")
    parser.add_argument("--prefix", default=PREFIX, help="registry and repository in front of names")
    parser.add_argument(
        "--engine", action="append", choices=ENGINES, help="what builds; by default docker, else podman"
    )
    parser.add_argument("--against", default="HEAD", help="revision that `affected` compares with")
    options = parser.parse_args()
    try:
        return act(options)
    except (ValueError, subprocess.TimeoutExpired) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def act(options: argparse.Namespace) -> int:
    """Does one act; returns the exit code.

    Raises:
        ValueError: It cannot be done; says what to do.
    """
    known = [image.name for image in images()]
    for name in set(options.names) - set(known):
        raise ValueError(f"no image is called {name!r}: name one of {', '.join(known)}")
    if options.act == "build":
        return build(options.names, options.base, options.prefix, options.engine or ENGINES)
    if options.act == "publish":
        return publish(options.names, options.base, options.prefix)
    if options.act == "lock":
        return lock(options.base, options.prefix)
    if options.act == "affected":
        lines = affected(options.against)
    else:
        lines = [f"{digest(image, base=options.base)}  {options.prefix}/{image.name}" for image in images()]
    print("\n".join(lines), end="\n" if lines else "")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
