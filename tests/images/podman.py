"""Podman, and a base for images: Debian's Python, made on this machine where no registry has to be reached."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

from meshwright.core.valkey import binary
from meshwright.gateway import envoy
from tests.k8s.objects import REPO

PREFIX = "localhost/meshwright-test"
BASE = f"{PREFIX}/python:3.11-bookworm"
OTHERS = f"{PREFIX}/others"
"""Stands in for the images of Valkey and Envoy: the programs of this machine's packages."""
RELEASE = "bookworm"
PACKAGES = "ca-certificates,python3,python3-venv,python3-pip,python-is-python3"
PIP = ("etc/pip.conf", "etc/ssl/certs/ca-certificates.crt")
"""How pip reaches its index from here."""
BUILD_S = 1_200
SETTINGS = os.environ | {"CONTAINERS_CONF": str(Path(__file__).with_name("containers.conf"))}


def asked(*words, **options):
    """Runs podman, whatever comes of it."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    command = ["podman", *map(str, words)]
    return subprocess.run(command, text=True, env=SETTINGS, timeout=BUILD_S, check=False, **pipes)


def podman(*words, **options):
    """Runs podman; returns what it prints."""
    done = asked(*words, **options)
    assert done.returncode == 0, f"{words}: {done.stderr[-3_000:]}"
    return done.stdout.strip()


def inspected(name):
    """What podman knows of an image or a container."""
    return yaml.safe_load(podman("inspect", name))[0]


def base(folder):
    """Returns Python's image, pinned: that of the environment, else one that is made once on this machine."""
    if given := os.environ.get("BASE"):
        return given
    if not podman("images", "--quiet", BASE):
        _make(folder / "root")
    return f"{BASE.partition(':')[0]}@{inspected(BASE)['Digest']}"


def _make(root):
    subprocess.run(["debootstrap", "--variant=minbase", f"--include={PACKAGES}", RELEASE, root], check=True)
    for path in PIP:
        if Path("/", path).exists():
            shutil.copy(Path("/", path), root / path)
    for name in ("python", "pip"):  # where Python's own image has them
        (root / "usr/local/bin" / name).symlink_to(f"/usr/bin/{name}")
    archive = subprocess.Popen(["tar", "--one-file-system", "-cC", root, "."], stdout=subprocess.PIPE)
    with archive:
        podman("import", "-", BASE, stdin=archive.stdout)
    shutil.rmtree(root)


def build(base, root=REPO):
    """Builds all images of a checkout; returns their names by what manifests call them."""
    words = ["build", "--engine", "podman", "--base", base, "--prefix", PREFIX]
    done = subprocess.run(
        [sys.executable, root / ".ci/images.py", *words],
        env=SETTINGS,
        capture_output=True,
        text=True,
        timeout=BUILD_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3_000:]
    names = [line for line in done.stdout.splitlines() if line.startswith(f"{PREFIX}/")]
    return {f"meshwright/{name.rpartition('/')[2].partition(':')[0]}": name for name in names}


def build_by_hand(name, runtime, dockerfile, context):
    """Builds an image on the runtime as its users do."""
    told = ("--format", "docker", "--build-arg", f"RUNTIME={runtime}", "--file", dockerfile)
    podman("build", *told, "--tag", f"{PREFIX}/{name}", context)
    return f"{PREFIX}/{name}"


def build_others(base, folder):
    """Builds what stands in for the images of others."""
    folder.mkdir()
    shutil.copy(binary(), folder / "valkey-server")
    shutil.copy(envoy.find(), folder / "envoy")
    (folder / "Dockerfile").write_text(f"FROM {base}\nCOPY valkey-server envoy /usr/local/bin/\n")
    podman("build", "--format", "docker", "--tag", OTHERS, folder)
    return OTHERS
